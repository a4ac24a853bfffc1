//! Takes a client's request, finds out who answers it, and passes the answer on.

use std::{net::SocketAddr, sync::atomic::Ordering};

use axum::{extract::Request, response::Response};
use http::HeaderValue;
use hyper::upgrade::OnUpgrade;

use super::{
    client_address,
    errand::Errand,
    groups, hops,
    proxy::Proxy,
    route::{self, Target, Targets},
    send::Payload,
    upload::Upload,
};
use crate::http::credentials::has_ticket;
use crate::server::memory::{ASKS_ABOUT, ConnectionMemory};
use model::routes::{self, Effect};

impl Proxy {
    /// Answers a request of a client with what a pod answers.
    pub async fn forward(&self, request: Request, peer: SocketAddr, memory: &ConnectionMemory) -> Response {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        self.budget.deposit();
        let loaded = self.settings();
        let (mut parts, body) = request.into_parts();
        let upload = match Upload::take(body, &self.budgets.bodies).await {
            Ok(upload) => upload,
            Err(fault) => return self.not_uploaded(fault, &parts),
        };
        hops::prepare(&mut parts, peer, &client_address::trusted(&loaded.settings));
        let found = routes::find(&parts.method, parts.uri.path());
        memory.demand(&found, &parts.uri, &mut parts.headers);
        parts.headers.insert(ASKS_ABOUT, HeaderValue::from_static("1"));
        let upgrade =
            hops::offers_websocket(&parts.headers).then(|| parts.extensions.remove::<OnUpgrade>()).flatten();
        let body: &[u8] = if let Upload::Whole(bytes) = &upload { bytes } else { &[] };
        let targets = route::targets(&self.registry, &loaded.settings, &found, parts.uri.query(), body);
        // the second of two pods that are asked would find the ticket used
        let effect = if has_ticket(&parts.uri) { Effect::Writes } else { found.effect };
        let mut errand = Errand::new(self, &loaded.settings, &parts, effect);
        let answered = match (upload, targets) {
            (Upload::Whole(bytes), targets) => {
                errand.whole = bytes;
                match targets {
                    Targets::One(target) => errand.to(target).carry_out().await,
                    Targets::Every(groups, rule) => return groups::of_every(&errand, groups, rule).await,
                    Targets::InTurn(groups) => groups::in_turn(&errand, groups).await,
                }
            }
            (Upload::Streamed(streamed), Targets::One(target)) => {
                errand.to(target).send_once(Payload::Streamed(streamed)).await
            }
            // no route of several groups takes so much
            (Upload::Streamed(streamed), _) => {
                errand.to(Target::Any).send_once(Payload::Streamed(streamed)).await
            }
        };
        match answered {
            Ok(answer) => {
                memory.remember(&found, &parts.uri, answer.head().status(), answer.head().headers());
                answer.respond(upgrade)
            }
            Err(response) => response,
        }
    }
}
