//! `POST /ws/tickets`: a ticket stands for the caller's token for half a minute, once, where a browser can
//! only give an address.
//!
//! A ticket is a random number that is kept nowhere. What is kept, in the Redis that replicas share, is the
//! token, encrypted under a key that follows from the ticket, in a place that follows from it too: who reads
//! that Redis gets neither tickets nor tokens, and who writes to it gets in as nobody, because the token is
//! verified anew when the ticket is used. Whoever takes it out first has it, whichever replica asks. Without
//! such a Redis the process keeps tickets itself: each is good at the replica that gave it.

use std::{collections::VecDeque, fmt::Write, sync::Arc, time::Duration};

use aes_gcm_siv::{Aes256GcmSiv, KeyInit, Nonce, aead::Aead};
use axum::{Extension, Router, extract::State, response::Response, routing::post};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{credentials, params::Params, resource};
use crate::problem::Problem;
use crate::security::caller::Caller;
use engine::{
    clock::Clock,
    shared::{LocalShared, Order, SharedCache, SharedError},
};
use model::{key::Version, routes};

/// How long a ticket is good, in ms.
const LIFETIME_MS: u64 = 30_000;
/// The bytes of a ticket.
const TICKET_BYTES: usize = 32;
/// The most bytes of a token that a ticket can stand for.
const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Tickets that this process gave and that are not over, used or not; of all callers, and of one.
const TICKETS_MAX: usize = 4_096;
const TICKETS_EACH_MAX: usize = 64;
/// What the process itself keeps at most where there is no Redis, in bytes; the oldest go first.
const LOCAL_BYTES_MAX: usize = 16 << 20;
/// What the place of a ticket begins with: no record's key does, for that has its pool's name first.
const PLACE: &str = "flyweight!ticket:";

/// Gives tickets, and takes them back.
pub struct Tickets {
    kept: Arc<dyn SharedCache>,
    prefix: String,
    shared: bool,
    clock: Clock,
    /// When each of those that are not over ends, and whose it is; the oldest first.
    given: Mutex<VecDeque<(u64, Option<String>)>>,
}

impl Tickets {
    /// Tickets that every replica takes: they are kept in a cache that all share, under a prefix that is the
    /// service's own.
    pub fn shared(kept: Arc<dyn SharedCache>, prefix: &str, clock: Clock) -> Self {
        Self { kept, prefix: format!("{prefix}{PLACE}"), shared: true, clock, given: Mutex::default() }
    }

    /// Tickets that only this process takes.
    pub fn of_process(clock: Clock) -> Self {
        let kept = Arc::new(LocalShared::new(LOCAL_BYTES_MAX, clock.clone()));
        Self { shared: false, ..Self::shared(kept, "", clock) }
    }

    /// Whether every replica takes them; else one that is not known here may be another's.
    pub fn are_shared(&self) -> bool {
        self.shared
    }

    /// A ticket for a caller's token; the token is empty where the service asks for none.
    ///
    /// # Errors
    /// 429: the caller has too many already; 503: all have, or what keeps tickets does not answer; 400: the
    /// token is too long.
    pub async fn give(&self, caller: Option<&str>, token: &str) -> Result<String, Problem> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Problem::field(
                "Authorization",
                format!("has a token of more than {TOKEN_BYTES_MAX} bytes"),
            ));
        }
        let now_ms = self.clock.now_ms();
        self.admit(caller, now_ms)?;
        let ticket: [u8; TICKET_BYTES] = rand::random();
        let order = Order {
            key: self.place(&ticket),
            version: Version(1),
            loaded_at_ms: now_ms,
            value: Some(seal(&ticket, token)?),
            keep_ms: LIFETIME_MS,
        };
        match self.kept.tell(&[order]).await.pop() {
            Some(Ok(())) => Ok(BASE64.encode(ticket)),
            Some(Err(error)) => Err(unavailable(&error)),
            None => Err(Problem::unavailable("tickets", "the ticket was not kept: try again")),
        }
    }

    /// The token that a ticket stands for. Nobody gets it again.
    ///
    /// # Errors
    /// 401: it is none, was used, or is over; 503: what keeps tickets does not answer.
    pub async fn redeem(&self, ticket: &str) -> Result<String, Problem> {
        let refused =
            || Problem::unauthenticated("the ticket is not good: each is for one use within 30 seconds");
        let ticket: [u8; TICKET_BYTES] =
            BASE64.decode(ticket).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(refused)?;
        let held = self.kept.take(&self.place(&ticket)).await.map_err(|error| unavailable(&error))?;
        // what a Redis has from a run before may have been used in that one: its time says nothing
        let young = |loaded_at_ms: u64| loaded_at_ms != 0 && self.clock.now_ms() < loaded_at_ms + LIFETIME_MS;
        let held = held.filter(|held| young(held.loaded_at_ms)).ok_or_else(refused)?;
        open(&ticket, &held.value).ok_or_else(refused)
    }

    fn admit(&self, caller: Option<&str>, now_ms: u64) -> Result<(), Problem> {
        let mut given = self.given.lock();
        while given.front().is_some_and(|(ends_ms, _)| *ends_ms <= now_ms) {
            given.pop_front();
        }
        if given.iter().filter(|(_, whose)| whose.as_deref() == caller).count() >= TICKETS_EACH_MAX
            && caller.is_some()
        {
            let detail = format!("{TICKETS_EACH_MAX} tickets in 30 seconds are the most: try again");
            return Err(Problem::limited(detail, Duration::from_secs(1)));
        }
        if given.len() >= TICKETS_MAX {
            return Err(Problem::overload("tickets", "there are too many tickets: try again"));
        }
        given.push_back((now_ms + LIFETIME_MS, caller.map(str::to_owned)));
        Ok(())
    }

    fn place(&self, ticket: &[u8]) -> String {
        let mut place = self.prefix.clone();
        for byte in derived(b"place", ticket) {
            _ = write!(place, "{byte:02x}");
        }
        place
    }
}

/// The routes of tickets.
pub fn routes(tickets: Arc<Tickets>) -> Router {
    Router::new().route(routes::TICKETS.path, post(create)).with_state(tickets)
}

/// `POST /ws/tickets`
async fn create(
    State(tickets): State<Arc<Tickets>>,
    caller: Option<Extension<Arc<Caller>>>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let caller = caller.as_ref().map(|Extension(caller)| caller.subject.as_str());
    // without tokens there is nobody to stand for, whatever a header says
    let token = caller.and(credentials::bearer(&headers)).unwrap_or_default();
    ticket(&tickets, &uri, caller, token).await.unwrap_or_else(|problem| problem.respond(&uri))
}

async fn ticket(
    tickets: &Tickets,
    uri: &Uri,
    caller: Option<&str>,
    token: &str,
) -> Result<Response, Problem> {
    Params::read(uri, &[])?;
    let ticket = tickets.give(caller, token).await?;
    let body = json!({ "ticket": ticket, "expires_in": LIFETIME_MS / 1_000 }).to_string();
    let mut response = resource::json(body.into(), StatusCode::CREATED);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn seal(ticket: &[u8], token: &str) -> Result<Bytes, Problem> {
    let sealed = cipher(ticket).encrypt(&Nonce::default(), token.as_bytes());
    sealed.map(Bytes::from).map_err(|_| Problem::unavailable("tickets", "the ticket was not made: try again"))
}

fn open(ticket: &[u8], sealed: &[u8]) -> Option<String> {
    String::from_utf8(cipher(ticket).decrypt(&Nonce::default(), sealed).ok()?).ok()
}

/// Each key seals once, so that the nonce need not differ.
fn cipher(ticket: &[u8]) -> Aes256GcmSiv {
    Aes256GcmSiv::new(&derived(b"key", ticket).into())
}

fn derived(what: &[u8], ticket: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(b"flyweight ticket ").chain_update(what).chain_update(ticket).finalize().into()
}

fn unavailable(error: &SharedError) -> Problem {
    let detail = format!(
        "tickets cannot be kept or found ({error}): try again, or send the token in the header Authorization"
    );
    Problem::unavailable("tickets", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(clock: Clock) -> Arc<dyn SharedCache> {
        Arc::new(LocalShared::new(1 << 20, clock))
    }

    #[tokio::test]
    async fn a_ticket_is_good_once_at_every_replica_and_not_for_long() {
        let (clock, ms) = Clock::manual();
        let kept = local(clock.clone());
        let replicas = [(); 2].map(|()| Tickets::shared(kept.clone(), "shop:", clock.clone()));
        let [one, other] = &replicas;
        let ticket = one.give(Some("ann"), "a.b.c").await.unwrap();
        let both = tokio::join!(one.redeem(&ticket), other.redeem(&ticket));
        assert!(matches!(&both, (Ok(token), Err(_)) | (Err(_), Ok(token)) if token == "a.b.c"), "{both:?}");
        assert_eq!(one.redeem(&ticket).await.unwrap_err().status(), 401);

        let ticket = one.give(Some("ann"), "a.b.c").await.unwrap();
        assert_eq!(
            Tickets::shared(kept, "other:", clock.clone()).redeem(&ticket).await.unwrap_err().status(),
            401
        );
        ms.fetch_add(LIFETIME_MS, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(other.redeem(&ticket).await.unwrap_err().status(), 401, "it is over");
        for none in ["", "a", "a b", &ticket[1..], &"A".repeat(43)] {
            assert_eq!(one.redeem(none).await.unwrap_err().status(), 401, "{none}");
        }
    }

    #[tokio::test]
    async fn what_is_kept_tells_neither_ticket_nor_token() {
        let clock = Clock::system();
        let kept = local(clock.clone());
        let tickets = Tickets::shared(kept.clone(), "shop:", clock);
        let ticket = tickets.give(Some("ann"), "the-token").await.unwrap();
        let bytes = BASE64.decode(&ticket).unwrap();
        let place = tickets.place(&bytes);
        assert!(place.starts_with("shop:flyweight!ticket:") && !place.contains(&ticket));
        let held = kept.get_many(&[place]).await.unwrap().remove(0).unwrap();
        assert!(!held.value.windows(5).any(|part| part == b"token"));
        assert_eq!(open(&bytes, &held.value).as_deref(), Some("the-token"));
    }

    #[tokio::test]
    async fn what_an_earlier_run_of_the_cache_kept_is_not_believed() {
        let (clock, _) = Clock::manual();
        let kept = local(clock.clone());
        let tickets = Tickets::shared(kept.clone(), "", clock);
        let ticket = tickets.give(None, "").await.unwrap();
        let place = tickets.place(&BASE64.decode(&ticket).unwrap());
        let held = kept.take(&place).await.unwrap().unwrap();
        let order = Order {
            key: place,
            version: held.version,
            loaded_at_ms: 0,
            value: Some(held.value),
            keep_ms: 9_000,
        };
        kept.tell(&[order]).await;
        assert_eq!(tickets.redeem(&ticket).await.unwrap_err().status(), 401);
    }

    #[tokio::test]
    async fn tickets_are_bounded_in_number_for_each_caller_and_for_all() {
        let (clock, ms) = Clock::manual();
        let tickets = Tickets::of_process(clock);
        for _ in 0..TICKETS_EACH_MAX {
            tickets.give(Some("ann"), "t").await.unwrap();
        }
        assert_eq!(tickets.give(Some("ann"), "t").await.unwrap_err().status(), 429);
        assert!(tickets.give(Some("bob"), "t").await.is_ok(), "another caller's are not fewer");
        for n in 1..TICKETS_MAX - TICKETS_EACH_MAX {
            tickets.give(Some(&format!("caller-{n}")), "t").await.unwrap();
        }
        assert_eq!(tickets.give(Some("carl"), "t").await.unwrap_err().status(), 503);
        assert_eq!(
            tickets.give(Some("carl"), &"x".repeat(TOKEN_BYTES_MAX + 1)).await.unwrap_err().status(),
            400
        );
        ms.fetch_add(LIFETIME_MS, std::sync::atomic::Ordering::SeqCst);
        assert!(tickets.give(Some("ann"), "t").await.is_ok());
    }
}
