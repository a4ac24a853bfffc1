//! What every request passes before its handler: the token, the caller's rate, other pages' browsers, and the
//! way down.

use std::{
    convert::Infallible,
    net::IpAddr,
    path::Path,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{extract::Request, response::Response};
use crds::settings::Settings;
use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue, StatusCode, header};
use tower::Service;

use super::{
    access_log::AccessLine,
    browsers::{self, Browsers},
    credentials::{self, InAddress},
    direct::Routes,
    ratelimit,
    refusals::Refusals,
    request_ids::RequestIds,
    router::BASE,
    tickets::Tickets,
};
use crate::problem::Problem;
use crate::{
    security::{
        caller::Caller,
        jwt::{JwtKeyError, TokenVerifier},
        limits::{BadTokens, CallerLimits, SharedBuckets, Standing},
    },
    server::{ClientConnection, places::network_of},
};
use runtime::{shutdown::Shutdown, supervisor};

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
    tickets: Arc<Tickets>,
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

    fn call(&mut self, mut request: Request) -> Self::Future {
        let Self { guard, routes } = self.clone();
        Box::pin(async move {
            let ids = RequestIds::of(request.headers_mut());
            let line = AccessLine::begin(&request);
            let mut response = guard.handle(request, routes).await;
            ids.tell(&mut response);
            if let Some(line) = line {
                line.end(&response);
            }
            Ok(response)
        })
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
            (None, _) if settings.security.issuers.is_empty() => None,
            (None, _) => Some(TokenVerifier::without_keys()),
            (Some(_), Some(dir)) => Some(TokenVerifier::from_dir(&dir.join("jwt"))?),
            (Some(secret), None) => {
                let message =
                    format!("spec.security.jwt names the Secret {secret}: give its folder with --security");
                return Err(JwtKeyError { path: "--security".to_owned(), message });
            }
        };
        let tokens = match tokens {
            Some(mut tokens) => {
                tokens.trust(&settings.security.issuers)?;
                Some(tokens)
            }
            None => None,
        };
        let guard = Self {
            tokens,
            tickets,
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

    /// Follows the keys of the issuers of tokens, for as long as the process runs.
    pub fn follow_issuers(&self) {
        for issuer in self.tokens.iter().flat_map(TokenVerifier::issuers) {
            let issuer = issuer.clone();
            supervisor::ISSUER.spawn(move || issuer.clone().follow(now_s));
        }
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

    /// Whether the rates of callers are shared with other replicas now; none where that was not asked for, or
    /// there is no rate.
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
        let in_address = credentials::take(&mut request);
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let (admitted, origin) = match self.browsers.admit(&mut request) {
            Ok(origin) => (self.admit(&mut request, in_address).await, origin),
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
    /// 401, 429, or 503 where tickets cannot be looked up.
    async fn admit(
        &self,
        request: &mut Request,
        in_address: Option<InAddress>,
    ) -> Result<Option<Standing>, Refused> {
        if !is_guarded(request.uri().path()) {
            return Ok(None);
        }
        let address = self.address(request);
        // a ticket is used up also where nobody asks for tokens: what is good once is so everywhere
        let in_address = match in_address.filter(|_| !credentials::has_header(request.headers())) {
            Some(InAddress::Ticket(ticket)) => Some(self.redeemed(&ticket, address).await?),
            Some(InAddress::Token(token)) => Some(token),
            None => None,
        };
        let token = credentials::bearer(request.headers()).or(in_address.as_deref());
        let caller = self.authenticated(token, address).await?;
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

    /// The token that a ticket stands for, which is used up.
    async fn redeemed(&self, ticket: &str, address: IpAddr) -> Result<String, Problem> {
        self.bad_tokens.check(address).map_err(too_many_bad)?;
        let redeemed = self.tickets.redeem(ticket).await;
        let is_bad = matches!(&redeemed, Err(problem) if problem.status() == StatusCode::UNAUTHORIZED);
        if is_bad && self.tickets.are_shared() {
            self.bad_tokens.note(address);
        }
        redeemed
    }

    /// The caller of a request's token; none where callers need none.
    async fn authenticated(
        &self,
        token: Option<&str>,
        address: IpAddr,
    ) -> Result<Option<Arc<Caller>>, Problem> {
        let Some(tokens) = &self.tokens else { return Ok(None) };
        let missing = || Problem::unauthenticated("send a token: Authorization: Bearer <token>");
        let (token, now_s) = (token.ok_or_else(missing)?, now_s());
        if let Some(caller) = tokens.known(token, now_s) {
            return Ok(Some(caller));
        }
        // to look at a signature costs more than all else that a stranger can ask for
        self.bad_tokens.check(address).map_err(too_many_bad)?;
        tokens.verify(token, now_s).await.map(Some).map_err(|error| {
            if error.is_unavailable {
                return Problem::unavailable("issuer-away", error.to_string());
            }
            // one that is over is renewed soon, from the same address
            if !error.is_untimely {
                self.bad_tokens.note(address);
            }
            Problem::unauthenticated(error.to_string())
        })
    }

    /// The client's address, or its network: what the gateway says where there is one, for only the gateway
    /// reaches this process then.
    fn address(&self, request: &Request) -> IpAddr {
        let told = request.headers().get("x-forwarded-for").filter(|_| self.behind_gateway);
        let told = told.and_then(|told| told.to_str().ok()?.parse().ok());
        let peer = || request.extensions().get::<ClientConnection>().map(|client| client.peer.ip());
        network_of(told.or_else(peer).unwrap_or(IpAddr::from([0; 4])))
    }
}

fn too_many_bad(wait: Duration) -> Problem {
    Problem::limited("too many bad tokens came from this address", wait)
}

/// The API and the feed are guarded; probes and pages are not.
fn is_guarded(path: &str) -> bool {
    let of_api = path
        .strip_prefix(BASE)
        .is_some_and(|rest| !matches!(rest, "/health" | "/livez" | "/readyz" | "/openapi.json"));
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
    use engine::clock::Clock;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    /// A guard that asks for tokens of this key.
    fn guard() -> Guard {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), SECRET).unwrap();
        Guard {
            tokens: Some(TokenVerifier::from_dir(dir.path()).unwrap()),
            tickets: Arc::new(Tickets::of_process(Clock::system())),
            limits: CallerLimits::default(),
            bad_tokens: BadTokens::default(),
            browsers: Browsers::default(),
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
        (
            outcome.map(|_| caller()).map_err(|refused| refused.problem.status().as_u16()),
            request.uri().to_string(),
        )
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
        assert_eq!(
            admitted(&guard, &by_ticket, None).await,
            (ann(), bare),
            "a header left the ticket as it was"
        );
        assert_eq!(admitted(&guard, &by_ticket, None).await.0, Err(401), "it is good once");
        // whoever could write where tickets are kept is still nobody
        for forged in ["", "a.b.c"] {
            let ticket = guard.tickets.give(None, forged).await.unwrap();
            assert_eq!(admitted(&guard, &asked(&format!("&ticket={ticket}")), None).await.0, Err(401));
        }
    }
}
