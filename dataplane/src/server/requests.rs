//! What HTTP asks of every request, whatever it is for, and what its library leaves to its user.

use std::net::{IpAddr, Ipv6Addr};

use axum::{extract::Request, response::Response};
use http::{HeaderValue, Method, StatusCode, Uri, Version, header};

use crate::problem::Problem;

/// The methods that are known here. Which of them a path has, its route says.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"];
const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// The answer to a request that no route should see; none for all others. `own_names_only`: it came to an
/// address of this machine alone, so that a name of any other is one that a page of that name has pointed
/// here (DNS rebinding).
pub fn refused(request: &Request, own_names_only: bool) -> Option<Response> {
    let uri = request.uri();
    let problem = |status, kind, title, detail: &str| {
        Some(refusal(&Problem::new(status, kind, title, detail), uri, request.version()))
    };
    let host = match host(request) {
        Ok(host) => host,
        Err(detail) => return problem(StatusCode::BAD_REQUEST, "host", "The request names no host", detail),
    };
    if own_names_only && host.is_some_and(|host| !is_own(host)) {
        let detail = "this server listens on the loopback address, and answers to localhost, 127.0.0.1 and [::1] only: \
                      give it another address with --bind or LISTEN to serve other names";
        return problem(
            StatusCode::MISDIRECTED_REQUEST,
            "misdirected",
            "The host is not served here",
            detail,
        );
    }
    if request.version() <= Version::HTTP_11 && !METHODS.contains(&request.method().as_str()) {
        let detail = "no path here has this method";
        return problem(StatusCode::NOT_IMPLEMENTED, "method-unknown", "The method is not known", detail);
    }
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    let first = codings.next();
    if codings.next().is_some()
        || first.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        let detail = "Transfer-Encoding may be chunked only";
        return problem(
            StatusCode::NOT_IMPLEMENTED,
            "transfer-coding",
            "The transfer coding is not known",
            detail,
        );
    }
    if uri.path() == "*" {
        return match *request.method() {
            Method::OPTIONS => Some(options()),
            _ => {
                problem(StatusCode::BAD_REQUEST, "target", "The target is not valid", "* is for OPTIONS only")
            }
        };
    }
    let mut expected = request.headers().get_all(header::EXPECT).iter();
    if request.version() >= Version::HTTP_11
        && expected.any(|what| !what.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        let detail = "Expect may ask for 100-continue only";
        return problem(
            StatusCode::EXPECTATION_FAILED,
            "expectation",
            "The expectation cannot be met",
            detail,
        );
    }
    None
}

/// Puts the host that a request is for into its header, whether it came there or in its target: from here on
/// there is one place to look.
pub fn settle(request: &mut Request) {
    join_cookies(request);
    let Some(authority) = request.uri().authority() else { return };
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    if let Ok(host) = HeaderValue::from_str(host) {
        request.headers_mut().insert(header::HOST, host);
    }
}

/// Makes one field of the cookies that HTTP/2 lets a client send in several (RFC 9113, section 8.2.3).
fn join_cookies(request: &mut Request) {
    let mut values = request.headers().get_all(header::COOKIE).iter();
    if request.version() != Version::HTTP_2 || values.nth(1).is_none() {
        return;
    }
    let all: Vec<&[u8]> =
        request.headers().get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        request.headers_mut().insert(header::COOKIE, joined);
    }
}

/// What the server can do as a whole (RFC 9110, section 9.3.7).
fn options() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, ALLOWED);
    response
}

/// Who sends such a head may take something else for the next one, but in HTTP/2, where frames tell them
/// apart.
fn refusal(problem: &Problem, uri: &Uri, version: Version) -> Response {
    let mut response = problem.respond(uri);
    if version <= Version::HTTP_11 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The host that a request is for, without its port: of its target, or else of its header (RFC 9112, section
/// 3.2).
fn host(request: &Request) -> Result<Option<&str>, &'static str> {
    let mut values = request.headers().get_all(header::HOST).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return Err("the header Host is there twice");
    }
    // over HTTP/1.1 it must be there beside a whole URI, too
    if first.is_none() && request.version() == Version::HTTP_11 {
        return Err("the header Host is missing");
    }
    let told = first
        .map(|value| sound(value.as_bytes()).ok_or("the header Host is empty, or no host"))
        .transpose()?;
    Ok(request.uri().host().or(told))
}

/// The host of `host` or `host:port` (RFC 3986, section 3.2). Nothing is copied: every request passes here.
fn sound(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let (host, port) = match text.strip_prefix('[') {
        Some(literal) => {
            let (address, port) = literal.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (&text[..address.len() + 2], port)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=[]:".contains(&byte);
    let digits = port.strip_prefix(':').unwrap_or(port);
    let is_port =
        port.is_empty() || (port.len() > digits.len() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    (!host.is_empty() && host.bytes().all(in_name) && is_port).then_some(host)
}

/// Whether a host is a name of the loopback address.
fn is_own(host: &str) -> bool {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn status(host: &str, own_names_only: bool) -> Option<u16> {
        let request = Request::builder().uri("/").header("host", host).body(Body::empty()).unwrap();
        refused(&request, own_names_only).map(|response| response.status().as_u16())
    }

    #[test]
    fn a_loopback_server_answers_to_its_own_names_only() {
        for own in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:8080", "[::1]:8080", "127.1.2.3"] {
            assert_eq!(status(own, true), None, "{own}");
        }
        for other in [
            "shop.example.com",
            "localhost.example.com",
            "192.168.1.1:8080",
            "[::2]",
            "127.0.0.1.example.com",
        ] {
            assert_eq!(status(other, true), Some(421), "{other}");
            assert_eq!(status(other, false), None, "{other}");
        }
    }

    #[test]
    fn a_refusal_ends_the_connection_but_not_that_of_other_streams() {
        for (version, ends) in [(Version::HTTP_11, true), (Version::HTTP_2, false)] {
            let request =
                Request::builder().uri("/").version(version).header("host", "a b").body(Body::empty());
            let refused = refused(&request.unwrap(), false).unwrap();
            assert_eq!(refused.headers().contains_key(header::CONNECTION), ends, "{version:?}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for bad in ["", "a b", "a/b", "user@a", "a:port", ":80", "a:80:90", "[::1", "[x]", "[::1]80"] {
            assert_eq!(status(bad, false), Some(400), "{bad}");
        }
    }
}
