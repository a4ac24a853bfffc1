//! Shapes: how the own part of a record is kept in few bytes, and written from them as JSON without parsing
//! or serialising a value.

use std::{str, sync::Arc};

use bytes::Bytes;
use rust_decimal::Decimal;

use super::{
    codec::{CodecError, Split, write_member},
    json,
    tags::{TagReader, TagWriter, unzigzag, zigzag},
};
use model::{
    key::{Key, Version},
    record::Record,
    schema::{JsonForm, Kind, Schema},
    value::{Json, Row, Timestamp, Value, write_json_text},
    wide::Wide,
};

/// A schema with one split of its fields. What is packed by a shape is read by an equal shape only.
#[derive(Clone, Debug)]
pub struct Shape {
    schema: Arc<Schema>,
    split: Split,
    /// `{"id":"`
    head: Vec<u8>,
    own: Vec<OwnField>,
    tags: usize,
}

#[derive(Clone, Debug)]
struct OwnField {
    index: usize,
    /// `,"name":`
    lead: Vec<u8>,
    packing: Packing,
    /// Whether its numbers go out as text.
    quoted: bool,
}

/// How the values of a field are packed.
#[derive(Clone, Debug)]
enum Packing {
    Bool,
    Int {
        signed: bool,
    },
    /// A number of 64 bits with a sign or without: 0 and the number, or a mark, the length of its text, and
    /// the text.
    Whole,
    Decimal {
        signed: bool,
    },
    Text,
    Choice(&'static [&'static str]),
    Json,
    Time,
}

/// Times are counted from here, so that those of our years take five bytes: 2020-01-01T00:00:00Z.
const EPOCH_MS: i64 = 1_577_836_800_000;
/// Marks a decimal number of more than 64 bits, beside its scale.
const WIDE: u64 = 32;
/// Stands for a decimal number that is kept as text; its length follows.
const TEXT: u64 = 64;
/// The same of a whole number.
const WHOLE_TEXT: u64 = 1;
/// The tags of version and times.
const HEAD_TAGS: usize = 3;

impl Shape {
    /// The shape of a schema with a split.
    pub fn new(schema: Arc<Schema>, split: Split) -> Self {
        let mut head = String::from("{");
        write_json_text(&schema.key, &mut head);
        head.push_str(":\"");
        let own: Vec<OwnField> = (0..schema.fields.len())
            .filter(|index| !split.shares(*index) && !schema.fields[*index].internal)
            .map(|index| OwnField::new(&schema, index))
            .collect();
        let tags = HEAD_TAGS + own.iter().map(|field| field.packing.tags()).sum::<usize>();
        Self { schema, split, head: head.into_bytes(), own, tags }
    }

    /// Which fields are shared.
    pub fn split(&self) -> Split {
        self.split
    }

    /// The bytes that the shape itself takes.
    pub fn bytes(&self) -> usize {
        let field = |field: &OwnField| size_of::<OwnField>() + field.lead.len() + 16;
        size_of::<Self>() + self.head.len() + 16 + self.own.iter().map(field).sum::<usize>()
    }

    /// Appends the record's version, times and own fields in their compact form. The key is not in it.
    ///
    /// # Errors
    /// A value is not of its field's kind.
    pub fn pack(&self, record: &Record, out: &mut Vec<u8>) -> Result<(), CodecError> {
        if record.values.0.len() != self.schema.fields.len() {
            return Err(CodecError::Mismatch(self.schema.key.clone()));
        }
        let mut writer = TagWriter::new(out, self.tags);
        writer.number(record.version.0);
        writer.number(zigzag(record.created_at.0.wrapping_sub(EPOCH_MS)));
        // Not by zigzag: an update is hardly ever before the creation, and a bit less is often a byte less.
        writer.number(record.updated_at.0.wrapping_sub(record.created_at.0) as u64);
        for field in &self.own {
            let value = &record.values.0[field.index];
            if !field.packing.pack(value, &mut writer) {
                return Err(CodecError::Mismatch(self.schema.fields[field.index].name.clone()));
            }
        }
        Ok(())
    }

    /// What each own field of a record takes when packed, in half bytes, in the order of the schema; 0 for
    /// shared fields and values that cannot be packed.
    pub fn own_sizes(&self, record: &Record) -> Vec<usize> {
        let mut sizes = vec![0; self.schema.fields.len()];
        let mut scratch = Vec::new();
        for field in &self.own {
            scratch.clear();
            let mut writer = TagWriter::new(&mut scratch, 0);
            let packed =
                record.values.0.get(field.index).is_some_and(|value| field.packing.pack(value, &mut writer));
            if packed {
                sizes[field.index] = scratch.len() * 2 + field.packing.tags();
            }
        }
        sizes
    }

    /// The shared fields as they are served: `,"name":value` for each.
    pub fn shared(&self, record: &Record) -> String {
        let mut out = String::new();
        let fields = self.schema.fields.iter().zip(&record.values.0).enumerate();
        for (_, (field, value)) in fields.filter(|(index, _)| self.split.shares(*index)) {
            write_member(field, value, &mut out);
        }
        out
    }

    /// The version of what `pack` wrote.
    pub fn version(&self, packed: &[u8]) -> Option<Version> {
        TagReader::new(packed, self.tags).number()?.map(Version)
    }

    /// The version and the own part of the body, from what `pack` wrote: `{"id":…` without a closing brace.
    ///
    /// # Errors
    /// The bytes were not packed by this shape.
    pub fn write_own(&self, key: &str, packed: &[u8]) -> Result<(Version, Bytes), CodecError> {
        let mut out = Vec::with_capacity(packed.len() * 2 + self.own.len() * 24 + 192);
        let version = self.write_members(key, packed, &mut out).ok_or_else(|| malformed(&self.schema))?;
        Ok((Version(version), Bytes::from(out)))
    }

    fn write_members(&self, key: &str, packed: &[u8], out: &mut Vec<u8>) -> Option<u64> {
        let mut reader = TagReader::new(packed, self.tags);
        let (version, created_at, updated_at) = read_head(&mut reader)?;
        out.extend_from_slice(&self.head);
        json::write_inner(key, out);
        out.extend_from_slice(b"\",\"version\":");
        json::write_u64(version, out);
        out.extend_from_slice(b",\"created_at\":\"");
        json::write_time(created_at, out);
        out.extend_from_slice(b"\",\"updated_at\":\"");
        json::write_time(updated_at, out);
        out.push(b'"');
        for field in &self.own {
            out.extend_from_slice(&field.lead);
            field.write_json(&mut reader, out)?;
        }
        Some(version)
    }

    /// The record that was packed whole, that is by a shape that shares nothing.
    ///
    /// # Errors
    /// The bytes were not packed by this shape.
    pub fn unpack(&self, key: &Key, packed: &[u8]) -> Result<Record, CodecError> {
        self.read_record(key, packed).ok_or_else(|| malformed(&self.schema))
    }

    fn read_record(&self, key: &Key, packed: &[u8]) -> Option<Record> {
        let mut reader = TagReader::new(packed, self.tags);
        let (version, created_at, updated_at) = read_head(&mut reader)?;
        let mut values = vec![Value::Null; self.schema.fields.len()];
        for field in &self.own {
            *values.get_mut(field.index)? = field.packing.unpack(&mut reader)?;
        }
        Some(Record {
            key: key.clone(),
            version: Version(version),
            created_at,
            updated_at,
            values: Row(values),
        })
    }
}

impl OwnField {
    fn new(schema: &Schema, index: usize) -> Self {
        let field = &schema.fields[index];
        let mut lead = String::from(",");
        write_json_text(&field.name, &mut lead);
        lead.push(':');
        let packing = match &field.kind {
            Kind::Bool => Packing::Bool,
            kind @ Kind::Int { .. } if kind.is_unbounded() => Packing::Whole,
            Kind::Int { min, .. } => Packing::Int { signed: *min < 0 },
            Kind::Decimal { min, .. } => Packing::Decimal { signed: min.is_sign_negative() },
            Kind::Text { .. } => Packing::Text,
            Kind::Choice(words) => Packing::Choice(words),
            Kind::Json { .. } => Packing::Json,
            Kind::Time => Packing::Time,
        };
        let is_number = matches!(packing, Packing::Int { .. } | Packing::Whole | Packing::Decimal { .. });
        let quoted = field.json == JsonForm::String && is_number;
        Self { index, lead: lead.into_bytes(), packing, quoted }
    }

    fn write_json(&self, reader: &mut TagReader<'_>, out: &mut Vec<u8>) -> Option<()> {
        if !self.quoted {
            return self.packing.write_json(reader, out);
        }
        let start = out.len();
        out.push(b'"');
        self.packing.write_json(reader, out)?;
        match out[start + 1..] == *b"null" {
            true => _ = out.remove(start),
            false => out.push(b'"'),
        }
        Some(())
    }
}

impl Packing {
    fn tags(&self) -> usize {
        match self {
            Self::Decimal { .. } | Self::Whole => 2,
            _ => 1,
        }
    }

    /// What stands before a number that is kept as text.
    fn text_mark(&self) -> u64 {
        if matches!(self, Self::Whole) { WHOLE_TEXT } else { TEXT }
    }

    /// Writes a value; false where it is not of this kind.
    fn pack(&self, value: &Value, writer: &mut TagWriter<'_>) -> bool {
        match (self, value) {
            (_, Value::Null) => (0..self.tags()).for_each(|_| writer.null()),
            (Self::Bool, Value::Bool(value)) => writer.number(u64::from(*value)),
            (Self::Int { signed: true }, Value::Int(value)) => writer.number(zigzag(*value)),
            (Self::Int { signed: false }, Value::Int(value)) => writer.number(*value as u64),
            (Self::Whole, Value::Int(value)) => {
                writer.number(0);
                writer.number(zigzag(*value));
            }
            (Self::Whole, Value::Wide(value)) => pack_wide(WHOLE_TEXT, value, writer),
            (Self::Decimal { signed }, Value::Decimal(value)) => pack_decimal(*value, *signed, writer),
            (Self::Decimal { .. }, Value::Wide(value)) => pack_wide(TEXT, value, writer),
            (Self::Text, Value::Text(text)) => pack_text(text, writer),
            (Self::Choice(words), Value::Text(text)) => match words.iter().position(|word| word == text) {
                Some(index) => writer.number(index as u64),
                None => return false,
            },
            (Self::Json, Value::Json(json)) => {
                writer.number(json.as_str().len() as u64);
                writer.raw(json.as_str().as_bytes());
            }
            (Self::Time, Value::Time(time)) => writer.number(zigzag(time.0.wrapping_sub(EPOCH_MS))),
            _ => return false,
        }
        true
    }

    fn write_json(&self, reader: &mut TagReader<'_>, out: &mut Vec<u8>) -> Option<()> {
        let Some(number) = reader.number()? else {
            (1..self.tags()).try_for_each(|_| reader.number().map(drop))?;
            out.extend_from_slice(b"null");
            return Some(());
        };
        match self {
            Self::Bool => out.extend_from_slice(if number == 0 { b"false" } else { b"true" }),
            Self::Int { signed } => json::write_i64(read_int(number, *signed), out),
            Self::Whole if number == 0 => json::write_i64(unzigzag(reader.number()??), out),
            Self::Whole | Self::Decimal { .. } if number == self.text_mark() => {
                out.extend_from_slice(read_wide(reader)?);
            }
            Self::Whole => return None,
            Self::Decimal { signed } => {
                let (mantissa, scale) = read_decimal(number, *signed, reader)?;
                json::write_decimal(mantissa, scale, out);
            }
            Self::Text => {
                out.push(b'"');
                match number {
                    0 => {}
                    1 => json::write_uuid(reader.raw(16)?.try_into().ok()?, out),
                    more => out.extend_from_slice(reader.raw(usize::try_from(more - 1).ok()?)?),
                }
                out.push(b'"');
            }
            Self::Choice(words) => {
                out.push(b'"');
                out.extend_from_slice(words.get(usize::try_from(number).ok()?)?.as_bytes());
                out.push(b'"');
            }
            Self::Json => out.extend_from_slice(reader.raw(usize::try_from(number).ok()?)?),
            Self::Time => {
                out.push(b'"');
                json::write_time(Timestamp(unzigzag(number).wrapping_add(EPOCH_MS)), out);
                out.push(b'"');
            }
        }
        Some(())
    }

    fn unpack(&self, reader: &mut TagReader<'_>) -> Option<Value> {
        let Some(number) = reader.number()? else {
            (1..self.tags()).try_for_each(|_| reader.number().map(drop))?;
            return Some(Value::Null);
        };
        Some(match self {
            Self::Bool => Value::Bool(number != 0),
            Self::Int { signed } => Value::Int(read_int(number, *signed)),
            Self::Whole if number == 0 => Value::Int(unzigzag(reader.number()??)),
            Self::Whole | Self::Decimal { .. } if number == self.text_mark() => {
                Value::Wide(Wide::parse(str::from_utf8(read_wide(reader)?).ok()?)?)
            }
            Self::Whole => return None,
            Self::Decimal { signed } => {
                let (mantissa, scale) = read_decimal(number, *signed, reader)?;
                Value::Decimal(Decimal::try_from_i128_with_scale(mantissa, scale).ok()?)
            }
            Self::Text => Value::Text(match number {
                0 => String::new(),
                1 => uuid::Uuid::from_slice(reader.raw(16)?).ok()?.to_string(),
                more => json::unescape(str::from_utf8(reader.raw(usize::try_from(more - 1).ok()?)?).ok()?)?,
            }),
            Self::Choice(words) => Value::Text((*words.get(usize::try_from(number).ok()?)?).to_owned()),
            Self::Json => {
                let text = str::from_utf8(reader.raw(usize::try_from(number).ok()?)?).ok()?;
                Value::Json(Json::parse(text).ok()?)
            }
            Self::Time => Value::Time(Timestamp(unzigzag(number).wrapping_add(EPOCH_MS))),
        })
    }
}

fn read_head(reader: &mut TagReader<'_>) -> Option<(u64, Timestamp, Timestamp)> {
    let version = reader.number()??;
    let created_at = unzigzag(reader.number()??).wrapping_add(EPOCH_MS);
    let updated_at = (reader.number()?? as i64).wrapping_add(created_at);
    Some((version, Timestamp(created_at), Timestamp(updated_at)))
}

fn read_int(number: u64, signed: bool) -> i64 {
    if signed { unzigzag(number) } else { number as i64 }
}

fn pack_decimal(value: Decimal, signed: bool, writer: &mut TagWriter<'_>) {
    let (mantissa, scale) = (value.mantissa(), u64::from(value.scale()));
    let narrow = i64::try_from(mantissa).ok().filter(|narrow| signed || *narrow >= 0);
    match narrow {
        Some(narrow) => {
            writer.number(scale);
            writer.number(if signed { zigzag(narrow) } else { narrow as u64 });
        }
        None => {
            writer.number(scale | WIDE);
            // The mantissa's tag holds nothing: 16 bytes follow those of the scale.
            writer.number(0);
            writer.raw(&mantissa.to_le_bytes());
        }
    }
}

fn pack_wide(mark: u64, value: &Wide, writer: &mut TagWriter<'_>) {
    let text = value.to_string();
    writer.number(mark);
    writer.number(text.len() as u64);
    writer.raw(text.as_bytes());
}

fn read_wide<'a>(reader: &mut TagReader<'a>) -> Option<&'a [u8]> {
    let length = usize::try_from(reader.number()??).ok()?;
    reader.raw(length)
}

fn read_decimal(scale: u64, signed: bool, reader: &mut TagReader<'_>) -> Option<(i128, u32)> {
    let mantissa = reader.number()??;
    let mantissa = if scale & WIDE == 0 {
        i128::from(read_int(mantissa, signed))
    } else {
        i128::from_le_bytes(reader.raw(16)?.try_into().ok()?)
    };
    let scale = u32::try_from(scale & !WIDE).ok().filter(|scale| *scale <= Decimal::MAX_SCALE)?;
    Some((mantissa, scale))
}

/// Text is kept as it stands between the quotes of JSON, a UUID as its 16 bytes.
fn pack_text(text: &str, writer: &mut TagWriter<'_>) {
    if text.is_empty() {
        return writer.number(0);
    }
    if let Some(uuid) = json::parse_uuid(text) {
        writer.number(1);
        return writer.raw(&uuid);
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    write_json_text(text, &mut quoted);
    let inner = &quoted.as_bytes()[1..quoted.len() - 1];
    writer.number(inner.len() as u64 + 1);
    writer.raw(inner);
}

fn malformed(schema: &Schema) -> CodecError {
    CodecError::Malformed(format!("not a packed {}", schema.entity))
}

#[cfg(test)]
mod tests;
