//! The API server by plain HTTP, through `kubectl proxy`.

use std::{
    process::{Child, Command},
    sync::Arc,
    time::Duration,
};

use reqwest::{Client, ClientBuilder, Method};
use serde_json::{Value, json};

use crate::{process, server::free_port, wait};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection with the rights of the kubeconfig's user.
#[derive(Clone)]
pub struct Api {
    /// Where it is: `http://127.0.0.1:1234`.
    pub base: String,
    client: Client,
    _proxy: Arc<Proxy>,
}

struct Proxy(std::sync::Mutex<Child>);

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Ok(mut child) = self.0.lock() {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// A client that asks no proxy of the machine.
///
/// # Panics
/// There cannot be one.
pub fn http_client(builder: ClientBuilder) -> Client {
    // Without HTTPS, too, reqwest wants to know whose cryptography it would use. A second time it is
    // installed already.
    _ = rustls::crypto::ring::default_provider().install_default();
    builder.no_proxy().build().unwrap_or_else(|error| panic!("no HTTP client: {error}"))
}

/// The folder of a kind's objects in a namespace.
pub fn folder(namespace: &str, plural: &str) -> String {
    let group = match plural {
        "flyweightservices" | "flyweightpools" | "cachetiers" => "apis/flyweight.dev/v1alpha1",
        "deployments" => "apis/apps/v1",
        "jobs" => "apis/batch/v1",
        "certificates" => "apis/cert-manager.io/v1",
        "networkpolicies" => "apis/networking.k8s.io/v1",
        "poddisruptionbudgets" => "apis/policy/v1",
        "horizontalpodautoscalers" => "apis/autoscaling/v2",
        _ => "api/v1",
    };
    format!("/{group}/namespaces/{namespace}/{plural}")
}

impl Api {
    /// Connects to the cluster of `KUBECONFIG`.
    ///
    /// # Panics
    /// There is none.
    pub async fn connect() -> Self {
        let port = free_port();
        let mut command = Command::new("kubectl");
        command.args(["proxy", "--port", &port.to_string()]);
        let child =
            process::spawn(&command).unwrap_or_else(|error| panic!("kubectl cannot be started: {error}"));
        let client = http_client(Client::builder().timeout(ANSWER_TIMEOUT));
        let base = format!("http://127.0.0.1:{port}");
        let api = Self { base, client, _proxy: Arc::new(Proxy(std::sync::Mutex::new(child))) };
        wait::until("the API server to answer", ANSWER_TIMEOUT, async || {
            api.call(Method::GET, "/version", None).await.ok().filter(|(status, _)| *status == 200)
        })
        .await;
        api
    }

    /// One call; status and answer.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<(u16, Value), reqwest::Error> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some((kind, body)) = body {
            request = request.header("content-type", kind).body(body.to_string());
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok((status, response.json().await.unwrap_or_default()))
    }

    /// An object or a list; null where there is none.
    ///
    /// # Panics
    /// The API server does not answer.
    pub async fn get(&self, path: &str) -> Value {
        match self.call(Method::GET, path, None).await {
            Ok((200, value)) => value,
            Ok(_) => Value::Null,
            Err(error) => panic!("GET {path}: {error}"),
        }
    }

    /// Creates an object.
    ///
    /// # Panics
    /// It is refused.
    pub async fn create(&self, folder: &str, body: &Value) {
        match self.call(Method::POST, folder, Some(("application/json", body))).await {
            Ok((201, _)) => {}
            other => panic!("POST {folder}: {other:?}"),
        }
    }

    /// Changes an object by a merge patch.
    ///
    /// # Errors
    /// Why it was refused.
    ///
    /// # Panics
    /// The API server does not answer.
    pub async fn patch(&self, path: &str, patch: &Value) -> Result<Value, String> {
        match self.call(Method::PATCH, path, Some(("application/merge-patch+json", patch))).await {
            Ok((200, value)) => Ok(value),
            Ok((_, value)) => Err(value["message"].as_str().unwrap_or_default().to_owned()),
            Err(error) => panic!("PATCH {path}: {error}"),
        }
    }

    /// Puts an object's spec in the place of its former one.
    ///
    /// # Errors
    /// Why it was refused.
    ///
    /// # Panics
    /// The API server does not answer.
    pub async fn replace_spec(&self, path: &str, spec: &Value) -> Result<(), String> {
        loop {
            let mut object = self.get(path).await;
            object["spec"] = spec.clone();
            match self.call(Method::PUT, path, Some(("application/json", &object))).await {
                Ok((200, _)) => return Ok(()),
                // The operator wrote in between.
                Ok((409, _)) => {}
                Ok((_, value)) => return Err(value["message"].as_str().unwrap_or_default().to_owned()),
                Err(error) => panic!("PUT {path}: {error}"),
            }
        }
    }

    /// Deletes an object, in the background.
    ///
    /// # Panics
    /// The API server does not answer.
    pub async fn delete(&self, path: &str) {
        if let Err(error) = self.call(Method::DELETE, path, None).await {
            panic!("DELETE {path}: {error}");
        }
    }

    /// Makes a namespace.
    ///
    /// # Panics
    /// It is refused.
    pub async fn make_namespace(&self, name: &str) {
        self.create("/api/v1/namespaces", &json!({ "metadata": { "name": name } })).await;
        // Pods need the account that a controller makes; what is watched here does not.
    }
}
