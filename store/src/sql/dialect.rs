//! Where MySQL and SQLite differ in what is sent to them: text of statements and forms of values.

use std::sync::Arc;

use rust_decimal::Decimal;
use sea_query::{MysqlQueryBuilder, SimpleExpr, SqliteQueryBuilder, Value as SqlValue, Values};
use sea_query_sqlx::{SqlxBinder, SqlxValues};
use time::{OffsetDateTime, PrimitiveDateTime};

use model::value::{Timestamp, Value};

/// The SQL that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// MySQL and MariaDB.
    Mysql,
}

/// A statement with its values.
pub struct Sql {
    /// The text, with a `?` for each value.
    pub text: Arc<str>,
    /// The values.
    pub values: SqlxValues,
}

/// The collation of SQLite's decimal columns, which hold text: compares by the exact number.
pub const DECIMAL_COLLATION: &str = "flyweight_decimal";

impl Dialect {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Mysql => "mysql",
        }
    }

    /// The text and values of a statement.
    pub fn build(self, statement: &impl SqlxBinder) -> Sql {
        let (text, values) = match self {
            Self::Sqlite => statement.build_sqlx(SqliteQueryBuilder),
            Self::Mysql => statement.build_sqlx(MysqlQueryBuilder),
        };
        Sql { text: text.into(), values }
    }

    /// A value as a column of its kind holds it.
    pub fn value(self, value: &Value) -> SqlValue {
        match value {
            Value::Null => SqlValue::String(None),
            Value::Bool(value) => SqlValue::Bool(Some(*value)),
            Value::Int(value) => SqlValue::BigInt(Some(*value)),
            Value::Decimal(value) => self.decimal(*value),
            Value::Wide(value) => match value.to_string().parse() {
                Ok(unsigned) if self == Self::Mysql => SqlValue::BigUnsigned(Some(unsigned)),
                _ => SqlValue::String(Some(value.to_string())),
            },
            Value::Text(value) => SqlValue::String(Some(value.clone())),
            Value::Time(value) => self.time(*value),
            Value::Json(value) => SqlValue::String(Some(value.as_str().to_owned())),
        }
    }

    fn decimal(self, value: Decimal) -> SqlValue {
        match self {
            Self::Sqlite => SqlValue::String(Some(value.normalize().to_string())),
            Self::Mysql => SqlValue::Decimal(Some(value)),
        }
    }

    /// A time: `DATETIME(3)` in MySQL, its RFC 3339 text in SQLite. Both sort by time.
    pub fn time(self, value: Timestamp) -> SqlValue {
        match self {
            Self::Sqlite => SqlValue::String(Some(value.to_string())),
            Self::Mysql => SqlValue::TimeDateTime(
                OffsetDateTime::from_unix_timestamp_nanos(i128::from(value.0) * 1_000_000)
                    .ok()
                    .map(|time| PrimitiveDateTime::new(time.date(), time.time())),
            ),
        }
    }

    /// The time of the server as a column of times holds it; in SQLite that of the process, which is the
    /// server there. What it stamps is pruned by it.
    pub fn now(self) -> SimpleExpr {
        match self {
            Self::Sqlite => SimpleExpr::from(self.time(Timestamp::now())),
            Self::Mysql => SimpleExpr::cust("UTC_TIMESTAMP(3)"),
        }
    }

    /// The server's clock in milliseconds since 1970: leases are judged by one clock, whoever asks, which no
    /// change to summer time moves.
    pub fn now_ms(self) -> SimpleExpr {
        match self {
            Self::Sqlite => SimpleExpr::from(Timestamp::now().0),
            Self::Mysql => {
                SimpleExpr::cust("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000")
            }
        }
    }
}

impl Sql {
    /// A statement that is only text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::new(text, Vec::new())
    }

    /// A statement with its values.
    pub fn new(text: impl Into<Arc<str>>, values: Vec<SqlValue>) -> Self {
        Self { text: text.into(), values: SqlxValues(Values(values)) }
    }
}

impl Sql {
    /// The bytes of its text and values, about.
    pub fn bytes(&self) -> usize {
        let of = |value: &SqlValue| match value {
            SqlValue::String(Some(text)) => text.len() + 9,
            _ => 16,
        };
        self.text.len() + self.values.0.0.iter().map(of).sum::<usize>()
    }
}

/// How many values a list in a statement gets, so that few texts, and so few prepared statements, serve lists
/// of every length.
pub fn padded_len(len: usize) -> usize {
    len.next_power_of_two()
}

/// Parts of a list, each as long as a power of two, `max` or less, and of `bytes_max` bytes or a single one:
/// rows cannot be padded, and few prepared statements are to serve lists of every length.
pub fn parts<T>(
    mut list: &[T],
    max: usize,
    bytes_max: usize,
    bytes: impl Fn(&T) -> usize,
) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let mut left = bytes_max;
        let fits = |one: &&T| {
            let room = left.checked_sub(bytes(one));
            left = room.unwrap_or_default();
            room.is_some()
        };
        let count = list.iter().take(max).take_while(fits).count().max(1).min(list.len());
        let len = count.checked_ilog2().map(|log| 1 << log)?;
        let (part, rest) = list.split_at(len);
        list = rest;
        Some(part)
    })
}

/// A list padded with its last value to `padded_len`. Only where a repeated value changes nothing.
pub fn padded<T: Clone>(mut list: Vec<T>) -> Vec<T> {
    if let Some(last) = list.last().cloned() {
        list.resize(padded_len(list.len()), last);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_few_lengths_and_miss_nothing() {
        let list: Vec<usize> = (0..1_000).collect();
        for len in [0, 1, 2, 3, 63, 64, 65, 1_000] {
            let cut: Vec<&[usize]> = parts(&list[..len], 64, usize::MAX, |_| 1).collect();
            assert!(cut.iter().all(|part| part.len().is_power_of_two() && part.len() <= 64));
            assert_eq!(cut.concat(), list[..len]);
        }
        assert_eq!(parts(&list, 100, usize::MAX, |_| 1).next().map(<[usize]>::len), Some(64));
        let lens: Vec<usize> = parts(&list[..9], 64, 50, |one| 10 * one).map(<[usize]>::len).collect();
        assert_eq!(lens, [2, 2, 1, 1, 1, 1, 1], "those that are too much alone go alone");
    }
}
