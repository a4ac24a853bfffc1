//! A unit of work as one transaction: lock what it touches, apply the rules, write what is left, and the
//! events with it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::value::RawValue;

use super::{
    StoreError, audit,
    dialect::{Dialect, parts},
    fault::Fault,
    idempotency, outbox,
    pools::{self, Pools},
    session::Session,
    table::{KEYS_MAX, ROWS_MAX, Table},
};
use crate::{
    answer,
    apply::{Applied, State, apply},
    odd::Reading,
};
use model::{
    change::{Action, Change, Idempotency, UnitOfWork, Written},
    event::Envelope,
    failpoint,
    key::{Key, Version},
    ownership::Ownership,
    record::Record,
    seal::Sealer,
    value::Timestamp,
};

mod statements;
pub mod states;

use statements::{bury, delete, insert, no_tombstones, raise, update};
use states::{learn_version, lock_states, read_records, read_states};

/// How often a unit is tried when another transaction is in the way or the connection is lost before the
/// commit.
const ATTEMPTS_MAX: u32 = 5;

/// A unit of work with the tables that it touches.
pub struct Unit<'a> {
    /// The changes, in order.
    pub changes: Vec<&'a Change>,
    /// Who makes each change.
    pub actors: Vec<&'a str>,
    /// What tells a repeat of the same request.
    pub idempotency: Option<&'a Idempotency>,
    /// The table of each change.
    pub tables: Vec<Arc<Table>>,
    /// Seals encrypted fields.
    pub sealer: &'a dyn Sealer,
    /// By when all attempts must have ended.
    pub deadline: Option<Instant>,
    /// Whether a refusal is to say of which change it is.
    pub names: bool,
}

/// How one try of a unit is made.
#[derive(Clone, Copy)]
struct Try {
    /// Whether one was made before.
    again: bool,
    /// Whether each change is written by itself, so that a refusal is of one.
    singly: bool,
}

/// One key that a unit touches.
struct Slot {
    before: State,
    now: State,
    /// Whether there surely is no tombstone.
    fresh: bool,
    /// The place of its last change in the unit.
    place: usize,
}

/// The keys of a unit: for each table, by its place in the list, its keys.
struct Slots {
    tables: Vec<(Arc<Table>, HashMap<Key, Slot>)>,
}

impl<'a> Unit<'a> {
    /// A unit of work, whose changes touch these tables.
    pub fn of(work: &'a UnitOfWork, tables: Vec<Arc<Table>>, sealer: &'a dyn Sealer) -> Self {
        let UnitOfWork { changes, actor, idempotency, deadline } = work;
        let (idempotency, deadline) = (idempotency.as_ref(), *deadline);
        let actors = vec![actor.as_str(); changes.len()];
        let names = changes.len() > 1;
        Self { changes: changes.iter().collect(), actors, idempotency, tables, sealer, deadline, names }
    }

    /// Commits, again from the start where that is safe.
    pub async fn commit(&self, pools: &Pools) -> Result<Vec<Written>, StoreError> {
        for table in &self.tables {
            if let Some(why) = &table.read_only {
                return Err(StoreError::ReadOnly(why.clone()));
            }
        }
        let deadline = pools::deadline_of(self.deadline)?;
        let (mut attempt, mut singly) = (1, false);
        loop {
            let mut session = pools.write_until(deadline).await?;
            let fault = match self.write(&mut session, Try { again: attempt > 1, singly }).await {
                // from here on nothing is tried again: the commit may have happened
                Ok(written) => {
                    failpoint::reach(pools.dialect().name(), "commit.before");
                    session.commit().await?;
                    failpoint::reach(pools.dialect().name(), "commit.after");
                    return Ok(written);
                }
                Err(fault) => fault,
            };
            session.rollback().await;
            if matches!(fault, Fault::Store(_) | Fault::Raced(_))
                && let Some(known) = self.known(&mut session).await?
            {
                // the same request was done while this one waited for its locks
                return Ok(known);
            }
            match fault {
                // a statement of several rows does not say which was refused
                Fault::Raced(_)
                | Fault::Store(
                    StoreError::Duplicate { .. } | StoreError::Unsupported(_) | StoreError::Invalid(_),
                ) if self.names && !singly => {
                    singly = true;
                    attempt += 1;
                }
                Fault::Raced(error) if attempt > 1 => return Err(error),
                Fault::Conflict(_) | Fault::Lost(_) | Fault::Raced(_) if attempt < ATTEMPTS_MAX => {
                    tokio::time::sleep(backoff(attempt)).await;
                    attempt += 1;
                }
                fault => return Err(fault.into()),
            }
        }
    }

    /// Everything but the commit. A key is trusted to be fresh only the first time.
    async fn write(&self, session: &mut Session, Try { again, singly }: Try) -> Result<Vec<Written>, Fault> {
        session.begin().await?;
        if let Some(known) = self.known(session).await? {
            return Ok(known);
        }
        let mut slots = self.load(session, again).await?;
        let now = Timestamp::now();
        let mut written = Vec::with_capacity(self.changes.len());
        let mut events = Vec::with_capacity(self.changes.len());
        let mut befores = Vec::with_capacity(self.changes.len());
        let in_order =
            singly || (self.changes.len() > 1 && self.tables.iter().any(|table| table.has_unique_fields()));
        let mut ordered = Parts::default();
        for (place, (change, table)) in self.changes.iter().zip(&self.tables).enumerate() {
            let slot = slots.slot(table, &change.key);
            slot.place = place;
            let applied = apply(&slot.now, change, now, &table.limits);
            let Applied { state, written: done, event, before } =
                applied.map_err(|error| self.at(place, error))?;
            let was = std::mem::replace(&mut slot.now, state);
            if in_order {
                ordered.add(singly, table, &change.key, Slot { before: was, now: slot.now.clone(), ..*slot });
            }
            written.push(done);
            events.push((table.collection.name.as_str(), event));
            befores.push(before);
        }
        self.keep_answer(session, &written).await?;
        for Part { table, keys, place, .. } in &ordered.0 {
            let written = self.write_table(session, table, keys).await.map_err(|fault| table.fault(fault));
            written.map_err(|fault| match (fault, singly) {
                (Fault::Store(error) | Fault::Raced(error), true) => Fault::Store(self.at(*place, error)),
                (fault, _) => fault,
            })?;
        }
        for (table, keys) in slots.tables.iter().filter(|_| !in_order) {
            self.write_table(session, table, keys).await.map_err(|fault| table.fault(fault))?;
        }
        if slots.tables.iter().any(|(table, _)| table.reads_back) {
            self.read_back(session, &slots, &mut written, &mut events).await?;
        }
        self.write_events(session, &events).await?;
        let entries = self.actors.iter().zip(&events).zip(befores);
        let entries: Vec<_> = entries.map(|((actor, (_, event)), before)| (*actor, event, before)).collect();
        let bytes = |(_, event, before): &(&str, &Envelope, Option<String>)| {
            bytes_of(event) + before.as_ref().map_or(0, String::len)
        };
        for part in parts(&entries, ROWS_MAX, session.bytes_max(), bytes) {
            session.execute(audit::insert(session.dialect(), part)?).await?;
        }
        Ok(written)
    }

    /// The error, of one of several changes.
    fn at(&self, place: usize, error: StoreError) -> StoreError {
        if self.names { error.of_change(place) } else { error }
    }

    /// What triggers and generated columns made of the records: what is answered, published and audited is
    /// what is in the row.
    async fn read_back(
        &self,
        session: &mut Session,
        slots: &Slots,
        written: &mut [Written],
        events: &mut [(&str, Envelope)],
    ) -> Result<(), Fault> {
        let mut differs = false;
        for (table, keys) in slots.tables.iter().filter(|(table, _)| table.reads_back) {
            let of = |slot: &Slot| match &slot.now {
                State::Present(record) if slot.before != slot.now => Some((slot.place, record.clone())),
                State::Present(_) | State::Absent(_) | State::Unreadable(_) => None,
            };
            let sent: Vec<(usize, Record)> = keys.values().filter_map(of).collect();
            let wanted: Vec<Key> = sent.iter().map(|(_, record)| record.key.clone()).collect();
            let mut stored = HashMap::new();
            for part in wanted.chunks(KEYS_MAX) {
                for reading in read_records(session, table, part, self.sealer, false).await? {
                    if let Reading::Whole(record) = reading {
                        stored.insert(record.key.clone(), record);
                    }
                }
            }
            for (place, sent) in sent {
                let stored = stored.remove(&sent.key).filter(|stored| stored.version == sent.version);
                let stored = stored.ok_or_else(|| table.changed("the key or the version"))?;
                table.check_kept(&sent, &stored)?;
                let (Some(written), Some((_, event))) = (written.get_mut(place), events.get_mut(place))
                else {
                    continue;
                };
                differs |= written.record.as_ref() != Some(&stored);
                event.at = stored.updated_at.to_string();
                let schema = &table.collection.schema;
                event.owner = Ownership::of(schema).owner(&stored);
                event.data = RawValue::from_string(stored.to_masked_json(schema)).ok();
                written.record = Some(stored);
            }
        }
        match self.idempotency {
            Some(key) if differs => {
                let collections = self.changes.iter().map(|change| change.collection.as_ref());
                let answer = answer::encode(written, collections, key, self.sealer)?;
                session.execute(idempotency::update(session.dialect(), key, &answer)).await.map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// The answer of an earlier unit with the same idempotency key.
    async fn known(&self, session: &mut Session) -> Result<Option<Vec<Written>>, Fault> {
        let Some(key) = self.idempotency else { return Ok(None) };
        let collections = self.changes.iter().map(|change| change.collection.as_ref());
        idempotency::recall(session, key, collections, self.sealer).await
    }

    /// Before anything is written: who comes second with a key waits here for the first, and then finds its
    /// answer.
    async fn keep_answer(&self, session: &mut Session, written: &[Written]) -> Result<(), Fault> {
        let Some(key) = self.idempotency else { return Ok(()) };
        let collections = self.changes.iter().map(|change| change.collection.as_ref());
        let answer = answer::encode(written, collections, key, self.sealer)?;
        match session.execute(idempotency::insert(session.dialect(), key, &answer)).await {
            Err(Fault::Taken(_)) => {
                Err(Fault::Conflict("the same request is done at the same time".to_owned()))
            }
            done => done.map(|_| ()),
        }
    }

    /// What is stored under each key, locked until the end of the transaction.
    async fn load(&self, session: &mut Session, again: bool) -> Result<Slots, Fault> {
        let mut slots = Slots { tables: Vec::new() };
        for (change, table) in self.changes.iter().zip(&self.tables) {
            let fresh = !again && matches!(change.action, Action::Create { fresh_key: true, .. });
            slots.slot(table, &change.key).fresh |= fresh;
        }
        for (table, keys) in &mut slots.tables {
            // in one order everywhere, so that two units seldom wait for each other
            let mut wanted: Vec<Key> =
                keys.iter().filter(|(_, slot)| !slot.fresh).map(|(key, _)| key.clone()).collect();
            wanted.sort();
            for part in wanted.chunks(KEYS_MAX) {
                let found = match session.dialect() {
                    Dialect::Sqlite => read_states(session, table, part, self.sealer).await?,
                    Dialect::Mysql => lock_states(session, table, part, self.sealer).await?,
                };
                for (key, mut state) in found {
                    learn_version(session, table, &mut state).await?;
                    if let Some(slot) = keys.get_mut(&key) {
                        *slot = Slot { before: state.clone(), now: state, fresh: false, place: 0 };
                    }
                }
            }
        }
        Ok(slots)
    }

    /// Deletes, then updates, then creates: so a unique value that one record gives up is free for another.
    async fn write_table(
        &self,
        session: &mut Session,
        table: &Table,
        keys: &HashMap<Key, Slot>,
    ) -> Result<(), Fault> {
        let (mut deleted, mut buried, mut raised) = (Vec::new(), Vec::new(), Vec::new());
        let (mut updated, mut created) = (Vec::new(), Vec::new());
        for (key, slot) in keys {
            match (&slot.before, &slot.now) {
                (before, now) if before == now => (),
                // nothing is made unreadable
                (_, State::Unreadable(_)) => (),
                (State::Present(_) | State::Unreadable(_), State::Present(record)) => {
                    updated.push((slot.place, record))
                }
                (State::Absent(before), State::Present(record)) => {
                    created.push(record);
                    if before.0 > 0 {
                        raised.push(key);
                    }
                }
                (before, State::Absent(version)) => {
                    buried.push((key, *version));
                    if before.record().is_some() {
                        deleted.push(key);
                    }
                }
            }
        }
        created.sort_by(|a: &&Record, b: &&Record| a.key.cmp(&b.key));
        delete(session, table, &deleted).await?;
        bury(session, table, &buried).await?;
        updated.sort_by_key(|(place, _)| *place);
        let updated: Vec<&Record> = updated.into_iter().map(|(_, record)| record).collect();
        update(session, table, &updated, self.sealer).await?;
        insert(session, table, &created, self.sealer).await?;
        raise(session, table, &raised).await?;
        if session.dialect() == Dialect::Mysql {
            let unsure =
                created.iter().filter(|record| !keys.get(&record.key).is_some_and(|slot| slot.fresh));
            no_tombstones(session, table, &unsure.map(|record| &record.key).collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    async fn write_events(&self, session: &mut Session, events: &[(&str, Envelope)]) -> Result<(), Fault> {
        for part in parts(events, ROWS_MAX, session.bytes_max(), |(_, event)| bytes_of(event)) {
            session.execute(outbox::insert(session.dialect(), part)?).await?;
        }
        Ok(())
    }
}

/// The changes of a unit in their order, those together that are alike and of different records.
#[derive(Default)]
struct Parts(Vec<Part>);

struct Part {
    table: Arc<Table>,
    /// Whether its records are there before and after.
    kind: (bool, bool),
    keys: HashMap<Key, Slot>,
    /// The place of its first change.
    place: usize,
}

impl Parts {
    fn add(&mut self, singly: bool, table: &Arc<Table>, key: &Key, slot: Slot) {
        let is_there = |state: &State| !matches!(state, State::Absent(_));
        let kind = (is_there(&slot.before), is_there(&slot.now));
        let fits = |part: &Part| {
            !singly && part.kind == kind && Arc::ptr_eq(&part.table, table) && !part.keys.contains_key(key)
        };
        if !self.0.last().is_some_and(fits) {
            self.0.push(Part { table: table.clone(), kind, keys: HashMap::new(), place: slot.place });
        }
        if let Some(part) = self.0.last_mut() {
            part.keys.insert(key.clone(), slot);
        }
    }
}

impl Slots {
    fn slot(&mut self, table: &Arc<Table>, key: &Key) -> &mut Slot {
        let at = self.tables.iter().position(|(known, _)| Arc::ptr_eq(known, table)).unwrap_or_else(|| {
            self.tables.push((table.clone(), HashMap::new()));
            self.tables.len() - 1
        });
        let none = State::Absent(Version(0));
        self.tables[at].1.entry(key.clone()).or_insert_with(|| Slot {
            before: none.clone(),
            now: none,
            fresh: false,
            place: 0,
        })
    }
}

fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(rand::random_range(1..=10 << attempt))
}

/// The bytes that an event has in a statement, about.
fn bytes_of(event: &Envelope) -> usize {
    512 + event.data.as_ref().map_or(0, |data| data.get().len())
}
