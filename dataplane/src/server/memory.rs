//! What one client's connection knows of records: its reads are never older than what it has written, nor
//! than what it has read.

use std::{borrow::Cow, collections::HashMap, fmt::Write};

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use xxhash_rust::xxh3::xxh3_64;

use model::{
    key::{Key, Version},
    routes::{Effect, Found},
};

/// Records that are remembered for one connection. It ends with the answer that fills its memory: the next
/// one begins anew, and nothing is forgotten on the way.
const RECORDS_MAX: usize = 1024;

/// The header by which a reader asks for at least a version.
pub const IF_MIN_VERSION: HeaderName = HeaderName::from_static("if-min-version");

/// The header by which the gateway asks pods for [`ABOUT`].
pub const ASKS_ABOUT: HeaderName = HeaderName::from_static("flyweight-asks-about");

/// The header by which a pod tells the gateway which records at which versions an answer was about, where
/// neither its path nor `Location` says so: `<place>:<version>` with commas between them.
pub const ABOUT: HeaderName = HeaderName::from_static("flyweight-about");

/// The versions that one connection has seen, by [`place`].
#[derive(Debug, Default)]
pub struct ConnectionMemory {
    seen: Mutex<HashMap<u64, u64>>,
}

/// What an answer tells the gateway about records of a collection.
pub fn about<'a>(collection: &str, records: impl IntoIterator<Item = (&'a Key, Version)>) -> Bytes {
    let mut out = String::new();
    for (key, version) in records {
        let comma = if out.is_empty() { "" } else { "," };
        _ = write!(out, "{comma}{:x}:{version}", xxh3_64(format!("{collection}/{key}").as_bytes()));
    }
    out.into()
}

/// The answer, with what it tells the gateway.
pub fn told(mut answer: Response, about: Bytes) -> Response {
    if let Some(about) = HeaderValue::from_maybe_shared(about).ok().filter(|about| !about.is_empty()) {
        answer.headers_mut().insert(ABOUT, about);
    }
    answer
}

/// The name of a record for a connection's memory: a hash of its path, however that is spelled.
fn place(path: &str) -> u64 {
    xxh3_64(&Cow::from(percent_decode_str(path)))
}

impl ConnectionMemory {
    /// Remembers the records that an answer was about, with their versions: what it names itself, or else its
    /// path with the version in its `ETag`.
    pub fn remember(&self, found: &Found, uri: &Uri, status: StatusCode, answer: &HeaderMap) {
        if !status.is_success() && status != StatusCode::NOT_MODIFIED {
            return;
        }
        if let Some(named) = answer.get(ABOUT).and_then(|named| named.to_str().ok()) {
            for (place, version) in named.split(',').filter_map(|part| part.split_once(':')) {
                if let (Ok(place), Ok(version)) = (u64::from_str_radix(place, 16), version.parse()) {
                    self.keep(place, version);
                }
            }
            return;
        }
        let Some(version) = answer.get(header::ETAG).and_then(version_of) else { return };
        let elsewhere = answer.get(header::LOCATION).or_else(|| answer.get(header::CONTENT_LOCATION));
        match elsewhere.and_then(|location| location.to_str().ok()) {
            Some(location) => self.keep(
                location.parse::<Uri>().map_or_else(|_| place(location), |uri| place_of(&uri)),
                version,
            ),
            None if found.of_record => self.keep(place_of(uri), version),
            None => (),
        }
    }

    /// Adds the least version to a read of something that this connection knows, unless the client asks for
    /// one itself.
    pub fn demand(&self, found: &Found, uri: &Uri, headers: &mut HeaderMap) {
        if !found.of_record || found.effect != Effect::Reads || headers.contains_key(IF_MIN_VERSION) {
            return;
        }
        let seen = self.seen.lock();
        if seen.is_empty() {
            return;
        }
        if let Some(version) = seen.get(&place_of(uri)) {
            headers.insert(IF_MIN_VERSION, HeaderValue::from(*version));
        }
    }

    /// Whether it holds what it may: the connection is to end.
    pub fn is_full(&self) -> bool {
        self.seen.lock().len() >= RECORDS_MAX
    }

    fn keep(&self, place: u64, version: u64) {
        let mut seen = self.seen.lock();
        let known = seen.entry(place).or_default();
        *known = version.max(*known);
    }
}

/// The record that a request is about. A key may stand in the query.
fn place_of(uri: &Uri) -> u64 {
    let mut pairs = uri.query().unwrap_or_default().split('&');
    match pairs.find_map(|pair| pair.strip_prefix("id=")) {
        Some(id) => place(&format!("{}/{}", uri.path(), id.replace('+', " "))),
        None => place(uri.path()),
    }
}

fn version_of(etag: &HeaderValue) -> Option<u64> {
    // a tag may name a coding, too
    etag.to_str().ok()?.trim_matches('"').split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use model::routes;

    /// The path of a collection.
    const P: &str = "/api/v1/products";

    fn answer(version: &str, more: &[(HeaderName, &str)]) -> HeaderMap {
        let tag = (header::ETAG, HeaderValue::try_from(format!("\"{version}\"")).unwrap());
        let more = more.iter().map(|(name, value)| (name.clone(), HeaderValue::try_from(*value).unwrap()));
        HeaderMap::from_iter(std::iter::once(tag).chain(more))
    }

    fn found(method: &Method, uri: &Uri) -> Found {
        routes::find(method, uri.path())
    }

    fn demanded(memory: &ConnectionMemory, uri: &str) -> Option<String> {
        let (mut read, uri) = (HeaderMap::new(), uri.parse().unwrap());
        memory.demand(&found(&Method::GET, &uri), &uri, &mut read);
        Some(read.get(IF_MIN_VERSION)?.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_read_asks_for_what_the_connection_wrote_and_read() {
        let memory = ConnectionMemory::default();
        let remember = |uri: &str, status, answer: HeaderMap| {
            let uri = uri.replace("/p", P).parse().unwrap();
            memory.remember(&found(&Method::GET, &uri), &uri, status, &answer);
        };
        let demanded = |memory, uri: &str| demanded(memory, &uri.replace("/p", P));
        remember("/p", StatusCode::CREATED, answer("3", &[(header::LOCATION, &format!("{P}/a%20b"))]));
        assert_eq!(demanded(&memory, "/p/%61%20b").as_deref(), Some("3"), "however the client spells it");
        assert_eq!(demanded(&memory, "/p?id=a+b").as_deref(), Some("3"));
        remember("/p/a%20b", StatusCode::NOT_MODIFIED, answer("5", &[]));
        remember("/p/a%20b", StatusCode::OK, answer("4", &[]));
        assert_eq!(
            demanded(&memory, "/p/a%20b").as_deref(),
            Some("5"),
            "what was read counts, and never goes back"
        );
        remember(
            "/p/c/status",
            StatusCode::OK,
            answer("7", &[(header::CONTENT_LOCATION, &format!("{P}/c"))]),
        );
        assert_eq!(
            (demanded(&memory, "/p/c").as_deref(), demanded(&memory, "/p/c/status")),
            (Some("7"), None)
        );
        remember("/p/large", StatusCode::OK, answer("6-gzip", &[]));
        assert_eq!(demanded(&memory, "/p/large").as_deref(), Some("6"), "whatever coding it came in");
        remember("/p/d", StatusCode::PRECONDITION_FAILED, answer("9", &[]));
        assert_eq!(demanded(&memory, "/p/d"), None);
        let (e, f) = ("e".parse().unwrap(), "f g".parse().unwrap());
        let named = about(P, [(&e, Version(2)), (&f, Version(8))]);
        remember("/p/batch", StatusCode::MULTI_STATUS, told(Response::default(), named).headers().clone());
        assert_eq!(
            (demanded(&memory, "/p/e").as_deref(), demanded(&memory, "/p/f%20g").as_deref()),
            (Some("2"), Some("8"))
        );
        let mut own = HeaderMap::from_iter([(IF_MIN_VERSION, HeaderValue::from_static("1"))]);
        let uri = format!("{P}/c").parse().unwrap();
        memory.demand(&found(&Method::GET, &uri), &uri, &mut own);
        assert_eq!(own[IF_MIN_VERSION], "1");
    }

    #[test]
    fn a_connection_ends_when_its_memory_is_full() {
        let memory = ConnectionMemory::default();
        for n in 0..RECORDS_MAX {
            assert!(!memory.is_full());
            let uri = format!("{P}/{n}").parse().unwrap();
            memory.remember(&found(&Method::GET, &uri), &uri, StatusCode::OK, &answer("1", &[]));
        }
        assert!(memory.is_full());
        assert_eq!(demanded(&memory, &format!("{P}/0")).as_deref(), Some("1"), "nothing was forgotten");
        // a batch of the largest size does not end a connection, and 20,000 connections have less than a
        // gigabyte
        const { assert!(RECORDS_MAX > 1_000) };
        let bytes = memory.seen.lock().capacity() * size_of::<(u64, u64)>();
        assert!(bytes <= 32 << 10, "{bytes} bytes for a connection");
    }
}
