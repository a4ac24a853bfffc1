//! Cursors: the place in a feed as opaque text. Base64url of a form number and its fields, so that a cursor
//! of another feed is noticed.
//!
//! A number alone does not tell a feed that was made anew, restored or cut short and grew again: a cursor
//! also has a mark of the last event, and that of a topic the topic's identity. Cursors of versions of this
//! program that had neither are taken as they are.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

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
        /// The mark of that event, where it is known.
        mark: Option<u32>,
    },
    /// In a topic.
    Topic(TopicPlace),
}

/// The place in a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicPlace {
    /// Which topic of this name; 0 where nobody knows.
    pub topic: u64,
    /// The partition and the mark of the last event, the record before that partition's offset; none where
    /// the last record was no event, or another's.
    pub last: Option<(usize, u32)>,
    /// For each partition the offset of the next record.
    pub at: Vec<i64>,
}

const FORM_LOCAL: u8 = 1;
const FORM_TOPIC: u8 = 2;
const FORM_LOCAL_MARKED: u8 = 3;
/// What follows the offsets where more is known. No offset is as great: a version of this program that does
/// not know it takes it for one of a partition that is not there, and answers that the cursor is too old.
const TOPIC_MARKED: u64 = i64::MAX as u64;
/// A longer text is no cursor; enough for 1,000 partitions.
const TEXT_MAX: usize = 16_384;

impl Cursor {
    /// The opaque text.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(32);
        match self {
            Self::Local { feed, number, mark } => {
                bytes.push(if mark.is_some() { FORM_LOCAL_MARKED } else { FORM_LOCAL });
                bytes.extend_from_slice(&feed.to_be_bytes());
                bytes.extend(mark.iter().flat_map(|mark| mark.to_be_bytes()));
                put_varint(&mut bytes, *number);
            }
            Self::Topic(TopicPlace { topic, last, at }) => {
                bytes.push(FORM_TOPIC);
                at.iter().for_each(|offset| put_varint(&mut bytes, offset.unsigned_abs()));
                if *topic != 0 || last.is_some() {
                    put_varint(&mut bytes, TOPIC_MARKED);
                    put_varint(&mut bytes, *topic);
                }
                if let Some((partition, mark)) = last {
                    put_varint(&mut bytes, *partition as u64);
                    put_varint(&mut bytes, u64::from(*mark));
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
                Ok(Self::Local { feed: u32::from_be_bytes(*feed), number, mark: None })
            }
            Some((&FORM_LOCAL_MARKED, rest)) => {
                let (feed, rest) = rest.split_first_chunk::<4>().ok_or(BusError::BadCursor)?;
                let (mark, mut rest) = rest.split_first_chunk::<4>().ok_or(BusError::BadCursor)?;
                let number = take_varint(&mut rest)?;
                if !rest.is_empty() {
                    return Err(BusError::BadCursor);
                }
                Ok(Self::Local {
                    feed: u32::from_be_bytes(*feed),
                    number,
                    mark: Some(u32::from_be_bytes(*mark)),
                })
            }
            Some((&FORM_TOPIC, mut rest)) => TopicPlace::decode(&mut rest).map(Self::Topic),
            _ => Err(BusError::BadCursor),
        }
    }
}

impl TopicPlace {
    fn decode(bytes: &mut &[u8]) -> Result<Self, BusError> {
        let mut place = Self::default();
        while !bytes.is_empty() {
            let number = take_varint(bytes)?;
            if number != TOPIC_MARKED {
                place.at.push(number.cast_signed());
                continue;
            }
            place.topic = take_varint(bytes)?;
            if bytes.is_empty() {
                break;
            }
            let partition = usize::try_from(take_varint(bytes)?).map_err(|_| BusError::BadCursor)?;
            let mark = u32::try_from(take_varint(bytes)?).map_err(|_| BusError::BadCursor)?;
            // the event stands before the offset
            if !bytes.is_empty() || place.at.get(partition).is_none_or(|at| *at < 1) {
                return Err(BusError::BadCursor);
            }
            place.last = Some((partition, mark));
        }
        Ok(place)
    }

    /// Whether both may be of one topic.
    pub fn may_be_of(&self, topic: u64) -> bool {
        self.topic == topic || self.topic == 0 || topic == 0
    }
}

/// What tells an event from any other that stands at its place.
pub fn mark_of(event: Uuid) -> u32 {
    xxh3_64(event.as_bytes()) as u32
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
        let at = vec![0, 1, 127, 128, 300, i64::MAX - 1];
        let known = TopicPlace { topic: i64::MAX as u64 - 1, last: Some((5, u32::MAX)), at: at.clone() };
        for cursor in [
            Cursor::Local { feed: 0, number: 0, mark: None },
            Cursor::Local { feed: u32::MAX, number: i64::MAX as u64, mark: Some(0) },
            Cursor::Topic(TopicPlace { topic: 7, ..TopicPlace::default() }),
            Cursor::Topic(TopicPlace { last: None, ..known.clone() }),
            Cursor::Topic(TopicPlace { topic: 0, ..known.clone() }),
            Cursor::Topic(known),
            Cursor::Topic(TopicPlace { at, ..TopicPlace::default() }),
            Cursor::Topic(TopicPlace::default()),
        ] {
            assert_eq!(Cursor::decode(&cursor.encode()).unwrap(), cursor);
        }
    }

    /// As they were given before cursors had marks.
    #[test]
    fn cursors_of_earlier_versions_are_taken() {
        let local = Cursor::Local { feed: 0x0102_0304, number: 300, mark: None };
        assert_eq!(Cursor::decode("AQECAwSsAg").unwrap(), local);
        let topic = TopicPlace { topic: 0, last: None, at: vec![10, 300, 0] };
        assert_eq!(Cursor::decode("AgqsAgA").unwrap(), Cursor::Topic(topic));
    }

    #[test]
    fn other_text_is_refused() {
        let good = Cursor::Local { feed: 7, number: 1_000, mark: None }.encode();
        let long = "A".repeat(TEXT_MAX + 1);
        for bad in ["", "x", "AAAA", "not a cursor", &good[..good.len() - 2], &format!("{good}AA"), &long] {
            assert!(matches!(Cursor::decode(bad), Err(BusError::BadCursor)), "{bad}");
        }
        // the last event of a partition that is not there, or has none
        for last in [(2, 1), (1, 1)] {
            let place = TopicPlace { topic: 1, last: Some(last), at: vec![5, 0] };
            assert!(
                matches!(Cursor::decode(&Cursor::Topic(place).encode()), Err(BusError::BadCursor)),
                "{last:?}"
            );
        }
        // ten continued bytes are no 63-bit number
        let endless =
            URL_SAFE_NO_PAD.encode([FORM_TOPIC, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
        assert!(matches!(Cursor::decode(&endless), Err(BusError::BadCursor)));
    }
}
