//! Asks data plane pods what they run: a few at once, briefly, and not the same pod again within a second.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{StatusCode, Uri, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::{metrics::Metrics, model::report::PodReport, poller::failures::Failures};

mod failures;

const ADMIN_PORT: u16 = 9090;
const ANSWER_TIMEOUT: Duration = Duration::from_millis(800);
const ANSWER_LENGTH_MAX: usize = 1 << 20;
const AT_ONCE: usize = 16;
/// An answer that is used again.
const FRESH: Duration = Duration::from_secs(1);
/// An answer that is used while the pod fails to give another: one lost packet is not a change of the
/// configuration.
const STALE_MAX: Duration = Duration::from_secs(15);
/// Answers of pods that nobody asked for longer are forgotten.
const KEPT: Duration = Duration::from_secs(60);

/// Asks pods, and remembers their last answers.
pub struct Poller {
    client: Client<HttpConnector, Empty<Bytes>>,
    answers: Mutex<HashMap<String, Answer>>,
    metrics: Metrics,
}

#[derive(Clone)]
struct Answer {
    at: Instant,
    asked: Instant,
    report: Option<PodReport>,
    failures: Failures,
}

impl Poller {
    /// A poller that has asked nobody yet.
    pub fn new(metrics: Metrics) -> Self {
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build_http();
        Self { client, answers: Mutex::default(), metrics }
    }

    /// What each pod says of itself, in the order of the pods; none where it has no address or gives no
    /// answer.
    pub async fn poll(&self, pods: &[Arc<Pod>]) -> Vec<Option<PodReport>> {
        self.answers.lock().retain(|_, answer| answer.asked.elapsed() < KEPT);
        stream::iter(pods.to_vec()).map(|pod| self.report(pod)).buffered(AT_ONCE).collect().await
    }

    async fn report(&self, pod: Arc<Pod>) -> Option<PodReport> {
        let uid = pod.uid()?;
        let address: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
        let last = self.answers.lock().get(&uid).cloned();
        if let Some(last) = last.as_ref().filter(|last| last.asked.elapsed() < FRESH) {
            return last.report.clone();
        }
        let asked = Instant::now();
        let answer = timeout(ANSWER_TIMEOUT, self.ask(address)).await.ok().flatten();
        self.metrics.polled(answer.is_some());
        let mut failures = last.as_ref().map(|last| last.failures).unwrap_or_default();
        let answer = match answer {
            Some(mut report) => {
                report.trouble = failures.look(asked, report.requests);
                Answer { at: asked, asked, report: Some(report), failures }
            }
            None => {
                let last = last.filter(|last| last.at.elapsed() < STALE_MAX);
                Answer {
                    at: last.as_ref().map_or(asked, |last| last.at),
                    asked,
                    report: last.and_then(|last| last.report),
                    failures,
                }
            }
        };
        self.answers.lock().insert(uid, answer.clone());
        answer.report
    }

    async fn ask(&self, address: IpAddr) -> Option<PodReport> {
        let uri = uri(address)?;
        let answer = self.client.get(uri).await.ok()?;
        if answer.status() != StatusCode::OK {
            return None;
        }
        let body = Limited::new(answer.into_body(), ANSWER_LENGTH_MAX).collect().await.ok()?;
        serde_json::from_slice(&body.to_bytes()).ok()
    }
}

fn uri(address: IpAddr) -> Option<Uri> {
    let authority = std::net::SocketAddr::new(address, ADMIN_PORT).to_string();
    Uri::builder().scheme("http").authority(authority).path_and_query("/status").build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_addresses_make_a_uri() {
        assert_eq!(uri("10.0.0.7".parse().unwrap()).unwrap().to_string(), "http://10.0.0.7:9090/status");
        assert_eq!(uri("fd00::7".parse().unwrap()).unwrap().to_string(), "http://[fd00::7]:9090/status");
    }

    #[tokio::test]
    async fn a_pod_without_an_address_or_an_answer_has_no_report() {
        let poller = Poller::new(Metrics::new().unwrap());
        let mut silent = Pod::default();
        silent.metadata.uid = Some("a".to_owned());
        silent.status.get_or_insert_default().pod_ip = Some("127.255.255.254".to_owned());
        assert_eq!(poller.poll(&[Arc::new(Pod::default()), Arc::new(silent)]).await, [None, None]);
    }
}
