//! Numbers with a tag of four bits each: small ones are in the tag itself, others take as many bytes as they
//! have.
//!
//! A run is its tags, two to a byte, then the bytes of the numbers and texts in the same order. How many tags
//! there are is known to writer and reader.

/// Writes a run at the end of a buffer.
pub struct TagWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    tags: usize,
}

/// Reads a run. Every method gives `None` once the bytes do not suffice, so that bytes from outside can do no
/// harm.
pub struct TagReader<'a> {
    bytes: &'a [u8],
    tags: usize,
    at: usize,
}

const LITERAL: u8 = 8;
const LITERAL_MAX: u64 = 6;
const NULL: u8 = 15;

impl<'a> TagWriter<'a> {
    /// A run of so many tags.
    pub fn new(out: &'a mut Vec<u8>, tags: usize) -> Self {
        let start = out.len();
        out.resize(start + tags.div_ceil(2), 0);
        Self { out, start, tags: 0 }
    }

    /// A tag for "no value".
    pub fn null(&mut self) {
        self.tag(NULL);
    }

    /// A number.
    pub fn number(&mut self, number: u64) {
        if number == 0 {
            self.tag(0);
        } else if number <= LITERAL_MAX {
            self.tag(LITERAL + number as u8);
        } else {
            let len = 8 - number.leading_zeros() as usize / 8;
            self.tag(len as u8);
            self.raw(&number.to_le_bytes()[..len]);
        }
    }

    /// Bytes without a tag, whose length the reader knows.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn tag(&mut self, tag: u8) {
        if let Some(pair) = self.out.get_mut(self.start + self.tags / 2) {
            *pair |= tag << (self.tags % 2 * 4);
        }
        self.tags += 1;
    }
}

impl<'a> TagReader<'a> {
    /// A run of so many tags at the start of the bytes. What follows the run is not looked at.
    pub fn new(bytes: &'a [u8], tags: usize) -> Self {
        Self { bytes, tags: 0, at: tags.div_ceil(2) }
    }

    /// The next number; `Some(None)` where a null was written.
    pub fn number(&mut self) -> Option<Option<u64>> {
        let pair = *self.bytes.get(self.tags / 2)?;
        let tag = pair >> (self.tags % 2 * 4) & 15;
        self.tags += 1;
        match tag {
            0 => Some(Some(0)),
            NULL => Some(None),
            1..=LITERAL => {
                let mut number = [0; 8];
                let len = usize::from(tag);
                number[..len].copy_from_slice(self.raw(len)?);
                Some(Some(u64::from_le_bytes(number)))
            }
            _ => Some(Some(u64::from(tag - LITERAL))),
        }
    }

    /// The next bytes that were written without a tag.
    pub fn raw(&mut self, len: usize) -> Option<&'a [u8]> {
        let raw = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(raw)
    }
}

/// Maps small numbers of either sign to small numbers.
pub fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            numbers in prop::collection::vec(prop::option::of((any::<u64>(), 0u32..64)), 0..40)
        ) {
            let numbers: Vec<_> = numbers.into_iter().map(|n| n.map(|(n, shift)| n >> shift)).collect();
            let mut out = vec![7];
            let mut writer = TagWriter::new(&mut out, numbers.len());
            for number in &numbers {
                match number {
                    Some(number) => writer.number(*number),
                    None => writer.null(),
                }
            }
            writer.raw(b"end");
            let mut reader = TagReader::new(&out[1..], numbers.len());
            for number in &numbers {
                prop_assert_eq!(reader.number(), Some(*number));
            }
            prop_assert_eq!(reader.raw(3), Some(&b"end"[..]));
            prop_assert_eq!(reader.raw(1), None);
        }

        #[test]
        fn zigzag_is_undone(number: i64) {
            prop_assert_eq!(unzigzag(zigzag(number)), number);
        }
    }
}
