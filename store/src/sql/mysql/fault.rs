//! Which fault a number of a server's error means.

use crate::{
    StoreError,
    confined::PoolReason,
    sql::fault::{Fault, UNHELD, unprepared},
};

/// Messages of a server can carry values of records, and what a trigger's author wrote: only names of columns
/// and indexes are taken from them.
pub fn of_number(number: u16, state: &str, message: &str) -> Fault {
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
pub fn column_of(message: &str) -> Option<String> {
    let behind =
        message.rsplit_once(" column ").map(|(_, rest)| rest).or_else(|| message.strip_prefix("Column "))?;
    if let Some(rest) = behind.strip_prefix('\'') {
        return rest.split_once('\'').map(|(name, _)| name.to_owned());
    }
    let path = behind.strip_prefix('`')?.split_once("` ").map_or(behind, |(path, _)| path);
    path.rsplit("`.`").next().map(|name| name.trim_matches('`').to_owned())
}

/// The column of `FOREIGN KEY (`name`)`, where it is one.
pub fn foreign_column_of(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("FOREIGN KEY (`")?;
    let (name, rest) = rest.split_once('`')?;
    rest.starts_with(')').then(|| name.to_owned())
}

fn full(number: u16) -> Fault {
    Fault::Store(StoreError::Full(format!("the disk of the database is full (error {number})")))
}

/// The first name between quotes, as servers name what they lack.
fn quoted(message: &str) -> Option<&str> {
    message.split(['\'', '`']).nth(1).filter(|name| !name.is_empty())
}
