//! The two ends of the log: entries of many writers go in together, and what all replicas wrote is read in
//! its order.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures::StreamExt;
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};
use tracing::{error, warn};

use super::{entry::Codec, ledger::Ledger};
use events::{BusError, EventBus, has_reached};
use model::event::Envelope;
use runtime::supervisor;
use store::StoreError;

/// Puts entries into the log, those that come at the same time together.
pub struct Appender {
    queue: mpsc::Sender<(Envelope, oneshot::Sender<Result<(), StoreError>>)>,
}

/// Entries that wait to be put in, and that go in together.
const QUEUE: usize = 4_096;
const TOGETHER: usize = 256;
/// The wait before the log is read again after a failure.
const RETRY: Duration = Duration::from_millis(200);

impl Appender {
    /// An appender that works until it is dropped.
    pub fn start(log: Arc<dyn EventBus>) -> Self {
        let (queue, mut entries) =
            mpsc::channel::<(Envelope, oneshot::Sender<Result<(), StoreError>>)>(QUEUE);
        supervisor::WRITE_BEHIND_LOG.spawn(async move {
            let mut batch = Vec::with_capacity(TOGETHER);
            while entries.recv_many(&mut batch, TOGETHER).await > 0 {
                let (envelopes, waiting): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
                let done = log.publish(&envelopes).await.map_err(|error| match error {
                    BusError::Full(why) => StoreError::Full(why),
                    other => StoreError::Unknown(other.to_string()),
                });
                waiting.into_iter().for_each(|waits| _ = waits.send(done.clone()));
            }
        });
        Self { queue }
    }

    /// Puts an entry in. It is durable when this returns.
    ///
    /// # Errors
    /// `Full` where it is not in the log, `Unknown` where it may be.
    pub async fn append(&self, envelope: Envelope) -> Result<(), StoreError> {
        let closed = || StoreError::Unknown("the log is closed".to_owned());
        let (sender, receiver) = oneshot::channel();
        self.queue.send((envelope, sender)).await.map_err(|_| closed())?;
        receiver.await.map_err(|_| closed())?
    }
}

/// Reads the log from its beginning and goes on, until the ledger is gone.
pub async fn follow(log: Arc<dyn EventBus>, codec: Arc<Codec>, ledger: Weak<Ledger>) {
    let (mut at, mut until) = (None, None);
    while ledger.strong_count() > 0 {
        match follow_from(&*log, &codec, &ledger, &mut at, &mut until).await {
            Ok(()) => return,
            Err(BusError::Expired) => {
                // entries that nobody read are gone: their writers were not answered with success by this
                // replica
                error!("the write-behind log was cut short: it is read again from what it still holds");
                at = None;
            }
            Err(error) => warn!(%error, "the write-behind log is interrupted"),
        }
        sleep(RETRY).await;
    }
}

async fn follow_from(
    log: &dyn EventBus,
    codec: &Codec,
    ledger: &Weak<Ledger>,
    at: &mut Option<String>,
    until: &mut Option<String>,
) -> Result<(), BusError> {
    let head = match until {
        Some(head) => head.clone(),
        None => until.insert(log.head().await?).clone(),
    };
    let since = match at {
        Some(at) => at.clone(),
        None => log.oldest().await?,
    };
    let mut entries = log.replay(&since).await?;
    note(ledger, &since, &head)?;
    while let Some(envelope) = entries.next().await {
        let envelope = envelope?;
        let Some(ledger_now) = ledger.upgrade() else { return Ok(()) };
        match codec.decode(&envelope) {
            Ok(Some(entry)) => ledger_now.decide(envelope.id, entry),
            Ok(None) => {}
            Err(error) => {
                error!(key = envelope.key, error, "an entry of the write-behind log cannot be read")
            }
        }
        if let Some(cursor) = &envelope.cursor {
            if !ledger_now.is_caught_up() {
                note(ledger, cursor, &head)?;
            }
            *at = Some(cursor.clone());
        }
    }
    Ok(())
}

/// Tells the ledger when all that was there at the start was read.
fn note(ledger: &Weak<Ledger>, at: &str, head: &str) -> Result<(), BusError> {
    if let (true, Some(ledger)) = (has_reached(at, head)?, ledger.upgrade()) {
        ledger.all_read();
    }
    Ok(())
}
