//! What the plugin asks the API server.

use std::fmt::Debug;

use anyhow::{Context, bail};
use crds::{pool::FlyweightPool, service::FlyweightService, tier::CacheTier};
use http::StatusCode;
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Pod};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{EvictParams, ListParams, Patch, PatchParams},
    client::Body,
    config::KubeConfigOptions,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    args::Target,
    token::{Token, VARIABLE},
};

/// The API server takes `Authorization` for itself, so the token for the service has a header of its own.
const TOKEN_HEADER: &str = "flyweight-authorization";
const MANAGER: &str = "kubectl-flyweight";

/// A connection to one namespace.
pub struct Cluster {
    client: Client,
    /// The namespace.
    pub namespace: String,
}

impl Cluster {
    /// Connects as kubectl would.
    ///
    /// # Errors
    /// There is no such context, or no configuration at all.
    pub async fn connect(target: &Target) -> anyhow::Result<Self> {
        let mut config = match &target.context {
            Some(context) => {
                let options =
                    KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
                Config::from_kubeconfig(&options).await?
            }
            None => Config::infer().await?,
        };
        // Whoever asks sees the answer and may ask again; a replay must not be sent twice.
        config.default_retry = false;
        let namespace = target.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self::of(Client::try_from(config)?, namespace))
    }

    /// One namespace behind this connection.
    pub fn of(client: Client, namespace: impl Into<String>) -> Self {
        Self { client, namespace: namespace.into() }
    }

    fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn all<K>(&self, selector: &str) -> anyhow::Result<Vec<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let mut found = self.api::<K>().list(&ListParams::default().labels(selector)).await?.items;
        found.sort_by_key(ResourceExt::name_any);
        Ok(found)
    }

    /// The services of the namespace, though there be none.
    ///
    /// # Errors
    /// The API server refuses or fails.
    pub async fn all_services(&self) -> anyhow::Result<Vec<FlyweightService>> {
        self.all("").await
    }

    /// The service of this name, or all.
    ///
    /// # Errors
    /// There is none, or the API server refuses or fails.
    pub async fn services(&self, name: Option<&str>) -> anyhow::Result<Vec<FlyweightService>> {
        let mut services = self.all_services().await?;
        let names: Vec<String> = services.iter().map(ResourceExt::name_any).collect();
        services.retain(|service| name.is_none_or(|name| service.name_any() == name));
        match (services.is_empty(), name) {
            (true, Some(name)) => {
                bail!(
                    "no FlyweightService \"{name}\" in namespace {}; there are: {}",
                    self.namespace,
                    names.join(", ")
                )
            }
            (true, None) => bail!("no FlyweightService in namespace {}", self.namespace),
            _ => Ok(services),
        }
    }

    /// The service of this name.
    ///
    /// # Errors
    /// There is none, or the API server refuses or fails.
    pub async fn service(&self, name: &str) -> anyhow::Result<FlyweightService> {
        self.services(Some(name)).await?.pop().with_context(|| format!("no FlyweightService {name}"))
    }

    /// The pools of the namespace.
    ///
    /// # Errors
    /// The API server refuses or fails.
    pub async fn pools(&self) -> anyhow::Result<Vec<FlyweightPool>> {
        self.all("").await
    }

    /// The tiers of the namespace.
    ///
    /// # Errors
    /// The API server refuses or fails.
    pub async fn tiers(&self) -> anyhow::Result<Vec<CacheTier>> {
        self.all("").await
    }

    /// The pods of a service, the gateway's included.
    ///
    /// # Errors
    /// The API server refuses or fails.
    pub async fn pods(&self, service: &str) -> anyhow::Result<Vec<Pod>> {
        let ours = format!("app.kubernetes.io/name=flyweight-dataplane,app.kubernetes.io/instance={service}");
        self.all(&format!("{ours},app.kubernetes.io/component!=migration")).await
    }

    /// Changes fields of a service.
    ///
    /// # Errors
    /// There is no such service, or the API server refuses.
    pub async fn patch(&self, service: &str, patch: &Value) -> anyhow::Result<FlyweightService> {
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patched = self.api::<FlyweightService>().patch(service, &parameters, &Patch::Merge(patch)).await;
        patched.with_context(|| format!("FlyweightService {service}"))
    }

    /// Takes a pod away, as far as its disruption budget allows.
    ///
    /// # Errors
    /// There is no such pod, or the budget does not allow it now.
    pub async fn evict(&self, pod: &str) -> anyhow::Result<()> {
        self.api::<Pod>()
            .evict(pod, &EvictParams::default())
            .await
            .with_context(|| format!("Pod {pod}"))
            .map(drop)
    }

    /// What a pod says of itself at its admin port, through the API server.
    ///
    /// # Errors
    /// The pod does not answer, or the caller may not use `pods/proxy`.
    pub async fn report(&self, pod: &str) -> anyhow::Result<Value> {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}:9090/proxy/status", self.namespace);
        Ok(serde_json::from_str(&self.request("GET", &path, None).await?)?)
    }

    /// Calls the API of a service through the API server; the text of the answer.
    ///
    /// # Errors
    /// The service answers with an error, or the caller may not use `services/proxy`.
    pub async fn call(
        &self,
        service: &str,
        method: &str,
        path: &str,
        token: Option<&Token>,
    ) -> anyhow::Result<String> {
        let over_tls = self.api::<FlyweightService>().get(service).await?.spec.security.tls.is_some();
        let place = if over_tls { format!("https:{service}:https") } else { format!("{service}:http") };
        let path = format!("/api/v1/namespaces/{}/services/{place}/proxy/api/v1{path}", self.namespace);
        self.request(method, &path, token).await
    }

    async fn request(&self, method: &str, path: &str, token: Option<&Token>) -> anyhow::Result<String> {
        let mut request = http::Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(TOKEN_HEADER, token.header());
        }
        let response = self.client.send(request.body(Body::empty())?).await?;
        let status = response.status();
        let text = String::from_utf8_lossy(&response.into_body().collect_bytes().await?).into_owned();
        if status.is_success() {
            return Ok(text);
        }
        bail!("{}", refusal(status, &text))
    }
}

/// Why a call was refused: by the service, which says so in `detail`, or by the API server, in `message`.
fn refusal(status: StatusCode, text: &str) -> String {
    let answer: Value = serde_json::from_str(text).unwrap_or_default();
    let why = answer["detail"].as_str().or(answer["message"].as_str()).unwrap_or(text.trim());
    let asks = status == StatusCode::UNAUTHORIZED && answer["detail"].is_string();
    let hint =
        if asks { format!(" (--token-file, or {VARIABLE} in the environment)") } else { String::new() };
    format!("{status}: {why}{hint}")
}
