//! One line for each request, at the level `debug`: method, path without its query, status, milliseconds until
//! the answer's head, and what identifies the request.

use std::time::Instant;

use axum::{extract::Request, response::Response};
use http::{HeaderMap, Method};
use tracing::{Level, debug};

use super::request_ids::REQUEST_ID;
use crate::telemetry::trace;

/// A line that is written when its request is answered.
pub struct AccessLine {
    began: Instant,
    method: Method,
    path: String,
    trace: String,
}

impl AccessLine {
    /// The line of a request that came in; none where nobody reads it, which costs nothing.
    pub fn begin(request: &Request) -> Option<Self> {
        if !tracing::enabled!(Level::DEBUG) {
            return None;
        }
        let trace = trace::of_headers(request.headers());
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        Some(Self { began: Instant::now(), method, path, trace })
    }

    /// Writes the line.
    pub fn end(self, response: &Response) {
        let Self { began, method, path, trace } = self;
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let (status, ms) = (response.status().as_u16(), micros as f64 / 1_000.0);
        let request_id = told(response.headers()).unwrap_or(&trace);
        debug!(%method, path, status, ms, request_id, trace_id = trace, "request");
    }
}

/// What an answer says that its request is called.
fn told(headers: &HeaderMap) -> Option<&str> {
    headers.get(REQUEST_ID)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::Body;
    use http::HeaderValue;
    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Said {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    /// What is logged from this level on of one request.
    fn logged(level: Level, answer: Response) -> String {
        let said = Said::default();
        let writer = said.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_max_level(level);
        let log = log.with_writer(move || writer.clone()).finish();
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let request = Request::get("/api/v1/users/7?access_token=secret").header("traceparent", parent);
        let request = request.body(Body::empty()).unwrap();
        tracing::subscriber::with_default(log, || {
            if let Some(line) = AccessLine::begin(&request) {
                line.end(&answer);
            }
        });
        String::from_utf8_lossy(&said.0.lock()).into_owned()
    }

    #[test]
    fn a_request_has_one_line_at_debug_without_its_query() {
        let answer = || Response::builder().status(404).body(Body::empty()).unwrap();
        let line = logged(Level::DEBUG, answer());
        assert_eq!(line.lines().count(), 1, "{line}");
        for part in ["method=GET", "path=\"/api/v1/users/7\"", "status=404", "ms=", TRACE] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(!line.contains("secret"), "{line}");
        let mut named = answer();
        named.headers_mut().insert(REQUEST_ID, HeaderValue::from_static("its-own-name"));
        let line = logged(Level::DEBUG, named);
        assert!(line.contains("request_id=\"its-own-name\""), "{line}");
        assert_eq!(logged(Level::INFO, answer()), "");
    }
}
