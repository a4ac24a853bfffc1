//! Who changes records: the names of the service's own parts, and those of callers, which are never the same.

use std::borrow::Cow;

/// A caller without a token.
pub const ANONYMOUS: &str = "anonymous";
/// The order pipeline, with the dead letters that it writes.
pub const PIPELINE: &str = "pipeline";
/// The workers that apply events of price and stock.
pub const INGEST: &str = "ingest";

/// Every name that no token can have.
const OWN: [&str; 6] = [ANONYMOUS, PIPELINE, INGEST, "system", "operator", "flyweight"];
/// What stands before the subject of a token that would be taken for one of ours.
const MARK: &str = "token:";

/// The name of a token's subject as an actor: itself, or marked where one of our own names, or the mark,
/// would be mistaken for it.
pub fn of_subject(subject: &str) -> Cow<'_, str> {
    let plain: String = subject.trim().to_lowercase();
    let mistakable = plain.is_empty() || plain.starts_with(MARK) || OWN.contains(&plain.as_str());
    if mistakable { Cow::Owned(format!("{MARK}{subject}")) } else { Cow::Borrowed(subject) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_has_a_name_of_ours() {
        for name in OWN {
            for subject in [name.to_owned(), name.to_uppercase(), format!(" {name} ")] {
                assert_eq!(of_subject(&subject), format!("token:{subject}"));
            }
        }
        assert_eq!(of_subject("ann"), "ann");
        assert_eq!(of_subject("pipeline@example.test"), "pipeline@example.test");
        assert_eq!(of_subject("token:pipeline"), "token:token:pipeline", "two subjects never get one name");
        assert_eq!(of_subject(""), "token:");
    }
}
