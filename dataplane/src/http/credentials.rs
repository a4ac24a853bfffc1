//! Who a request says it is from: a token in a header or, where browsers send no header of their own, a
//! ticket or a token in the address of the feed.
//!
//! What the address has of this is taken out of it before anything else sees the request: no handler, problem
//! or log has it.

use axum::extract::Request;
use http::{
    HeaderMap, HeaderName, Method, Uri, header,
    uri::{Parts, PathAndQuery},
};

use super::live;

/// Stands for `Authorization` where something on the way takes that for itself, as the API server of
/// Kubernetes does when it hands a request on.
const PROXIED_AUTHORIZATION: HeaderName = HeaderName::from_static("flyweight-authorization");

/// The query parameters of a ticket and of a token (RFC 6750, section 2.3).
const TICKET: &str = "ticket";
const ACCESS_TOKEN: &str = "access_token";

/// What the address says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InAddress {
    /// A ticket.
    Ticket(String),
    /// A token.
    Token(String),
}

/// Takes what the address says out of it. Only addresses of the feed have any; in others such a parameter
/// stays, and is one that is not known.
pub fn take(request: &mut Request) -> Option<InAddress> {
    let uri = request.uri();
    let query = uri.query().filter(|_| request.method() == Method::GET && live::is_feed(uri.path()))?;
    let named = |name: &str| {
        let value = |pair: &'_ str| pair.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        query.split('&').find_map(value)
    };
    let found = named(TICKET).map(InAddress::Ticket).or_else(|| named(ACCESS_TOKEN).map(InAddress::Token))?;
    let kept: Vec<&str> = query.split('&').filter(|pair| !is_credential(pair)).collect();
    let without = match kept.as_slice() {
        [] => uri.path().to_owned(),
        kept => format!("{}?{}", uri.path(), kept.join("&")),
    };
    let mut parts: Parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(without).ok()?);
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    Some(found)
}

/// Whether an address has a ticket, which is good once: who asks again is refused.
pub fn has_ticket(uri: &Uri) -> bool {
    live::is_feed(uri.path())
        && uri
            .query()
            .is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some(TICKET)))
}

fn is_credential(pair: &str) -> bool {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    name == TICKET || name == ACCESS_TOKEN
}

/// Whether a header says who it is from, well or badly: then the address does not count.
pub fn has_header(headers: &HeaderMap) -> bool {
    authorization(headers).is_some()
}

/// The token that a header has.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    // the scheme is in any case (RFC 9110, section 11.1)
    let (scheme, token) = authorization(headers)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn authorization(headers: &HeaderMap) -> Option<&http::HeaderValue> {
    headers.get(header::AUTHORIZATION).or_else(|| headers.get(PROXIED_AUTHORIZATION))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn a_header_says_it_best() {
        let (plain, proxied) =
            (("authorization", "Bearer a.b.c"), ("flyweight-authorization", "Bearer d.e.f"));
        for (headers, token) in [
            (&[plain][..], Some("a.b.c")),
            (&[proxied], Some("d.e.f")),
            (&[plain, proxied], Some("a.b.c")),
            (&[("authorization", "bearer x.y.z")], Some("x.y.z")),
            (&[("authorization", "Bearer")], None),
            (&[("authorization", "Basic x"), proxied], None),
            (&[], None),
        ] {
            let builder = headers
                .iter()
                .fold(Request::builder(), |builder, (name, value)| builder.header(*name, *value));
            let request = builder.body(Body::empty()).unwrap();
            assert_eq!(bearer(request.headers()), token, "{headers:?}");
            assert_eq!(has_header(request.headers()), !headers.is_empty());
        }
    }

    #[test]
    fn addresses_of_the_feed_say_it_and_nobody_sees_it_again() {
        let taken = |method: &str, uri: &str| {
            let mut request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
            let found = take(&mut request);
            (found, request.uri().to_string())
        };
        let (ticket, token) =
            (|text: &str| InAddress::Ticket(text.to_owned()), |text: &str| InAddress::Token(text.to_owned()));
        for (uri, found, rest) in [
            ("/ws?access_token=g.h.i", token("g.h.i"), "/ws"),
            (
                "/api/v1/ws?topics=user&access_token=g.h.i&since=a",
                token("g.h.i"),
                "/api/v1/ws?topics=user&since=a",
            ),
            ("/api/v1/events/stream?ticket=t&topics=user", ticket("t"), "/api/v1/events/stream?topics=user"),
            ("http://shop:80/ws?ticket=t&access_token=g.h.i&ticket=u", ticket("t"), "http://shop:80/ws"),
        ] {
            assert_eq!(taken("GET", uri), (Some(found), rest.to_owned()));
        }
        for (uri, has) in
            [("/ws?a=b&ticket=t", true), ("/ws?access_token=t", false), ("/api/v1/orders?ticket=t", false)]
        {
            assert_eq!(has_ticket(&uri.parse().unwrap()), has, "{uri}");
        }
        for (method, uri) in [
            ("GET", "/api/v1/orders?access_token=g.h.i"),
            ("POST", "/api/v1/ws/tickets?ticket=t"),
            ("GET", "/ws?topics=user&xticket=t"),
            ("GET", "/ws"),
        ] {
            assert_eq!(taken(method, uri), (None, uri.to_owned()));
        }
    }
}
