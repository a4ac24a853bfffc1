//! What the columns of a table hold exactly. What one would round, cut, fold or refuse is refused first, with
//! the field.

use super::StoreError;
use model::{
    fault::FieldFault,
    key::Key,
    record::Record,
    schema::{Field, Schema},
    value::{Timestamp, Value},
};

/// What the columns of a collection hold exactly. Without any column it holds whatever its schema allows.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// The key's column.
    pub key: Hold,
    /// The columns of the fields, in the schema's order.
    pub fields: Vec<Limit>,
    /// The times of a record.
    pub times: Times,
    /// Why what is stored may differ from what was sent: triggers, generated columns.
    pub changed_by: Option<String>,
}

/// What the column of a field holds exactly.
#[derive(Clone, Debug, Default)]
pub struct Limit {
    /// The values.
    pub hold: Hold,
    /// Whether there must be a value.
    pub not_null: bool,
    /// Whether the database computes it, whatever is sent.
    pub computed: bool,
}

/// Values that a column gives back as they were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// All that the schema allows.
    #[default]
    Any,
    /// Whole numbers between two bounds, both included.
    Int {
        /// The least.
        min: i128,
        /// The greatest.
        max: i128,
    },
    /// Decimal numbers.
    Decimal {
        /// The most digits before the point.
        whole: usize,
        /// The most digits after the point.
        scale: usize,
        /// Whether none is below zero.
        unsigned: bool,
    },
    /// Text.
    Text(Text),
    /// Some words, as they are spelled here.
    Words(Vec<String>),
    /// Times of so many digits after the second, between two bounds, both included.
    Time {
        /// The digits.
        digits: u32,
        /// The first.
        min: Timestamp,
        /// The last.
        max: Timestamp,
    },
}

/// Text that a column gives back as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// The most characters.
    pub chars: Option<u64>,
    /// The most bytes, in the column's own character set.
    pub bytes: Option<u64>,
    /// The characters.
    pub charset: Charset,
    /// Whether blanks at the end are cut off.
    pub trims: bool,
}

/// The characters that a column can hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Charset {
    /// All of Unicode, as UTF-8.
    #[default]
    Utf8,
    /// Those of up to three bytes of UTF-8: no emoji.
    Utf8mb3,
    /// Those of Windows-1252, which MySQL calls latin1.
    Latin1,
    /// Those of ASCII.
    Ascii,
    /// Another set: the database itself refuses what is not in it.
    Other,
}

/// The columns of a record's times; none where the table has no such column.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// When it was created.
    pub created: Option<Clock>,
    /// When it was last changed.
    pub updated: Option<Clock>,
}

/// A column that the store itself fills with times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The digits after the second.
    pub digits: u32,
    /// The first time that it holds.
    pub min: Timestamp,
}

impl Default for Times {
    fn default() -> Self {
        let clock = Some(Clock { digits: 3, min: Timestamp(i64::MIN) });
        Self { created: clock, updated: clock }
    }
}

impl Limits {
    /// Brings the times of a record into the form that its table gives back.
    ///
    /// # Errors
    /// `Invalid`, naming each field whose column cannot hold its value exactly.
    pub fn fit(&self, schema: &Schema, record: &mut Record) -> Result<(), StoreError> {
        let Record { key, version: _, created_at, updated_at, values } = record;
        let mut faults: Vec<FieldFault> = self.key_fault(schema, key).into_iter().collect();
        let fields = schema.fields.iter().zip(&self.fields).zip(&values.0);
        faults.extend(fields.filter_map(|((field, limit), value)| limit.fault(field, value)));
        if !faults.is_empty() {
            return Err(StoreError::Invalid(faults));
        }
        let Times { created, updated } = self.times;
        let (own_created, own_updated) = (*created_at, *updated_at);
        // as they are read: a time that is not there is the other one, or else 1970
        *created_at =
            created.map(|clock| clock.keep(own_created)).unwrap_or_else(|| or_epoch(updated, own_updated));
        *updated_at =
            updated.map(|clock| clock.keep(own_updated)).unwrap_or_else(|| or_epoch(created, own_created));
        Ok(())
    }

    fn key_fault(&self, schema: &Schema, key: &Key) -> Option<FieldFault> {
        let why = match &self.key {
            Hold::Int { .. } => {
                match key.as_str().parse::<i128>().ok().filter(|n| n.to_string() == key.as_str()) {
                    Some(number) => self.key.int_fault(number)?,
                    None => "must be a whole number: its column holds no other keys".to_owned(),
                }
            }
            hold => hold.text_fault(key.as_str())?,
        };
        Some(FieldFault::new(&schema.key, why))
    }
}

fn or_epoch(clock: Option<Clock>, time: Timestamp) -> Timestamp {
    clock.map_or(Timestamp(0), |clock| clock.keep(time))
}

impl Limit {
    /// Whether it is text of a character set that only the database knows.
    pub fn is_foreign(&self) -> bool {
        matches!(self.hold, Hold::Text(text) if text.charset == Charset::Other)
    }

    fn fault(&self, field: &Field, value: &Value) -> Option<FieldFault> {
        if self.computed {
            return None;
        }
        let why = match value {
            Value::Null => self.not_null.then(|| "must not be null: its column has no nulls".to_owned())?,
            // what is stored is sealed text, of which the database itself is the judge
            _ if field.encrypted => return None,
            Value::Int(number) => self.hold.int_fault(i128::from(*number))?,
            Value::Decimal(_) | Value::Wide(_) => {
                let text = number_text(value);
                match (&self.hold, text.parse::<i128>()) {
                    (Hold::Int { .. }, Ok(number)) => self.hold.int_fault(number)?,
                    _ => self.hold.decimal_fault(&text)?,
                }
            }
            Value::Text(text) => self.hold.text_fault(text)?,
            Value::Json(json) => self.hold.text_fault(json.as_str())?,
            Value::Time(time) => self.hold.time_fault(*time)?,
            Value::Bool(_) => return None,
        };
        Some(FieldFault::new(&field.name, why))
    }
}

/// A number as it is written, without the quotes that JSON may want.
fn number_text(value: &Value) -> String {
    let mut text = String::new();
    value.write_json(&mut text);
    text.trim_matches('"').to_owned()
}

impl Hold {
    /// Whether the column has the characters of a text.
    pub fn knows(&self, text: &str) -> bool {
        match self {
            Self::Text(limit) => text.chars().all(|c| limit.charset.holds(c)),
            _ => true,
        }
    }

    fn int_fault(&self, number: i128) -> Option<String> {
        let Self::Int { min, max } = self else { return None };
        (!(min..=max).contains(&&number))
            .then(|| format!("must be from {min} to {max}: its column holds no others"))
    }

    fn decimal_fault(&self, text: &str) -> Option<String> {
        let Self::Decimal { whole, scale, unsigned } = self else { return None };
        if *unsigned && text.starts_with('-') {
            return Some("must not be below 0: its column holds no such numbers".to_owned());
        }
        let (before, after) =
            text.trim_start_matches('-').split_once('.').unwrap_or((text.trim_start_matches('-'), ""));
        let before = before.trim_start_matches('0').len();
        let after = after.trim_end_matches('0').len();
        (before > *whole || after > *scale).then(|| {
            format!("must have at most {whole} digits before the point and {scale} after it: its column holds no more")
        })
    }

    fn text_fault(&self, text: &str) -> Option<String> {
        match self {
            Self::Words(words) => (!words.iter().any(|word| word == text)).then(|| {
                format!("must be one of {}, spelled so: its column holds no others", words.join(", "))
            }),
            Self::Text(limit) => limit.fault(text),
            _ => None,
        }
    }

    fn time_fault(&self, time: Timestamp) -> Option<String> {
        let Self::Time { digits, min, max } = self else { return None };
        if time < *min || time > *max {
            return Some(format!("must be from {min} to {max}: its column holds no other times"));
        }
        (floored(time, *digits) != time).then(|| match digits {
            0 => "must be a whole second: its column holds no parts of it".to_owned(),
            digits => format!("must have at most {digits} digits after the second: its column holds no more"),
        })
    }
}

impl Text {
    fn fault(&self, text: &str) -> Option<String> {
        let chars = text.chars().count() as u64;
        if self.chars.is_some_and(|max| chars > max) {
            return Some(format!("must have at most {} characters: its column holds no more", self.chars?));
        }
        let bytes = match self.charset {
            Charset::Utf8 | Charset::Utf8mb3 => text.len() as u64,
            Charset::Latin1 | Charset::Ascii | Charset::Other => chars,
        };
        if self.bytes.is_some_and(|max| bytes > max) {
            return Some(format!("must have at most {} bytes: its column holds no more", self.bytes?));
        }
        if self.trims && text.ends_with(' ') {
            return Some("must not end with a blank: its column cuts it off".to_owned());
        }
        let foreign = text.chars().find(|c| !self.charset.holds(*c))?;
        Some(format!("holds the character U+{:04X}, which its column cannot hold", u32::from(foreign)))
    }
}

impl Charset {
    fn holds(self, c: char) -> bool {
        /// What Windows-1252 has between U+0080 and U+00A0 instead of controls.
        const WINDOWS: &str = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ\u{81}\u{8d}\u{8f}\u{90}\u{9d}";
        match self {
            Self::Utf8 | Self::Other => true,
            Self::Utf8mb3 => u32::from(c) <= 0xffff,
            Self::Latin1 => c.is_ascii() || ('\u{a0}'..='\u{ff}').contains(&c) || WINDOWS.contains(c),
            Self::Ascii => c.is_ascii(),
        }
    }
}

impl Clock {
    fn keep(self, time: Timestamp) -> Timestamp {
        floored(time, self.digits).max(self.min)
    }
}

fn floored(time: Timestamp, digits: u32) -> Timestamp {
    let unit = 10_i64.pow(3_u32.saturating_sub(digits));
    Timestamp(time.0.div_euclid(unit) * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_held_digit_by_digit() {
        let hold = Hold::Decimal { whole: 3, scale: 2, unsigned: true };
        for good in ["0", "0.5", "999.99", "1.10", "0.00"] {
            assert_eq!(hold.decimal_fault(good), None, "{good}");
        }
        for bad in ["1000", "0.001", "-1", "999.995"] {
            assert!(hold.decimal_fault(bad).is_some(), "{bad}");
        }
        let hold = Hold::Int { min: 0, max: 255 };
        assert!(hold.int_fault(-1).is_some() && hold.int_fault(256).is_some());
        assert!(hold.int_fault(0).is_none() && hold.int_fault(255).is_none());
    }

    #[test]
    fn text_is_held_character_by_character() {
        let of = |charset| Text { charset, ..Text::default() };
        assert_eq!(of(Charset::Utf8).fault("😀"), None);
        assert!(of(Charset::Utf8mb3).fault("😀").is_some_and(|why| why.contains("U+1F600")));
        assert_eq!(of(Charset::Utf8mb3).fault("漢"), None);
        assert_eq!(of(Charset::Latin1).fault("Ä€\u{81}\u{a0}ÿ"), None);
        assert!(of(Charset::Latin1).fault("\u{80}").is_some() && of(Charset::Latin1).fault("Ā").is_some());
        assert!(of(Charset::Ascii).fault("ä").is_some());
        let narrow = Text { chars: Some(2), bytes: Some(4), trims: true, ..Text::default() };
        assert_eq!(narrow.fault("éé"), None);
        assert!(["abc", "漢漢", "a "].iter().all(|text| narrow.fault(text).is_some()));
        assert!(Hold::Words(vec!["Red".to_owned()]).text_fault("red").is_some());
    }

    #[test]
    fn times_are_held_to_the_digit() {
        let hold = |digits| Hold::Time { digits, min: Timestamp(0), max: Timestamp(10_000) };
        assert!(hold(0).time_fault(Timestamp(1_500)).is_some_and(|why| why.contains("whole second")));
        assert!(
            hold(1).time_fault(Timestamp(1_500)).is_none() && hold(1).time_fault(Timestamp(1_550)).is_some()
        );
        assert!(hold(6).time_fault(Timestamp(1_555)).is_none());
        assert!(
            hold(6).time_fault(Timestamp(-1)).is_some() && hold(6).time_fault(Timestamp(10_001)).is_some()
        );
        assert_eq!(floored(Timestamp(-1), 0), Timestamp(-1_000));
    }
}
