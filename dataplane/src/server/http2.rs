//! Connections of HTTP/2: bounded in requests at once, in the size of heads and in silence.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use http::{Method, header};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use super::{
    ClientConnection,
    heads::Patience,
    sending::{Sending, Untaken},
    stalled::STALL_MAX,
};

/// Requests of one connection at once; a client waits before it sends more.
const REQUESTS_MAX: u32 = 100;
/// The most bytes of the head of a request, as HTTP/2 counts them.
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// Requests that a client may take back before they were looked at (CVE-2023-44487): beyond these the
/// connection ends.
const TAKEN_BACK_MAX: usize = 20;
/// How often a connection is asked whether somebody is there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client that was silent may take to agree to the end.
const PARTING: Duration = Duration::from_secs(5);

/// The requests of one connection that are under way, and since when there are none.
struct Activity {
    under_way: AtomicUsize,
    /// There has been a request.
    any: AtomicBool,
    silent_since: Mutex<Instant>,
}

/// A request that is under way until the end of its answer.
struct UnderWay(Arc<Activity>);

/// Answers the requests of one connection, until `closing` or until an answer says that the connection ends
/// with it: then no more are taken, and those that are under way end.
pub async fn converse<S, I>(
    stream: I,
    client: ClientConnection,
    answers: S,
    closing: &CancellationToken,
    patience: Patience,
) -> hyper::Result<()>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Activity::new();
    let ending = closing.child_token();
    let (begun, end, untaken) = (activity.clone(), ending.clone(), Arc::new(Untaken::default()));
    let not_taken = untaken.clone();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (under_way, answers, end) = (begun.begin(), answers.clone(), end.clone());
        let is_head = request.method() == Method::HEAD;
        let request = request.map(|body| if body.is_end_stream() { Body::empty() } else { Body::new(body) });
        let (taken, untaken) = (client.taken(request), untaken.clone());
        async move {
            let mut response = match taken {
                Ok(request) => answers.oneshot(request).await?,
                Err(refused) => *refused,
            };
            // HTTP/1.1 says it in a header, HTTP/2 in a frame of the connection
            if response.headers_mut().remove(header::CONNECTION).is_some_and(|options| options == "close") {
                end.cancel();
            }
            let response = if is_head { without_body(response) } else { response };
            Ok::<_, Infallible>(response.map(|body| Sending::new(body, &untaken, under_way)))
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(REQUESTS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_pending_accept_reset_streams(TAKEN_BACK_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut not_taken = std::pin::pin!(not_taken.for_too_long(STALL_MAX));
    let ends_silent = tokio::select! {
        ended = &mut connection => return ended,
        () = &mut not_taken => return Ok(()),
        () = ending.cancelled() => false,
        () = activity.silent_for(patience) => true,
    };
    connection.as_mut().graceful_shutdown();
    loop {
        tokio::select! {
            ended = &mut connection => return ended,
            () = &mut not_taken => return Ok(()),
            // a client that does not answer is no longer waited for, unless it has sent a request meanwhile
            () = sleep(PARTING), if ends_silent => if activity.is_silent() { return Ok(()) },
        }
    }
}

/// The answer to HEAD: its head says how long the body would be. The library leaves that to its user.
fn without_body(mut response: Response) -> Response {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(length.into());
    }
    response.map(|_| Body::empty())
}

impl Activity {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            under_way: AtomicUsize::new(0),
            any: AtomicBool::new(false),
            silent_since: Mutex::new(Instant::now()),
        })
    }

    fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.any.store(true, Ordering::Release);
        UnderWay(self.clone())
    }

    fn is_silent(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }

    /// Returns once no request was under way for as long as a client may be silent.
    async fn silent_for(&self, patience: Patience) {
        // a request in the meantime may have changed what is waited for
        let step = patience.first_max.min(patience.silence_max);
        loop {
            let silence_max =
                if self.any.load(Ordering::Acquire) { patience.silence_max } else { patience.first_max };
            // a request that comes and goes after the first look has changed what the second sees
            let busy = !self.is_silent();
            let since = *self.silent_since.lock();
            let since = if busy { Instant::now() } else { since };
            let due = since + silence_max;
            if Instant::now() >= due {
                return;
            }
            sleep_until(due.min(Instant::now() + step)).await;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.silent_since.lock() = Instant::now();
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}
