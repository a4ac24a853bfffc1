//! The embedded log of events: a table in an SQLite file of its own, for a service that runs in one process.
//!
//! One task writes: whatever waits when it is free goes into one commit, so many small requests cost few
//! syncs.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use sqlx::{
    Connection, QueryBuilder, Sqlite, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};

use super::{Batch, Intake, IntakeError, IntakeReader, most};
use crate::local::log::{committed_by, is_full};
use model::{counted::Place, durability::Setting, price_event::PriceEvent};
use runtime::supervisor;

/// Rows that one statement inserts.
const INSERT_ROWS: usize = 1_000;
/// Rows that one commit gathers at most.
const COMMIT_ROWS: usize = 10_000;
/// Requests that wait for the writer.
const REQUESTS: usize = 4_096;
/// The longest wait for the file.
const BUSY: Duration = Duration::from_secs(5);

/// The embedded log.
pub struct LocalIntake {
    requests: mpsc::Sender<Append>,
    log: Arc<Log>,
    /// How the connection that writes commits.
    settings: Vec<Setting>,
}

struct Append {
    rows: Vec<String>,
    done: oneshot::Sender<Result<(), IntakeError>>,
}

/// What the writer and the readers share.
struct Log {
    pool: SqlitePool,
    /// The number of the newest durable row.
    head: watch::Sender<i64>,
    waiting: AtomicU64,
    /// Rows up to this number were given to readers.
    given: AtomicI64,
    /// Ranges that readers left behind: after the first number, up to the second.
    returned: Mutex<VecDeque<(i64, i64)>>,
    /// One reader takes at a time.
    turn: tokio::sync::Mutex<()>,
}

impl LocalIntake {
    /// Opens or makes the log in a folder.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub async fn open(folder: &Path) -> Result<Self, IntakeError> {
        let options = SqliteConnectOptions::new()
            .filename(folder.join("intake.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // an accepted event survives a crash of the machine
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY);
        let mut writer = SqliteConnection::connect_with(&options).await.map_err(failed)?;
        let table =
            "CREATE TABLE IF NOT EXISTS intake (seq INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL)";
        sqlx::query(table).execute(&mut writer).await.map_err(failed)?;
        let settings = committed_by(&mut writer).await.map_err(failed)?;
        let (count, first, head): (i64, i64, i64) = sqlx::query_as(
            "SELECT COUNT(*), COALESCE(MIN(seq), 0), COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'intake'), 0) FROM intake",
        )
        .fetch_one(&mut writer)
        .await
        .map_err(failed)?;
        let pool = SqlitePoolOptions::new()
            .max_connections(2)
            .acquire_timeout(BUSY)
            .connect_lazy_with(options.clone());
        let log = Arc::new(Log {
            pool,
            head: watch::channel(head).0,
            waiting: AtomicU64::new(count.unsigned_abs()),
            given: AtomicI64::new(if count == 0 { head } else { first - 1 }),
            returned: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        });
        let (requests, queue) = mpsc::channel(REQUESTS);
        supervisor::INTAKE.spawn(write(options, writer, queue, log.clone()));
        Ok(Self { requests, log, settings })
    }
}

#[async_trait]
impl Intake for LocalIntake {
    async fn append(&self, events: Vec<PriceEvent>) -> Result<(), IntakeError> {
        let rows = events.iter().map(serde_json::to_string).collect::<Result<_, _>>().map_err(failed)?;
        let (done, answer) = oneshot::channel();
        self.requests.send(Append { rows, done }).await.map_err(failed)?;
        answer.await.map_err(failed)?
    }

    async fn reader(&self) -> Result<Box<dyn IntakeReader>, IntakeError> {
        Ok(Box::new(LocalReader { log: self.log.clone(), taken: None }))
    }

    async fn settings(&self) -> Result<Vec<Setting>, IntakeError> {
        Ok(self.settings.clone())
    }

    async fn waiting(&self) -> Result<u64, IntakeError> {
        Ok(self.log.waiting.load(Ordering::Acquire))
    }
}

/// Writes until nobody appends any more.
async fn write(
    options: SqliteConnectOptions,
    connection: SqliteConnection,
    mut queue: mpsc::Receiver<Append>,
    log: Arc<Log>,
) {
    let mut connection = Some(connection);
    while let Some(first) = queue.recv().await {
        let (mut rows, mut answers) = (first.rows, vec![first.done]);
        while rows.len() < COMMIT_ROWS
            && let Ok(Append { rows: more, done }) = queue.try_recv()
        {
            rows.extend(more);
            answers.push(done);
        }
        let result = append(&options, &mut connection, &rows).await.map_err(|error| unwritten(&error));
        if let Ok(head) = &result {
            log.waiting.fetch_add(rows.len() as u64, Ordering::AcqRel);
            log.head.send_replace(*head);
        }
        for answer in answers {
            let result = result.as_ref().map(drop).map_err(Clone::clone);
            // whoever gave up waiting has its events in the log all the same
            _ = answer.send(result);
        }
    }
}

/// Appends rows by the connection. After a failure it is given up and made again: what SQLite rolled back by
/// itself cannot be told from outside, and a commit within a transaction that is still open would be none.
async fn append(
    options: &SqliteConnectOptions,
    held: &mut Option<SqliteConnection>,
    rows: &[String],
) -> Result<i64, sqlx::Error> {
    let mut connection = match held.take() {
        Some(connection) => connection,
        None => SqliteConnection::connect_with(options).await?,
    };
    let head = insert(&mut connection, rows).await?;
    *held = Some(connection);
    Ok(head)
}

/// Inserts rows in one transaction, and gives the number of the last.
async fn insert(connection: &mut SqliteConnection, rows: &[String]) -> Result<i64, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let mut head = 0;
    for part in rows.chunks(INSERT_ROWS) {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO intake (event) ");
        insert.push_values(part, |mut row, event| {
            row.push_bind(event.as_str());
        });
        head = insert.build().execute(&mut *transaction).await?.last_insert_rowid();
    }
    transaction.commit().await?;
    Ok(head)
}

/// Takes rows out of the log.
struct LocalReader {
    log: Arc<Log>,
    /// What was taken last: after the first number, up to the second; and how many rows that are.
    taken: Option<(i64, i64, u64)>,
}

impl LocalReader {
    /// The next rows that nobody has; none where there are none.
    async fn next(&mut self, max: usize) -> Result<Batch, IntakeError> {
        let log = self.log.clone();
        let _turn = log.turn.lock().await;
        let returned = log.returned.lock().front().copied();
        let (after, until) = returned.unwrap_or((log.given.load(Ordering::Acquire), i64::MAX));
        let page = "SELECT seq, event FROM intake WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?";
        let rows: Vec<(i64, String)> = sqlx::query_as(page)
            .bind(after)
            .bind(until)
            .bind(i64::try_from(max).unwrap_or(i64::MAX))
            .fetch_all(&log.pool)
            .await
            .map_err(failed)?;
        let last = rows.last().map(|(seq, _)| *seq);
        if returned.is_some() {
            let mut returned = log.returned.lock();
            returned.pop_front();
            if let Some(last) = last.filter(|last| *last < until) {
                returned.push_front((last, until));
            }
        } else if let Some(last) = last {
            log.given.store(last, Ordering::Release);
        }
        let mut batch = Batch::default();
        if let Some(last) = last {
            self.taken = Some((after, last, rows.len() as u64));
        }
        rows.iter().for_each(|(seq, text)| {
            batch.add(text.as_bytes(), Place { log: "intake".to_owned(), seq: *seq })
        });
        Ok(batch)
    }

    /// Waits until there are `max` rows that nobody has, or until the time.
    async fn gather(&self, max: usize, until: Option<Instant>) {
        let enough = |head: &i64| {
            let wanted = i64::try_from(max).unwrap_or(i64::MAX);
            head - self.log.given.load(Ordering::Acquire) >= wanted || !self.log.returned.lock().is_empty()
        };
        let mut head = self.log.head.subscribe();
        match until {
            Some(until) => _ = timeout_at(until, head.wait_for(enough)).await,
            None => _ = head.wait_for(enough).await,
        }
    }
}

#[async_trait]
impl IntakeReader for LocalReader {
    async fn take(&mut self, full: usize, flush: Duration) -> Result<Batch, IntakeError> {
        loop {
            self.gather(1, None).await;
            self.gather(full, Some(Instant::now() + flush)).await;
            let batch = self.next(most(full)).await?;
            // another reader may have been faster
            if !batch.is_empty() {
                return Ok(batch);
            }
        }
    }

    async fn done(&mut self) -> Result<(), IntakeError> {
        let Some((after, until, rows)) = self.taken else { return Ok(()) };
        let delete = "DELETE FROM intake WHERE seq > ? AND seq <= ?";
        sqlx::query(delete).bind(after).bind(until).execute(&self.log.pool).await.map_err(failed)?;
        self.taken = None;
        self.log.waiting.fetch_sub(rows, Ordering::AcqRel);
        Ok(())
    }
}

impl Drop for LocalReader {
    fn drop(&mut self) {
        if let Some((after, until, _)) = self.taken.take() {
            self.log.returned.lock().push_back((after, until));
            self.log.head.send_modify(|_| ());
        }
    }
}

fn failed(error: impl std::fmt::Display) -> IntakeError {
    IntakeError::Unavailable(error.to_string())
}

fn unwritten(error: &sqlx::Error) -> IntakeError {
    match is_full(error) {
        true => IntakeError::Full("the disk of the log of events is full".to_owned()),
        false => failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_accepted_event_is_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let log = LocalIntake::open(folder.path()).await.unwrap();
        let settings = log.settings().await.unwrap();
        let told: Vec<_> = settings.iter().map(|one| (one.name.as_str(), one.value.as_str())).collect();
        assert_eq!(told, [("synchronous", "FULL"), ("journal_mode", "wal")]);
    }

    use ::testing::Folder;

    use crate::intake::testing::{event, events, placed};

    const FLUSH: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn what_was_taken_and_not_done_is_given_again_also_after_a_restart() {
        let folder = Folder::new();
        let intake = LocalIntake::open(folder.path()).await.unwrap();
        let all = events(400);
        intake.append(all.clone()).await.unwrap();
        let all = placed(all);
        let mut one = intake.reader().await.unwrap();
        assert_eq!(
            one.take(10, FLUSH).await.unwrap().events,
            all[..160],
            "a queue stands: 16 batches at once"
        );
        one.done().await.unwrap();
        assert_eq!(one.take(10, FLUSH).await.unwrap().events, all[160..320]);
        let mut two = intake.reader().await.unwrap();
        assert_eq!(two.take(10, FLUSH).await.unwrap().events, all[320..], "readers share");
        assert_eq!(intake.waiting().await.unwrap(), 240);
        drop(one);
        two.done().await.unwrap();
        assert_eq!(two.take(10, FLUSH).await.unwrap().events, all[160..320], "what another left");
        drop((two, intake));

        let intake = LocalIntake::open(folder.path()).await.unwrap();
        assert_eq!(intake.waiting().await.unwrap(), 160);
        let mut reader = intake.reader().await.unwrap();
        assert_eq!(reader.take(100, FLUSH).await.unwrap().events, all[160..320]);
        reader.done().await.unwrap();
        intake.append(vec![event(99)]).await.unwrap();
        assert_eq!(reader.take(100, FLUSH).await.unwrap().events[0].stock, 99);
    }

    #[tokio::test]
    async fn what_is_no_event_is_given_as_such_and_holds_up_nothing() {
        let folder = Folder::new();
        let intake = LocalIntake::open(folder.path()).await.unwrap();
        intake.append(vec![event(1)]).await.unwrap();
        sqlx::query("UPDATE intake SET event = 'no event'").execute(&intake.log.pool).await.unwrap();
        intake.append(vec![event(2)]).await.unwrap();
        let mut reader = intake.reader().await.unwrap();
        let batch = reader.take(100, FLUSH).await.unwrap();
        assert_eq!(batch.events.iter().map(|event| event.stock).collect::<Vec<_>>(), [2]);
        assert_eq!(batch.unreadable[0].text, "no event");
        assert!(batch.unreadable[0].place == "intake/1" && !batch.unreadable[0].error.is_empty());
        reader.done().await.unwrap();
        assert_eq!(intake.waiting().await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_batch_is_given_when_it_is_full_or_when_its_time_is_over() {
        let folder = Folder::new();
        let intake = Arc::new(LocalIntake::open(folder.path()).await.unwrap());
        let mut reader = intake.reader().await.unwrap();
        let hour = Duration::from_secs(3_600);
        let appends = futures::future::join_all((0..50).map(|n| {
            let intake = intake.clone();
            async move { intake.append(vec![event(n)]).await.unwrap() }
        }));
        let (taken, _) = tokio::join!(reader.take(50, hour), appends);
        assert_eq!(taken.unwrap().len(), 50);
        reader.done().await.unwrap();
        intake.append(events(3)).await.unwrap();
        assert_eq!(reader.take(50, FLUSH).await.unwrap().len(), 3);
    }
}
