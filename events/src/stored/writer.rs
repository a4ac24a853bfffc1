//! Puts entries into a log: what waits when it is free goes in together, so many small requests cost few
//! commits, and one process is not in its own way.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::{Notify, mpsc, oneshot};

use model::log::{Entry, EventLog, LogError};
use runtime::supervisor;

/// Requests that wait for the writer.
const REQUESTS: usize = 4_096;
/// Entries, and bytes of them, that go in together.
const TOGETHER: usize = 2_000;
const TOGETHER_BYTES: usize = 8 << 20;

/// Appends to one log, until it is dropped.
pub struct Writer {
    requests: mpsc::Sender<Append>,
}

struct Append {
    entries: Vec<Entry>,
    done: oneshot::Sender<Result<(), LogError>>,
}

impl Writer {
    /// A writer that notifies whoever reads the log.
    pub fn start(log: Arc<dyn EventLog>, name: &str, poke: Arc<Notify>) -> Self {
        let (requests, mut queue) = mpsc::channel::<Append>(REQUESTS);
        let name = name.to_owned();
        supervisor::LOG_WRITER.spawn(async move {
            while let Some(Append { mut entries, done }) = queue.recv().await {
                let (mut answers, mut bytes) = (vec![done], bytes_of(&entries));
                while entries.len() < TOGETHER
                    && bytes < TOGETHER_BYTES
                    && let Ok(Append { entries: more, done }) = queue.try_recv()
                {
                    bytes += bytes_of(&more);
                    entries.extend(more);
                    answers.push(done);
                }
                // asked for twice while it waited
                let mut known = HashSet::with_capacity(entries.len());
                entries.retain(|entry| known.insert(entry.id));
                let result = log.append(&name, &entries).await;
                poke.notify_one();
                // whoever gave up waiting has its entries in the log all the same
                answers.into_iter().for_each(|answer| _ = answer.send(result.clone()));
            }
        });
        Self { requests }
    }

    /// Appends entries. They are durable when this returns.
    ///
    /// # Errors
    /// Some may be there, or none.
    pub async fn append(&self, entries: Vec<Entry>) -> Result<(), LogError> {
        if entries.is_empty() {
            return Ok(());
        }
        let closed = || LogError::Unavailable("the log is closed".to_owned());
        let (done, answer) = oneshot::channel();
        self.requests.send(Append { entries, done }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

fn bytes_of(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| entry.text.len()).sum()
}
