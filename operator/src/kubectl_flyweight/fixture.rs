//! For tests: an API server that answers as it is told, and takes down what it is asked.

use std::sync::Arc;

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use kube::{Client, Config};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GET /api/v1/namespaces/web/pods`, without the query.
    pub line: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; null where there is none.
    pub body: Value,
}

/// A cluster of one namespace, `web`, and what it was asked.
pub struct Server {
    /// The connection to it.
    pub cluster: Cluster,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Starts it.
    pub async fn start(answer: impl Fn(&Asked) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (log, answer) = (asked.clone(), Arc::new(answer));
        let router = axum::Router::new().fallback(async move |request: Request| {
            let asked = taken(request).await;
            log.lock().push(asked.clone());
            answered(answer(&asked))
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let mut config = Config::new(format!("http://{address}").parse().unwrap());
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        Self { cluster: Cluster::of(client, "web"), asked }
    }

    /// What it was asked with this method.
    pub fn asked(&self, method: &str) -> Vec<Asked> {
        self.asked.lock().iter().filter(|one| one.line.starts_with(method)).cloned().collect()
    }
}

/// A service with these annotations and this spec beside what every service has.
pub fn service(annotations: &Value, spec: &Value) -> Value {
    let mut full = json!({ "image": "i", "poolRefs": [{ "name": "users" }] });
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({ "apiVersion": "flyweight.dev/v1alpha1", "kind": "FlyweightService",
        "metadata": { "name": "shop", "namespace": "web", "annotations": annotations }, "spec": full })
}

/// A list of objects.
pub fn list(kind: &str, items: &[Value]) -> Value {
    json!({ "apiVersion": "v1", "kind": format!("{kind}List"), "metadata": {}, "items": items })
}

async fn taken(request: Request) -> Asked {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, 1 << 20).await.unwrap();
    Asked {
        line: format!("{} {}", parts.method, parts.uri.path()),
        headers: parts.headers,
        body: serde_json::from_slice(&bytes).unwrap_or_default(),
    }
}

fn answered((status, value): (u16, Value)) -> Response {
    let body = if value.is_null() { Body::empty() } else { Body::from(value.to_string()) };
    (StatusCode::from_u16(status).unwrap(), [("content-type", "application/json")], body).into_response()
}
