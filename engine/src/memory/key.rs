//! Keys as cells hold them: a byte for the length, then the text; a UUID in its 16 bytes, the longest and the
//! empty key in forms of their own.

use crate::flyweight::json;
use model::key::Key;

/// A key in its encoded form.
pub struct CellKey {
    bytes: [u8; 1 + Key::MAX],
    len: usize,
}

/// Stands in the place of the length before a UUID.
const UUID: u8 = 255;
/// Stands in the place of the length before a key of 255 bytes. The empty key is a NUL, which no key holds.
const LONGEST: u8 = 0;
const EMPTY: [u8; 2] = [1, 0];

impl CellKey {
    /// The encoded form of a key.
    pub fn new(key: &Key) -> Self {
        let mut bytes = [0; 1 + Key::MAX];
        let text = key.as_str().as_bytes();
        if let Some(uuid) = json::parse_uuid(key.as_str()) {
            bytes[0] = UUID;
            bytes[1..17].copy_from_slice(&uuid);
            return Self { bytes, len: 17 };
        }
        if text.is_empty() {
            bytes[..2].copy_from_slice(&EMPTY);
            return Self { bytes, len: 2 };
        }
        bytes[0] = if text.len() == Key::MAX { LONGEST } else { text.len() as u8 };
        bytes[1..=text.len()].copy_from_slice(text);
        Self { bytes, len: 1 + text.len() }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// How many bytes the key takes that begins with this byte.
pub fn encoded_len(first: u8) -> usize {
    1 + match first {
        UUID => 16,
        LONGEST => Key::MAX,
        length => usize::from(length),
    }
}

/// The key that was encoded.
pub fn decode(encoded: &[u8]) -> Option<Key> {
    if encoded == EMPTY {
        return String::new().try_into().ok();
    }
    let (first, rest) = encoded.split_first()?;
    let mut text = Vec::with_capacity(36);
    match *first {
        UUID => json::write_uuid(rest.try_into().ok()?, &mut text),
        _ => text.extend_from_slice(rest),
    }
    String::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back() {
        let long = "k".repeat(Key::MAX);
        let upper = Key::generate().as_str().to_uppercase();
        for text in [
            "1",
            "product-0000042",
            Key::generate().as_str(),
            &upper,
            &long,
            &long[1..],
            "",
            "k050 b",
            "Zürich",
        ] {
            let key: Key = text.parse().unwrap();
            let encoded = CellKey::new(&key);
            assert_eq!(encoded.as_bytes().len(), encoded_len(encoded.as_bytes()[0]));
            assert_eq!(decode(encoded.as_bytes()), Some(key));
        }
        assert_eq!(CellKey::new(&Key::generate()).as_bytes().len(), 17);
    }
}
