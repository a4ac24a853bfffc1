//! Group commit: creates of new keys that come at the same time share a transaction, so that its statements
//! and its commit are paid for once.
//!
//! A lane commits what waits as one unit, then what came meanwhile; a create that finds a free lane goes at
//! once. Where the common unit is refused each create is done by itself, so that nobody hears of another's
//! fault.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{StoreError, commit::Unit, dialect::Dialect, pools::Pools, table::Table};
use model::{
    change::{Action, Change, UnitOfWork, Written},
    seal::Sealer,
};

/// The most creates of one transaction. Groups are as large as a power of two, so that a connection has few
/// statements to know.
const TOGETHER_MAX: usize = 64;
/// Transactions at the same time. SQLite has one writer.
const LANES_SQLITE: usize = 1;
const LANES_MYSQL: usize = 2;

/// Creates on their way into one database.
pub struct Group {
    pools: Arc<Pools>,
    sealer: Arc<dyn Sealer>,
    lanes_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Waiting>,
    lanes: usize,
}

struct Waiting {
    change: Change,
    table: Arc<Table>,
    actor: String,
    deadline: Option<Instant>,
    answer: oneshot::Sender<Result<Vec<Written>, StoreError>>,
}

/// A lane at work; however it ends, another can take its place.
struct Lane {
    group: Arc<Group>,
    has_ended: bool,
}

impl Group {
    /// No creates yet.
    pub fn new(pools: Arc<Pools>, sealer: Arc<dyn Sealer>) -> Self {
        let lanes_max = match pools.dialect() {
            Dialect::Sqlite => LANES_SQLITE,
            Dialect::Mysql => LANES_MYSQL,
        };
        Self { pools, sealer, lanes_max, inner: Mutex::default() }
    }

    /// Whether a unit can share its transaction: it touches nothing that is there, and no repeat of it has to
    /// be told.
    pub fn takes(UnitOfWork { changes, actor: _, idempotency, deadline: _ }: &UnitOfWork) -> bool {
        let [Change { action: Action::Create { fresh_key: true, .. }, .. }] = changes.as_slice() else {
            return false;
        };
        idempotency.is_none()
    }

    /// Commits a create, with others where there are some.
    pub async fn commit(
        self: &Arc<Self>,
        change: Change,
        table: Arc<Table>,
        actor: String,
        deadline: Option<Instant>,
    ) -> Result<Vec<Written>, StoreError> {
        let (answer, done) = oneshot::channel();
        let starts = {
            let mut inner = self.inner.lock();
            inner.waiting.push_back(Waiting { change, table, actor, deadline, answer });
            let starts = inner.lanes < self.lanes_max;
            inner.lanes += usize::from(starts);
            starts
        };
        if starts {
            // a task of its own: it works for others too, and its caller may go away
            tokio::spawn(Lane { group: self.clone(), has_ended: false }.run());
        }
        done.await.unwrap_or_else(|_| Err(StoreError::Unknown("the transaction was given up".to_owned())))
    }

    async fn settle(&self, creates: Vec<Waiting>) {
        let now = Instant::now();
        let is_late = |create: &Waiting| create.deadline.is_some_and(|deadline| deadline <= now);
        let (late, creates): (Vec<_>, Vec<_>) = creates.into_iter().partition(is_late);
        for create in late {
            _ = create.answer.send(Err(StoreError::Unavailable(
                "it waited for others until its time was over".to_owned(),
            )));
        }
        if creates.len() > 1 {
            match self.unit(&creates).await {
                Ok(written) => {
                    let each = creates.into_iter().zip(written);
                    return each.for_each(|(create, written)| _ = create.answer.send(Ok(vec![written])));
                }
                Err(error @ (StoreError::Unknown(_) | StoreError::Unavailable(_))) => {
                    return creates.into_iter().for_each(|create| _ = create.answer.send(Err(error.clone())));
                }
                Err(_) => {}
            }
        }
        for create in creates {
            let done = self.unit(std::slice::from_ref(&create)).await;
            _ = create.answer.send(done);
        }
    }

    async fn unit(&self, creates: &[Waiting]) -> Result<Vec<Written>, StoreError> {
        let changes: Vec<&Change> = creates.iter().map(|create| &create.change).collect();
        let tables = creates.iter().map(|create| create.table.clone()).collect();
        let actors = creates.iter().map(|create| create.actor.as_str()).collect();
        // one that is done for others too is done as long as one of them waits
        let deadlines: Option<Vec<Instant>> = creates.iter().map(|create| create.deadline).collect();
        let deadline = deadlines.and_then(|all| all.into_iter().max());
        let unit = Unit {
            changes,
            actors,
            idempotency: None,
            tables,
            sealer: self.sealer.as_ref(),
            deadline,
            names: false,
        };
        unit.commit(&self.pools).await
    }
}

impl Lane {
    async fn run(mut self) {
        while let Some(creates) = self.next() {
            self.group.settle(creates).await;
        }
    }

    /// What waits now, the first come first; none, and the end of the lane, where nothing does.
    fn next(&mut self) -> Option<Vec<Waiting>> {
        let mut inner = self.group.inner.lock();
        // whoever went away was told nothing, so nothing need be done
        inner.waiting.retain(|create| !create.answer.is_closed());
        let count = inner.waiting.len().min(TOGETHER_MAX);
        if count == 0 {
            inner.lanes -= 1;
            self.has_ended = true;
            return None;
        }
        Some(inner.waiting.drain(..1 << count.ilog2()).collect())
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if !self.has_ended {
            self.group.inner.lock().lanes -= 1;
        }
    }
}
