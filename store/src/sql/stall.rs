//! A MySQL that has no room for its binary log does not refuse a commit: it waits, with the connection open,
//! and its reads go on.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{
    StoreError,
    dialect::{Dialect, Sql},
    fault::Fault,
    pools::Pools,
};

/// What is known of a server that may wait for room. Reads go on meanwhile.
#[derive(Default)]
pub struct Stall {
    /// A write was not answered, and nobody has looked since.
    suspected: AtomicBool,
    waits: AtomicBool,
}

/// A write that is under way: given up before it was answered, it is suspicious.
pub struct Writing<'a> {
    stall: &'a Stall,
    answered: bool,
}

impl Stall {
    /// Begins a write.
    ///
    /// # Errors
    /// `Full` while the server waits for room: nothing was begun.
    pub fn begin(&self) -> Result<Writing<'_>, StoreError> {
        match self.waits.load(Ordering::Relaxed) {
            true => Err(waits_for_room()),
            false => Ok(Writing { stall: self, answered: false }),
        }
    }

    /// Looks, where there is reason to, whether threads of this account wait for room.
    ///
    /// # Errors
    /// `Full` while they do.
    pub async fn look(&self, pools: &Pools) -> Result<(), Fault> {
        let suspected = self.suspected.swap(false, Ordering::Relaxed);
        if pools.dialect() == Dialect::Sqlite || !(suspected || self.waits.load(Ordering::Relaxed)) {
            return Ok(());
        }
        let is_full = match threads(pools).await {
            // one that names the disk, or one that was found to wait for it before and has not come back:
            // MySQL looks for room once a minute
            Ok(Threads { named, stuck }) => named || (stuck && self.waits.load(Ordering::Relaxed)),
            // the list takes a temporary table, for which there is no room either
            Err(Fault::Store(StoreError::Full(_))) => true,
            Err(fault) => return Err(fault),
        };
        self.waits.store(is_full, Ordering::Relaxed);
        if is_full { Err(waits_for_room().into()) } else { Ok(()) }
    }
}

/// What threads of this account wait for.
struct Threads {
    /// One says that it waits for room.
    named: bool,
    /// One has been in its commit for longer than any takes.
    stuck: bool,
}

async fn threads(pools: &Pools) -> Result<Threads, Fault> {
    let asked = "SELECT CAST(COALESCE(SUM(LOWER(state) LIKE '%disk space%'), 0) AS SIGNED), \
                 CAST(COALESCE(SUM(LOWER(state) = 'waiting for handler commit' AND time >= 4), 0) AS SIGNED), \
                 MAX(info) FROM information_schema.processlist";
    let rows = pools.read().await?.rows(Sql::text(asked)).await?;
    let count =
        |at| Ok::<_, Fault>(rows.first().map(|row| row.int(at)).transpose()?.flatten().unwrap_or_default());
    Ok(Threads { named: count(0)? > 0, stuck: count(1)? > 0 })
}

impl Writing<'_> {
    /// The write ended so.
    pub fn ended<T>(mut self, outcome: &Result<T, StoreError>) {
        self.answered = !matches!(outcome, Err(StoreError::Unknown(_) | StoreError::Unavailable(_)));
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.stall.suspected.store(true, Ordering::Relaxed);
        }
    }
}

fn waits_for_room() -> StoreError {
    StoreError::Full("the disk of the database is full, and it waits for room".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_answered_is_suspicious_and_nothing_is_begun_while_it_waits() {
        let stall = Stall::default();
        let suspected = || stall.suspected.swap(false, Ordering::Relaxed);
        stall.begin().unwrap().ended(&Ok(()));
        stall.begin().unwrap().ended::<()>(&Err(StoreError::NotFound));
        assert!(!suspected());
        stall.begin().unwrap().ended::<()>(&Err(StoreError::Unknown(String::new())));
        assert!(suspected());
        drop(stall.begin().unwrap());
        assert!(suspected(), "the caller gave it up");
        stall.waits.store(true, Ordering::Relaxed);
        assert!(matches!(stall.begin().map(drop), Err(StoreError::Full(_))));
    }
}
