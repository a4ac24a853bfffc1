//! The compact form of whole records, for caches outside the process. Encrypted fields are sealed in it.

use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::{
    codec::{CodecError, Split, value},
    shape::Shape,
};
use model::{
    key::Key,
    record::Record,
    schema::{Field, Form, Kind, Schema},
    seal::Sealer,
    value::Value,
};

/// Packs and unpacks the records of one schema. Made once per pool.
pub struct Packer {
    schema: Arc<Schema>,
    shape: Shape,
    /// Stands before every packed record: the form of the bytes and a digest of the schema, so that bytes of
    /// another one are not misread.
    mark: [u8; MARK],
}

const MARK: usize = 5;
const FORM: u8 = 3;

impl Packer {
    /// The packer of a schema.
    pub fn new(schema: Arc<Schema>) -> Self {
        let mut sealed = Schema::clone(&schema);
        for field in sealed.fields.iter_mut().filter(|field| field.encrypted) {
            field.kind = Kind::Text { max: usize::MAX, form: Form::Any };
        }
        let mut digest = Xxh3::new();
        for field in &sealed.fields {
            digest.update(format!("{}:{:?}:{};", field.name, field.kind, field.encrypted).as_bytes());
        }
        let [a, b, c, d, ..] = digest.digest().to_le_bytes();
        Self { schema, shape: Shape::new(Arc::new(sealed), Split::NONE), mark: [FORM, a, b, c, d] }
    }

    /// The record as compact bytes, encrypted values sealed under the context `collection/key/field`. The key
    /// is not in it.
    ///
    /// # Errors
    /// A value is not of its field's kind.
    pub fn pack(&self, record: &Record, sealer: &dyn Sealer) -> Result<Vec<u8>, CodecError> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&self.mark);
        if self.schema.fields.iter().any(|field| field.encrypted) {
            self.shape.pack(&self.sealed(record, sealer), &mut out)?;
        } else {
            self.shape.pack(record, &mut out)?;
        }
        Ok(out)
    }

    /// The record that packed bytes speak of.
    ///
    /// # Errors
    /// The bytes are not of this schema (it was changed since: take it as a miss), or an encrypted value
    /// cannot be opened.
    pub fn unpack(&self, key: &Key, bytes: &[u8], sealer: &dyn Sealer) -> Result<Record, CodecError> {
        let packed = bytes
            .strip_prefix(self.mark.as_slice())
            .ok_or_else(|| CodecError::Malformed("packed for another schema".to_owned()))?;
        let mut record = self.shape.unpack(key, packed)?;
        for (field, slot) in self.encrypted(&mut record) {
            if let Some(text) = slot.as_text() {
                let plain = sealer.open(text, &self.context(key, field))?;
                let plain = std::str::from_utf8(&plain).ok();
                *slot = plain.and_then(|json| value(&field.kind, json)).ok_or_else(|| mismatch(field))?;
            }
        }
        Ok(record)
    }

    fn sealed(&self, record: &Record, sealer: &dyn Sealer) -> Record {
        let mut sealed = record.clone();
        for (field, slot) in self.encrypted(&mut sealed).filter(|(_, slot)| !slot.is_null()) {
            let mut plain = String::new();
            slot.write_json(&mut plain);
            *slot = Value::Text(sealer.seal(plain.as_bytes(), &self.context(&record.key, field)));
        }
        sealed
    }

    fn encrypted<'a>(&'a self, record: &'a mut Record) -> impl Iterator<Item = (&'a Field, &'a mut Value)> {
        self.schema.fields.iter().zip(&mut record.values.0).filter(|(field, _)| field.encrypted)
    }

    fn context(&self, key: &Key, field: &Field) -> String {
        format!("{}/{key}/{}", self.schema.collection, field.name)
    }
}

fn mismatch(field: &Field) -> CodecError {
    CodecError::Mismatch(field.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flyweight::sample::{Product, schema};
    use model::seal::SealError;

    /// Shows what was sealed where.
    struct Shown;

    impl Sealer for Shown {
        fn seal(&self, plain: &[u8], context: &str) -> String {
            format!("{context}|{}", String::from_utf8_lossy(plain).chars().rev().collect::<String>())
        }

        fn open(&self, sealed: &str, context: &str) -> Result<Vec<u8>, SealError> {
            let turned =
                sealed.strip_prefix(context).and_then(|rest| rest.strip_prefix('|')).ok_or(SealError)?;
            Ok(turned.chars().rev().collect::<String>().into_bytes())
        }
    }

    #[test]
    fn encrypted_values_are_sealed_to_their_place() {
        let mut schema = schema();
        schema.fields[2].encrypted = true;
        schema.fields[5].encrypted = true;
        let packer = Packer::new(Arc::new(schema));
        let record = Product::of_state(1, 2).record();
        let packed = packer.pack(&record, &Shown).unwrap();
        let text = String::from_utf8_lossy(&packed).into_owned();
        assert!(!text.contains("brand-2"), "{text}");
        assert!(text.contains("products/product-1/brand|"), "{text}");
        assert_eq!(packer.unpack(&record.key, &packed, &Shown).unwrap(), record);
        let elsewhere = "product-2".parse().unwrap();
        assert!(matches!(packer.unpack(&elsewhere, &packed, &Shown), Err(CodecError::Seal(_))));
    }

    #[test]
    fn bytes_of_another_schema_are_not_misread() {
        let record = Product::of_state(1, 2).record();
        let packed = Packer::new(Arc::new(schema())).pack(&record, &Shown).unwrap();
        let mut other = schema();
        other.fields[6].kind = Kind::Time;
        assert!(matches!(
            Packer::new(Arc::new(other)).unpack(&record.key, &packed, &Shown),
            Err(CodecError::Malformed(_))
        ));
    }
}
