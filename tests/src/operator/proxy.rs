//! A proxy between an operator and its API server: takes down what the operator writes, and lets calls fail
//! as it is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use reqwest::Client;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

use super::api::http_client;

const BODY_MAX: usize = 4 << 20;
/// How the content type of a server-side apply begins.
const APPLY: &[u8] = b"application/apply-patch";
/// Parts of a watch that are on their way at once where all of them are late.
const LATE_MAX: usize = 10_000;

/// What the proxy does to a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Hands it on.
    Pass,
    /// Answers with this status, without handing it on.
    Refuse(u16),
    /// Hands it on, and answers with this status: the write happened, and its writer does not know.
    Lie(u16),
    /// Hands it on after a pause.
    Slow(Duration),
    /// Hands a watch on, swallowing what comes after this time, and cuts it a moment later.
    Cut(Duration),
    /// Hands a watch on, everything that comes this much later.
    Late(Duration),
    /// Answers a list as it was answered before, as a replica of the API server does that lags behind. The
    /// first time it is handed on.
    Stale,
    /// Kills the operator, without handing the call on.
    KillBefore,
    /// Hands the call on, and kills the operator before it gets the answer.
    KillAfter,
}

/// A call of the operator.
#[derive(Clone, Debug)]
pub struct Call {
    /// `PATCH`.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// Whether it is a watch.
    pub is_watch: bool,
    /// The number of this write since the start, from 0; none for reads and for the Lease.
    pub write: Option<usize>,
    /// What the API server asks its authorizer about it: `apps deployments patch`.
    pub rights: Vec<String>,
    /// Whether it is a list, or its first page.
    pub is_list: bool,
    /// The path with its query.
    target: String,
}

impl Call {
    /// Whether it reads or writes the Lease.
    pub fn is_lease(&self) -> bool {
        is_lease(&self.path)
    }
}

fn is_lease(path: &str) -> bool {
    path.contains("/leases")
}

/// A write that the operator tried.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When it was sent.
    pub at: Instant,
    /// `PATCH`.
    pub method: String,
    /// The object.
    pub path: String,
    /// When the API server had taken it; none where it did not.
    pub taken: Option<Instant>,
}

type Rule = Box<dyn Fn(&Call) -> Verdict + Send + Sync>;

/// A running proxy. It ends when it is dropped.
pub struct Proxy {
    /// Where the operator finds it.
    pub base: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    upstream: String,
    client: Client,
    rule: Mutex<Rule>,
    faults: AtomicBool,
    faulted: Mutex<BTreeMap<&'static str, usize>>,
    rights: Mutex<BTreeSet<String>>,
    forbidden: Mutex<BTreeSet<String>>,
    attempts: Mutex<Vec<Attempt>>,
    lists: Mutex<BTreeMap<String, Bytes>>,
    leases: AtomicUsize,
    lose: Mutex<Option<String>>,
    kill: Mutex<Option<Box<dyn Fn() + Send + Sync>>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Starts a proxy that lets everything pass.
    ///
    /// # Panics
    /// No port is free.
    pub async fn start(upstream: &str) -> Self {
        Self::over(upstream, http_client(Client::builder())).await
    }

    /// The same before an API server that this client reaches.
    ///
    /// # Panics
    /// No port is free.
    pub async fn over(upstream: &str, client: Client) -> Self {
        let listener =
            TcpListener::bind(("127.0.0.1", 0)).await.unwrap_or_else(|error| panic!("no port: {error}"));
        let port = listener.local_addr().map(|addr| addr.port()).unwrap_or_default();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            client,
            rule: Mutex::new(Box::new(|_| Verdict::Pass)),
            faults: AtomicBool::new(true),
            faulted: Mutex::default(),
            rights: Mutex::default(),
            forbidden: Mutex::default(),
            attempts: Mutex::default(),
            lists: Mutex::default(),
            leases: AtomicUsize::new(0),
            lose: Mutex::new(None),
            kill: Mutex::new(None),
        });
        let router = Router::new().fallback(handle).with_state(shared.clone());
        let task = tokio::spawn(async move { _ = axum::serve(listener, router).await });
        Self { base: format!("http://127.0.0.1:{port}"), shared, task }
    }

    /// Decides about every call from now on.
    pub fn rule(&self, rule: impl Fn(&Call) -> Verdict + Send + Sync + 'static) {
        *lock(&self.shared.rule) = Box::new(rule);
    }

    /// Whether the rule is kept from now on; without it every call passes.
    pub fn faults(&self, go_on: bool) {
        self.shared.faults.store(go_on, Ordering::Relaxed);
    }

    /// How many calls did not just pass, by what became of them.
    pub fn faulted(&self) -> BTreeMap<&'static str, usize> {
        lock(&self.shared.faulted).clone()
    }

    /// What to do when the operator is to be killed.
    pub fn on_kill(&self, kill: impl Fn() + Send + Sync + 'static) {
        *lock(&self.shared.kill) = Some(Box::new(kill));
    }

    /// The writes that were tried, the Lease's left out.
    pub fn attempts(&self) -> Vec<Attempt> {
        lock(&self.shared.attempts).clone()
    }

    /// Those that the API server took.
    pub fn written(&self) -> Vec<Attempt> {
        self.attempts().into_iter().filter(|attempt| attempt.taken.is_some()).collect()
    }

    /// The rights that the operator made use of: `apps deployments patch`.
    pub fn rights(&self) -> BTreeSet<String> {
        lock(&self.shared.rights).clone()
    }

    /// The rights of what the API server refused for want of them; of a call that takes two rights, both.
    pub fn forbidden(&self) -> BTreeSet<String> {
        lock(&self.shared.forbidden).clone()
    }

    /// How many writes were tried, the Lease's left out.
    pub fn tried(&self) -> usize {
        lock(&self.shared.attempts).len()
    }

    /// How often the Lease was asked for or written.
    pub fn lease_calls(&self) -> usize {
        self.shared.leases.load(Ordering::Relaxed)
    }

    /// Loses the next event of the watches of one kind, by its plural. The watch goes on.
    pub fn lose_next(&self, plural: &str) {
        *lock(&self.shared.lose) = Some(format!("/{plural}"));
    }

    /// Whether the event that was to be lost is lost.
    pub fn has_lost(&self) -> bool {
        lock(&self.shared.lose).is_none()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let call = shared.call(&request);
    let verdict = match shared.faults.load(Ordering::Relaxed) {
        true => lock(&shared.rule)(&call),
        false => Verdict::Pass,
    };
    let former = lock(&shared.lists).get(&call.target).cloned();
    if let Some(fault) = verdict.fault(&call, former.is_some()) {
        *lock(&shared.faulted).entry(fault).or_default() += 1;
    }
    match (verdict, former) {
        (Verdict::Refuse(status), _) => refusal(status),
        (Verdict::Lie(status), _) => {
            _ = shared.forward(request, &call, &Verdict::Pass).await;
            refusal(status)
        }
        (Verdict::Slow(pause), _) => {
            tokio::time::sleep(pause).await;
            shared.forward(request, &call, &Verdict::Pass).await
        }
        (Verdict::Stale, Some(former)) => ([("content-type", "application/json")], former).into_response(),
        (Verdict::KillBefore, _) => shared.die(),
        (Verdict::KillAfter, _) => {
            _ = shared.forward(request, &call, &Verdict::Pass).await;
            shared.die()
        }
        (verdict @ (Verdict::Pass | Verdict::Cut(_) | Verdict::Late(_) | Verdict::Stale), _) => {
            shared.forward(request, &call, &verdict).await
        }
    }
}

impl Verdict {
    /// What people call it; none where nothing is wrong. Only a list that was read before can be stale.
    fn fault(&self, call: &Call, is_known: bool) -> Option<&'static str> {
        match self {
            Self::Pass => None,
            Self::Refuse(_) if call.is_list => Some("failed list"),
            Self::Refuse(409) => Some("409"),
            Self::Refuse(410) => Some("410"),
            Self::Refuse(429) => Some("429"),
            Self::Refuse(_) => Some("500"),
            Self::Lie(_) => Some("lost answer"),
            Self::Slow(_) => Some("slow answer"),
            Self::Cut(_) => Some("dropped watch"),
            Self::Late(_) => Some("stale watch"),
            Self::Stale => is_known.then_some("stale list"),
            Self::KillBefore | Self::KillAfter => Some("death"),
        }
    }
}

impl Shared {
    fn call(&self, request: &Request) -> Call {
        let (method, path) = (request.method().as_str().to_owned(), request.uri().path().to_owned());
        if is_lease(&path) {
            self.leases.fetch_add(1, Ordering::Relaxed);
        }
        let is_write = method != "GET" && !is_lease(&path);
        let write = is_write.then(|| {
            let mut attempts = lock(&self.attempts);
            attempts.push(Attempt {
                at: Instant::now(),
                method: method.clone(),
                path: path.clone(),
                taken: None,
            });
            attempts.len() - 1
        });
        let query = request.uri().query().unwrap_or_default();
        let is_apply =
            request.headers().get(CONTENT_TYPE).is_some_and(|one| one.as_bytes().starts_with(APPLY));
        let rights = rights_of(if is_apply { "APPLY" } else { &method }, &path, query);
        let is_watch = query.contains("watch=true");
        let is_list = rights.iter().any(|right| right.ends_with(" list")) && !query.contains("continue=");
        lock(&self.rights).extend(rights.iter().cloned());
        let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        Call { method, path, is_watch, write, rights, is_list, target }
    }

    async fn forward(self: &Arc<Self>, request: Request, call: &Call, verdict: &Verdict) -> Response {
        let target = &call.target;
        let (method, mut headers) = (request.method().clone(), request.headers().clone());
        headers.remove("host");
        headers.remove("content-length");
        headers.remove("accept-encoding");
        let Ok(body) = to_bytes(request.into_body(), BODY_MAX).await else { return refusal(413) };
        let sent = self
            .client
            .request(method, format!("{}{target}", self.upstream))
            .headers(headers)
            .body(body)
            .send();
        let Ok(answer) = sent.await else { return refusal(502) };
        let status = answer.status();
        if status == reqwest::StatusCode::FORBIDDEN {
            lock(&self.forbidden).extend(call.rights.iter().cloned());
        }
        if let Some(number) = call.write.filter(|_| status.is_success())
            && let Some(attempt) = lock(&self.attempts).get_mut(number)
        {
            attempt.taken = Some(Instant::now());
        }
        let kind = answer.headers().get("content-type").cloned();
        if call.is_list && status.is_success() {
            let Ok(body) = answer.bytes().await else { return refusal(502) };
            lock(&self.lists).insert(target.clone(), body.clone());
            return ([("content-type", "application/json")], body).into_response();
        }
        let bytes = answer.bytes_stream();
        let body = match verdict {
            Verdict::Cut(after) => Body::from_stream(cut_after(bytes, *after)),
            Verdict::Late(pause) => Body::from_stream(late_by(bytes, *pause)),
            _ if call.is_watch => Body::from_stream(without_lost(bytes, self.clone(), call.path.clone())),
            _ => Body::from_stream(bytes),
        };
        let mut response = Response::builder().status(status);
        if let Some(kind) = kind {
            response = response.header("content-type", kind);
        }
        response.body(body).unwrap_or_else(|_| refusal(502))
    }

    /// Whether this line of a watch is the event to lose. What only marks the place in the stream is none.
    fn loses(&self, path: &str, line: &[u8]) -> bool {
        let mut lose = lock(&self.lose);
        let due = lose.as_ref().is_some_and(|end| path.ends_with(end));
        let hit = due && !line.starts_with(br#"{"type":"BOOKMARK""#);
        if hit {
            *lose = None;
        }
        hit
    }

    fn die(&self) -> Response {
        if let Some(kill) = &*lock(&self.kill) {
            kill();
        }
        refusal(502)
    }
}

/// What the API server asks its authorizer about a call. An apply, a `PATCH` by its method, may create.
fn rights_of(method: &str, path: &str, query: &str) -> Vec<String> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let (group, rest) = match parts.as_slice() {
        ["api", _, rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => return Vec::new(),
    };
    let rest = if let ["namespaces", _, rest @ ..] = rest { rest } else { rest };
    let (resource, named) = match rest {
        [resource] => ((*resource).to_owned(), false),
        [resource, _] => ((*resource).to_owned(), true),
        [resource, _, part] => (format!("{resource}/{part}"), true),
        _ => return Vec::new(),
    };
    let verbs: &[&str] = match (method, named) {
        ("GET", true) => &["get"],
        ("GET", false) if query.contains("watch=true") => &["watch"],
        ("GET", false) => &["list"],
        ("POST", _) => &["create"],
        ("PUT", _) => &["update"],
        ("APPLY", _) if !resource.contains('/') => &["create", "patch"],
        ("APPLY" | "PATCH", _) => &["patch"],
        ("DELETE", _) => &["delete"],
        _ => &[],
    };
    verbs.iter().map(|verb| format!("{group} {resource} {verb}").trim_start().to_owned()).collect()
}

/// The lines of a watch without the event that is to be lost.
fn without_lost(
    bytes: impl futures::Stream<Item = reqwest::Result<Bytes>> + Send + 'static,
    shared: Arc<Shared>,
    path: String,
) -> impl futures::Stream<Item = reqwest::Result<Bytes>> + Send + 'static {
    bytes.scan(Vec::new(), move |rest: &mut Vec<u8>, one: reqwest::Result<Bytes>| {
        let passed = one.map(|bytes| {
            rest.extend_from_slice(&bytes);
            let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let lines: Vec<u8> = rest.drain(..end).collect();
            let kept = lines.split_inclusive(|byte| *byte == b'\n').filter(|line| !shared.loses(&path, line));
            kept.flatten().copied().collect::<Bytes>()
        });
        std::future::ready(Some(passed))
    })
}

/// The stream up to a moment; what comes then is lost, and the stream ends with an error a second later.
fn cut_after(
    bytes: impl futures::Stream<Item = reqwest::Result<Bytes>> + Send + 'static,
    after: Duration,
) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    let end = tokio::time::sleep(after);
    let lost = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Err(std::io::Error::other("cut"))
    };
    bytes.map(|one| one.map_err(std::io::Error::other)).take_until(end).chain(stream::once(lost))
}

/// The stream, each part of it this much later.
fn late_by(
    bytes: impl futures::Stream<Item = reqwest::Result<Bytes>> + Send + 'static,
    pause: Duration,
) -> impl futures::Stream<Item = reqwest::Result<Bytes>> + Send + 'static {
    let later = move |one| async move {
        tokio::time::sleep(pause).await;
        one
    };
    bytes.map(later).buffered(LATE_MAX)
}

fn refusal(status: u16) -> Response {
    let reason = match status {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("made up by a test: {reason}"), "reason": reason, "code": status });
    let code = axum::http::StatusCode::from_u16(status).unwrap_or(axum::http::StatusCode::BAD_GATEWAY);
    (code, [("content-type", "application/json")], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_rights() {
        for (method, path, query, rights) in [
            ("GET", "/api/v1/namespaces/a/pods", "watch=true", &["pods watch"][..]),
            ("GET", "/api/v1/pods", "", &["pods list"]),
            (
                "APPLY",
                "/apis/apps/v1/namespaces/a/deployments/b",
                "",
                &["apps deployments create", "apps deployments patch"],
            ),
            (
                "APPLY",
                "/apis/flyweight.dev/v1alpha1/namespaces/a/cachetiers/b/status",
                "",
                &["flyweight.dev cachetiers/status patch"],
            ),
            ("DELETE", "/api/v1/namespaces/a/services/b", "", &["services delete"]),
        ] {
            assert_eq!(rights_of(method, path, query), rights, "{method} {path}");
        }
    }
}
