//! What one client's connection has written: its reads are never older than its own writes.

use http::{HeaderMap, HeaderValue, Method, header};
use parking_lot::Mutex;

/// Records that are remembered for one connection; the oldest is forgotten first.
const RECORDS_MAX: usize = 64;

/// The header by which a reader asks for at least a version.
pub const IF_MIN_VERSION: &str = "if-min-version";

/// The versions that one connection has written, by path.
#[derive(Debug, Default)]
pub struct ConnectionMemory {
    written: Mutex<Vec<(String, u64)>>,
}

impl ConnectionMemory {
    /// Remembers what an answered write made: the path of the record, from `Location` for a create, and the version in its `ETag`.
    pub fn remember(&self, method: &Method, path: &str, answer: &HeaderMap) {
        if method.is_safe() {
            return;
        }
        let Some(version) = answer.get(header::ETAG).and_then(version_of) else { return };
        let path = answer.get(header::LOCATION).and_then(|location| location.to_str().ok()).unwrap_or(path);
        let mut written = self.written.lock();
        written.retain(|(known, _)| known != path);
        if written.len() >= RECORDS_MAX {
            written.remove(0);
        }
        written.push((path.to_owned(), version));
    }

    /// Adds the least version to a read of something that this connection wrote, unless the client asks for one itself.
    pub fn demand(&self, method: &Method, path: &str, headers: &mut HeaderMap) {
        if !method.is_safe() || headers.contains_key(IF_MIN_VERSION) {
            return;
        }
        let written = self.written.lock();
        if let Some((_, version)) = written.iter().find(|(known, _)| known == path) {
            headers.insert(IF_MIN_VERSION, HeaderValue::from(*version));
        }
    }
}

fn version_of(etag: &HeaderValue) -> Option<u64> {
    etag.to_str().ok()?.trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_asks_for_what_the_connection_wrote() {
        let memory = ConnectionMemory::default();
        let mut answer = HeaderMap::new();
        answer.insert(header::ETAG, HeaderValue::from_static("\"3\""));
        answer.insert(header::LOCATION, HeaderValue::from_static("/api/v1/products/a"));
        memory.remember(&Method::POST, "/api/v1/products", &answer);

        let mut read = HeaderMap::new();
        memory.demand(&Method::GET, "/api/v1/products/a", &mut read);
        assert_eq!(read[IF_MIN_VERSION], "3");
        let mut own = HeaderMap::from_iter([(IF_MIN_VERSION.parse().unwrap(), HeaderValue::from_static("1"))]);
        memory.demand(&Method::GET, "/api/v1/products/a", &mut own);
        assert_eq!(own[IF_MIN_VERSION], "1");
        let mut other = HeaderMap::new();
        memory.demand(&Method::GET, "/api/v1/products/b", &mut other);
        assert!(other.is_empty());

        for n in 0..RECORDS_MAX {
            let mut answer = HeaderMap::new();
            answer.insert(header::ETAG, HeaderValue::from_static("\"1\""));
            memory.remember(&Method::PUT, &format!("/p/{n}"), &answer);
        }
        let mut forgotten = HeaderMap::new();
        memory.demand(&Method::GET, "/api/v1/products/a", &mut forgotten);
        assert!(forgotten.is_empty(), "the memory of a connection is bounded");
    }
}
