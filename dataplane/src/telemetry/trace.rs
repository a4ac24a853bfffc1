//! The trace of a request: 32 hexadecimal digits, from the header `traceparent` (W3C Trace Context) or made
//! here, and handed on.

use http::HeaderMap;

tokio::task_local! {
    static TRACE: String;
}

/// Does some work as part of a trace.
pub async fn scope<T>(trace: String, work: impl Future<Output = T>) -> T {
    TRACE.scope(trace, work).await
}

/// The trace of what is being done; a new one outside of any.
pub fn current() -> String {
    TRACE.try_with(Clone::clone).unwrap_or_else(|_| fresh())
}

/// The trace that a request is part of; a new one where it names none.
pub fn of_headers(headers: &HeaderMap) -> String {
    let named = headers.get("traceparent").and_then(|value| value.to_str().ok()).and_then(trace_of);
    named.map_or_else(fresh, str::to_owned)
}

/// The header `traceparent` of a call that is part of a trace.
pub fn parent(trace: &str) -> String {
    format!("00-{trace}-{:016x}-01", rand::random::<u64>() | 1)
}

/// Whether this is a `traceparent` of the form that is written here.
pub fn is_parent(text: &[u8]) -> bool {
    text.len() == 55
        && text.starts_with(b"00-")
        && str::from_utf8(text).is_ok_and(|text| trace_of(text).is_some())
}

fn fresh() -> String {
    format!("{:032x}", rand::random::<u128>() | 1)
}

/// The trace of a `traceparent`: version, trace, span and flags.
fn trace_of(parent: &str) -> Option<&str> {
    let mut parts = parent.trim().split('-');
    let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let nil = |text: &str| text.bytes().all(|byte| byte == b'0');
    (hex(version, 2) && version != "ff" && hex(trace, 32) && hex(span, 16) && !nil(trace) && !nil(span))
        .then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_trace_is_taken_over_or_made() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let of = |value: &str| {
            of_headers(&HeaderMap::from_iter([("traceparent".parse().unwrap(), value.parse().unwrap())]))
        };
        assert_eq!(of(&format!("00-{trace}-00f067aa0ba902b7-01")), trace);
        for bad in [
            "",
            "x",
            "00-1-2-3",
            &format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            &format!("ff-{trace}-00f067aa0ba902b7-01"),
        ] {
            let made = of(bad);
            assert!(made.len() == 32 && made != trace, "{bad}");
        }
        assert_eq!(scope(trace.to_owned(), async { current() }).await, trace);
        assert_ne!(current(), current());
        assert_eq!(trace_of(&parent(trace)), Some(trace));
    }
}
