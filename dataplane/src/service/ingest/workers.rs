//! The workers of ingestion: as many as the settings say, each with a reader of the log.

use std::{sync::Arc, time::Duration};

use crds::{service::messaging::Ingest, units::Span};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Ingestor, queue::IngestQueue};
use events::intake::{Batch, IntakeReader};

/// How often it is measured how many events wait.
const MEASURE: Duration = Duration::from_millis(200);
/// The first and the longest wait after a failure.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The workers of one process.
pub struct Workers {
    /// Lets events in.
    pub queue: Arc<IngestQueue>,
    /// Applies them.
    pub ingestor: Arc<Ingestor>,
    /// The settings, which may change.
    pub settings: watch::Receiver<Ingest>,
}

impl Workers {
    /// Works until `stop`: a batch that is under way is finished first.
    pub async fn run(self, stop: CancellationToken) {
        let workers = Arc::new(self);
        let (tasks, mut running) = (TaskTracker::new(), Vec::new());
        let mut settings = workers.settings.clone();
        loop {
            let wanted = settings.borrow_and_update().clone();
            workers.queue.set_limit(wanted.queue_size.into());
            workers.queue.set_unknown(wanted.unknown_products);
            workers.ingestor.set_unknown(wanted.unknown_products);
            while running.len() < wanted.workers as usize {
                let token = stop.child_token();
                tasks.spawn(workers.clone().work(token.clone()));
                running.push(token);
            }
            running.drain(wanted.workers as usize..).for_each(|token: CancellationToken| token.cancel());
            loop {
                workers.queue.measure().await;
                tokio::select! {
                    () = stop.cancelled() => {
                        tasks.close();
                        tasks.wait().await;
                        return;
                    }
                    Ok(()) = settings.changed() => break,
                    () = tokio::time::sleep(MEASURE) => {}
                }
            }
        }
    }

    async fn work(self: Arc<Self>, stop: CancellationToken) {
        let mut failed = 0;
        while !stop.is_cancelled() {
            let outcome = match self.queue.intake().reader().await {
                Ok(reader) => self.read(reader, &stop, &mut failed).await,
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = outcome {
                if failed == 0 {
                    tracing::warn!(error, "events wait in their log");
                }
                failed += 1;
                stop.run_until_cancelled(tokio::time::sleep(backoff(failed))).await;
            }
        }
    }

    /// Applies batch after batch.
    async fn read(
        &self,
        mut reader: Box<dyn IntakeReader>,
        stop: &CancellationToken,
        failed: &mut u32,
    ) -> Result<(), String> {
        loop {
            let Ingest { batch_size, batch_flush_interval: Span(flush), .. } = self.settings.borrow().clone();
            let taken = stop.run_until_cancelled(reader.take(batch_size as usize, flush)).await;
            let Some(taken) = taken else { return Ok(()) };
            let batch = taken.map_err(|error| error.to_string())?;
            if !self.apply(&batch, stop, failed).await {
                return Ok(());
            }
            let moment = self.queue.moment();
            reader.done().await.map_err(|error| error.to_string())?;
            self.queue.applied(batch.len() as u64, moment);
            *failed = 0;
        }
    }

    /// Applies a batch, again and again until it is done; whether it was done before `stop`.
    async fn apply(&self, batch: &Batch, stop: &CancellationToken, failed: &mut u32) -> bool {
        loop {
            let Err(error) = self.ingestor.apply(batch).await else { return true };
            if *failed == 0 {
                tracing::warn!(%error, events = batch.len(), "a batch of events is tried again");
            }
            *failed += 1;
            if stop.run_until_cancelled(tokio::time::sleep(backoff(*failed))).await.is_none() {
                return false;
            }
        }
    }
}

/// Any time up to a bound that doubles with each failure.
fn backoff(failed: u32) -> Duration {
    let most = BACKOFF_MIN.saturating_mul(1 << failed.min(16)).min(BACKOFF_MAX);
    most.mul_f64(rand::random_range(0.1..1.0))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::service::{error::ServiceError, ingest::Rejects, records::Records};
    use engine::{
        clock::Clock,
        tiered::{Tiered, TieredConfig},
    };
    use events::intake::{Intake, IntakeError, Unreadable};
    use model::{
        change::Collection,
        entities::product,
        price_event::PriceEvent,
        seal::{SealError, Sealer},
    };
    use store::sql::SqlStore;

    /// A log that is empty, and counts who reads it.
    #[derive(Default)]
    struct Counting(Arc<AtomicUsize>);

    struct Reader(Arc<AtomicUsize>);

    struct Nothing;

    #[async_trait]
    impl Intake for Counting {
        async fn append(&self, _: Vec<PriceEvent>) -> Result<(), IntakeError> {
            Ok(())
        }

        async fn reader(&self) -> Result<Box<dyn IntakeReader>, IntakeError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(Reader(self.0.clone())))
        }

        async fn waiting(&self) -> Result<u64, IntakeError> {
            Ok(0)
        }
    }

    #[async_trait]
    impl IntakeReader for Reader {
        async fn take(&mut self, _: usize, _: Duration) -> Result<Batch, IntakeError> {
            std::future::pending().await
        }

        async fn done(&mut self) -> Result<(), IntakeError> {
            Ok(())
        }
    }

    impl Drop for Reader {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[async_trait]
    impl Rejects for Nothing {
        async fn put(&self, _: &PriceEvent, _: String) -> Result<(), ServiceError> {
            Ok(())
        }

        async fn put_unreadable(&self, _: &Unreadable) -> Result<(), ServiceError> {
            Ok(())
        }
    }

    impl Sealer for Nothing {
        fn seal(&self, plain: &[u8], _: &str) -> String {
            String::from_utf8_lossy(plain).into_owned()
        }

        fn open(&self, sealed: &str, _: &str) -> Result<Vec<u8>, SealError> {
            Ok(sealed.as_bytes().to_vec())
        }
    }

    fn products(folder: &tempfile::TempDir) -> Records {
        let schema = Arc::new(product::schema());
        let collection = Arc::new(Collection {
            pool: "products".to_owned(),
            schema: schema.clone(),
            name: "products".to_owned(),
            key_column: "id".to_owned(),
            version_column: Some("version".to_owned()),
            declared: false,
        });
        let tiered = Tiered::new(TieredConfig {
            pool: "products".to_owned(),
            schema,
            tiers: Vec::new(),
            sealer: None,
            clock: Clock::system(),
            load_deadline: Duration::from_secs(1),
            not_yet_deadline: Duration::from_secs(1),
        });
        let store = SqlStore::sqlite(&folder.path().join("data.db"), Arc::new(Nothing)).unwrap();
        Records::new(collection, Arc::new(store), Arc::new(tiered), Duration::from_secs(1), Arc::new(|| ()))
    }

    #[tokio::test]
    async fn workers_come_and_go_as_the_settings_say() {
        let (folder, readers) = (tempfile::tempdir().unwrap(), Arc::<AtomicUsize>::default());
        let queue = Arc::new(IngestQueue::new(Arc::new(Counting(readers.clone())), 10));
        let (sender, settings) = watch::channel(Ingest::default());
        let stop = CancellationToken::new();
        let ingestor = Arc::new(Ingestor::new(Arc::new(products(&folder)), Arc::new(Nothing)));
        let running = tokio::spawn(Workers { queue, ingestor, settings }.run(stop.clone()));
        let until = async |count: usize| {
            let there = async {
                while readers.load(Ordering::SeqCst) != count {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), there)
                .await
                .unwrap_or_else(|_| panic!("{count} workers"));
        };
        for count in [1, 5, 2, 3] {
            sender.send_modify(|settings| settings.workers = count);
            until(count as usize).await;
        }
        stop.cancel();
        running.await.unwrap();
        assert_eq!(readers.load(Ordering::SeqCst), 0, "each has left the log");
    }
}
