//! What the database says of the columns of a declared table, and what each holds exactly.

use sea_query::Value as SqlValue;

use super::{
    ddl::Server,
    dialect::{Dialect, Sql},
    fault::Fault,
    session::Session,
};
use crate::limits::{Charset, Clock, Hold, Limit, Text};
use model::{
    change::Collection,
    schema::{Field, Kind},
    value::Timestamp,
};

/// The years 1000 to 9999: what `DATETIME` holds.
const DATETIME: (i64, i64) = (-30_610_224_000_000, 253_402_300_799_999);
/// What `TIMESTAMP` holds: to 2038, or in MariaDB from 11.5, to 2106. An older one refuses by itself.
const TIMESTAMP_MIN: i64 = 1_000;
const TIMESTAMP_MAX: i64 = 2_147_483_647_999;
const TIMESTAMP_MAX_MARIADB: i64 = 4_294_967_295_999;

/// What the database says of a column.
#[derive(Default)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// `varchar`, `bigint`, `datetime`, …
    pub kind: String,
    /// Whether its numbers have no sign.
    pub unsigned: bool,
    collation: Option<String>,
    /// The whole type as it was declared: `decimal(10,2) unsigned`, `enum('a','b')`.
    declared: String,
    charset: Option<String>,
    chars: Option<u64>,
    bytes: Option<u64>,
    precision: Option<u64>,
    scale: Option<u64>,
    digits: Option<u64>,
    not_null: bool,
    /// Whether the database computes it.
    pub computed: bool,
    /// Whether the database gives it a number of its own where none is sent.
    pub counted: bool,
}

/// The columns of a table; none where there is no such table.
pub async fn columns(session: &mut Session, collection: &Collection) -> Result<Vec<Found>, Fault> {
    match session.dialect() {
        Dialect::Sqlite => of_sqlite(session, collection).await,
        Dialect::Mysql => of_mysql(session, collection).await,
    }
}

async fn of_sqlite(session: &mut Session, collection: &Collection) -> Result<Vec<Found>, Fault> {
    let text = "SELECT name, lower(type), CAST(\"notnull\" AS INTEGER), CAST(hidden AS INTEGER) FROM pragma_table_xinfo(?)";
    let rows = session.rows(Sql::new(text, vec![SqlValue::from(collection.name.as_str())])).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let declared = row.text(1)?.unwrap_or_default();
        let (kind, numbers) = type_of(&declared);
        let is_text = kind.contains("char");
        let is_time = matches!(kind.as_str(), "datetime" | "timestamp");
        found.push(Found {
            name: row.text(0)?.unwrap_or_default(),
            chars: numbers.first().copied().filter(|_| is_text),
            digits: numbers.first().copied().filter(|_| is_time),
            unsigned: declared.contains("unsigned"),
            not_null: row.int(2)? == Some(1),
            computed: row.int(3)?.is_some_and(|hidden| hidden > 1),
            kind,
            declared,
            ..Found::default()
        });
    }
    Ok(found)
}

/// The word and the numbers of a type: `decimal(10,2)`.
fn type_of(declared: &str) -> (String, Vec<u64>) {
    let (word, rest) = declared.split_once('(').unwrap_or((declared, ""));
    let numbers = rest.split(')').next().unwrap_or_default().split(',').filter_map(|n| n.trim().parse().ok());
    (word.split_whitespace().next().unwrap_or_default().to_owned(), numbers.collect())
}

async fn of_mysql(session: &mut Session, collection: &Collection) -> Result<Vec<Found>, Fault> {
    let text = "SELECT CONVERT(column_name USING utf8mb4), LOWER(CONVERT(data_type USING utf8mb4)), \
                CONVERT(column_type USING utf8mb4), CONVERT(collation_name USING utf8mb4), \
                CONVERT(character_set_name USING utf8mb4), CAST(character_maximum_length AS SIGNED), \
                CAST(character_octet_length AS SIGNED), CAST(numeric_precision AS SIGNED), CAST(numeric_scale AS SIGNED), \
                CAST(datetime_precision AS SIGNED), CONVERT(is_nullable USING utf8mb4), LOWER(CONVERT(extra USING utf8mb4)) \
                FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ? ORDER BY ordinal_position";
    let rows = session.rows(Sql::new(text, vec![SqlValue::from(collection.name.as_str())])).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let number = |at: usize| -> Result<Option<u64>, Fault> {
            Ok(row.int(at)?.and_then(|number| u64::try_from(number).ok()))
        };
        let declared = row.text(2)?.unwrap_or_default();
        let extra = row.text(11)?.unwrap_or_default();
        found.push(Found {
            name: row.text(0)?.unwrap_or_default(),
            kind: row.text(1)?.unwrap_or_default(),
            // not a member of an ENUM that is spelled so
            unsigned: !declared.contains('\'') && declared.to_ascii_lowercase().contains("unsigned"),
            collation: row.text(3)?,
            declared,
            charset: row.text(4)?,
            chars: number(5)?,
            bytes: number(6)?,
            precision: number(7)?,
            scale: number(8)?,
            digits: number(9)?,
            not_null: row.text(10)?.as_deref() == Some("NO"),
            counted: extra.contains("auto_increment"),
            // not `DEFAULT_GENERATED`, which is a default that is an expression
            computed: ["virtual", "stored", "persistent"]
                .iter()
                .any(|word| extra.split(' ').any(|part| part == *word)),
        });
    }
    Ok(found)
}

/// Triggers of a table that can change a record that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Triggers {
    /// There are none.
    None,
    /// There are.
    Some,
    /// The account may not see them.
    Hidden,
}

/// The triggers of a table. In MySQL those after a write cannot change its row, and only who may make
/// triggers sees them.
pub async fn triggers(session: &mut Session, collection: &Collection) -> Result<Triggers, Fault> {
    let name = || vec![SqlValue::from(collection.name.as_str())];
    let text = match session.dialect() {
        Dialect::Sqlite => {
            "SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE LIMIT 1"
        }
        Dialect::Mysql => {
            "SELECT 1 FROM information_schema.triggers WHERE event_object_schema = DATABASE() \
             AND event_object_table = ? AND action_timing = 'BEFORE' AND event_manipulation IN ('INSERT', 'UPDATE') LIMIT 1"
        }
    };
    if !session.rows(Sql::new(text, name())).await?.is_empty() {
        return Ok(Triggers::Some);
    }
    if session.dialect() == Dialect::Sqlite {
        return Ok(Triggers::None);
    }
    // a right that comes from a role is not found, and then triggers are taken to be hidden
    let own =
        "privilege_type = 'TRIGGER' AND grantee = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')";
    let text = format!(
        "SELECT 1 FROM information_schema.user_privileges WHERE {own} \
         UNION ALL SELECT 1 FROM information_schema.schema_privileges WHERE {own} AND DATABASE() LIKE table_schema \
         UNION ALL SELECT 1 FROM information_schema.table_privileges WHERE {own} AND table_schema = DATABASE() \
         AND table_name = ?"
    );
    Ok(match session.rows(Sql::new(text, name())).await?.is_empty() {
        true => Triggers::Hidden,
        false => Triggers::None,
    })
}

impl Found {
    /// Whether it holds text.
    pub fn is_text(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "enum"
        )
    }

    /// Whether it holds whole numbers.
    pub fn is_int(&self) -> bool {
        matches!(self.kind.as_str(), "tinyint" | "smallint" | "mediumint" | "int" | "bigint")
    }

    /// Whether it holds points in time.
    pub fn is_time(&self, dialect: Dialect) -> bool {
        dialect == Dialect::Sqlite || matches!(self.kind.as_str(), "datetime" | "timestamp")
    }

    /// Whether its text compares by bytes.
    pub fn is_bytewise(&self, server: Server) -> bool {
        self.collation.as_deref() == Some(server.collation())
    }

    /// Whether the column holds the values of a field. What SQLite holds in a column is not bound to its
    /// type.
    pub fn holds(&self, field: &Field, dialect: Dialect) -> bool {
        if dialect == Dialect::Sqlite {
            let decimal = matches!(field.kind, Kind::Decimal { .. }) && !field.encrypted;
            return !decimal || self.kind == "text";
        }
        match field.kind {
            _ if field.encrypted => self.is_text(),
            Kind::Text { .. } | Kind::Choice(_) => self.is_text(),
            Kind::Int { .. } | Kind::Bool => self.is_int(),
            Kind::Decimal { .. } => self.kind == "decimal",
            Kind::Time => self.is_time(dialect),
            Kind::Json { .. } => self.is_text() || self.kind == "json",
        }
    }

    /// What the column of a field holds exactly. Where this file's database does not bind values to types, as
    /// MySQL would hold them.
    pub fn limit(&self, field: &Field, server: Server) -> Limit {
        let hold = match &field.kind {
            Kind::Text { .. } | Kind::Choice(_) | Kind::Json { .. } => self.text(),
            Kind::Int { .. } => self.int(),
            Kind::Decimal { .. } if server == Server::Sqlite => DECIMAL_MOST,
            Kind::Decimal { .. } => self.decimal(),
            Kind::Time => self.time(server),
            Kind::Bool => Hold::Any,
        };
        Limit { hold, not_null: self.not_null && !self.counted, computed: self.computed }
    }

    /// What the column of a key holds exactly.
    pub fn key(&self) -> Hold {
        match self.kind.as_str() {
            // SQLite's are all of 64 bits
            "integer" => Hold::Int { min: i128::from(i64::MIN), max: i128::from(i64::MAX) },
            // a file's other numbers are no keys that are numbers
            _ if self.is_int() && (self.precision.is_some() || self.kind == "int") => self.int(),
            _ => self.text(),
        }
    }

    /// A column of times that the store itself fills.
    pub fn clock(&self) -> Clock {
        let min = if self.kind == "timestamp" { TIMESTAMP_MIN } else { i64::MIN };
        let digits = self.digits.and_then(|digits| u32::try_from(digits).ok());
        Clock { digits: digits.unwrap_or(3), min: Timestamp(min) }
    }

    fn int(&self) -> Hold {
        let bits = match self.kind.as_str() {
            "tinyint" => 8,
            "smallint" => 16,
            "mediumint" => 24,
            "int" if self.precision.is_some() => 32,
            "bigint" | "int" if self.precision.is_some() => 64,
            // SQLite's are all of 64 bits with a sign: of what is declared without one it holds the half
            _ => {
                let min = if self.unsigned { 0 } else { i128::from(i64::MIN) };
                return Hold::Int { min, max: i128::from(i64::MAX) };
            }
        };
        match self.unsigned {
            true => Hold::Int { min: 0, max: (1_i128 << bits) - 1 },
            false => Hold::Int { min: -(1_i128 << (bits - 1)), max: (1_i128 << (bits - 1)) - 1 },
        }
    }

    fn decimal(&self) -> Hold {
        let count =
            |number: Option<u64>| number.and_then(|number| usize::try_from(number).ok()).unwrap_or_default();
        let (precision, scale) = (count(self.precision), count(self.scale));
        Hold::Decimal { whole: precision.saturating_sub(scale), scale, unsigned: self.unsigned }
    }

    fn text(&self) -> Hold {
        if self.kind == "enum" {
            return Hold::Words(members(&self.declared));
        }
        let is_short = self.kind.contains("char");
        let charset = match self.charset.as_deref() {
            None | Some("utf8mb4") => Charset::Utf8,
            Some("utf8" | "utf8mb3") => Charset::Utf8mb3,
            Some("latin1") => Charset::Latin1,
            Some("ascii") => Charset::Ascii,
            Some(_) => Charset::Other,
        };
        // in characters, but for what has a size in bytes
        let (chars, bytes) = if is_short { (self.chars, None) } else { (None, self.bytes) };
        Hold::Text(Text { chars, bytes, charset, trims: self.kind == "char" })
    }

    fn time(&self, server: Server) -> Hold {
        let (min, max) = match (self.kind.as_str(), server) {
            ("timestamp", Server::Mysql) => (TIMESTAMP_MIN, TIMESTAMP_MAX),
            ("timestamp", Server::Mariadb) => (TIMESTAMP_MIN, TIMESTAMP_MAX_MARIADB),
            _ => DATETIME,
        };
        let digits = self.digits.and_then(|digits| u32::try_from(digits).ok()).unwrap_or(3);
        Hold::Time { digits, min: Timestamp(min), max: Timestamp(max) }
    }
}

/// The most that any `DECIMAL` of MySQL holds.
const DECIMAL_MOST: Hold = Hold::Decimal { whole: 65, scale: 30, unsigned: false };

/// The members of an `enum('a','b''c')`.
fn members(declared: &str) -> Vec<String> {
    let inner = declared.split_once('(').map_or("", |(_, rest)| rest);
    let mut members = Vec::new();
    let mut chars = inner.chars().peekable();
    while let Some(start) = chars.next() {
        if start != '\'' {
            continue;
        }
        let mut member = String::new();
        while let Some(c) = chars.next() {
            match c {
                '\'' if chars.next_if_eq(&'\'').is_some() => member.push('\''),
                '\'' => break,
                '\\' => member.extend(chars.next()),
                c => member.push(c),
            }
        }
        members.push(member);
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_an_enum_are_as_they_are_spelled() {
        assert_eq!(members("enum('a','B c','it''s',',',')','')"), ["a", "B c", "it's", ",", ")", ""]);
    }

    #[test]
    fn types_have_words_and_numbers() {
        assert_eq!(type_of("varchar(20)"), ("varchar".to_owned(), vec![20]));
        assert_eq!(type_of("decimal( 10 , 2 ) unsigned"), ("decimal".to_owned(), vec![10, 2]));
        assert_eq!(type_of("smallint unsigned"), ("smallint".to_owned(), vec![]));
        assert_eq!(type_of("text"), ("text".to_owned(), vec![]));
    }
}
