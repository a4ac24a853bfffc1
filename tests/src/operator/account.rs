//! The account that a deployed operator has: the chart's, with the chart's rights and a token.

use std::{collections::BTreeSet, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Certificate, Client, Method};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

use super::api::{Api, folder, http_client};
use crate::{kubectl::Kubectl, root, wait};

/// In the rendered chart, the namespace of the stage.
const NAMESPACE: &str = "namespace-to-be";
const ACCOUNT: &str = "flyweight-operator";
/// How long the API server may take to know what an account may do.
const KNOWN_WITHIN: Duration = Duration::from_secs(60);

/// The API server itself: what comes by `kubectl proxy` is the administrator's.
pub struct Server {
    /// Where it is: `https://10.1.0.1:6443`.
    pub base: String,
    /// The certificate of its authority, as a kubeconfig has it.
    pub authority: String,
    /// A client that trusts it.
    pub client: Client,
}

impl Server {
    /// The one of `KUBECONFIG`.
    ///
    /// # Panics
    /// There is none.
    pub fn find() -> Self {
        let args = ["config", "view", "--minify", "--raw", "--flatten", "-o", "json"];
        let text = Kubectl::new("default").call(&args).unwrap_or_else(|error| panic!("{error}"));
        let config: Value = serde_json::from_str(&text).unwrap_or_default();
        let cluster = &config["clusters"][0]["cluster"];
        let authority = cluster["certificate-authority-data"].as_str().unwrap_or_default().to_owned();
        let certificate = STANDARD.decode(&authority).map_err(|error| error.to_string());
        let certificate =
            certificate.and_then(|pem| Certificate::from_pem(&pem).map_err(|error| error.to_string()));
        let certificate = certificate.unwrap_or_else(|error| panic!("the cluster's authority: {error}"));
        let base = cluster["server"].as_str().unwrap_or_default().trim_end_matches('/').to_owned();
        Self { base, authority, client: http_client(Client::builder().tls_certs_only([certificate])) }
    }

    /// What the account with this token may do in a namespace.
    ///
    /// # Panics
    /// It does not say.
    pub async fn rules_of(&self, token: &str, namespace: &str) -> BTreeSet<String> {
        let review = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": { "namespace": namespace } });
        let path = format!("{}/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", self.base);
        let sent = self.client.post(path).bearer_auth(token).json(&review).send().await;
        let answer: Value = match sent {
            Ok(answer) => answer.json().await.unwrap_or_default(),
            Err(error) => panic!("{error}"),
        };
        let rules = answer["status"]["resourceRules"].as_array().cloned();
        rules.unwrap_or_else(|| panic!("no rules: {answer}")).iter().map(ToString::to_string).collect()
    }
}

/// Account, roles and bindings of the chart for one namespace.
///
/// # Panics
/// Helm cannot render it, or it needs more than one namespace.
pub async fn rendered() -> Vec<Value> {
    let mut helm = Command::new("helm");
    helm.current_dir(root()).args(["template", "flyweight", "charts/flyweight", "--namespace", NAMESPACE]);
    // A helm that was built from source believes in an old cluster.
    helm.args([
        "--kube-version",
        "1.34.0",
        "--set",
        "rbac.aggregate=false",
        "--set",
        &format!("watchNamespaces={{{NAMESPACE}}}"),
    ]);
    let output = helm.output().await.unwrap_or_else(|error| panic!("helm cannot be started: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let objects = serde_yaml_ng::Deserializer::from_str(&text).map(Value::deserialize);
    let objects = objects.map(|object| object.unwrap_or_else(|error| panic!("the chart: {error}")));
    let kinds = ["ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"];
    let ours: Vec<Value> =
        objects.filter(|object| kinds.iter().any(|kind| object["kind"] == *kind)).collect();
    assert!(
        ours.iter().all(|object| object["metadata"]["namespace"] == NAMESPACE),
        "it needs more than one namespace"
    );
    ours
}

/// Where objects of the kind are made.
fn place(object: &Value, namespace: &str) -> String {
    let roles = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
    match object["kind"].as_str() {
        Some("Role") => format!("{roles}/roles"),
        Some("RoleBinding") => format!("{roles}/rolebindings"),
        _ => folder(namespace, "serviceaccounts"),
    }
}

/// Makes what the chart gives for one namespace, and returns a token of the operator's account once the API
/// server knows its rights.
///
/// # Panics
/// It cannot be made.
pub async fn make(api: &Api, server: &Server, chart: &[Value], namespace: &str) -> String {
    let mut rules = 0;
    for object in chart {
        let text = object.to_string().replace(NAMESPACE, namespace);
        let object: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        rules += object["rules"].as_array().map_or(0, Vec::len);
        api.create(&place(&object, namespace), &object).await;
    }
    let token = token(api, namespace, ACCOUNT).await;
    wait::until("the account to have its rights", KNOWN_WITHIN, async || {
        let (here, elsewhere) =
            (server.rules_of(&token, namespace).await, server.rules_of(&token, "default").await);
        (here.difference(&elsewhere).count() == rules).then_some(())
    })
    .await;
    token
}

/// A token of an account, as its pods get one.
///
/// # Panics
/// There is none.
pub async fn token(api: &Api, namespace: &str, account: &str) -> String {
    let path = format!("{}/{account}/token", folder(namespace, "serviceaccounts"));
    let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {} });
    match api.call(Method::POST, &path, Some(("application/json", &request))).await {
        Ok((201, answer)) => answer["status"]["token"].as_str().unwrap_or_default().to_owned(),
        other => panic!("POST {path}: {other:?}"),
    }
}
