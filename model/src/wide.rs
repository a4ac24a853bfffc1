//! Exact numbers that 64 signed bits or 28 digits do not hold: unsigned 64-bit ones, and decimals of up to 65
//! digits, as other programs store them.

use std::{cmp::Ordering, fmt};

use rust_decimal::Decimal;

/// An exact decimal number of at most 65 digits, in canonical form: equal numbers have equal parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wide {
    negative: bool,
    /// All digits, without zeros before the first one or after the last one behind the point.
    digits: Box<str>,
    /// How many of them are behind the point.
    scale: u32,
}

/// The most digits, as SQL's decimals have them.
const DIGITS_MAX: usize = 65;

impl Wide {
    /// The number of a text such as `-12.50` or `1E+2`; none where it is no number or has more than 65
    /// digits.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let sound = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if !sound(whole) || !sound(fraction) || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let all = format!("{whole}{fraction}");
        let significant = all.trim_start_matches('0').trim_end_matches('0');
        if significant.is_empty() {
            return Some(Self { negative: false, digits: "0".into(), scale: 0 });
        }
        let dropped = (all.len() - all.trim_end_matches('0').len()) as i64;
        // the power of ten of the last digit
        let power = exponent.checked_sub(fraction.len() as i64)?.checked_add(dropped)?;
        let fits = significant.len() <= DIGITS_MAX && power.unsigned_abs() <= DIGITS_MAX as u64;
        if !fits || significant.len() as i64 + power.max(0) > DIGITS_MAX as i64 {
            return None;
        }
        let mut digits = significant.to_owned();
        digits.extend(std::iter::repeat_n('0', usize::try_from(power.max(0)).ok()?));
        Some(Self { negative, digits: digits.into(), scale: u32::try_from(-power.min(0)).ok()? })
    }

    /// Whether it has nothing behind the point.
    pub fn is_whole(&self) -> bool {
        self.scale == 0
    }

    /// How many digits are behind the point.
    pub fn scale(&self) -> u32 {
        self.scale
    }

    /// How many digits a column needs for it: those before the point and those behind it.
    pub fn precision(&self) -> usize {
        self.digits.len().max(self.scale as usize).max(1)
    }

    /// The number as a decimal of 28 digits, where it is one.
    pub fn narrow(&self) -> Option<Decimal> {
        Decimal::from_str_exact(&self.to_string()).ok().map(|value| value.normalize())
    }

    /// The order of numbers.
    pub fn compare(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.compare_size(other),
            (true, true) => other.compare_size(self),
        }
    }

    fn compare_size(&self, other: &Self) -> Ordering {
        let ((whole, fraction), (other_whole, other_fraction)) = (self.parts(), other.parts());
        // without zeros at either end, more digits before the point are more, and those behind it compare as
        // text
        (whole.len(), whole, fraction).cmp(&(other_whole.len(), other_whole, other_fraction))
    }

    /// The digits before the point, without leading zeros, and those behind it.
    fn parts(&self) -> (&str, String) {
        let scale = self.scale as usize;
        let (whole, fraction) = self.digits.split_at(self.digits.len().saturating_sub(scale));
        (whole.trim_start_matches('0'), format!("{fraction:0>scale$}"))
    }
}

impl From<Decimal> for Wide {
    fn from(value: Decimal) -> Self {
        let zero = Self { negative: false, digits: "0".into(), scale: 0 };
        Self::parse(&value.to_string()).unwrap_or(zero)
    }
}

impl From<i64> for Wide {
    fn from(value: i64) -> Self {
        Self { negative: value < 0, digits: value.unsigned_abs().to_string().into(), scale: 0 }
    }
}

impl fmt::Display for Wide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negative {
            f.write_str("-")?;
        }
        if self.scale == 0 {
            return f.write_str(&self.digits);
        }
        let (whole, fraction) = self.parts();
        write!(f, "{}.{fraction}", if whole.is_empty() { "0" } else { whole })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wide(text: &str) -> Wide {
        Wide::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn numbers_have_one_form() {
        for (text, form) in [
            ("0", "0"),
            ("-0.00", "0"),
            ("007", "7"),
            ("5.0", "5"),
            (".5", "0.5"),
            ("-1.250", "-1.25"),
            ("1E+2", "100"),
            ("120E-3", "0.12"),
            ("18446744073709551615", "18446744073709551615"),
            (
                "12345678901234567890123456789012345.123456789012345678901234567890",
                "12345678901234567890123456789012345.12345678901234567890123456789",
            ),
        ] {
            assert_eq!(wide(text).to_string(), form);
            assert_eq!(wide(form), wide(text), "{text}");
        }
        for bad in
            ["", "-", ".", "1.2.3", "x", "NaN", "Infinity", "1e", "1E+6111", "1E-6143", &"9".repeat(66)]
        {
            assert_eq!(Wide::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_compare_by_value() {
        let sorted =
            ["-100", "-99.5", "-0.1", "0", "0.09", "0.1", "0.101", "9", "10", "18446744073709551615", "1e64"];
        for (at, a) in sorted.iter().enumerate() {
            for (other, b) in sorted.iter().enumerate() {
                assert_eq!(wide(a).compare(&wide(b)), at.cmp(&other), "{a} {b}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_decimals_of_28_digits(a: i64, b: i64, p in 0u32..20, q in 0u32..20) {
            let (a, b) = (Decimal::new(a, p), Decimal::new(b, q));
            prop_assert_eq!(Wide::from(a).compare(&Wide::from(b)), a.cmp(&b));
            prop_assert_eq!(Wide::from(a).narrow(), Some(a.normalize()));
            prop_assert_eq!(Wide::from(a).to_string(), a.normalize().to_string());
        }
    }
}
