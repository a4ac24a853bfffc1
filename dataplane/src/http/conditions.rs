//! Conditions on versions in request headers: `If-Match`, `If-None-Match`, `If-Min-Version`.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::problem::Problem;
use crate::service::precondition::Precondition;
use model::key::Version;

/// The least version that a read may serve.
pub const IF_MIN_VERSION: HeaderName = HeaderName::from_static("if-min-version");

/// What of a large record is sent in a content coding has a tag of its own: `"3-gzip"` (RFC 9110, section
/// 8.8.3).
const CODINGS: [&str; 2] = ["gzip", "zstd"];

/// What a read answers by its conditions.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// The record.
    Whole,
    /// 304: the client has what this tag names.
    Known(HeaderValue),
    /// 412.
    Refused,
}

/// The entity tag of a version: `"3"`.
pub fn etag(version: Version) -> HeaderValue {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(version.0).as_bytes();
    let mut quoted = [b'"'; 22];
    quoted[1..=digits.len()].copy_from_slice(digits);
    HeaderValue::from_bytes(&quoted[..digits.len() + 2]).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// The tag of the same in a content coding; none for a tag that no coding has.
pub fn coded_etag(tag: &HeaderValue, coding: &str) -> Option<HeaderValue> {
    let opaque = tag.to_str().ok()?.strip_prefix('"')?.strip_suffix('"')?;
    HeaderValue::try_from(format!("\"{opaque}-{coding}\"")).ok()
}

/// The version that the text of a tag names, whatever coding it was sent in.
pub fn version_of(opaque: &str) -> Option<Version> {
    let (digits, coding) =
        opaque.split_once('-').map_or((opaque, None), |(digits, coding)| (digits, Some(coding)));
    let canonical = digits == "0" || !digits.starts_with('0');
    let known = coding.is_none_or(|coding| CODINGS.contains(&coding));
    (canonical && known && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok().map(Version))?
}

/// What a write asks of the record's version: `If-Match`, then `If-None-Match` (RFC 9110, section 13.2.2).
///
/// # Errors
/// A header that is no list of entity tags.
pub fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    Ok(match (asked(headers, &header::IF_MATCH)?, asked(headers, &header::IF_NONE_MATCH)?) {
        (None, None) => Precondition::None,
        (Some(Tags::Any), None) => Precondition::Present,
        // A weak tag never matches here, and a tag that is no version is the tag of no record.
        (Some(Tags::List(list)), None) => Precondition::OneOf(strong(&list).collect()),
        (None, Some(Tags::Any)) => Precondition::Absent,
        (None, Some(Tags::List(list))) => {
            Precondition::NoneOf { versions: weak(&list).collect(), present: false }
        }
        (Some(Tags::Any), Some(Tags::List(list))) => {
            Precondition::NoneOf { versions: weak(&list).collect(), present: true }
        }
        (Some(Tags::List(list)), Some(Tags::List(not))) => Precondition::OneOf(
            strong(&list).filter(|version| !weak(&not).any(|other| other == *version)).collect(),
        ),
        // there and not there: no record is
        (Some(_), Some(Tags::Any)) => Precondition::OneOf(Vec::new()),
    })
}

/// What a read of a record of this version answers.
///
/// # Errors
/// `If-Match` is no list of entity tags.
pub fn of_read(headers: &HeaderMap, version: Version) -> Result<Asked, Problem> {
    if let Some(Tags::List(list)) = asked(headers, &header::IF_MATCH)?
        && !strong(&list).any(|one| one == version)
    {
        return Ok(Asked::Refused);
    }
    if !headers.contains_key(header::IF_NONE_MATCH) {
        return Ok(Asked::Whole);
    }
    let known = match tags(headers, &header::IF_NONE_MATCH) {
        Some(Tags::Any) => Some(etag(version)),
        Some(Tags::List(list)) => {
            // The client is told which of its copies is good: each coding has its own.
            let tag = list.into_iter().find(|tag| tag.version == Some(version));
            tag.and_then(|tag| HeaderValue::try_from(format!("\"{}\"", tag.opaque)).ok())
        }
        None => None,
    };
    Ok(known.map_or(Asked::Whole, Asked::Known))
}

/// Whether the client has what this tag names: by weak comparison, for what is no record.
pub fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let opaque = tag.to_str().map_or("", |text| text.trim_start_matches("W/").trim_matches('"'));
    match tags(headers, &header::IF_NONE_MATCH) {
        Some(Tags::Any) => true,
        Some(Tags::List(list)) => list.iter().any(|tag| tag.opaque == opaque),
        None => false,
    }
}

/// The least version that a read may serve; 0 where nothing is asked.
///
/// # Errors
/// A header that is no version.
pub fn at_least(headers: &HeaderMap) -> Result<Version, Problem> {
    let Some(value) = headers.get(IF_MIN_VERSION) else { return Ok(Version(0)) };
    let version = value.to_str().ok().and_then(|text| version_of(text.trim().trim_matches('"')));
    version.ok_or_else(|| Problem::field("If-Min-Version", "must be a version: a whole number"))
}

enum Tags<'a> {
    Any,
    List(Vec<Tag<'a>>),
}

struct Tag<'a> {
    weak: bool,
    opaque: &'a str,
    version: Option<Version>,
}

/// The versions of strong tags.
fn strong(list: &[Tag<'_>]) -> impl Iterator<Item = Version> {
    list.iter().filter(|tag| !tag.weak).filter_map(|tag| tag.version)
}

/// The versions of all tags.
fn weak(list: &[Tag<'_>]) -> impl Iterator<Item = Version> {
    list.iter().filter_map(|tag| tag.version)
}

/// What a header asks; none where it is not there.
fn asked<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<Tags<'a>>, Problem> {
    if !headers.contains_key(name) {
        return Ok(None);
    }
    let shown = if *name == header::IF_MATCH { "If-Match" } else { "If-None-Match" };
    let malformed = || Problem::field(shown, "must be * or a list of entity tags as in \"3\"");
    tags(headers, name).map(Some).ok_or_else(malformed)
}

fn tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Tags<'a>> {
    let mut list = Vec::new();
    for value in headers.get_all(name) {
        // the text of a tag may have bytes beyond ASCII, which no tag of ours has
        let mut rest = std::str::from_utf8(value.as_bytes()).ok()?.trim();
        if rest == "*" {
            return Some(Tags::Any);
        }
        while !rest.is_empty() {
            // a list may have empty members (RFC 9110, section 5.6.1)
            if let Some(next) = rest.strip_prefix(',') {
                rest = next.trim_start();
                continue;
            }
            let (weak, quoted) = rest.strip_prefix("W/").map_or((false, rest), |tag| (true, tag));
            let (opaque, after) = quoted.strip_prefix('"')?.split_once('"')?;
            list.push(Tag { weak, opaque, version: version_of(opaque) });
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
    fn none_match_compares_weakly_and_the_copy_that_is_good_is_named() {
        for (value, known) in [
            ("\"3\"", Some("\"3\"")),
            ("W/\"3\"", Some("\"3\"")),
            ("\"1\", W/\"3\"", Some("\"3\"")),
            ("\"1\",,\"3\"", Some("\"3\"")),
            ("\"3-gzip\"", Some("\"3-gzip\"")),
            ("*", Some("\"3\"")),
            ("\"2\"", None),
            ("\"+3\"", None),
            ("\"03\"", None),
            ("\"3-br\"", None),
            ("3", None),
            ("\"3", None),
            ("", None),
        ] {
            let wanted = known.map_or(Asked::Whole, |tag| Asked::Known(HeaderValue::from_static(tag)));
            assert_eq!(of_read(&headers("if-none-match", value), Version(3)), Ok(wanted), "{value}");
        }
    }

    #[test]
    fn match_comes_before_none_match() {
        let mut both = headers("if-none-match", "\"3\"");
        both.insert(header::IF_MATCH, HeaderValue::from_static("\"2\""));
        assert_eq!(of_read(&both, Version(3)), Ok(Asked::Refused));
        assert_eq!(precondition(&both), Ok(Precondition::OneOf(vec![Version(2)])));
        both.insert(header::IF_MATCH, HeaderValue::from_static("\"3\", \"4\""));
        assert_eq!(precondition(&both), Ok(Precondition::OneOf(vec![Version(4)])));
        both.insert(header::IF_MATCH, HeaderValue::from_static("*"));
        let versions = vec![Version(3)];
        assert_eq!(
            precondition(&both),
            Ok(Precondition::NoneOf { versions: versions.clone(), present: true })
        );
        both.remove(header::IF_MATCH);
        assert_eq!(precondition(&both), Ok(Precondition::NoneOf { versions, present: false }));
    }

    #[test]
    fn match_compares_strongly_and_refuses_what_is_no_tag() {
        let asked = |value: &str| precondition(&headers("if-match", value));
        assert_eq!(asked("*"), Ok(Precondition::Present));
        assert_eq!(asked("\"3\""), Ok(Precondition::OneOf(vec![Version(3)])));
        assert_eq!(asked("\"3-zstd\""), Ok(Precondition::OneOf(vec![Version(3)])));
        assert_eq!(
            asked("\"3\", W/\"4\", \"x\",\"5\""),
            Ok(Precondition::OneOf(vec![Version(3), Version(5)]))
        );
        for bad in ["3", "\"3", "\"3\" \"4\"", "W\"3\""] {
            assert!(asked(bad).is_err(), "{bad}");
            assert!(of_read(&headers("if-match", bad), Version(3)).is_err(), "{bad}");
        }
        assert_eq!(precondition(&headers("if-none-match", "*")), Ok(Precondition::Absent));
    }
}
