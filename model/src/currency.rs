//! Currencies of ISO 4217: which codes there are, and how many digits an amount has after its point.

use iso_currency::Currency;
use rust_decimal::Decimal;

use super::{
    fault::FieldFault,
    schema::Schema,
    value::{Row, Value},
};

/// The currency where nobody says one.
pub const DEFAULT: &str = "USD";

/// How many digits an amount of this currency has after its point. Withdrawn codes keep theirs: payments of
/// before have them.
///
/// # Errors
/// What is wrong with the code: it is unknown, or one without amounts, such as that of gold.
pub fn digits(code: &str) -> Result<u32, String> {
    let currency = Currency::from_code(code).ok_or_else(|| {
        format!("{} is not a currency code of ISO 4217, such as USD or JPY", super::strict::shorten(code))
    })?;
    currency
        .exponent()
        .map(u32::from)
        .ok_or_else(|| format!("{code} is a code of ISO 4217 that no amount can be in"))
}

/// What is wrong with an amount of this currency; nothing where the code itself is.
pub fn amount_fault(code: &str, amount: Decimal) -> Option<String> {
    let digits = digits(code).ok().filter(|digits| amount.normalize().scale() > *digits)?;
    Some(match digits {
        0 => format!("must be a whole number: {code} has no digits after the point"),
        _ => format!("must have at most {digits} digits after the point, as {code} has"),
    })
}

/// What is wrong with the currency of a row, and with its amount in this currency.
pub fn faults(schema: &Schema, row: &Row, amount: &str) -> Vec<FieldFault> {
    let Some(code) = schema.get(row, "currency").as_text() else { return Vec::new() };
    if let Err(message) = digits(code) {
        return vec![FieldFault::new("currency", message)];
    }
    let Value::Decimal(value) = schema.get(row, amount) else { return Vec::new() };
    amount_fault(code, *value).map(|message| FieldFault::new(amount, message)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_iso_4217_with_their_digits() {
        for (code, wanted) in
            [("USD", 2), ("EUR", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4), ("XCG", 2), ("ZWG", 2)]
        {
            assert_eq!(digits(code), Ok(wanted), "{code}");
        }
        for code in ["ZZZ", "XYZ", "usd", "", "XAU", "XXX", "XTS"] {
            assert!(digits(code).is_err(), "{code}");
        }
    }

    #[test]
    fn amounts_have_no_more_digits_than_their_currency() {
        let fault = |code, amount: &str| amount_fault(code, amount.parse().unwrap());
        for (code, amount) in
            [("JPY", "10"), ("JPY", "10.000"), ("USD", "19.90"), ("KWD", "1.234"), ("ZZZ", "1.5")]
        {
            assert_eq!(fault(code, amount), None, "{amount} {code}");
        }
        for (code, amount) in [("JPY", "10.5"), ("USD", "0.001"), ("KWD", "1.2345")] {
            assert!(fault(code, amount).is_some_and(|message| message.contains(code)), "{amount} {code}");
        }
    }
}
