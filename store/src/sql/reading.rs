//! Rows to records. What one row holds that has no exact meaning is told of that row, and takes no other
//! away.

use rust_decimal::Decimal;
use time::{Date, Month, PrimitiveDateTime, Time};

use super::{
    dialect::Dialect,
    fault::Fault,
    session::{Cell, Row},
    table::{FieldColumn, Table, VersionSource},
};
use crate::{
    apply::normalised,
    odd::{Odd, Reading, short_decimal},
    sealing,
};
use model::{
    key::{Key, Version},
    record::{Named, Oddity, Record},
    schema::{Field, FieldRef, Kind},
    seal::Sealer,
    value::{self, Json, Timestamp, Value},
};

impl Table {
    /// The record in a row, whose cells start at a place.
    pub fn decode(&self, row: &Row, at: usize, sealer: &dyn Sealer) -> Result<Reading, Fault> {
        let schema = &self.collection.schema;
        let key = match self.key_in(row, at)? {
            Ok(key) => key,
            Err(text) => return Ok(Reading::Keyless(Named { key: text, field: schema.key.clone() })),
        };
        let mut oddities = Vec::new();
        let mut odd = |at: FieldRef, field: &str, Odd { kind, length }: Odd| {
            oddities.push(Oddity { at, field: field.to_owned(), kind, length });
        };
        let version = self.version_in(row, at + 1)?.unwrap_or_else(|what| {
            odd(FieldRef::Version, "version", what);
            Version(0)
        });
        let mut time = |place: usize, name: &str, field: FieldRef| {
            let read = self.time_in(row, place)?;
            Ok::<_, Fault>(read.unwrap_or_else(|what| {
                odd(field, name, what);
                Timestamp(0)
            }))
        };
        let created_at = time(at + 2, "created_at", FieldRef::CreatedAt)?;
        let updated_at = time(at + 3, "updated_at", FieldRef::UpdatedAt)?;
        let mut values = Vec::with_capacity(schema.fields.len());
        for (index, (field, column)) in schema.fields.iter().zip(&self.columns).enumerate() {
            let value = self.value_in(row, at + 4 + index, &key, (field, column), sealer)?;
            values.push(value.unwrap_or_else(|what| {
                odd(FieldRef::Field(index), &field.name, what);
                Value::Null
            }));
        }
        let record = Record { key, version, created_at, updated_at, values: value::Row(values) };
        Ok(Reading::of(record, oddities))
    }

    /// The key, or as much of its text as can be shown.
    fn key_in(&self, row: &Row, at: usize) -> Result<Result<Key, Option<String>>, Fault> {
        let text = match row.cell(at)? {
            Cell::Text(text) => text,
            Cell::Int(number) => number.to_string(),
            Cell::Null | Cell::Real(_) | Cell::Bytes(..) => return Ok(Err(None)),
        };
        Ok(Key::try_from(text.clone()).map_err(|_| Some(text.chars().take(Key::MAX).collect())))
    }

    /// A record that nobody gave a version yet has the first one.
    fn version_in(&self, row: &Row, at: usize) -> Result<Result<Version, Odd>, Fault> {
        let first = Ok(Ok(Version(1)));
        let number = match &self.version {
            VersionSource::One => return first,
            VersionSource::Column(_) if self.is_typed() => match row.int(at)? {
                None => return first,
                Some(number) => Ok(number),
            },
            VersionSource::Column(_) => match row.cell(at)? {
                Cell::Null => return first,
                cell => match value_of(
                    &Kind::Int { min: 0, max: i64::MAX },
                    &cell,
                    self.dialect,
                    self.named("bigint"),
                ) {
                    Ok(Value::Int(number)) => Ok(number),
                    Ok(_) => Err(Odd::of(&cell, self.named("bigint"))),
                    Err(odd) => Err(odd),
                },
            },
            VersionSource::UpdatedAt => match row.cell(at)? {
                Cell::Null => return first,
                cell => micros_of(&cell, self.dialect).ok_or_else(|| Odd::of(&cell, self.named("datetime"))),
            },
        };
        Ok(number.and_then(|number| {
            u64::try_from(number).map(Version).map_err(|_| Odd::new(self.named("bigint"), 8))
        }))
    }

    fn time_in(&self, row: &Row, at: usize) -> Result<Result<Timestamp, Odd>, Fault> {
        if self.is_typed() {
            return Ok(match row.time(at) {
                Ok(time) => Ok(time.unwrap_or(Timestamp(0))),
                Err(_) => Err(Odd::new("datetime", row.length(at))),
            });
        }
        Ok(match row.cell(at)? {
            Cell::Null => Ok(Timestamp(0)),
            cell => time_of(&cell, self.dialect).ok_or_else(|| Odd::of(&cell, self.named("datetime"))),
        })
    }

    fn value_in(
        &self,
        row: &Row,
        at: usize,
        key: &Key,
        (field, column): (&Field, &FieldColumn),
        sealer: &dyn Sealer,
    ) -> Result<Result<Value, Odd>, Fault> {
        if field.encrypted {
            return Ok(match row.cell(at)? {
                Cell::Null => Ok(Value::Null),
                Cell::Text(text) => sealing::open(sealer, &self.collection.name, key, field, &text)
                    .map_err(|_| Odd::new("a sealed text that cannot be opened", text.len() as u64)),
                cell => Err(Odd::of(&cell, self.named(&column.kind))),
            });
        }
        if self.is_typed() {
            return Ok(typed(&field.kind, row, at).map_err(|_| Odd::new(&column.kind, row.length(at))));
        }
        Ok(match row.cell(at)? {
            Cell::Null => Ok(Value::Null),
            cell => value_of(&field.kind, &cell, self.dialect, self.named(&column.kind)),
        })
    }

    /// What stored text is called: the type of its column, which is bound to that type in MySQL only.
    fn named<'a>(&self, column: &'a str) -> &'a str {
        if self.dialect == Dialect::Sqlite { "TEXT" } else { column }
    }

    /// Whether cells come as the types that this store made its columns of, rather than as text or as
    /// whatever is stored.
    pub fn is_typed(&self) -> bool {
        self.dialect == Dialect::Mysql && !self.collection.declared
    }
}

/// A value of a table of the store's own in MySQL.
fn typed(kind: &Kind, row: &Row, at: usize) -> Result<Value, Fault> {
    let value = match kind {
        Kind::Text { .. } | Kind::Choice(_) => row.text(at)?.map(Value::Text),
        Kind::Int { .. } => row.int(at)?.map(Value::Int),
        Kind::Decimal { .. } => row.decimal(at)?.map(|value| normalised(Value::Decimal(value))),
        Kind::Bool => row.int(at)?.map(|value| Value::Bool(value != 0)),
        Kind::Time => row.time(at)?.map(Value::Time),
        Kind::Json { .. } => match row.text(at)? {
            Some(text) => Some(Value::Json(Json::parse(&text).map_err(|_| super::session::not("JSON"))?)),
            None => None,
        },
    };
    Ok(value.unwrap_or(Value::Null))
}

/// The exact meaning of a cell for a kind of field. A number that another program put where text belongs is
/// its digits.
fn value_of(kind: &Kind, cell: &Cell, dialect: Dialect, column: &str) -> Result<Value, Odd> {
    let short = |real: f64| short_decimal(real).map(|value| value.written());
    let value = match (kind, cell) {
        (_, Cell::Null) => Some(Value::Null),
        (_, Cell::Bytes(..)) => None,
        (Kind::Text { .. } | Kind::Choice(_), Cell::Text(text)) => Some(Value::Text(text.clone())),
        (Kind::Text { .. } | Kind::Choice(_), Cell::Int(number)) => Some(Value::Text(number.to_string())),
        (Kind::Text { .. } | Kind::Choice(_), Cell::Real(real)) => short(*real).map(Value::Text),
        (Kind::Int { .. }, Cell::Int(number)) => Some(Value::Int(*number)),
        (Kind::Int { .. }, Cell::Text(text)) => Value::whole(text),
        (Kind::Int { .. }, Cell::Real(real)) => short(*real).as_deref().and_then(Value::whole),
        (Kind::Decimal { .. }, Cell::Int(number)) => Some(normalised(Value::Decimal(Decimal::from(*number)))),
        (Kind::Decimal { .. }, Cell::Text(text)) => Value::exact(text),
        (Kind::Decimal { .. }, Cell::Real(real)) => short_decimal(*real),
        // what is not zero is true, as SQL has it
        (Kind::Bool, Cell::Int(number)) => Some(Value::Bool(*number != 0)),
        (Kind::Bool, Cell::Text(text)) => {
            Value::whole(text).map(|number| Value::Bool(number != Value::Int(0)))
        }
        (Kind::Time, cell @ Cell::Text(_)) => time_of(cell, dialect).map(Value::Time),
        (Kind::Bool | Kind::Time, Cell::Real(_)) | (Kind::Time, Cell::Int(_)) => None,
        (Kind::Json { .. }, Cell::Text(text)) => Json::parse(text).ok().map(Value::Json),
        (Kind::Json { .. }, Cell::Int(number)) => Json::parse(&number.to_string()).ok().map(Value::Json),
        (Kind::Json { .. }, Cell::Real(real)) => Json::parse(&real.to_string()).ok().map(Value::Json),
    };
    value.ok_or_else(|| Odd::of(cell, column))
}

/// A time to the millisecond, as the database rounds it where it compares.
fn time_of(cell: &Cell, dialect: Dialect) -> Option<Timestamp> {
    let micros = micros_of(cell, dialect)?;
    Timestamp::checked(micros.saturating_add(500).div_euclid(1000))
}

/// A time in microseconds since 1970: of MySQL's text in UTC, of RFC 3339 in SQLite. `0000-00-00` is no time.
fn micros_of(cell: &Cell, dialect: Dialect) -> Option<i64> {
    let Cell::Text(text) = cell else { return None };
    if dialect == Dialect::Sqlite {
        let time: Timestamp = text.parse().ok()?;
        return Timestamp::checked(time.0).map(|time| time.0 * 1000);
    }
    let (date, clock) = text.split_once(' ').unwrap_or((text, "00:00:00"));
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?.parse().ok()?, parts.next()?.parse::<u8>().ok()?, parts.next()?);
    let date = Date::from_calendar_date(year, Month::try_from(month).ok()?, day.parse().ok()?).ok()?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.split(':');
    let mut part = || parts.next()?.parse::<u8>().ok();
    let micros = format!("{fraction:0<6}").get(..6)?.parse::<u32>().ok()?;
    let clock = Time::from_hms_micro(part()?, part()?, part()?, micros).ok()?;
    let nanos = PrimitiveDateTime::new(date, clock).assume_utc().unix_timestamp_nanos();
    i64::try_from(nanos / 1000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_server_are_read_as_it_compares_them() {
        let time =
            |text: &str| time_of(&Cell::Text(text.to_owned()), Dialect::Mysql).map(|time| time.to_string());
        for (text, expected) in [
            ("2026-01-31 12:00:00", "2026-01-31T12:00:00.000Z"),
            ("2026-01-31 12:00:00.5", "2026-01-31T12:00:00.500Z"),
            ("2026-01-31 12:00:00.123456", "2026-01-31T12:00:00.123Z"),
            ("2026-12-31 23:59:59.999500", "2027-01-01T00:00:00.000Z"),
            ("1000-01-01 00:00:00", "1000-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(time(text).as_deref(), Some(expected), "{text}");
        }
        for none in ["0000-00-00 00:00:00", "2026-00-10 00:00:00", "2026-02-30 00:00:00", "", "now"] {
            assert_eq!(time(none), None, "{none}");
        }
    }
}
