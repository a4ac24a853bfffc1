//! By what a request is found again: the trace that it is part of, and its own name. Every answer has both,
//! and a problem says them.
//!
//! Source: W3C Trace Context (the form of `traceparent`).

use axum::{
    body::{Body, Bytes, HttpBody},
    response::Response,
};
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_LENGTH};

use crate::{problem::ProblemBody, telemetry::trace};

/// The header of the trace.
pub const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header of the request's own name.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// What many proxies call it.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A longer name of a client's is not taken over.
const NAME_MAX: usize = 128;
/// `00-<32 digits>-<16 digits>-01`: where the digits of the trace are, and of the span.
const LENGTH: usize = 55;
const TRACE: std::ops::Range<usize> = 3..35;
const SPAN: std::ops::Range<usize> = 36..52;

/// What a request is called.
#[derive(Clone, Debug)]
pub struct RequestIds {
    parent: HeaderValue,
    name: HeaderValue,
}

impl RequestIds {
    /// Those that the request came with, or new ones. The request has them from then on, so that whoever
    /// handles it further tells the same.
    pub fn of(headers: &mut HeaderMap) -> Self {
        let came = headers.get(TRACE_PARENT).filter(|value| trace::is_parent(value.as_bytes()));
        let parent = parent(came.map(HeaderValue::as_bytes));
        let named = [REQUEST_ID, X_REQUEST_ID].iter().find_map(|name| headers.get(name)).filter(is_plain);
        let name = match named {
            Some(name) => name.clone(),
            None => value(parent.slice(TRACE)),
        };
        let ids = Self { parent: value(parent), name };
        headers.insert(TRACE_PARENT, ids.parent.clone());
        headers.insert(REQUEST_ID, ids.name.clone());
        ids
    }

    /// Says them with the answer. An answer that came from elsewhere with a trace keeps it.
    pub fn tell(self, response: &mut Response) {
        let Self { parent, name } = self;
        if let Some(ProblemBody(bytes)) = response.extensions_mut().remove() {
            let trace = parent.to_str().unwrap_or_default().get(TRACE).unwrap_or_default();
            let name = name.to_str().unwrap_or_default();
            let whole = named(&bytes, trace, name);
            if let Some(length) = response.headers_mut().get_mut(CONTENT_LENGTH) {
                *length = whole.len().into();
            }
            // the answer to HEAD has none
            if response.body().size_hint().exact() != Some(0) {
                *response.body_mut() = Body::from(whole);
            }
        }
        let headers = response.headers_mut();
        if !headers.contains_key(TRACE_PARENT) {
            headers.insert(TRACE_PARENT, parent);
            headers.insert(REQUEST_ID, name);
        }
    }
}

/// The problem's document with the names in it.
fn named(document: &[u8], trace: &str, name: &str) -> Vec<u8> {
    let mut whole = document.strip_suffix(b"}").unwrap_or(document).to_vec();
    whole.extend_from_slice(format!(r#","trace_id":"{trace}","request_id":"{name}"}}"#).as_bytes());
    whole
}

/// Whether the name can stand in a document and a log line as it is.
fn is_plain(name: &&HeaderValue) -> bool {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    (1..=NAME_MAX).contains(&name.len()) && name.as_bytes().iter().all(plain)
}

/// Another span of the same trace, or of a new one.
fn parent(came: Option<&[u8]>) -> Bytes {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
    match came {
        Some(came) => text.copy_from_slice(&came[..LENGTH]),
        None => write_hex(&mut text[TRACE], &(rand::random::<u128>() | 1).to_be_bytes()),
    }
    write_hex(&mut text[SPAN], &(rand::random::<u64>() | 1).to_be_bytes());
    Bytes::copy_from_slice(&text)
}

fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

fn value(text: Bytes) -> HeaderValue {
    // hexadecimal digits and hyphens are a value of a header
    HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests {
    use http::{StatusCode, Uri};

    use super::*;
    use crate::problem::Problem;

    const CAME: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn told(came: &[(&'static str, &str)]) -> (HeaderMap, String, String) {
        let mut request = headers(came);
        let ids = RequestIds::of(&mut request);
        let mut response = Response::new(Body::empty());
        ids.tell(&mut response);
        let of = |name: &HeaderName| response.headers()[name].to_str().unwrap().to_owned();
        (request, of(&TRACE_PARENT), of(&REQUEST_ID))
    }

    #[test]
    fn a_trace_goes_on_and_a_name_is_kept() {
        let (request, parent, name) = told(&[("traceparent", CAME), ("x-request-id", "order-7")]);
        assert_eq!(parent[TRACE], CAME[TRACE]);
        assert_ne!(parent[SPAN], CAME[SPAN]);
        assert_eq!(parent[52..], CAME[52..], "the caller's flags");
        assert_eq!(name, "order-7");
        assert_eq!(request[TRACE_PARENT], parent, "handlers see the same");
        for bad in ["", "a b", "a\"b", &"x".repeat(129)] {
            let (_, parent, name) = told(&[("traceparent", "nonsense"), ("request-id", bad)]);
            assert_eq!(name, parent[TRACE], "{bad}");
            assert!(trace::is_parent(parent.as_bytes()), "{parent}");
        }
        assert_ne!(told(&[]).1, told(&[]).1);
    }

    #[tokio::test]
    async fn a_problem_says_them() {
        let mut request = headers(&[("traceparent", CAME), ("request-id", "r1")]);
        let ids = RequestIds::of(&mut request);
        let problem = Problem::new(StatusCode::NOT_FOUND, "not-found", "t", "a \"quoted\" detail");
        let mut response = problem.respond(&Uri::from_static("/api/v1/users/7"));
        ids.tell(&mut response);
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&body["trace_id"], &body["request_id"]), (&CAME[TRACE].into(), &"r1".into()));
        assert_eq!(body["instance"], "/api/v1/users/7");
        let mut of_head = problem.respond(&Uri::from_static("/api/v1/users/7"));
        of_head.headers_mut().insert(CONTENT_LENGTH, 1.into());
        *of_head.body_mut() = Body::empty();
        RequestIds::of(&mut request).tell(&mut of_head);
        assert_eq!(of_head.body().size_hint().exact(), Some(0));
        assert!(of_head.headers()[CONTENT_LENGTH].to_str().unwrap().parse::<usize>().unwrap() > 100);
    }
}
