//! Dead letters: what could not be done, kept with its error, listed, replayed or dropped.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::RwLock;
use serde_json::Value as Tree;

use super::{
    error::ServiceError,
    failure::Failure,
    payment::derived_key,
    precondition::Precondition,
    records::{Records, writes::ATTEMPTS_MAX},
};
use model::{
    actor,
    budget::Allowance,
    change::{Action, Change, Guard, Origin},
    dead_letter::{DROPPED, REPLAYED},
    key::Key,
    query::{Comparison, Filter, Position, Query, Start},
    record::Record,
    schema::FieldRef,
    value::{Json, Row, Value},
};

/// Who writes dead letters.
const ACTOR: &str = actor::PIPELINE;
/// The most characters of an error.
const ERROR_MAX: usize = 2_000;
/// The most bytes of a payload; a longer one is kept as a note of its length.
const PAYLOAD_MAX: usize = 900_000;
/// Letters that are replayed by one call at most.
const REPLAYED_MAX: u32 = 1_000;
/// After this time a call begins no further replay, so that it is answered in time.
const REPLAY_TIME: Duration = Duration::from_secs(5);

/// Something that could not be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// Where: a stage of the pipeline, `ingest`, `events`.
    pub stage: String,
    /// What it is about: the key of an order or a product, the id of an event.
    pub subject: String,
    /// Why.
    pub failure: Failure,
    /// How often it was tried.
    pub attempts: u32,
    /// The trace that it is part of; may be empty.
    pub trace: String,
    /// What was to be done.
    pub payload: Tree,
}

/// Where letters come from: does again what could not be done. A repetition must have no second effect.
#[async_trait]
pub trait Source: Send + Sync {
    /// Does it again for an actor, or sees to it that it will be done. An error leaves the letter where it
    /// is.
    async fn replay(&self, letter: &Record, actor: &str) -> Result<(), ServiceError>;

    /// The letter was replayed or dropped, and is gone: what was set aside as it meanwhile goes on.
    async fn taken(&self, _letter: &Record, _actor: &str) -> Result<(), ServiceError> {
        Ok(())
    }

    /// The letter is dropped: nobody will do it.
    async fn dropped(&self, letter: &Record, actor: &str) -> Result<(), ServiceError>;
}

/// What a replay by filter did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Replayed {
    /// Letters that are being done again.
    pub replayed: u32,
    /// Letters that could not be: they are still there.
    pub failed: u32,
    /// Whether there may be more: one call replays so many and no more.
    pub more: bool,
    /// Where the next call goes on, where there may be more: letters that failed are not met again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// All dead letters.
pub struct DeadLetters {
    records: Arc<Records>,
    sources: RwLock<HashMap<String, Arc<dyn Source>>>,
}

impl DeadLetters {
    /// The letters that are kept in these records.
    pub fn new(records: Arc<Records>) -> Self {
        Self { records, sources: RwLock::default() }
    }

    /// The letters as records.
    pub fn records(&self) -> &Arc<Records> {
        &self.records
    }

    /// Letters of a stage are replayed by this source from now on.
    pub fn serve(&self, stage: &str, source: Arc<dyn Source>) {
        self.sources.write().insert(stage.to_owned(), source);
    }

    /// Keeps a letter: one for each stage and subject, the last, however often it is put.
    ///
    /// # Errors
    /// What the store says.
    pub async fn put(&self, letter: Letter) -> Result<Record, ServiceError> {
        let (key, values) = self.row_of(letter);
        self.records.put(&key, values, ACTOR).await
    }

    /// Keeps a letter unless there is one in its place that is not to be replaced.
    ///
    /// # Errors
    /// What the store says.
    pub async fn put_where(
        &self,
        letter: Letter,
        replaces: impl Fn(&Record) -> bool,
    ) -> Result<(), ServiceError> {
        let (key, values) = self.row_of(letter);
        for _ in 0..ATTEMPTS_MAX {
            match self.records.insert(&key, values.clone(), ACTOR).await {
                Err(ServiceError::Exists) => {}
                kept => return kept.map(drop),
            }
            match self.records.adjust(&key, ACTOR, |held| Ok(replaces(held).then(|| values.clone()))).await {
                // taken away in between
                Err(ServiceError::NotFound) => {}
                done => return done.map(drop),
            }
        }
        Err(ServiceError::Contended)
    }

    fn row_of(&self, letter: Letter) -> (Key, Row) {
        let Letter { stage, subject, failure, attempts, trace, payload } = letter;
        let key = derived_key(&format!("dead letter {stage} {subject}"));
        let mut payload = Json::from_value(&payload);
        if payload.as_str().len() > PAYLOAD_MAX {
            let note = format!("left out: {} bytes", payload.as_str().len());
            payload = Json::from_value(&Tree::String(note));
        }
        let short =
            |text: String, max: usize| Value::Text(text.chars().filter(|c| *c != '\0').take(max).collect());
        let values = self.records.schema().row_of([
            ("stage", short(stage, 64)),
            ("subject", short(subject, 128)),
            ("class", Value::Text(failure.class.name().to_owned())),
            ("error", short(failure.message, ERROR_MAX)),
            ("attempts", Value::Int(attempts.into())),
            ("trace", short(trace, 64)),
            ("payload", Value::Json(payload)),
        ]);
        (key, values)
    }

    /// Does again what a letter is about, and removes it.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` where nobody here can do it, or what its source says.
    pub async fn replay(&self, key: &Key, actor: &str) -> Result<(), ServiceError> {
        let letter = self.find(key).await?.ok_or(ServiceError::NotFound)?;
        self.replay_one(&letter, actor).await
    }

    /// Does again what the letters of a stage or about a subject are about; all where neither is given. Goes
    /// by their keys, from after `cursor`.
    ///
    /// # Errors
    /// What the store says. A letter that cannot be replayed is counted and stays.
    pub async fn replay_all(
        &self,
        stage: Option<&str>,
        subject: Option<&str>,
        cursor: Option<Key>,
        actor: &str,
    ) -> Result<Replayed, ServiceError> {
        let wanted = [("stage", stage), ("subject", subject)].into_iter().filter_map(|(field, text)| {
            let index = self.records.schema().index_of(field)?;
            Some(Filter::Compare(FieldRef::Field(index), Comparison::Eq, Value::Text(text?.to_owned())))
        });
        let filter = Filter::And(wanted.collect());
        let start = cursor
            .map_or(Start::Offset(0), |key| Start::After(Position { values: Vec::new(), key, skip: 0 }));
        let query = Query {
            filter,
            order: Vec::new(),
            start,
            limit: REPLAYED_MAX,
            count: false,
            allowance: Allowance::default(),
        };
        let page = self.records.find(&query).await?;
        let mut done = Replayed { more: page.next.is_some(), ..Replayed::default() };
        let (begun, mut last) = (Instant::now(), None);
        for letter in &page.records {
            if begun.elapsed() > REPLAY_TIME {
                done.more = true;
                break;
            }
            last = Some(&letter.key);
            match self.replay_one(letter, actor).await {
                Ok(()) | Err(ServiceError::NotFound) => done.replayed += 1,
                Err(error) => {
                    tracing::warn!(letter = %letter.key, %error, "a dead letter could not be replayed");
                    done.failed += 1;
                }
            }
        }
        done.next_cursor = last.filter(|_| done.more).map(ToString::to_string);
        Ok(done)
    }

    /// Letters of a stage by their keys, from after one; and where the next page begins, if there is one.
    ///
    /// # Errors
    /// What the store says.
    pub async fn of_stage(
        &self,
        stage: &str,
        after: Option<Key>,
        limit: u32,
    ) -> Result<(Vec<Record>, Option<Key>), ServiceError> {
        let index = self.records.schema().index_of("stage").unwrap_or_default();
        let filter = Filter::Compare(FieldRef::Field(index), Comparison::Eq, Value::Text(stage.to_owned()));
        let start =
            after.map_or(Start::Offset(0), |key| Start::After(Position { values: Vec::new(), key, skip: 0 }));
        let page = self
            .records
            .find(&Query {
                filter,
                order: Vec::new(),
                start,
                limit,
                count: false,
                allowance: Allowance::default(),
            })
            .await?;
        Ok((page.records, page.next.map(|next| next.key)))
    }

    /// Gives up what a letter is about, and removes it.
    ///
    /// # Errors
    /// `NotFound`, or what its source says.
    pub async fn give_up(&self, key: &Key, actor: &str) -> Result<(), ServiceError> {
        let letter = self.find(key).await?.ok_or(ServiceError::NotFound)?;
        match self.source(&letter) {
            Some(source) => {
                source.dropped(&letter, actor).await?;
                self.close(&letter, DROPPED, actor).await?;
                source.taken(&letter, actor).await
            }
            None => self.close(&letter, DROPPED, actor).await,
        }
    }

    /// Removes a letter as it was read, and says in the audit what became of it and by whom. A newer one in
    /// its place stays.
    async fn close(&self, letter: &Record, outcome: &str, actor: &str) -> Result<(), ServiceError> {
        let mut values = letter.values.clone();
        self.records.schema().set(&mut values, "outcome", Value::Text(outcome.to_owned()));
        let change = |action| Change {
            collection: self.records.collection().clone(),
            key: letter.key.clone(),
            action,
        };
        let changes = vec![
            change(Action::Replace { guard: Guard::Exactly(letter.version), values }),
            change(Action::Delete { guard: Guard::Exactly(letter.version.next()) }),
        ];
        match self.records.commit_all(changes, &Origin::of(actor)).await {
            Err(ServiceError::NotFound | ServiceError::Stale { .. }) => Ok(()),
            done => done.map(drop),
        }
    }

    /// The letter of that key, if it is there.
    ///
    /// # Errors
    /// What the store says.
    pub async fn find(&self, key: &Key) -> Result<Option<Record>, ServiceError> {
        self.records.find_one(key).await
    }

    /// Removes a letter, if it is there.
    ///
    /// # Errors
    /// What the store says.
    pub async fn remove(&self, key: &Key, actor: &str) -> Result<(), ServiceError> {
        match self.records.delete(key, &Precondition::None, &Origin::of(actor)).await {
            Err(ServiceError::NotFound) => Ok(()),
            done => done.map(|_| ()),
        }
    }

    /// How many letters of a stage there are.
    ///
    /// # Errors
    /// What the store says.
    pub async fn count(&self, stage: &str) -> Result<u64, ServiceError> {
        let index = self.records.schema().index_of("stage").unwrap_or_default();
        let filter = Filter::Compare(FieldRef::Field(index), Comparison::Eq, Value::Text(stage.to_owned()));
        self.records.count(filter).await
    }

    async fn replay_one(&self, letter: &Record, actor: &str) -> Result<(), ServiceError> {
        let stage = self.text(letter, "stage");
        let source = self.source(letter).ok_or_else(|| {
            ServiceError::Conflict(format!(
                "letters of {stage} cannot be replayed here: ask a group that serves it"
            ))
        })?;
        source.replay(letter, actor).await?;
        self.close(letter, REPLAYED, actor).await?;
        source.taken(letter, actor).await
    }

    /// Removes a letter as it was read or put. A newer one in its place, of another failure or another
    /// worker, stays.
    ///
    /// # Errors
    /// What the store says.
    pub async fn take_back(&self, letter: &Record) -> Result<(), ServiceError> {
        let this = Precondition::OneOf(vec![letter.version]);
        match self.records.delete(&letter.key, &this, &Origin::of(ACTOR)).await {
            Err(ServiceError::NotFound | ServiceError::Stale { .. }) => Ok(()),
            done => done.map(|_| ()),
        }
    }

    fn source(&self, letter: &Record) -> Option<Arc<dyn Source>> {
        self.sources.read().get(self.text(letter, "stage")).cloned()
    }

    /// A text of a letter; empty where it has none.
    pub fn text<'a>(&self, letter: &'a Record, field: &str) -> &'a str {
        self.records.schema().get(&letter.values, field).as_text().unwrap_or_default()
    }
}
