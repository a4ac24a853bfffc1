//! Conditions on versions in request headers: `If-Match`, `If-None-Match`, `If-Min-Version`.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::error::Problem;
use crate::{domain::record::Version, service::precondition::Precondition};

/// The least version that a read may serve.
pub const IF_MIN_VERSION: HeaderName = HeaderName::from_static("if-min-version");

/// The entity tag of a version: `"3"`.
pub fn etag(version: Version) -> HeaderValue {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(version.0).as_bytes();
    let mut quoted = [b'"'; 22];
    quoted[1..=digits.len()].copy_from_slice(digits);
    HeaderValue::from_bytes(&quoted[..digits.len() + 2]).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// What a write asks of the record's version.
///
/// # Errors
/// A header that is no list of entity tags.
pub fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let malformed = |name| Problem::field(name, "must be * or a list of entity tags as in \"3\"");
    if headers.contains_key(header::IF_MATCH) {
        return match tags(headers, &header::IF_MATCH).ok_or_else(|| malformed("If-Match"))? {
            Tags::Any => Ok(Precondition::Present),
            // A weak tag never matches here, and a tag that is no version is the tag of no record.
            Tags::List(list) => {
                let strong = list.into_iter().filter(|tag| !tag.weak);
                Ok(Precondition::OneOf(strong.filter_map(|tag| tag.version).collect()))
            }
        };
    }
    if headers.contains_key(header::IF_NONE_MATCH) {
        return match tags(headers, &header::IF_NONE_MATCH).ok_or_else(|| malformed("If-None-Match"))? {
            Tags::Any => Ok(Precondition::Absent),
            Tags::List(_) => Err(Problem::field("If-None-Match", "must be * on a write")),
        };
    }
    Ok(Precondition::None)
}

/// Whether the client has this version already.
pub fn is_known(headers: &HeaderMap, version: Version) -> bool {
    if !headers.contains_key(header::IF_NONE_MATCH) {
        return false;
    }
    match tags(headers, &header::IF_NONE_MATCH) {
        Some(Tags::Any) => true,
        Some(Tags::List(list)) => list.iter().any(|tag| tag.version == Some(version)),
        None => false,
    }
}

/// The least version that a read may serve; 0 where nothing is asked.
///
/// # Errors
/// A header that is no version.
pub fn at_least(headers: &HeaderMap) -> Result<Version, Problem> {
    let Some(value) = headers.get(IF_MIN_VERSION) else { return Ok(Version(0)) };
    let number = value.to_str().ok().and_then(|text| text.trim().trim_matches('"').parse().ok());
    number.map(Version).ok_or_else(|| Problem::field("If-Min-Version", "must be a version: a whole number"))
}

enum Tags {
    Any,
    List(Vec<Tag>),
}

struct Tag {
    weak: bool,
    version: Option<Version>,
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Option<Tags> {
    let mut list = Vec::new();
    for value in headers.get_all(name) {
        let mut rest = value.to_str().ok()?.trim();
        if rest == "*" {
            return Some(Tags::Any);
        }
        while !rest.is_empty() {
            let (weak, quoted) = rest.strip_prefix("W/").map_or((false, rest), |tag| (true, tag));
            let (tag, after) = quoted.strip_prefix('"')?.split_once('"')?;
            let digits = !tag.is_empty() && tag.bytes().all(|byte| byte.is_ascii_digit());
            let version = tag.parse().ok().filter(|_| digits).map(Version);
            list.push(Tag { weak, version });
            let after = after.trim_start();
            rest = match after.strip_prefix(',') {
                Some(next) => next.trim_start(),
                None if after.is_empty() => after,
                None => return None,
            };
        }
    }
    Some(Tags::List(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn none_match_compares_weakly() {
        for (value, known) in [
            ("\"3\"", true),
            ("W/\"3\"", true),
            ("\"1\", W/\"3\"", true),
            ("\"1\",\"3\"", true),
            ("*", true),
            ("\"2\"", false),
            ("\"+3\"", false),
            ("3", false),
            ("\"3", false),
            ("", false),
        ] {
            assert_eq!(is_known(&headers("if-none-match", value), Version(3)), known, "{value}");
        }
    }

    #[test]
    fn match_compares_strongly_and_refuses_what_is_no_tag() {
        let asked = |value: &str| precondition(&headers("if-match", value));
        assert_eq!(asked("*"), Ok(Precondition::Present));
        assert_eq!(asked("\"3\""), Ok(Precondition::OneOf(vec![Version(3)])));
        assert_eq!(asked("\"3\", W/\"4\", \"x\",\"5\""), Ok(Precondition::OneOf(vec![Version(3), Version(5)])));
        for bad in ["3", "\"3", "\"3\" \"4\"", "W\"3\""] {
            assert!(asked(bad).is_err(), "{bad}");
        }
        assert_eq!(precondition(&headers("if-none-match", "*")), Ok(Precondition::Absent));
    }
}
