//! Logs in a collection: the number of an entry is in its `_id`, so of two that append at once one finds its
//! number taken and then takes later ones. No transactions are used: entries become visible one by one, in
//! their order.

use std::time::Duration;

use async_trait::async_trait;
use bson::{Bson, DateTime, Document, doc};
use futures::TryStreamExt;
use mongodb::{Collection as Handle, Database, IndexModel, options::IndexOptions};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    StoreError, call_deadline,
    fault::{Fault, read},
    ledger::Ledger,
    meta,
    values::int_of,
};
use model::{
    log::{Claim, Entry, EventLog, Group, LogError, Newest, Numbered, Page},
    value::Timestamp,
};

/// The entries of all logs.
const LOG: &str = "flyweight_log";
/// Which member of a group has which part of a log.
const CLAIMS: &str = "flyweight_claims";
/// Entries that one command inserts.
const INSERT_ROWS: usize = 256;
/// Entries that are looked at, and removed, at once.
const PRUNE_ROWS: i64 = 1_000;
/// The longest wait before an append that another was faster than is tried again.
const RETRY: Duration = Duration::from_millis(10);
/// The member of a group that was not heard of for so long is forgotten.
const MEMBER_MS: i64 = 3_600_000;

/// The logs of a MongoDB database.
#[derive(Clone)]
pub struct MongoLog {
    database: Database,
    ledger: Ledger,
}

impl MongoLog {
    /// The logs in this database.
    pub fn new(database: Database, ledger: Ledger) -> Self {
        Self { database, ledger }
    }

    /// Makes the indexes.
    pub async fn prepare(&self, deadline: Instant) -> Result<(), Fault> {
        let unique = IndexOptions::builder().unique(true).build();
        let events = IndexModel::builder().keys(doc! { "log": 1, "event": 1 }).options(unique).build();
        read(deadline, self.entries().create_index(events)).await?;
        let groups = IndexModel::builder().keys(doc! { "log": 1, "group": 1 }).build();
        read(deadline, self.all_claims().create_index(groups)).await.map(|_| ())
    }

    fn entries(&self) -> Handle<Document> {
        self.database.collection(LOG)
    }

    fn all_claims(&self) -> Handle<Document> {
        self.database.collection(CLAIMS)
    }

    async fn appended(&self, log: &str, entries: &[Entry]) -> Result<(), Fault> {
        let deadline = call_deadline();
        for part in entries.chunks(INSERT_ROWS) {
            let mut rest: Vec<&Entry> = part.iter().collect();
            while !rest.is_empty() {
                let newest = self.newest_entry(log, deadline).await?.map_or(0, |newest| newest.number);
                let at = DateTime::from_millis(self.ledger.now(deadline).await?.0);
                let documents = (newest + 1..).zip(&rest).map(|(number, Entry { id, part, text })| {
                    doc! {
                        "_id": place(log, number), "log": log, "number": number.cast_signed(), "part": *part,
                        "event": id.to_string(), "at": at, "entry": text,
                    }
                });
                match read(deadline, self.entries().insert_many(documents)).await {
                    Ok(_) => break,
                    Err(Fault::Taken(_)) => {}
                    Err(fault) => return Err(fault),
                }
                // another was faster, or these are there already
                let known = self.known(log, &rest, deadline).await?;
                rest.retain(|entry| !known.contains(&entry.id.to_string()));
                if Instant::now() > deadline {
                    return Err(StoreError::Unavailable("others append all the time".to_owned()).into());
                }
                sleep(RETRY.mul_f64(rand::random())).await;
            }
        }
        Ok(())
    }

    /// Which of these entries are there.
    async fn known(&self, log: &str, entries: &[&Entry], deadline: Instant) -> Result<Vec<String>, Fault> {
        let ids: Vec<String> = entries.iter().map(|entry| entry.id.to_string()).collect();
        let those = doc! { "log": log, "event": { "$in": ids } };
        let found = read(deadline, self.entries().find(those).projection(doc! { "event": 1 })).await?;
        let found: Vec<Document> = read(deadline, found.try_collect()).await?;
        Ok(found.iter().filter_map(|one| one.get_str("event").ok().map(str::to_owned)).collect())
    }

    async fn paged(&self, log: &str, from: u64, parts: Option<&[i64]>, limit: usize) -> Result<Page, Fault> {
        let deadline = call_deadline();
        let mut those = numbered(log, from, u64::MAX);
        if let Some(parts) = parts {
            those.insert("part", doc! { "$in": parts });
        }
        let handle = self.entries();
        let find = handle.find(those).sort(doc! { "_id": 1 }).limit(limit as i64);
        let mut found = read(deadline, find).await?;
        let (mut page, mut bytes) = (Page::default(), 0);
        while let Some(one) = read(deadline, found.try_next()).await? {
            let text = one.get_str("entry").unwrap_or_default().to_owned();
            let entry = Entry { id: id_of(&one)?, part: int(&one, "part"), text };
            if !page.push(Numbered { number: number_of(&one), entry }, limit, &mut bytes) {
                break;
            }
        }
        Ok(page)
    }

    async fn newest_entry(&self, log: &str, deadline: Instant) -> Result<Option<Newest>, Fault> {
        let all = numbered(log, 0, u64::MAX);
        let handle = self.entries();
        let find = handle.find_one(all).sort(doc! { "_id": -1 }).projection(doc! { "entry": 0 });
        let newest = |one: Document| {
            let at = one.get_datetime("at").map_or(0, |at| at.timestamp_millis());
            Ok(Newest { number: number_of(&one), id: id_of(&one)?, at: Timestamp(at) })
        };
        read(deadline, find).await?.map(newest).transpose()
    }

    async fn oldest_number(&self, log: &str) -> Result<u64, Fault> {
        let all = numbered(log, 0, u64::MAX);
        let handle = self.entries();
        let find = handle.find_one(all).sort(doc! { "_id": 1 }).projection(doc! { "number": 1 });
        Ok(read(call_deadline(), find).await?.map_or(0, |one| number_of(&one)))
    }

    async fn counted(&self, log: &str, after: &[(i64, u64)]) -> Result<u64, Fault> {
        let Some(least) = after.iter().map(|(_, at)| *at).min() else { return Ok(0) };
        let each =
            after.iter().map(|(part, at)| doc! { "part": *part, "number": { "$gt": at.cast_signed() } });
        let mut those = numbered(log, least + 1, u64::MAX);
        those.insert("$or", each.collect::<Vec<_>>());
        read(call_deadline(), self.entries().count_documents(those)).await
    }

    async fn pruned(&self, log: &str, up_to: u64, before: Timestamp) -> Result<bool, Fault> {
        let deadline = call_deadline();
        let Some(newest) = self.newest_entry(log, deadline).await? else { return Ok(false) };
        let handle = self.entries();
        let find = handle
            .find(numbered(log, 0, newest.number - 1))
            .sort(doc! { "_id": 1 })
            .limit(PRUNE_ROWS)
            .projection(doc! { "number": 1, "at": 1 });
        let found: Vec<Document> = read(deadline, read(deadline, find).await?.try_collect()).await?;
        let is_old = |one: &&Document| {
            let at = one.get_datetime("at").map_or(i64::MAX, |at| at.timestamp_millis());
            number_of(one) <= up_to || at < before.0
        };
        let old: Vec<u64> = found.iter().filter(is_old).map(number_of).collect();
        if let Some(last) = old.last() {
            read(deadline, self.entries().delete_many(numbered(log, 0, *last))).await?;
        }
        let heard = DateTime::from_millis(self.ledger.now(deadline).await?.0 - MEMBER_MS);
        let gone = doc! { "log": log, "part": { "$lt": 0_i64 }, "until": { "$lt": heard } };
        read(deadline, self.all_claims().delete_many(gone)).await?;
        Ok(old.len() as i64 == PRUNE_ROWS)
    }

    async fn claimed(
        &self,
        group: Group<'_>,
        part: i64,
        owner: &str,
        lease: Duration,
    ) -> Result<Option<u64>, Fault> {
        let (deadline, claims, id) = (call_deadline(), self.all_claims(), claim_id(group, part));
        let now = self.ledger.ask_time(deadline).await?.0;
        let free = doc! { "_id": &id, "$or": [
            { "owner": owner },
            { "until": { "$lte": DateTime::from_millis(now) } },
        ] };
        let mine = doc! {
            "$set": {
                "log": group.log, "group": group.name, "part": part, "owner": owner, "until": end(now, lease),
            },
            "$setOnInsert": { "position": 0_i64 },
        };
        match read(deadline, claims.update_one(free, mine).upsert(true)).await {
            Ok(_) => {}
            // it is there, and another's
            Err(Fault::Taken(_)) => return Ok(None),
            Err(fault) => return Err(fault),
        }
        let found = read(deadline, claims.find_one(doc! { "_id": id, "owner": owner })).await?;
        Ok(found.map(|one| int(&one, "position").cast_unsigned()))
    }

    /// Notes positions, and until when the claims last.
    async fn moved(
        &self,
        group: Group<'_>,
        owner: &str,
        until: DateTime,
        positions: &[(i64, u64)],
        deadline: Instant,
    ) -> Result<(), Fault> {
        for (part, position) in positions {
            let mine = doc! { "_id": claim_id(group, *part), "owner": owner };
            let moved = doc! { "$set": { "until": until, "position": position.cast_signed() } };
            read(deadline, self.all_claims().update_one(mine, moved)).await?;
        }
        Ok(())
    }

    async fn kept(
        &self,
        group: Group<'_>,
        owner: &str,
        lease: Duration,
        positions: &[(i64, u64)],
    ) -> Result<Vec<i64>, Fault> {
        let deadline = call_deadline();
        let now = self.ledger.ask_time(deadline).await?.0;
        self.moved(group, owner, end(now, lease), positions, deadline).await?;
        let mine = doc! { "log": group.log, "group": group.name, "owner": owner };
        let found = read(deadline, self.all_claims().find(mine).projection(doc! { "part": 1 })).await?;
        let found: Vec<Document> = read(deadline, found.try_collect()).await?;
        Ok(found.iter().map(|one| int(one, "part")).collect())
    }

    async fn released(&self, group: Group<'_>, owner: &str, positions: &[(i64, u64)]) -> Result<(), Fault> {
        let (deadline, over) = (call_deadline(), DateTime::from_millis(0));
        // they stay, with their positions; a member has none
        self.moved(group, owner, over, positions, deadline).await?;
        let gone = doc! {
            "log": group.log, "group": group.name, "owner": owner, "part": { "$lt": 0_i64 }, "until": over,
        };
        read(deadline, self.all_claims().delete_many(gone)).await.map(|_| ())
    }

    async fn claims_of(&self, group: Group<'_>) -> Result<Vec<Claim>, Fault> {
        let deadline = call_deadline();
        let now = self.ledger.ask_time(deadline).await?.0;
        let all = doc! { "log": group.log, "group": group.name };
        let found = read(deadline, self.all_claims().find(all)).await?;
        let found: Vec<Document> = read(deadline, found.try_collect()).await?;
        let claim = |one: &Document| Claim {
            part: int(one, "part"),
            owner: one.get_str("owner").unwrap_or_default().to_owned(),
            lasts: one.get_datetime("until").is_ok_and(|until| until.timestamp_millis() > now),
            position: int(one, "position").cast_unsigned(),
        };
        Ok(found.iter().map(claim).collect())
    }
}

#[async_trait]
impl EventLog for MongoLog {
    async fn identity(&self) -> Result<String, LogError> {
        let identity = meta::identity(&self.database, call_deadline()).await;
        Ok(identity.map_err(failed)?.id)
    }

    async fn append(&self, log: &str, entries: &[Entry]) -> Result<(), LogError> {
        self.appended(log, entries).await.map_err(failed)
    }

    async fn page(
        &self,
        log: &str,
        from: u64,
        parts: Option<&[i64]>,
        limit: usize,
    ) -> Result<Page, LogError> {
        self.paged(log, from, parts, limit).await.map_err(failed)
    }

    async fn newest(&self, log: &str) -> Result<Option<Newest>, LogError> {
        self.newest_entry(log, call_deadline()).await.map_err(failed)
    }

    async fn oldest(&self, log: &str) -> Result<u64, LogError> {
        self.oldest_number(log).await.map_err(failed)
    }

    async fn count(&self, log: &str, after: &[(i64, u64)]) -> Result<u64, LogError> {
        self.counted(log, after).await.map_err(failed)
    }

    async fn prune(&self, log: &str, up_to: u64, before: Timestamp) -> Result<bool, LogError> {
        self.pruned(log, up_to, before).await.map_err(failed)
    }

    async fn claims(&self, group: Group<'_>) -> Result<Vec<Claim>, LogError> {
        self.claims_of(group).await.map_err(failed)
    }

    async fn claim(
        &self,
        group: Group<'_>,
        part: i64,
        owner: &str,
        lease: Duration,
    ) -> Result<Option<u64>, LogError> {
        self.claimed(group, part, owner, lease).await.map_err(failed)
    }

    async fn keep(
        &self,
        group: Group<'_>,
        owner: &str,
        lease: Duration,
        positions: &[(i64, u64)],
    ) -> Result<Vec<i64>, LogError> {
        self.kept(group, owner, lease, positions).await.map_err(failed)
    }

    async fn release(&self, group: Group<'_>, owner: &str, positions: &[(i64, u64)]) -> Result<(), LogError> {
        self.released(group, owner, positions).await.map_err(failed)
    }
}

/// The `_id` of an entry: sorts by the number.
fn place(log: &str, number: u64) -> String {
    format!("{log}/{number:020}")
}

/// The entries of a log with these numbers.
fn numbered(log: &str, from: u64, to: u64) -> Document {
    doc! { "_id": { "$gte": place(log, from), "$lte": place(log, to) } }
}

fn claim_id(group: Group<'_>, part: i64) -> String {
    format!("{}/{}/{part}", group.log, group.name)
}

fn end(now: i64, lease: Duration) -> DateTime {
    DateTime::from_millis(now.saturating_add(i64::try_from(lease.as_millis()).unwrap_or(i64::MAX)))
}

fn int(document: &Document, field: &str) -> i64 {
    document.get(field).and_then(int_of).unwrap_or_default()
}

fn number_of(document: &Document) -> u64 {
    int(document, "number").cast_unsigned()
}

fn id_of(document: &Document) -> Result<Uuid, StoreError> {
    let id = document.get("event").and_then(Bson::as_str).unwrap_or_default();
    id.parse().map_err(|_| StoreError::Corrupt("an entry of a log has no id".to_owned()))
}

fn failed(fault: impl Into<StoreError>) -> LogError {
    crate::of_log(fault.into())
}
