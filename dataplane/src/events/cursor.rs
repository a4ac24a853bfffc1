//! Cursors: the place in a feed as opaque text. Base64url of a form number and its fields, so that a cursor of another feed is noticed.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::BusError;

/// The place in a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// In the embedded log.
    Local {
        /// Which log: chosen at random when it was made.
        feed: u32,
        /// The number of the last event.
        number: u64,
    },
    /// In a topic: for each partition the offset of the next record.
    Topic(Vec<i64>),
}

const FORM_LOCAL: u8 = 1;
const FORM_TOPIC: u8 = 2;
/// A longer text is no cursor; enough for 1,000 partitions.
const TEXT_MAX: usize = 16_384;

impl Cursor {
    /// The opaque text.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(32);
        match self {
            Self::Local { feed, number } => {
                bytes.push(FORM_LOCAL);
                bytes.extend_from_slice(&feed.to_be_bytes());
                put_varint(&mut bytes, *number);
            }
            Self::Topic(offsets) => {
                bytes.push(FORM_TOPIC);
                for offset in offsets {
                    put_varint(&mut bytes, offset.unsigned_abs());
                }
            }
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// # Errors
    /// `BadCursor` when the text was not made by `encode`.
    pub fn decode(text: &str) -> Result<Self, BusError> {
        if text.len() > TEXT_MAX {
            return Err(BusError::BadCursor);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| BusError::BadCursor)?;
        match bytes.split_first() {
            Some((&FORM_LOCAL, rest)) => {
                let (feed, mut rest) = rest.split_first_chunk::<4>().ok_or(BusError::BadCursor)?;
                let number = take_varint(&mut rest)?;
                if !rest.is_empty() {
                    return Err(BusError::BadCursor);
                }
                Ok(Self::Local { feed: u32::from_be_bytes(*feed), number })
            }
            Some((&FORM_TOPIC, mut rest)) => {
                let mut offsets = Vec::new();
                while !rest.is_empty() {
                    offsets.push(take_varint(&mut rest)?.cast_signed());
                }
                Ok(Self::Topic(offsets))
            }
            _ => Err(BusError::BadCursor),
        }
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes one number of at most 63 bits, so that it fits every counter here.
fn take_varint(bytes: &mut &[u8]) -> Result<u64, BusError> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(BusError::BadCursor)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(BusError::BadCursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let offsets = vec![0, 1, 127, 128, 300, i64::MAX];
        for cursor in [
            Cursor::Local { feed: 0, number: 0 },
            Cursor::Local { feed: u32::MAX, number: i64::MAX as u64 },
            Cursor::Topic(offsets),
            Cursor::Topic(vec![]),
        ] {
            assert_eq!(Cursor::decode(&cursor.encode()).unwrap(), cursor);
        }
    }

    #[test]
    fn other_text_is_refused() {
        let good = Cursor::Local { feed: 7, number: 1_000 }.encode();
        let long = "A".repeat(TEXT_MAX + 1);
        for bad in ["", "x", "AAAA", "not a cursor", &good[..good.len() - 2], &format!("{good}AA"), &long] {
            assert!(matches!(Cursor::decode(bad), Err(BusError::BadCursor)), "{bad}");
        }
        // ten continued bytes are no 63-bit number
        let endless = URL_SAFE_NO_PAD.encode([FORM_TOPIC, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
        assert!(matches!(Cursor::decode(&endless), Err(BusError::BadCursor)));
    }
}
