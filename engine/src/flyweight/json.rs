//! Numbers, times and UUIDs as text, the same as [`model::value`] writes them, on the path of every hit.

use uuid::Uuid;

use model::value::{Timestamp, write_json_text};

const DAY_MS: i64 = 86_400_000;
/// 0000-01-01T00:00:00Z and 10000-01-01T00:00:00Z: between them a year has four digits.
const FOUR_DIGITS_MS: std::ops::Range<i64> = -62_167_219_200_000..253_402_300_800_000;

/// Appends a number.
pub fn write_u64(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a number.
pub fn write_i64(number: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a decimal number: its mantissa, with a point so many digits from the right.
pub fn write_decimal(mantissa: i128, scale: u32, out: &mut Vec<u8>) {
    if mantissa < 0 {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let digits = match u64::try_from(mantissa.unsigned_abs()) {
        Ok(narrow) => buffer.format(narrow),
        Err(_) => buffer.format(mantissa.unsigned_abs()),
    };
    let scale = scale as usize;
    if scale == 0 {
        return out.extend_from_slice(digits.as_bytes());
    }
    let whole = digits.len().saturating_sub(scale);
    out.extend_from_slice(if whole == 0 { b"0" } else { &digits.as_bytes()[..whole] });
    out.push(b'.');
    out.resize(out.len() + scale.saturating_sub(digits.len()), b'0');
    out.extend_from_slice(&digits.as_bytes()[whole..]);
}

/// Appends a time as RFC 3339 with milliseconds. The date is reckoned as in Howard Hinnant's
/// "chrono-Compatible Low-Level Date Algorithms".
pub fn write_time(time: Timestamp, out: &mut Vec<u8>) {
    if !FOUR_DIGITS_MS.contains(&time.0) {
        // The domain cannot write such a time either, and leaves its place empty.
        return;
    }
    let (days, ms) = (time.0.div_euclid(DAY_MS) + 719_468, time.0.rem_euclid(DAY_MS) as u32);
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * shifted + 2) / 5 + 1) as u32;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 } as u32;
    let year = (year_of_era + era * 400 + i64::from(month <= 2)) as u32;
    let mut text = *b"0000-00-00T00:00:00.000Z";
    put2(&mut text, 0, year / 100);
    put2(&mut text, 2, year % 100);
    put2(&mut text, 5, month);
    put2(&mut text, 8, day);
    put2(&mut text, 11, ms / 3_600_000);
    put2(&mut text, 14, ms / 60_000 % 60);
    put2(&mut text, 17, ms / 1_000 % 60);
    text[20] += (ms % 1_000 / 100) as u8;
    put2(&mut text, 21, ms % 100);
    out.extend_from_slice(&text);
}

/// The bytes of a UUID in its usual form: lower case, with hyphens.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    if text.len() != 36 {
        return None;
    }
    let uuid = Uuid::try_parse(text).ok()?;
    (uuid.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text).then(|| uuid.into_bytes())
}

/// Appends a UUID in its usual form.
pub fn write_uuid(bytes: [u8; 16], out: &mut Vec<u8>) {
    let mut buffer = Uuid::encode_buffer();
    out.extend_from_slice(Uuid::from_bytes(bytes).as_hyphenated().encode_lower(&mut buffer).as_bytes());
}

/// Appends text as it stands between the quotes of a JSON string.
pub fn write_inner(text: &str, out: &mut Vec<u8>) {
    let plain = |byte: &u8| !byte.is_ascii_control() && !b"\"\\".contains(byte);
    if text.as_bytes().iter().all(plain) {
        return out.extend_from_slice(text.as_bytes());
    }
    let mut quoted = String::with_capacity(text.len() + 8);
    write_json_text(text, &mut quoted);
    out.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
}

/// The text that stands between the quotes of a JSON string.
pub fn unescape(inner: &str) -> Option<String> {
    if !inner.contains('\\') {
        return Some(inner.to_owned());
    }
    serde_json::from_str(&format!("\"{inner}\"")).ok()
}

fn put2(text: &mut [u8; 24], at: usize, number: u32) {
    text[at] = b'0' + (number / 10) as u8;
    text[at + 1] = b'0' + (number % 10) as u8;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rust_decimal::Decimal;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn times_are_as_the_domain_writes_them(ms in FOUR_DIGITS_MS) {
            prop_assert_eq!(written(|out| write_time(Timestamp(ms), out)), Timestamp(ms).to_string());
        }

        #[test]
        fn decimals_are_as_the_domain_writes_them(mantissa: i128, shift in 32u32..128, scale in 0u32..=28) {
            let decimal = Decimal::from_i128_with_scale(mantissa >> shift, scale);
            let text = written(|out| write_decimal(decimal.mantissa(), scale, out));
            prop_assert_eq!(text, decimal.to_string());
        }

        #[test]
        fn uuids_come_back(bytes: [u8; 16]) {
            let text = written(|out| write_uuid(bytes, out));
            prop_assert_eq!(parse_uuid(&text), Some(bytes));
            prop_assert_eq!(parse_uuid(&text.to_uppercase()).is_some(), text.to_uppercase() == text);
        }
    }

    #[test]
    fn the_ends_of_the_calendar() {
        for ms in [FOUR_DIGITS_MS.start, FOUR_DIGITS_MS.end - 1, 951_782_400_000, 0, -1] {
            assert_eq!(written(|out| write_time(Timestamp(ms), out)), Timestamp(ms).to_string());
        }
    }
}
