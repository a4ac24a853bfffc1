//! Histories: what clients asked for, when, and what they were told; and checkers that find in them what no
//! run of a right service shows.
//!
//! A checker is plain: it is given the operations and what is there in the end, and lists each violation in a
//! line.

pub mod feed;
pub mod ledger;
pub mod register;
pub mod set;
pub mod transfers;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What became of a request, as far as its client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was acknowledged.
    Done,
    /// It was refused: it did not happen, and will not.
    Refused,
    /// Nobody said: it may have happened, or may happen yet.
    Unknown,
}

/// One request of a client.
#[derive(Clone, Debug)]
pub struct Operation<A> {
    /// The connection over which it was asked. What one connection asks comes one after the other.
    pub connection: usize,
    /// What was asked, and what was answered.
    pub act: A,
    /// When it was asked, since the start of the history.
    pub invoked: Duration,
    /// When it was answered or given up, since the start of the history.
    pub returned: Duration,
    /// What became of it.
    pub outcome: Outcome,
}

/// The states of one record, by their versions.
pub type Chain<S> = BTreeMap<u64, S>;

/// A history that several clients write.
pub struct History<A> {
    start: Instant,
    operations: Arc<Mutex<Vec<Operation<A>>>>,
}

impl<A> Clone for History<A> {
    fn clone(&self) -> Self {
        Self { start: self.start, operations: self.operations.clone() }
    }
}

impl<A> Default for History<A> {
    fn default() -> Self {
        Self { start: Instant::now(), operations: Arc::default() }
    }
}

impl<A: Clone> History<A> {
    /// The time now, as operations have it.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Notes an operation that was asked at `invoked` and has just returned.
    pub fn note(&self, connection: usize, invoked: Duration, outcome: Outcome, act: A) {
        let operation = Operation { connection, act, invoked, returned: self.now(), outcome };
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }

    /// All operations so far, in the order in which they returned.
    pub fn operations(&self) -> Vec<Operation<A>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Finds versions that are missing from a record's chain, which begins at 1.
fn gaps<S>(key: &str, chain: &Chain<S>) -> Option<String> {
    let found: Vec<u64> = chain.keys().copied().collect();
    let is_whole = found.iter().copied().eq(1..=found.len() as u64);
    (!is_whole).then(|| format!("{key}: the versions are {found:?}, not each from 1"))
}

/// An operation for the checkers' own tests: asked and answered at these milliseconds.
#[cfg(test)]
fn operation<A>(
    connection: usize,
    (invoked, returned): (u64, u64),
    outcome: Outcome,
    act: A,
) -> Operation<A> {
    let [invoked, returned] = [invoked, returned].map(Duration::from_millis);
    Operation { connection, act, invoked, returned, outcome }
}

/// Fails unless exactly one violation is found, which says this.
#[cfg(test)]
fn assert_one(violations: &[String], says: &str) {
    assert!(violations.len() == 1 && violations[0].contains(says), "{says}: {violations:#?}");
}
