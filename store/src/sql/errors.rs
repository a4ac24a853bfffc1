//! What the errors of databases mean.

#[cfg(feature = "mysql")]
use sqlx::mysql::MySqlDatabaseError;
use sqlx::{error::DatabaseError, sqlite::SqliteError};

#[cfg(feature = "mysql")]
use super::mysql::fault::of_number;
use super::{
    StoreError,
    fault::{Fault, unprepared},
};
use crate::confined::PoolReason;

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

fn of_database(error: &dyn DatabaseError) -> Fault {
    #[cfg(feature = "mysql")]
    if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
        return of_number(error.number(), error.code().unwrap_or_default(), error.message());
    }
    if error.try_downcast_ref::<SqliteError>().is_some() {
        let code = error.code().and_then(|code| code.parse().ok()).unwrap_or_default();
        of_sqlite(code, error.message())
    } else {
        Fault::Lost(error.message().to_owned())
    }
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

#[cfg(all(test, feature = "mysql"))]
mod tests {
    use super::*;
    use crate::{
        confined::PoolFault,
        sql::mysql::fault::{column_of, foreign_column_of},
    };

    #[test]
    fn the_index_of_a_duplicate_is_found_behind_a_hostile_value() {
        let message = "Duplicate entry 'x' for key 'no' for key 'users.users_email'";
        assert!(
            matches!(of_number(1062, "HY000", message), Fault::Taken(index) if index == "users.users_email")
        );
        let message = "UNIQUE constraint failed: users.email";
        assert!(matches!(of_sqlite(2067, message), Fault::Taken(index) if index == "users.email"));
    }

    #[test]
    fn a_full_disk_is_told_and_is_no_lost_connection() {
        let full = [
            of_number(1021, "HY000", "Disk full (/var/lib/mysql); waiting for someone to free some space..."),
            of_number(1114, "HY000", "The table 'users' is full"),
            of_number(
                3,
                "HY000",
                "Error writing file './binlog.000002' (OS errno 28 - No space left on device)",
            ),
            of_number(
                1026,
                "HY000",
                "Error writing file './binlog.000002' (errno: 28 \"No space left on device\")",
            ),
            of_number(1030, "HY000", "Got error 28 - 'No space left on device' from storage engine"),
            of_sqlite(13, "database or disk is full"),
        ];
        for fault in full {
            assert!(matches!(fault, Fault::Store(StoreError::Full(_))), "{fault:?}");
        }
        assert!(matches!(of_number(1030, "HY000", "Got error 168 from storage engine"), Fault::Lost(_)));
    }

    #[test]
    fn what_a_table_lacks_is_told_in_our_own_words() {
        let told = |fault: Fault| match fault {
            Fault::Store(StoreError::Unprepared(PoolFault { reason, message })) => (reason, message),
            other => panic!("{other:?}"),
        };
        let cases = [
            (
                of_number(1146, "HY000", "Table 'shop.widgets' doesn't exist"),
                PoolReason::TableMissing,
                "the database has no table widgets",
            ),
            (
                of_number(1054, "HY000", "Unknown column 'widgets.qty' in 'field list'"),
                PoolReason::ColumnMissing,
                "there is no column qty",
            ),
            (
                of_number(
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
                let text = format!("{:?}", of_number(number, state, "value 'secret' for key 'users.email'"));
                assert!(!text.contains("secret"), "{text}");
            }
        }
    }

    #[test]
    fn what_repeating_cannot_mend_is_not_said_to_pass() {
        let lost =
            |number, state| matches!(of_number(number, state, ""), Fault::Lost(_) | Fault::Conflict(_));
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
