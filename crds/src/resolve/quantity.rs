//! Quantities of CPU and memory as Kubernetes writes them: `100m`, `0.5`, `128Mi`, `1e3`.

const SUFFIXES: [(&str, u128, u128); 16] = [
    ("n", 1, 1_000_000_000),
    ("u", 1, 1_000_000),
    ("m", 1, 1_000),
    ("", 1, 1),
    ("k", 1_000, 1),
    ("M", 1_000_000, 1),
    ("G", 1_000_000_000, 1),
    ("T", 1_000_000_000_000, 1),
    ("P", 1_000_000_000_000_000, 1),
    ("E", 1_000_000_000_000_000_000, 1),
    ("Ki", 1 << 10, 1),
    ("Mi", 1 << 20, 1),
    ("Gi", 1 << 30, 1),
    ("Ti", 1 << 40, 1),
    ("Pi", 1 << 50, 1),
    ("Ei", 1 << 60, 1),
];
/// As the API server rounds: nothing is finer than this part of one.
const NANO: u128 = 1_000_000_000;
const DIGITS_MAX: usize = 18;

/// The quantity in billionths, rounded up; none where the text is not a quantity that is at least zero.
pub fn nanos(text: &str) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0
        || whole.len() + fraction.len() > DIGITS_MAX
        || fraction.contains('.')
    {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (multiplier, divisor) = scale(suffix)?;
    let divisor = divisor.checked_mul(10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    Some(digits.checked_mul(multiplier)?.checked_mul(NANO)?.div_ceil(divisor))
}

fn scale(suffix: &str) -> Option<(u128, u128)> {
    if let Some((_, multiplier, divisor)) = SUFFIXES.iter().find(|(name, _, _)| *name == suffix) {
        return Some((*multiplier, *divisor));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = 10u128.checked_pow(exponent.unsigned_abs())?;
    Some(if exponent < 0 { (1, power) } else { (power, 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_takes_is_taken() {
        for (text, nano) in [
            ("100m", NANO / 10),
            ("1", NANO),
            ("0.5", NANO / 2),
            (".5", NANO / 2),
            ("1.", NANO),
            ("1e3", 1_000 * NANO),
            ("1E3", 1_000 * NANO),
            ("5e-1", NANO / 2),
            ("128Mi", (128 << 20) * NANO),
            ("1.5Gi", (3 << 29) * NANO),
            ("2E", 2_000_000_000_000_000_000 * NANO),
            ("0", 0),
        ] {
            assert_eq!(nanos(text), Some(nano), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in
            ["", ".", "-1", "1 Mi", "1mi", "1.2.3", "Mi", "1e", "1e99", "one", "9999999999999999999", "1Ei1"]
        {
            assert_eq!(nanos(text), None, "{text}");
        }
    }
}
