//! What can go wrong with a statement, and which `StoreError` it means.
//!
//! `Unavailable` says that nothing was changed and the same call may succeed later. `Unknown` is said in one
//! place only: the server was asked to commit and no answer came.

use sqlx::{error::DatabaseError, mysql::MySqlDatabaseError, sqlite::SqliteError};

use super::StoreError;
use crate::confined::{PoolFault, PoolReason};

/// Why text is refused that its column's character set does not have.
pub const UNHELD: &str = "holds characters that its column cannot hold";

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
    /// The database refuses the values of a write: why, and the column that it names, if any. Of anything but
    /// a write it is a fault of the store.
    Refused {
        /// In our own words.
        why: &'static str,
        /// The column's name.
        column: Option<String>,
    },
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
            Fault::Refused { why, .. } => {
                Self::Setup(format!("the database refuses what it was sent: {why}"))
            }
            Fault::Raced(error) | Fault::Store(error) => error,
        }
    }
}

fn of_database(error: &dyn DatabaseError) -> Fault {
    if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
        of_mysql(error.number(), error.code().unwrap_or_default(), error.message())
    } else if error.try_downcast_ref::<SqliteError>().is_some() {
        let code = error.code().and_then(|code| code.parse().ok()).unwrap_or_default();
        of_sqlite(code, error.message())
    } else {
        Fault::Lost(error.message().to_owned())
    }
}

/// Messages of a server can carry values of records, and what a trigger's author wrote: only names of columns
/// and indexes are taken from them.
fn of_mysql(number: u16, state: &str, message: &str) -> Fault {
    let setup = |why: &str| Fault::Store(StoreError::Setup(format!("{why} (error {number})")));
    let refused = |why| Fault::Refused { why, column: column_of(message) };
    // what a trigger or a procedure says, whatever number it gives
    if state == "45000" {
        return Fault::Refused { why: "a trigger of the table does not allow this", column: None };
    }
    match number {
        // the value is quoted before the index, and may itself hold these words
        1062 => match message.rsplit_once("for key '") {
            Some((_, index)) => Fault::Taken(index.trim_end_matches('\'').to_owned()),
            None => Fault::Taken(String::new()),
        },
        // lock wait timeout, deadlock, a snapshot that is too old, a definition that changed under a
        // statement
        1205 | 1213 | 1020 | 1412 | 1615 => {
            Fault::Conflict(format!("the database gave up waiting for a lock (error {number})"))
        }
        1048 => refused("must not be null: its column has no nulls"),
        1264 | 1690 => refused("is out of the range of its column"),
        1406 => refused("is too long for its column"),
        1265 | 1366 | 1292 | 1441 | 3140 | 3141 | 3157 => refused("is not what its column can hold"),
        // a character set that only the server knows: it does not say which column
        3988 => Fault::Refused { why: UNHELD, column: None },
        3819 | 4025 => Fault::Refused { why: "a check of the table does not allow this", column: None },
        1451 | 1217 => Fault::Refused { why: "a record of another table refers to this one", column: None },
        1452 | 1216 => Fault::Refused {
            why: "names a record that is not there, as a foreign key of the table tells",
            column: foreign_column_of(message),
        },
        1364 => {
            setup("a column of the table that is not declared has no default, so no record can be created")
        }
        // the disk, the tablespace or the place for temporary files is full; 28 is the operating system's
        // word for it
        1021 | 1114 | 1878 | 3675 => full(number),
        3 | 20 | 1026 | 1030 if message.contains("28") => full(number),
        1051 | 1146 | 1932 => {
            let table = quoted(message).map(|name| format!(" {}", name.rsplit('.').next().unwrap_or(name)));
            unprepared(
                PoolReason::TableMissing,
                format!("the database has no table{}", table.unwrap_or_default()),
            )
        }
        1054 | 1072 => {
            let column = quoted(message).map(|name| format!(" {}", name.rsplit('.').next().unwrap_or(name)));
            unprepared(PoolReason::ColumnMissing, format!("there is no column{}", column.unwrap_or_default()))
        }
        // the account may not do it: the message names the statement first, and the account
        1044 | 1142..=1145 | 1147 | 1227 | 1370 => {
            let what =
                message.split_whitespace().next().filter(|word| word.bytes().all(|b| b.is_ascii_uppercase()));
            let why = format!("the account may not {} here (error {number})", what.unwrap_or("do this"));
            unprepared(PoolReason::RightMissing, why)
        }
        // a broken view, a damaged table, a lost tablespace, a definition that does not fit what is there
        1034 | 1060 | 1061 | 1071 | 1118 | 1170 | 1194 | 1195 | 1356 | 1449 | 1812 => unprepared(
            PoolReason::PoolUnavailable,
            format!("the table cannot be used as it is (error {number})"),
        ),
        1193 => setup("the server lacks a setting that is relied on"),
        1906 | 3105 | 3106 => setup("a column is generated, and cannot be written"),
        1153 => {
            Fault::Refused { why: "is more than the server takes at once (max_allowed_packet)", column: None }
        }
        _ => of_state(number, state),
    }
}

/// By the class of the state that standard SQL gives an error. What is in none may pass: too many
/// connections, shutting down, killed, read-only.
fn of_state(number: u16, state: &str) -> Fault {
    match state.get(..2) {
        Some("22" | "23" | "44") => {
            Fault::Refused { why: "the table does not allow these values", column: None }
        }
        Some("40") => Fault::Conflict(format!("the database gave up a transaction (error {number})")),
        // but for those of the sign-in, which a rotated Secret mends, and for limits of an account
        Some("42") if !matches!(number, 1045 | 1049 | 1203 | 1226) => Fault::Store(StoreError::Setup(
            format!("the database does not take a statement (error {number})"),
        )),
        _ => Fault::Lost(format!("the database answers with error {number}")),
    }
}

/// The column that a message names behind the value: `… for column 'name' at row 1`, or, alone, `Column
/// 'name' …`; MariaDB writes some as `database`.`table`.`name`.
fn column_of(message: &str) -> Option<String> {
    let behind =
        message.rsplit_once(" column ").map(|(_, rest)| rest).or_else(|| message.strip_prefix("Column "))?;
    if let Some(rest) = behind.strip_prefix('\'') {
        return rest.split_once('\'').map(|(name, _)| name.to_owned());
    }
    let path = behind.strip_prefix('`')?.split_once("` ").map_or(behind, |(path, _)| path);
    path.rsplit("`.`").next().map(|name| name.trim_matches('`').to_owned())
}

/// The column of `FOREIGN KEY (`name`)`, where it is one.
fn foreign_column_of(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("FOREIGN KEY (`")?;
    let (name, rest) = rest.split_once('`')?;
    rest.starts_with(')').then(|| name.to_owned())
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
    let after =
        |words: &str| message.split_once(words).map(|(_, name)| name.rsplit('.').next().unwrap_or(name));
    let missing =
        |what: &str, name: &str| format!("{what} {}", name.split(['"', ' ']).next().unwrap_or_default());
    if let Some(name) = after("no such table: ") {
        return Some(unprepared(PoolReason::TableMissing, missing("the database has no table", name)));
    }
    let name = after("no such column: ").or_else(|| after("has no column named "))?;
    Some(unprepared(PoolReason::ColumnMissing, missing("there is no column", name)))
}

fn of_sqlite(code: i32, message: &str) -> Fault {
    let setup = |why: &str| Fault::Store(StoreError::Setup(format!("{why} (error {code})")));
    let refused = |why| Fault::Refused { why, column: None };
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
        (11 | 26, _) => {
            Fault::Store(StoreError::Corrupt(format!("the database file is damaged (error {code})")))
        }
        (_, 1811) => refused("a trigger of the table does not allow this"),
        (_, 275) => refused("a check of the table does not allow this"),
        (_, 787) => refused("a foreign key of the table does not allow this"),
        (_, 1299) => Fault::Refused {
            why: "must not be null: its column has no nulls",
            column: message.rsplit('.').next().map(str::to_owned),
        },
        // too big, another constraint, a mismatch
        (18..=20, _) => refused("the table does not allow these values"),
        // a statement that names what is not there, misuse, out of range
        (1 | 21 | 25, _) => setup("a table or column is gone or has another name, or a trigger fails"),
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
        assert!(
            matches!(of_mysql(1062, "HY000", message), Fault::Taken(index) if index == "users.users_email")
        );
        let message = "UNIQUE constraint failed: users.email";
        assert!(matches!(of_sqlite(2067, message), Fault::Taken(index) if index == "users.email"));
    }

    #[test]
    fn a_full_disk_is_told_and_is_no_lost_connection() {
        let full = [
            of_mysql(1021, "HY000", "Disk full (/var/lib/mysql); waiting for someone to free some space..."),
            of_mysql(1114, "HY000", "The table 'users' is full"),
            of_mysql(
                3,
                "HY000",
                "Error writing file './binlog.000002' (OS errno 28 - No space left on device)",
            ),
            of_mysql(
                1026,
                "HY000",
                "Error writing file './binlog.000002' (errno: 28 \"No space left on device\")",
            ),
            of_mysql(1030, "HY000", "Got error 28 - 'No space left on device' from storage engine"),
            of_sqlite(13, "database or disk is full"),
        ];
        for fault in full {
            assert!(matches!(fault, Fault::Store(StoreError::Full(_))), "{fault:?}");
        }
        assert!(matches!(of_mysql(1030, "HY000", "Got error 168 from storage engine"), Fault::Lost(_)));
    }

    #[test]
    fn what_a_table_lacks_is_told_in_our_own_words() {
        let told = |fault: Fault| match fault {
            Fault::Store(StoreError::Unprepared(PoolFault { reason, message })) => (reason, message),
            other => panic!("{other:?}"),
        };
        let cases = [
            (
                of_mysql(1146, "HY000", "Table 'shop.widgets' doesn't exist"),
                PoolReason::TableMissing,
                "the database has no table widgets",
            ),
            (
                of_mysql(1054, "HY000", "Unknown column 'widgets.qty' in 'field list'"),
                PoolReason::ColumnMissing,
                "there is no column qty",
            ),
            (
                of_mysql(
                    1142,
                    "HY000",
                    "INSERT command denied to user 'shop'@'10.0.0.1' for table 'widgets'",
                ),
                PoolReason::RightMissing,
                "the account may not INSERT here (error 1142)",
            ),
            (
                of_sqlite(1, "no such table: main.widgets"),
                PoolReason::TableMissing,
                "the database has no table widgets",
            ),
            (
                of_sqlite(1, "no such column: widgets.qty"),
                PoolReason::ColumnMissing,
                "there is no column qty",
            ),
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
        for number in [1062, 1366, 1292, 1406, 1142, 1048, 1644, 9999] {
            for state in ["45000", "22001", "42S22", "HY000", ""] {
                let text = format!("{:?}", of_mysql(number, state, "value 'secret' for key 'users.email'"));
                assert!(!text.contains("secret"), "{text}");
            }
        }
    }

    #[test]
    fn what_repeating_cannot_mend_is_not_said_to_pass() {
        let lost = |number, state| matches!(of_mysql(number, state, ""), Fault::Lost(_) | Fault::Conflict(_));
        let lasting = [
            (1644, "45000"),
            (3819, "HY000"),
            (4025, "23000"),
            (1451, "23000"),
            (1452, "23000"),
            (1441, "22008"),
            (1406, "22001"),
            (1264, "22003"),
            (1265, "01000"),
            (1366, "HY000"),
            (1292, "22007"),
            (1048, "23000"),
            (1054, "42S22"),
            (1146, "42S02"),
            (1142, "42000"),
            (1044, "42000"),
            (1364, "HY000"),
            (1690, "22003"),
            (3105, "HY000"),
            (3156, "22018"),
            (1305, "42000"),
        ];
        for (number, state) in lasting {
            assert!(!lost(number, state), "{number} {state}");
        }
        for (number, state) in [
            (1040, "08004"),
            (1045, "28000"),
            (1049, "42000"),
            (1053, "08S01"),
            (1205, "HY000"),
            (1213, "40001"),
            (1290, "HY000"),
        ] {
            assert!(lost(number, state), "{number} {state}");
        }
    }

    #[test]
    fn the_column_is_found_behind_a_hostile_value() {
        let message = "Incorrect string value: '\\xF0 for column 'no'' for column `a`.`b`.`label` at row 1";
        assert_eq!(column_of(message).as_deref(), Some("label"));
        assert_eq!(
            column_of("Incorrect value: ' column `x`' for column 'label' at row 1").as_deref(),
            Some("label")
        );
        assert_eq!(column_of("Data too long for column 'label' at row 1").as_deref(), Some("label"));
        assert_eq!(column_of("Column 'label' cannot be null").as_deref(), Some("label"));
        let message = "Cannot add: a constraint fails (`d`.`t`, CONSTRAINT `x` FOREIGN KEY (`shelf`) REFERENCES `s` (`id`))";
        assert_eq!(foreign_column_of(message).as_deref(), Some("shelf"));
        assert_eq!(foreign_column_of(&message.replace("(`shelf`)", "(`shelf`,`b`)")), None);
    }
}
