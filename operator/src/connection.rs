//! The connections to the API server, and what every request passes before it is sent: the budget, and for a
//! write the question whether this replica still leads. That comes last, next to the network, because a
//! process can be stopped anywhere before it for longer than its term.
//!
//! Nothing is retried down here: a retry would pass neither, and who asked knows better when to ask again.

use std::{future::poll_fn, task::Poll};

use futures::{FutureExt, future::BoxFuture};
use http::{Method, Request};
use kube::{Client, Config, client::ClientBuilder};
use tower::{BoxError, Layer, Service};

use crate::{budget::Budget, lease::Leadership, model::error::Error};

/// The connection for the work.
///
/// # Errors
/// The configuration makes no connection.
pub fn for_work(config: &Config, budget: &Budget, leadership: Leadership) -> kube::Result<Client> {
    Ok(ClientBuilder::try_from(unretried(config))?.with_layer(&Gate(leadership)).with_layer(budget).build())
}

/// The connection for the Lease: a busy operator must not lose its office for want of tokens, and has to
/// write before it leads.
///
/// # Errors
/// The configuration makes no connection.
pub fn for_the_lease(config: &Config) -> kube::Result<Client> {
    Client::try_from(unretried(config))
}

fn unretried(config: &Config) -> Config {
    let mut config = config.clone();
    config.default_retry = false;
    config
}

/// Lets writes through while this replica leads.
struct Gate(Leadership);

/// A service behind the gate.
struct Gated<S> {
    inner: S,
    leadership: Leadership,
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, leadership: self.0.clone() }
    }
}

impl<S, B> Service<Request<B>> for Gated<S>
where
    S: Service<Request<B>>,
    S::Future: Send + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError> + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let writes = !matches!(*request.method(), Method::GET | Method::HEAD);
        let leadership = self.leadership.clone();
        let mut answer = self.inner.call(request).boxed();
        // Asked before each step: to connect takes several, and the request is sent in the last.
        poll_fn(move |cx| {
            if writes && !leadership.is_valid() {
                return Poll::Ready(Err(Error::NotLeader.into()));
            }
            answer.poll_unpin(cx).map_err(Into::into)
        })
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{
        Api,
        api::{DeleteParams, PostParams},
    };
    use tokio::{sync::Notify, time::Instant};
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::{api::ask, metrics::Metrics};

    /// An API server that is always busy, and how often it was asked.
    async fn busy() -> (Config, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let router = axum::Router::new().fallback(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            std::future::ready(http::StatusCode::SERVICE_UNAVAILABLE)
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (Config::new(format!("http://{address}").parse().unwrap()), asked)
    }

    fn budget() -> Budget {
        Budget::new(100, 100, Metrics::new().unwrap())
    }

    #[tokio::test]
    async fn a_busy_server_is_asked_once() {
        let (config, asked) = busy().await;
        let clients =
            [for_work(&config, &budget(), Leadership::new().1).unwrap(), for_the_lease(&config).unwrap()];
        for (before, client) in clients.into_iter().enumerate() {
            let api: Api<ConfigMap> = Api::namespaced(client, "web");
            assert!(api.get("a").await.is_err());
            assert_eq!(asked.load(Ordering::Relaxed), before + 1);
        }
    }

    #[tokio::test]
    async fn without_the_lease_reads_pass_and_writes_do_not() {
        let (config, asked) = busy().await;
        let (term, leadership) = Leadership::new();
        let api: Api<ConfigMap> = Api::namespaced(for_work(&config, &budget(), leadership).unwrap(), "web");
        let parameters = DeleteParams::default();
        let delete = async || ask("delete", "ConfigMap", "a", api.delete("a", &parameters)).await;
        assert!(matches!(delete().await, Err(Error::NotLeader)));
        assert!(api.get("a").await.is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 1, "only the read was sent");
        term.until(Instant::now() + Duration::from_secs(60));
        assert!(matches!(delete().await, Err(Error::Api { .. })));
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        let lease: Api<ConfigMap> = Api::namespaced(for_the_lease(&config).unwrap(), "web");
        assert!(lease.create(&PostParams::default(), &ConfigMap::default()).await.is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 3, "the Lease has to be written before anybody leads");
    }

    #[tokio::test]
    async fn a_write_whose_term_ends_while_it_connects_is_not_sent() {
        let (term, leadership) = Leadership::new();
        term.until(Instant::now() + Duration::from_secs(60));
        let (sent, connected) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (count, wait) = (sent.clone(), connected.clone());
        let network = service_fn(move |_: Request<()>| {
            let (count, wait) = (count.clone(), wait.clone());
            async move {
                wait.notified().await;
                count.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>(())
            }
        });
        let request = Request::patch("/").body(()).unwrap();
        let mut answer = Gate(leadership).layer(network).oneshot(request);
        assert!((&mut answer).now_or_never().is_none());
        term.until(Instant::now());
        connected.notify_one();
        let refusal = answer.await.unwrap_err();
        assert!(matches!(refusal.downcast_ref(), Some(Error::NotLeader)));
        assert_eq!(sent.load(Ordering::Relaxed), 0);
    }
}
