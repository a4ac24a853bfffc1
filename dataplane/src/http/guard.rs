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
    ratelimit,
    refusals::Refusals,
    router::BASE,
};
use crate::{
    security::{
        caller::Caller,
        jwt::{JwtKeyError, TokenVerifier},
        limits::{BadTokens, CallerLimits, SharedBuckets, Standing},
    },
    server::{ClientConnection, places::network_of},
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

/// Why a request is not let in, and how its caller stands where that is known.
struct Refused {
    problem: Problem,
    standing: Option<Standing>,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { problem, standing: None }
    }
}

/// Guards the API. Rates and origins change in place.
pub struct Guard {
    tokens: Option<TokenVerifier>,
    limits: CallerLimits,
    bad_tokens: BadTokens,
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
            bad_tokens: BadTokens::default(),
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

    /// Keeps the rates of callers in these buckets from now on, together with other replicas.
    pub fn share_rates(&self, buckets: Arc<dyn SharedBuckets>) {
        self.limits.share(buckets);
    }

    /// Whether the rates of callers are shared with other replicas now; none where that was not asked for, or there is no rate.
    pub fn rates_are_shared(&self) -> Option<bool> {
        self.limits.is_shared()
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
            Ok(origin) => (self.admit(&mut request).await, origin),
            Err(problem) => (Err(Refused::from(problem)), None),
        };
        let (admitted, standing) = match admitted {
            Ok(standing) => (Ok(()), standing),
            Err(Refused { problem, standing }) => (Err(problem), standing),
        };
        let caller = request.extensions().get::<Arc<Caller>>().cloned();
        let mut response = match admitted {
            Ok(()) => routes.answer(request).await,
            Err(problem) => problem.respond(&uri),
        };
        if let Some(standing) = standing {
            ratelimit::tell(&standing, response.headers_mut());
        }
        self.refusals.count(&response, &method, &uri, caller.as_ref().map(|caller| caller.subject.as_str()));
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

    /// Finds out who calls, and counts the request: says how the caller stands.
    ///
    /// # Errors
    /// 401 or 429.
    async fn admit(&self, request: &mut Request) -> Result<Option<Standing>, Refused> {
        if !is_guarded(request.uri().path()) {
            return Ok(None);
        }
        let address = self.address(request);
        let caller = self.authenticated(request, address)?;
        let name = match &caller {
            Some(caller) => format!("subject {}", caller.subject),
            None => format!("address {address}"),
        };
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        let standing = self.limits.check(&name).await;
        self.refusals.note_shared(self.limits.is_shared() == Some(true));
        match standing.as_ref().map_or(Ok(()), ratelimit::refuse) {
            Ok(()) => Ok(standing),
            Err(problem) => Err(Refused { problem, standing }),
        }
    }

    /// The caller of the request's token; none where callers need none.
    fn authenticated(&self, request: &Request, address: IpAddr) -> Result<Option<Arc<Caller>>, Problem> {
        let Some(tokens) = &self.tokens else { return Ok(None) };
        let missing = || Problem::unauthenticated("send a token: Authorization: Bearer <token>");
        let (token, now_s) = (bearer(request).ok_or_else(missing)?, now_s());
        if let Some(caller) = tokens.known(token, now_s) {
            return Ok(Some(caller));
        }
        // to look at a signature costs more than all else that a stranger can ask for
        let limited = |wait| Problem::limited("too many bad tokens came from this address", wait);
        self.bad_tokens.check(address).map_err(limited)?;
        tokens.verify(token, now_s).map(Some).map_err(|error| {
            self.bad_tokens.note(address);
            Problem::unauthenticated(error.to_string())
        })
    }

    /// The client's address, or its network: what the gateway says where there is one, for only the gateway reaches this process then.
    fn address(&self, request: &Request) -> IpAddr {
        let told = request.headers().get("x-forwarded-for").filter(|_| self.behind_gateway);
        let told = told.and_then(|told| told.to_str().ok()?.parse().ok());
        let peer = || request.extensions().get::<ClientConnection>().map(|client| client.peer.ip());
        network_of(told.or_else(peer).unwrap_or(IpAddr::from([0; 4])))
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
