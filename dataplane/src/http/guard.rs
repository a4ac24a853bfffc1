//! What every request passes before its handler: the token, the caller's rate, other pages' browsers, and the way down.

use std::{
    convert::Infallible,
    net::IpAddr,
    path::Path,
    sync::Arc,
    task::{Context, Poll},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use crds::settings::Settings;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use parking_lot::RwLock;
use tower::Service;

use super::{
    credentials::{self, InAddress},
    direct::Routes,
    error::Problem,
    refusals::Refusals,
    router::BASE,
    tickets::Tickets,
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

/// The header by which a pod that is about to end tells the gateway, which removes it.
pub const DRAINING: HeaderName = HeaderName::from_static("flyweight-draining");

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, if-match, if-none-match, if-min-version, flyweight-explain",
);
const EXPOSED: HeaderValue = HeaderValue::from_static("etag, location, flyweight-explain, retry-after");

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
    tickets: Arc<Tickets>,
    limits: CallerLimits,
    origins: RwLock<Vec<String>>,
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
        tickets: Arc<Tickets>,
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
            tickets,
            limits: CallerLimits::default(),
            origins: RwLock::default(),
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
        self.origins.write().clone_from(&settings.security.cors_allow_origins);
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
        let origin = self.allowed_origin(request.headers());
        if let Some(origin) = &origin
            && request.method() == Method::OPTIONS
            && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        {
            return preflight(origin.clone());
        }
        let in_address = credentials::take(&mut request);
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let admitted = self.admit(&mut request, in_address).await;
        let caller = request.extensions().get::<Arc<Caller>>().cloned();
        let mut response = match admitted {
            Ok(()) => routes.answer(request).await,
            Err(problem) => problem.respond(request.uri()),
        };
        self.refusals.count(response.status(), &method, &uri, caller.as_ref().map(|caller| caller.subject.as_str()));
        let headers = response.headers_mut();
        if let Some(origin) = origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        if self.shutdown.draining() && !headers.contains_key(header::UPGRADE) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            if self.behind_gateway {
                headers.insert(DRAINING, HeaderValue::from_static("1"));
            }
        }
        response
    }

    async fn admit(&self, request: &mut Request, in_address: Option<InAddress>) -> Result<(), Problem> {
        if !is_guarded(request.uri().path()) {
            return Ok(());
        }
        // a ticket is used up also where nobody asks for tokens: what is good once is so everywhere
        let in_address = match in_address.filter(|_| !credentials::has_header(request.headers())) {
            Some(InAddress::Ticket(ticket)) => Some(self.tickets.redeem(&ticket).await?),
            Some(InAddress::Token(token)) => Some(token),
            None => None,
        };
        let caller = match &self.tokens {
            None => None,
            Some(tokens) => {
                let token = credentials::bearer(request.headers())
                    .or(in_address.as_deref())
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
            Problem::too_many_requests(format!("too many requests: try again in {} ms", wait.as_millis()))
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

    fn allowed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let text = origin.to_str().ok()?;
        self.origins.read().iter().any(|allowed| allowed == "*" || allowed == text).then(|| origin.clone())
    }
}

fn preflight(origin: HeaderValue) -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin),
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")),
        (header::VARY, HeaderValue::from_static("origin")),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// The API and the feed are guarded; probes and pages are not.
fn is_guarded(path: &str) -> bool {
    let of_api =
        path.strip_prefix(BASE).is_some_and(|rest| !matches!(rest, "/health" | "/livez" | "/readyz" | "/openapi.json"));
    of_api || path == "/ws"
}

fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;
    use crate::cache::clock::Clock;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    /// A guard that asks for tokens of this key.
    fn guard() -> Guard {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), SECRET).unwrap();
        Guard {
            tokens: Some(TokenVerifier::from_dir(dir.path()).unwrap()),
            tickets: Arc::new(Tickets::of_process(Clock::system())),
            limits: CallerLimits::default(),
            origins: RwLock::default(),
            behind_gateway: false,
            shutdown: Shutdown::never(),
            refusals: Refusals::new(&prometheus::Registry::new()).unwrap(),
        }
    }

    /// Who is let in, or the status of the refusal; and the address that handlers see.
    async fn admitted(guard: &Guard, uri: &str, header: Option<&str>) -> (Result<String, u16>, String) {
        let mut request = Request::get(uri).body(Body::empty()).unwrap();
        if let Some(value) = header {
            request.headers_mut().insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        let in_address = credentials::take(&mut request);
        let outcome = guard.admit(&mut request, in_address).await;
        let caller = || request.extensions().get::<Arc<Caller>>().unwrap().subject.clone();
        (outcome.map(|()| caller()).map_err(|problem| problem.status().as_u16()), request.uri().to_string())
    }

    #[tokio::test]
    async fn the_feed_is_opened_by_a_header_a_token_in_the_address_or_a_ticket() {
        let guard = guard();
        let claims = json!({ "sub": "ann", "exp": now_s() + 60 });
        let token = encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET)).unwrap();
        let ann = || Ok::<_, u16>("ann".to_owned());
        let header = format!("Bearer {token}");
        let asked = |query: &str| format!("/api/v1/events/stream?topics=order{query}");
        let bare = asked("");
        assert_eq!(admitted(&guard, &bare, Some(&header)).await, (ann(), bare.clone()));
        let in_address = asked(&format!("&access_token={token}"));
        assert_eq!(admitted(&guard, &in_address, None).await, (ann(), bare.clone()));
        assert_eq!(admitted(&guard, &in_address, Some("Basic x")).await.0, Err(401), "a header counts alone");
        assert_eq!(admitted(&guard, &format!("/api/v1/orders?access_token={token}"), None).await.0, Err(401));

        let ticket = guard.tickets.give(Some("ann"), &token).await.unwrap();
        let by_ticket = asked(&format!("&ticket={ticket}"));
        assert_eq!(admitted(&guard, &by_ticket, Some(&header)).await.0, ann());
        assert_eq!(admitted(&guard, &by_ticket, None).await, (ann(), bare), "a header left the ticket as it was");
        assert_eq!(admitted(&guard, &by_ticket, None).await.0, Err(401), "it is good once");
        // whoever could write where tickets are kept is still nobody
        for forged in ["", "a.b.c"] {
            let ticket = guard.tickets.give(None, forged).await.unwrap();
            assert_eq!(admitted(&guard, &asked(&format!("&ticket={ticket}")), None).await.0, Err(401));
        }
    }
}
