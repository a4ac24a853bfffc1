//! The log of events from outside in a store: for a service without a broker. Replicas share it out by its
//! parts, a product in one part; what all readers have seen to is removed.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use uuid::Uuid;

use super::{Batch, Intake, IntakeError, IntakeReader, most};
use crate::stored::{
    POLL,
    member::{LEASE, Member, Seat, Taken},
    part_of,
    writer::Writer,
};
use model::{
    counted::Place,
    log::{Entry, EventLog, Group, LogError, PARTS},
    price_event::PriceEvent,
    value::Timestamp,
};
use runtime::supervisor;

/// The group of all readers.
const GROUP: &str = "workers";
/// How often what was seen to is removed.
const PRUNE: Duration = Duration::from_secs(10);
/// Entries that one call takes out of the log.
const PAGE: usize = 2_000;

/// The log in a store.
pub struct StoredIntake {
    log: Arc<dyn EventLog>,
    name: String,
    writer: Writer,
    /// Something was put in here.
    poke: Arc<Notify>,
    /// What the readers of this process have in common, while there are any.
    joined: Mutex<Weak<Joined>>,
}

/// The part that this process has of the work.
struct Joined {
    name: String,
    member: Arc<Member>,
    tasks: [JoinHandle<()>; 2],
}

struct StoredReader {
    joined: Arc<Joined>,
    /// What was taken and is not done.
    taken: Vec<Taken>,
}

impl StoredIntake {
    /// The log of this name. To be called in a tokio runtime. The store need not be up yet.
    pub fn start(log: Arc<dyn EventLog>, name: &str) -> Self {
        let poke = Arc::new(Notify::new());
        let writer = Writer::start(log.clone(), name, poke.clone());
        Self { log, name: name.to_owned(), writer, poke, joined: Mutex::default() }
    }

    fn group(&self) -> Group<'_> {
        Group { log: &self.name, name: GROUP }
    }

    /// What the readers of this process share. One that reads nothing has no part of the work.
    fn joined(&self) -> Arc<Joined> {
        let mut joined = self.joined.lock();
        if let Some(joined) = joined.upgrade() {
            return joined;
        }
        let (sender, head) = watch::channel(0);
        let seat = Seat { log: self.name.clone(), group: GROUP.to_owned(), lease: LEASE };
        let member = Member::join(self.log.clone(), seat, head);
        let (log, name, poke) = (self.log.clone(), self.name.clone(), self.poke.clone());
        let follower = supervisor::INTAKE.spawn(async move { follow(&*log, &name, &poke, &sender).await });
        let (log, name) = (self.log.clone(), self.name.clone());
        let pruner = supervisor::FEED_UPKEEP.spawn(move || prune_for_ever(log.clone(), name.clone()));
        let new = Arc::new(Joined { name: self.name.clone(), member, tasks: [follower, pruner] });
        *joined = Arc::downgrade(&new);
        new
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.member.leave();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[async_trait]
impl Intake for StoredIntake {
    async fn append(&self, events: Vec<PriceEvent>) -> Result<(), IntakeError> {
        let entry = |event: &PriceEvent| {
            let text = serde_json::to_string(event)?;
            // an event that is sent again is another: its effect tells
            Ok(Entry { id: Uuid::now_v7(), part: part_of(&event.product_id), text })
        };
        let entries = events.iter().map(entry).collect::<Result<_, serde_json::Error>>();
        let entries = entries.map_err(|error| IntakeError::Unavailable(error.to_string()))?;
        Ok(self.writer.append(entries).await?)
    }

    async fn reader(&self) -> Result<Box<dyn IntakeReader>, IntakeError> {
        Ok(Box::new(StoredReader { joined: self.joined(), taken: Vec::new() }))
    }

    async fn waiting(&self) -> Result<u64, IntakeError> {
        let positions = positions(&*self.log, self.group()).await?;
        Ok(self.log.count(&self.name, &positions).await?)
    }
}

impl StoredReader {
    /// Takes what there is now.
    async fn fill(&mut self, max: usize) -> Result<(), IntakeError> {
        while self.taken.len() < max {
            let more = self.joined.member.take((max - self.taken.len()).min(PAGE)).await?;
            if more.is_empty() {
                break;
            }
            self.taken.extend(more);
        }
        Ok(())
    }

    fn batch(&self) -> Batch {
        let mut batch = Batch::default();
        for Taken { number, entry, .. } in &self.taken {
            let place = Place { log: self.joined.name.clone(), seq: number.cast_signed() };
            batch.add(entry.text.as_bytes(), place);
        }
        batch
    }
}

#[async_trait]
impl IntakeReader for StoredReader {
    async fn take(&mut self, full: usize, flush: Duration) -> Result<Batch, IntakeError> {
        let (joined, most) = (self.joined.clone(), most(full));
        while self.taken.is_empty() {
            joined.member.wait().await?;
            self.fill(most).await?;
        }
        let until = Instant::now() + flush;
        while self.taken.len() < full
            && let Ok(more) = timeout_at(until, joined.member.wait()).await
        {
            more?;
            self.fill(most).await?;
        }
        Ok(self.batch())
    }

    async fn done(&mut self) -> Result<(), IntakeError> {
        if self.taken.is_empty() {
            return Ok(());
        }
        std::mem::take(&mut self.taken).iter().for_each(|entry| self.joined.member.seen_to(entry));
        Ok(self.joined.member.note().await?)
    }
}

impl Drop for StoredReader {
    fn drop(&mut self) {
        if !self.taken.is_empty() {
            self.joined.member.give_back(std::mem::take(&mut self.taken));
        }
    }
}

impl From<LogError> for IntakeError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Full(why) => Self::Full(why),
            LogError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

/// Looks for what is new, for ever.
async fn follow(log: &dyn EventLog, name: &str, poke: &Notify, head: &watch::Sender<u64>) {
    loop {
        match log.newest(name).await {
            Ok(newest) => {
                let newest = newest.map_or(0, |newest| newest.number);
                head.send_if_modified(|head| std::mem::replace(head, newest) != newest);
            }
            Err(error) => tracing::debug!(log = name, %error, "the log of events cannot be read now"),
        }
        _ = timeout(POLL, poke.notified()).await;
    }
}

/// Up to which number each part is seen to.
async fn positions(log: &dyn EventLog, group: Group<'_>) -> Result<Vec<(i64, u64)>, LogError> {
    let claims = log.claims(group).await?;
    let position =
        |part: i64| claims.iter().find(|claim| claim.part == part).map_or(0, |claim| claim.position);
    Ok((0..PARTS).map(|part| (part, position(part))).collect())
}

async fn prune_for_ever(log: Arc<dyn EventLog>, name: String) {
    loop {
        tokio::time::sleep(PRUNE).await;
        if let Err(error) = prune(&*log, &name).await {
            tracing::debug!(log = name, %error, "what was seen to is removed later");
        }
    }
}

/// Removes what all parts are beyond. What nobody has seen to is never too old.
async fn prune(log: &dyn EventLog, name: &str) -> Result<(), LogError> {
    let positions = positions(log, Group { log: name, name: GROUP }).await?;
    let least = positions.iter().map(|(_, position)| *position).min().unwrap_or(0);
    while least > 0 && log.prune(name, least, Timestamp(i64::MIN)).await? {}
    Ok(())
}

#[cfg(test)]
mod tests;
