//! What every request passes before its handler: the token, the caller's rate, other pages' browsers, and the way down.

use std::{
    convert::Infallible,
    net::IpAddr,
    path::Path,
    sync::Arc,
    task::{Context, Poll},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{extract::Request, response::Response};
use crds::settings::Settings;
use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue, StatusCode, header};
use tower::Service;

use super::{
    browsers::{self, Browsers},
    direct::Routes,
    error::Problem,
    refusals::Refusals,
    router::BASE,
};
use crate::{
    security::{
        caller::Caller,
        jwt::{JwtKeyError, TokenVerifier},
        limits::CallerLimits,
    },
    server::ClientConnection,
    shutdown::Shutdown,
};

/// Stands for `Authorization` where something on the way takes that for itself, as the API server of Kubernetes does when it hands a request on.
const PROXIED_AUTHORIZATION: HeaderName = HeaderName::from_static("flyweight-authorization");

/// The header by which a pod that is about to end tells the gateway, which removes it.
pub const DRAINING: HeaderName = HeaderName::from_static("flyweight-draining");

/// Routes behind a guard. Not a layer of the router, for that costs every request several boxes.
#[derive(Clone)]
pub struct Guarded {
    guard: Arc<Guard>,
    routes: Routes,
}

/// Where a request comes from.
#[derive(Hash)]
enum Address<'a> {
    Told(&'a [u8]),
    Peer(Option<IpAddr>),
}

/// Guards the API. Rates and origins change in place.
pub struct Guard {
    tokens: Option<TokenVerifier>,
    limits: CallerLimits,
    browsers: Browsers,
    behind_gateway: bool,
    shutdown: Shutdown,
    refusals: Refusals,
}

impl Service<Request> for Guarded {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Self { guard, routes } = self.clone();
        Box::pin(async move { Ok(guard.handle(request, routes).await) })
    }
}

impl Guard {
    /// A guard by these settings. Keys are in `<security>/jwt`.
    ///
    /// # Errors
    /// Tokens are asked for and the key cannot be used.
    pub fn new(
        security: Option<&Path>,
        settings: &Settings,
        shutdown: Shutdown,
        refusals: Refusals,
    ) -> Result<Self, JwtKeyError> {
        let tokens = match (&settings.security.jwt_secret, security) {
            (None, _) => None,
            (Some(_), Some(dir)) => Some(TokenVerifier::from_dir(&dir.join("jwt"))?),
            (Some(secret), None) => {
                let message = format!("spec.security.jwt names the Secret {secret}: give its folder with --security");
                return Err(JwtKeyError { path: "--security".to_owned(), message });
            }
        };
        let guard = Self {
            tokens,
            limits: CallerLimits::default(),
            browsers: Browsers::default(),
            behind_gateway: settings.gateway.is_some(),
            shutdown,
            refusals,
        };
        guard.apply(settings);
        Ok(guard)
    }

    /// Takes the rate and the origins of new settings.
    pub fn apply(&self, settings: &Settings) {
        self.limits.apply(settings.security.rate_limit.as_ref());
        self.browsers.allow(&settings.security.cors_allow_origins);
    }

    /// Takes the keys that are in `<security>/jwt` now.
    ///
    /// # Errors
    /// They cannot be used: the present ones stay.
    pub fn reload_keys(&self, security: &Path) -> Result<(), JwtKeyError> {
        self.tokens.as_ref().map_or(Ok(()), |tokens| tokens.reload(&security.join("jwt"), now_s()))
    }

    /// The routes, guarded.
    pub fn around(self: &Arc<Self>, routes: Routes) -> Guarded {
        Guarded { guard: self.clone(), routes }
    }

    async fn handle(&self, mut request: Request, routes: Routes) -> Response {
        if let Some(answer) = self.browsers.preflight(&request) {
            return answer;
        }
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let (admitted, origin) = match self.browsers.admit(&mut request) {
            Ok(origin) => (self.admit(&mut request), origin),
            Err(problem) => (Err(problem), None),
        };
        let caller = request.extensions().get::<Arc<Caller>>().cloned();
        let mut response = match admitted {
            Ok(()) => routes.answer(request).await,
            Err(problem) => {
                let limited = problem.status() == StatusCode::TOO_MANY_REQUESTS;
                let mut response = problem.respond(request.uri());
                if limited {
                    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                }
                response
            }
        };
        self.refusals.count(response.status(), &method, &uri, caller.as_ref().map(|caller| caller.subject.as_str()));
        let headers = response.headers_mut();
        self.browsers.tell(origin, headers);
        browsers::protect(headers);
        if self.shutdown.draining() && !headers.contains_key(header::UPGRADE) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            if self.behind_gateway {
                headers.insert(DRAINING, HeaderValue::from_static("1"));
            }
        }
        response
    }

    fn admit(&self, request: &mut Request) -> Result<(), Problem> {
        if !is_guarded(request.uri().path()) {
            return Ok(());
        }
        let caller = match &self.tokens {
            None => None,
            Some(tokens) => {
                let token = bearer(request)
                    .ok_or_else(|| Problem::unauthenticated("send a token: Authorization: Bearer <token>"))?;
                let caller =
                    tokens.verify(token, now_s()).map_err(|error| Problem::unauthenticated(error.to_string()))?;
                Some(caller)
            }
        };
        let limited = match &caller {
            Some(caller) => self.limits.check(&caller.subject),
            None => self.limits.check(&self.address(request)),
        };
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        limited.map_err(|wait| {
            let detail = format!("too many requests: try again in {} ms", wait.as_millis());
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate", "Too many requests", detail)
        })
    }

    /// The client's address: what the gateway says where there is one, for only the gateway reaches this process then.
    fn address<'a>(&self, request: &'a Request) -> Address<'a> {
        let told = if self.behind_gateway { request.headers().get("x-forwarded-for") } else { None };
        match told {
            Some(told) => Address::Told(told.as_bytes()),
            None => Address::Peer(request.extensions().get::<ClientConnection>().map(|client| client.peer.ip())),
        }
    }
}

/// The API and the feed are guarded; probes and pages are not.
fn is_guarded(path: &str) -> bool {
    let of_api =
        path.strip_prefix(BASE).is_some_and(|rest| !matches!(rest, "/health" | "/livez" | "/readyz" | "/openapi.json"));
    of_api || path == "/ws"
}

/// The token: from a header or, for WebSockets, which browsers open without headers, from the query.
fn bearer(request: &Request) -> Option<&str> {
    let headers = request.headers();
    if let Some(value) = headers.get(header::AUTHORIZATION).or_else(|| headers.get(PROXIED_AUTHORIZATION)) {
        let text = value.to_str().ok()?;
        let (scheme, token) = text.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then_some(token.trim());
    }
    if !request.headers().contains_key(header::UPGRADE) {
        return None;
    }
    let query = request.uri().query()?;
    query.split('&').find_map(|pair| pair.strip_prefix("access_token="))
}

fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn the_token_is_where_its_header_or_a_websocket_says() {
        let (plain, proxied) = (("authorization", "Bearer a.b.c"), ("flyweight-authorization", "Bearer d.e.f"));
        let upgrade = ("upgrade", "websocket");
        for (headers, uri, token) in [
            (&[plain][..], "/", Some("a.b.c")),
            (&[proxied], "/", Some("d.e.f")),
            (&[("authorization", "bearer x.y.z")], "/", Some("x.y.z")),
            (&[("authorization", "Bearer")], "/", None),
            (&[plain, proxied], "/", Some("a.b.c")),
            (&[("authorization", "Basic x"), proxied], "/", None),
            (&[upgrade], "/ws?topics=user&access_token=g.h.i", Some("g.h.i")),
            (&[], "/ws?access_token=g.h.i", None),
            (&[], "/", None),
        ] {
            let builder = headers
                .iter()
                .fold(Request::builder().uri(uri), |builder, (name, value)| builder.header(*name, *value));
            assert_eq!(bearer(&builder.body(Body::empty()).unwrap()), token, "{headers:?} {uri}");
        }
    }
}
