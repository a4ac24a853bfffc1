//! What pages of other sites may do by their visitors' browsers: what the Fetch standard lets them ask for,
//! and what is refused although a browser sends it.

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use parking_lot::RwLock;

use crate::problem::Problem;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, if-match, if-none-match, if-min-version, last-event-id, \
     flyweight-authorization, flyweight-explain, traceparent, tracestate, baggage",
);
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "etag, location, content-location, retry-after, age, warning, flyweight-explain, traceparent, request-id, \
     ratelimit, ratelimit-policy, www-authenticate",
);

/// A request that a page of another site may have made: what it sends must be JSON by name, which browsers
/// ask about first.
#[derive(Clone, Copy, Debug)]
pub struct FromOtherSite;

/// The origins whose pages may use the API.
#[derive(Default)]
pub struct Browsers {
    allowed: RwLock<Vec<String>>,
}

/// Where a request comes from, as its browser says.
enum Site {
    /// No browser's page, or one of our own.
    Own,
    /// A page of an origin that may use the API.
    Allowed(HeaderValue),
    /// A page of any other origin.
    Foreign,
}

impl Browsers {
    /// Takes other origins.
    pub fn allow(&self, origins: &[String]) {
        origins.clone_into(&mut self.allowed.write());
    }

    /// The answer to a preflight of an origin that may use the API; none for any other request.
    pub fn preflight(&self, request: &Request) -> Option<Response> {
        let asks = request.method() == Method::OPTIONS
            && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !asks {
            return None;
        }
        let headers = [
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, self.allowed_origin(request.headers())?),
            (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
            (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")),
            (header::VARY, HeaderValue::from_static("origin")),
        ];
        Some((StatusCode::NO_CONTENT, headers).into_response())
    }

    /// Judges where a request comes from, and gives the origin that may read the answer.
    ///
    /// # Errors
    /// 403: a page of another origin would change something or open a socket.
    pub fn admit(&self, request: &mut Request) -> Result<Option<HeaderValue>, Problem> {
        let headers = request.headers();
        if !headers.contains_key(header::ORIGIN) && !is_cross_site(headers) {
            return Ok(None);
        }
        let site = self.site_of(headers, request.uri());
        let acts = !request.method().is_safe() || headers.contains_key(header::UPGRADE);
        let origin = match site {
            Site::Own => return Ok(None),
            Site::Foreign if acts && headers.contains_key(header::ORIGIN) => return Err(foreign(headers)),
            Site::Foreign => None,
            Site::Allowed(origin) => Some(origin),
        };
        request.extensions_mut().insert(FromOtherSite);
        Ok(origin)
    }

    /// Says in an answer who may read it.
    pub fn tell(&self, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        if let Some(origin) = origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
        if !self.allowed.read().is_empty() {
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
    }

    fn site_of(&self, headers: &HeaderMap, uri: &Uri) -> Site {
        if let Some(origin) = self.allowed_origin(headers) {
            return Site::Allowed(origin);
        }
        let says = |wanted: &str| headers.get("sec-fetch-site").is_some_and(|site| site == wanted);
        if says("same-origin") || says("none") || is_same(headers, uri) && !is_cross_site(headers) {
            return Site::Own;
        }
        Site::Foreign
    }

    fn allowed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let text = origin.to_str().ok()?;
        self.allowed.read().iter().any(|allowed| allowed == "*" || allowed == text).then(|| origin.clone())
    }
}

/// What every answer says to browsers and caches, unless it says so itself: its type is no guess, and it is
/// nobody's but the caller's.
pub fn protect(headers: &mut HeaderMap) {
    headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    // what has a tag may be kept by who asked, and is asked about each time
    let kept = if headers.contains_key(header::ETAG) { "private, no-cache" } else { "no-store" };
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static(kept));
}

fn is_cross_site(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site")
}

/// Whether the origin is where the request went. What is before this server may speak TLS, so only hosts are
/// compared.
fn is_same(headers: &HeaderMap, uri: &Uri) -> bool {
    let told = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = uri.authority().map(http::uri::Authority::as_str).or(told);
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    let (Some(host), Some((scheme, origin))) = (host, origin.and_then(|origin| origin.split_once("://")))
    else {
        return false;
    };
    // browsers leave the port of the scheme out; others may not
    let port = if scheme == "https" { ":443" } else { ":80" };
    let bare = |host: &str| host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
    bare(host) == bare(origin)
}

fn foreign(headers: &HeaderMap) -> Problem {
    let origin =
        headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or("another site");
    Problem::forbidden(format!(
        "a page of {} may not do this: allow its origin in spec.security.cors.allowOrigins of the FlyweightService",
        model::strict::shorten(origin)
    ))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(method: Method, headers: &[(&str, &str)]) -> Request {
        let builder =
            headers.iter().fold(Request::builder().method(method).uri("/"), |builder, (name, value)| {
                builder.header(*name, *value)
            });
        builder.header("host", "shop.example.com").body(Body::empty()).unwrap()
    }

    #[test]
    fn pages_of_other_origins_change_nothing_and_open_no_socket() {
        let browsers = Browsers::default();
        browsers.allow(&["https://app.example.com".to_owned()]);
        let own = ("origin", "https://shop.example.com");
        let app = ("origin", "https://app.example.com");
        let evil = ("origin", "https://evil.example");
        let cross = ("sec-fetch-site", "cross-site");
        let socket = ("upgrade", "websocket");
        for (headers, method, admitted, from_other_site) in [
            (&[][..], Method::POST, true, false),
            (&[own], Method::POST, true, false),
            (&[("origin", "https://SHOP.example.com:443")], Method::POST, true, false),
            (&[("origin", "https://shop.example.com:8443")], Method::POST, false, false),
            (&[app], Method::POST, true, true),
            (&[evil], Method::GET, true, true),
            (&[evil], Method::POST, false, false),
            (&[evil, socket], Method::GET, false, false),
            (&[app, socket], Method::GET, true, true),
            (&[("origin", "null")], Method::DELETE, false, false),
            (&[cross], Method::POST, true, true),
            (&[own, cross], Method::POST, false, false),
            // a proxy on the way may have changed the host
            (
                &[("origin", "https://other.example.com"), ("sec-fetch-site", "same-origin")],
                Method::POST,
                true,
                false,
            ),
        ] {
            let mut request = request(method.clone(), headers);
            assert_eq!(browsers.admit(&mut request).is_ok(), admitted, "{method} {headers:?}");
            let marked = request.extensions().get::<FromOtherSite>().is_some();
            assert_eq!(marked, from_other_site, "{method} {headers:?}");
        }
    }

    #[test]
    fn only_allowed_origins_are_answered_before_they_ask() {
        let browsers = Browsers::default();
        let asks = [("origin", "https://a.example"), ("access-control-request-method", "PUT")];
        assert!(browsers.preflight(&request(Method::OPTIONS, &asks)).is_none());
        browsers.allow(&["*".to_owned()]);
        let answer = browsers.preflight(&request(Method::OPTIONS, &asks)).unwrap();
        let allowed = answer.headers()["access-control-allow-headers"].to_str().unwrap();
        for name in ["traceparent", "tracestate", "baggage", "last-event-id", "idempotency-key", "if-match"] {
            assert!(allowed.split(", ").any(|one| one == name), "{name}");
        }
    }
}
