//! Sends a request to a pod and, where that cannot do harm, to another when the first fails or stands still.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{body::Bytes, response::Response};
use crds::settings::Settings;
use futures::{
    future::BoxFuture,
    stream::{FuturesUnordered, StreamExt},
};
use http::request::Parts;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::{
    proxy::{ANSWER_TIMEOUT, Proxy},
    registry::Upstream,
    route::{self, Target},
    send::{self, Answer, Failure, Payload},
    upload::UploadFault,
};
use model::routes::Effect;

/// How often a request is sent to pods that may have seen it.
pub const ATTEMPTS_MAX: u32 = 6;

/// How long a request waits for a pod that can take it. A cluster's DNS keeps an answer for 5 s (CoreDNS, as
/// it comes): so long may every pod that the gateway knows of be gone while another is ready.
pub const POD_WAIT: Duration = Duration::from_secs(8);

/// The wait before another look for pods, times the looks so far.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// The longest wait before another look.
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(1);

/// A request that can be sent, and where to.
#[derive(Clone)]
pub struct Errand<'a> {
    /// Who sends it.
    pub proxy: &'a Proxy,
    /// The settings of the time.
    pub settings: &'a Settings,
    /// Its head.
    pub parts: &'a Parts,
    /// What it changes.
    pub effect: Effect,
    /// Its body, where that can be sent again.
    pub whole: Bytes,
    target: Target,
    /// Pods that have not failed it.
    candidates: Vec<Arc<Upstream>>,
    /// How often it has looked for pods in vain.
    looks: u32,
}

type Attempt<'a> = BoxFuture<'a, Result<Answer, (Failure, Arc<Upstream>)>>;

impl<'a> Errand<'a> {
    /// A request without a body, to any pod.
    pub fn new(proxy: &'a Proxy, settings: &'a Settings, parts: &'a Parts, effect: Effect) -> Self {
        Self {
            proxy,
            settings,
            parts,
            effect,
            whole: Bytes::new(),
            target: Target::Any,
            candidates: Vec::new(),
            looks: 0,
        }
    }

    /// The same request to these pods.
    #[must_use]
    pub fn to(&self, target: Target) -> Self {
        let mut errand = Self { target, ..self.clone() };
        errand.candidates = errand.all_candidates();
        errand
    }

    /// The same request with another head.
    #[must_use]
    pub fn with_head<'b>(&self, parts: &'b Parts) -> Errand<'b>
    where
        'a: 'b,
    {
        Errand { parts, ..self.clone() }
    }

    fn all_candidates(&self) -> Vec<Arc<Upstream>> {
        route::candidates(&self.proxy.registry, self.settings, &self.target)
    }

    /// Sends the request until a pod answers, as often as that does no harm.
    ///
    /// # Errors
    /// The answer that says why there is none.
    pub async fn carry_out(&mut self) -> Result<Answer, Response> {
        let (mut seen, mut is_first) = (0, true);
        let due = Instant::now() + POD_WAIT;
        while seen < ATTEMPTS_MAX
            && let Some(upstream) = self.next_pod(due).await
        {
            if !std::mem::take(&mut is_first) {
                self.proxy.counts.retries.fetch_add(1, Ordering::Relaxed);
            }
            match self.ask(upstream).await {
                Ok(answer) => return Ok(answer),
                Err(Some(failure)) if !self.may_repeat(failure) => {
                    return Err(self.proxy.unknown(&self.parts.uri));
                }
                Err(Some(failure)) => seen += u32::from(failure != Failure::NotSent),
                Err(None) => return Err(self.proxy.too_late(&self.parts.uri)),
            }
        }
        Err(self.proxy.no_pod(&self.parts.uri))
    }

    /// Sends a request whose body cannot be sent again.
    ///
    /// # Errors
    /// The answer that says why there is none.
    pub async fn send_once(&mut self, payload: Payload) -> Result<Answer, Response> {
        let due = Instant::now() + POD_WAIT;
        let Some(upstream) = self.next_pod(due).await else { return Err(self.proxy.no_pod(&self.parts.uri)) };
        match tokio::time::timeout(
            ANSWER_TIMEOUT,
            send::attempt(&self.proxy.client, self.parts, payload, upstream),
        )
        .await
        {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err((Failure::Client, _))) => Err(self.proxy.not_uploaded(UploadFault::Broken, self.parts)),
            Ok(Err((Failure::NotSent, _))) => Err(self.proxy.no_pod(&self.parts.uri)),
            Ok(Err((Failure::Unknown, _))) => Err(self.proxy.unknown(&self.parts.uri)),
            Err(_) => Err(self.proxy.too_late(&self.parts.uri)),
        }
    }

    /// The pod to ask next. While pods are replaced there may be none for a moment: better waited for than
    /// answered with 503. None at the end of the wait.
    async fn next_pod(&mut self, due: Instant) -> Option<Arc<Upstream>> {
        loop {
            if let Some(upstream) = self.choose(&self.candidates) {
                return Some(upstream);
            }
            let now = Instant::now();
            if now >= due {
                return None;
            }
            self.looks += 1;
            let pause = (LOOK_PAUSE * self.looks).min(LOOK_PAUSE_MAX);
            tokio::select! {
                () = sleep_until(due.min(now + pause)) => (),
                () = self.proxy.registry.until_one_is_back() => (),
            }
            self.candidates = self.all_candidates();
        }
    }

    fn choose(&self, candidates: &[Arc<Upstream>]) -> Option<Arc<Upstream>> {
        self.proxy.balancer.choose(candidates, self.settings, self.parts.uri.path())
    }

    fn attempt(&self, upstream: Arc<Upstream>) -> Attempt<'a> {
        let (client, parts, whole) = (&self.proxy.client, self.parts, Payload::Whole(self.whole.clone()));
        Box::pin(send::attempt(client, parts, whole, upstream))
    }

    /// Asks one pod, and others beside it where it stands still and the request is safe. None where the time
    /// for an answer is over.
    async fn ask(&mut self, upstream: Arc<Upstream>) -> Result<Answer, Option<Failure>> {
        let due = Instant::now() + ANSWER_TIMEOUT;
        let is_safe = self.effect == Effect::Reads;
        let patience = if is_safe { Instant::now() + upstream.answer_time.patience() } else { due };
        let mut first = self.attempt(upstream.clone());
        tokio::select! {
            answered = &mut first => return answered.map_err(|(failure, failed)| {
                self.forget(&failed);
                Some(failure)
            }),
            () = sleep_until(patience) => (),
        }
        if !is_safe {
            warn!(upstream = %upstream.addr, "the pod did not answer in time");
            return Err(None);
        }
        upstream.kept_waiting();
        self.ask_others(first, upstream, due).await
    }

    /// The first answer of all who are asked: the pod that keeps the request waiting, one more where the
    /// budget allows, and more as pods are ejected.
    async fn ask_others(
        &mut self,
        first: Attempt<'a>,
        slow: Arc<Upstream>,
        due: Instant,
    ) -> Result<Answer, Option<Failure>> {
        let mut attempts = FuturesUnordered::from_iter([first]);
        let mut waiting: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        let until_ejected = |upstream: Arc<Upstream>| -> BoxFuture<'static, ()> {
            Box::pin(async move { upstream.until_ejected().await })
        };
        self.forget(&slow);
        waiting.push(until_ejected(slow));
        let mut may_ask = self.proxy.budget.withdraw();
        let mut failure = Failure::Unknown;
        loop {
            if may_ask && let Some(other) = self.choose(&self.candidates) {
                self.proxy.counts.retries.fetch_add(1, Ordering::Relaxed);
                self.forget(&other);
                attempts.push(self.attempt(other.clone()));
                waiting.push(until_ejected(other));
            }
            may_ask = false;
            tokio::select! {
                Some(answered) = attempts.next() => match answered {
                    Ok(answer) => return Ok(answer),
                    Err((why, _)) => failure = why,
                },
                // a pod that is ejected will hardly answer: the next one needs no budget
                Some(()) = waiting.next() => may_ask = true,
                () = sleep_until(due) => return Err(None),
            }
            if attempts.is_empty() && !may_ask {
                return Err(Some(failure));
            }
        }
    }

    fn forget(&mut self, upstream: &Upstream) {
        self.candidates.retain(|candidate| candidate.addr != upstream.addr);
    }

    fn may_repeat(&self, failure: Failure) -> bool {
        match failure {
            Failure::NotSent => true,
            Failure::Unknown => self.effect.may_repeat(self.parts.headers.contains_key("idempotency-key")),
            Failure::Client => false,
        }
    }
}
