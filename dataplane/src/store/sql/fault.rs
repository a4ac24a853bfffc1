//! What can go wrong with a statement, and which `StoreError` it means.
//!
//! `Unavailable` says that nothing was changed and the same call may succeed later. `Unknown` is said in one place
//! only: the server was asked to commit and no answer came.

use sqlx::{error::DatabaseError, mysql::MySqlDatabaseError, sqlite::SqliteError};

use super::StoreError;
use crate::store::confined::{PoolFault, PoolReason};

/// Why a statement failed.
#[derive(Debug)]
pub enum Fault {
    /// Another transaction was in the way and this one was given up: it may be done again from its start.
    Conflict(String),
    /// A unique index has the value already: the server's name for it, `index` or `table.column`.
    Taken(String),
    /// The connection is gone, or could not be had in time.
    Lost(String),
    /// Another transaction came first: looked at again, the change may go well, and if not, this is why.
    Raced(StoreError),
    /// Anything else.
    Store(StoreError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => of_database(error.as_ref()),
            sqlx::Error::ColumnDecode { source, .. } | sqlx::Error::Decode(source) => {
                Self::Store(StoreError::Corrupt(source.to_string()))
            }
            sqlx::Error::PoolTimedOut => Self::Lost("no connection became free in time".to_owned()),
            other => Self::Lost(other.to_string()),
        }
    }
}

impl From<Fault> for StoreError {
    /// For what did not commit anything.
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Conflict(why) | Fault::Lost(why) => Self::Unavailable(why),
            Fault::Taken(index) => Self::Duplicate { field: index },
            Fault::Raced(error) | Fault::Store(error) => error,
        }
    }
}

fn of_database(error: &dyn DatabaseError) -> Fault {
    if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
        of_mysql(error.number(), error.message())
    } else if error.try_downcast_ref::<SqliteError>().is_some() {
        let code = error.code().and_then(|code| code.parse().ok()).unwrap_or_default();
        of_sqlite(code, error.message())
    } else {
        Fault::Lost(error.message().to_owned())
    }
}

/// Messages that can carry values of records are replaced by words of our own.
fn of_mysql(number: u16, message: &str) -> Fault {
    let unsupported = |why: String| Fault::Store(StoreError::Unsupported(why));
    match number {
        // the value is quoted before the index, and may itself hold these words
        1062 => match message.rsplit_once("for key '") {
            Some((_, index)) => Fault::Taken(index.trim_end_matches('\'').to_owned()),
            None => Fault::Taken(String::new()),
        },
        // lock wait timeout, deadlock, a snapshot that is too old
        1205 | 1213 | 1020 => Fault::Conflict(format!("the database gave up waiting for a lock (error {number})")),
        // the disk, the tablespace or the place for temporary files is full; 28 is the operating system's word for it
        1021 | 1114 | 1878 | 3675 => full(number),
        3 | 20 | 1026 | 1030 if message.contains("28") => full(number),
        1051 | 1146 | 1932 => {
            let table = quoted(message).map(|name| format!(" {}", name.rsplit('.').next().unwrap_or(name)));
            unprepared(PoolReason::TableMissing, format!("the database has no table{}", table.unwrap_or_default()))
        }
        1054 | 1072 => {
            let column = quoted(message).map(|name| format!(" {}", name.rsplit('.').next().unwrap_or(name)));
            unprepared(PoolReason::ColumnMissing, format!("there is no column{}", column.unwrap_or_default()))
        }
        // the account may not do it: the message names the statement first, and the account
        1044 | 1142..=1145 | 1147 | 1227 | 1370 => {
            let what = message.split_whitespace().next().filter(|word| word.bytes().all(|b| b.is_ascii_uppercase()));
            let why = format!("the account may not {} here (error {number})", what.unwrap_or("do this"));
            unprepared(PoolReason::RightMissing, why)
        }
        // a broken view, a damaged table, a lost tablespace, a definition that does not fit what is there
        1034 | 1060 | 1061 | 1071 | 1118 | 1170 | 1194 | 1195 | 1356 | 1449 | 1812 => {
            unprepared(PoolReason::PoolUnavailable, format!("the table cannot be used as it is (error {number})"))
        }
        // no default for a column
        1364 => unsupported(format!("the database refuses: {message}")),
        1048 => unsupported(format!("the database wants a value where there is none: {message}")),
        1264 | 1265 | 1366 | 1406 | 1292 | 3140 | 4025 | 3819 => {
            unsupported(format!("a value does not fit its column (error {number})"))
        }
        1451 | 1452 => unsupported(format!("a foreign key does not allow this (error {number})")),
        // too many connections, shutting down, killed, read-only: it may pass
        _ => Fault::Lost(format!("the database answers with error {number}")),
    }
}

fn full(number: u16) -> Fault {
    Fault::Store(StoreError::Full(format!("the disk of the database is full (error {number})")))
}

fn unprepared(reason: PoolReason, message: String) -> Fault {
    Fault::Store(StoreError::Unprepared(PoolFault::new(reason, message)))
}

/// The first name between quotes, as servers name what they lack.
fn quoted(message: &str) -> Option<&str> {
    message.split(['\'', '`']).nth(1).filter(|name| !name.is_empty())
}

/// What SQLite lacks of a table; it has one code for this and for wrong statements.
fn lacking(message: &str) -> Option<Fault> {
    let after = |words: &str| message.split_once(words).map(|(_, name)| name.rsplit('.').next().unwrap_or(name));
    let missing = |what: &str, name: &str| format!("{what} {}", name.split(['"', ' ']).next().unwrap_or_default());
    if let Some(name) = after("no such table: ") {
        return Some(unprepared(PoolReason::TableMissing, missing("the database has no table", name)));
    }
    let name = after("no such column: ").or_else(|| after("has no column named "))?;
    Some(unprepared(PoolReason::ColumnMissing, missing("there is no column", name)))
}

fn of_sqlite(code: i32, message: &str) -> Fault {
    if code & 0xff == 1
        && let Some(fault) = lacking(message)
    {
        return fault;
    }
    match (code & 0xff, code) {
        (_, 2067 | 1555 | 2579) => Fault::Taken(message.rsplit(": ").next().unwrap_or_default().to_owned()),
        (13, _) => Fault::Store(StoreError::Full("the disk of the database file is full".to_owned())),
        // busy, locked
        (5 | 6, _) => Fault::Conflict("the database file is locked by another process".to_owned()),
        (11 | 26, _) => Fault::Store(StoreError::Corrupt(format!("the database file is damaged: {message}"))),
        // a wrong statement, too big, a constraint, a mismatch, misuse, out of range
        (1 | 18 | 19 | 20 | 21 | 25, _) => {
            Fault::Store(StoreError::Unsupported(format!("the database refuses: {message}")))
        }
        // no permission, input or output, cannot open, read-only
        _ => Fault::Lost(format!("the database file cannot be used: {message} (error {code})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_a_duplicate_is_found_behind_a_hostile_value() {
        let message = "Duplicate entry 'x' for key 'no' for key 'users.users_email'";
        assert!(matches!(of_mysql(1062, message), Fault::Taken(index) if index == "users.users_email"));
        let message = "UNIQUE constraint failed: users.email";
        assert!(matches!(of_sqlite(2067, message), Fault::Taken(index) if index == "users.email"));
    }

    #[test]
    fn a_full_disk_is_told_and_is_no_lost_connection() {
        let full = [
            of_mysql(1021, "Disk full (/var/lib/mysql); waiting for someone to free some space..."),
            of_mysql(1114, "The table 'users' is full"),
            of_mysql(3, "Error writing file './binlog.000002' (OS errno 28 - No space left on device)"),
            of_mysql(1026, "Error writing file './binlog.000002' (errno: 28 \"No space left on device\")"),
            of_mysql(1030, "Got error 28 - 'No space left on device' from storage engine"),
            of_sqlite(13, "database or disk is full"),
        ];
        for fault in full {
            assert!(matches!(fault, Fault::Store(StoreError::Full(_))), "{fault:?}");
        }
        assert!(matches!(of_mysql(1030, "Got error 168 from storage engine"), Fault::Lost(_)));
    }

    #[test]
    fn what_a_table_lacks_is_told_in_our_own_words() {
        let told = |fault: Fault| match fault {
            Fault::Store(StoreError::Unprepared(PoolFault { reason, message })) => (reason, message),
            other => panic!("{other:?}"),
        };
        let cases = [
            (
                of_mysql(1146, "Table 'shop.widgets' doesn't exist"),
                PoolReason::TableMissing,
                "the database has no table widgets",
            ),
            (
                of_mysql(1054, "Unknown column 'widgets.qty' in 'field list'"),
                PoolReason::ColumnMissing,
                "there is no column qty",
            ),
            (
                of_mysql(1142, "INSERT command denied to user 'shop'@'10.0.0.1' for table 'widgets'"),
                PoolReason::RightMissing,
                "the account may not INSERT here (error 1142)",
            ),
            (
                of_sqlite(1, "no such table: main.widgets"),
                PoolReason::TableMissing,
                "the database has no table widgets",
            ),
            (of_sqlite(1, "no such column: widgets.qty"), PoolReason::ColumnMissing, "there is no column qty"),
            (
                of_sqlite(1, "table widgets has no column named qty"),
                PoolReason::ColumnMissing,
                "there is no column qty",
            ),
        ];
        for (fault, reason, message) in cases {
            assert_eq!(told(fault), (reason, message.to_owned()));
        }
    }

    #[test]
    fn values_of_records_are_not_in_errors() {
        for number in [1062, 1366, 1292, 1406, 9999] {
            let text = format!("{:?}", of_mysql(number, "value 'secret' for key 'users.email'"));
            assert!(!text.contains("secret"), "{text}");
        }
    }
}
