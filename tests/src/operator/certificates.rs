//! Certificates of cert-manager: made where they are defined; where they are not, the service says so and
//! runs on as before.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    Proof,
    api::{Api, folder},
    scenario::Stage,
    shop,
};
use crate::wait;

/// What the project promises of every status.
const SAID_WITHIN: Duration = Duration::from_secs(30);
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const NAME: &str = "certificates.cert-manager.io";

/// Tells the cluster what a Certificate is, as cert-manager does. Nobody issues any.
pub async fn define(api: &Api) {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": NAME },
        "spec": {
            "group": "cert-manager.io", "scope": "Namespaced",
            "names": { "kind": "Certificate", "listKind": "CertificateList", "plural": "certificates", "singular": "certificate" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            } } }],
        },
    });
    let defined = api.call(Method::POST, DEFINITIONS, Some(("application/json", &definition))).await;
    assert!(matches!(defined, Ok((201 | 409, _))), "{defined:?}");
    wait::until("Certificates to be defined", SAID_WITHIN, async || is_served(api).await.then_some(())).await;
}

async fn undefine(api: &Api) {
    api.delete(&format!("{DEFINITIONS}/{NAME}")).await;
    wait::until("Certificates not to be defined", SAID_WITHIN, async || {
        (!is_served(api).await).then_some(())
    })
    .await;
}

async fn is_served(api: &Api) -> bool {
    let list = api.get("/apis/cert-manager.io/v1").await;
    list["resources"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "certificates"))
}

/// A service asks for a certificate: without cert-manager, with it, and without it again.
pub async fn run(proof: &Proof) {
    proof.step(
        "A certificate by cert-manager: where it is not installed, where it is, and where it is no more",
    );
    let api = &proof.api;
    undefine(api).await;
    let stage = Stage::new(proof, "certificates").await;
    shop::make(api, &stage.namespace).await;
    stage.quiet().await;
    let before = shop::children(api, &stage.namespace).await;
    set_tls(&stage, json!({ "issuerRef": { "name": "authority", "kind": "ClusterIssuer" } })).await;
    said(&stage, "CertManagerMissing").await;
    stage.quiet().await;
    assert_eq!(shop::children(api, &stage.namespace).await, before, "what runs was changed");
    proof.holds("without cert-manager: ConfigurationApplied=False says so, and what ran runs on");

    define(api).await;
    let path = format!("{}/shop-tls", folder(&stage.namespace, "certificates"));
    let spec = wait::until("the Certificate", SAID_WITHIN, async || {
        Some(api.get(&path).await["spec"].clone()).filter(|spec| !spec.is_null())
    })
    .await;
    assert_eq!(spec["secretName"], "shop-tls");
    assert_eq!(
        spec["issuerRef"],
        json!({ "group": "cert-manager.io", "kind": "ClusterIssuer", "name": "authority" })
    );
    let namespace = &stage.namespace;
    for name in [format!("shop.{namespace}.svc"), format!("shop-main.{namespace}.svc")] {
        assert!(spec["dnsNames"].as_array().is_some_and(|all| all.contains(&json!(name))), "{spec}");
    }
    said(&stage, "SecretMissing").await;
    assert!(!mounts(&stage).await, "pods cannot start before it is issued");
    // As cert-manager would.
    let secret =
        json!({ "metadata": { "name": "shop-tls" }, "stringData": { "tls.crt": "c", "tls.key": "k" } });
    api.create(&folder(&stage.namespace, "secrets"), &secret).await;
    wait::until("pods with the certificate", SAID_WITHIN, async || mounts(&stage).await.then_some(())).await;
    proof.holds(
        "with cert-manager: a Certificate for the names of the Services; pods have its Secret once it is issued",
    );

    undefine(api).await;
    said(&stage, "CertManagerMissing").await;
    assert!(mounts(&stage).await, "pods were taken what they have");
    define(api).await;
    wait::until("the Certificate again", SAID_WITHIN, async || {
        Some(api.get(&path).await).filter(|found| !found.is_null())
    })
    .await;
    set_tls(&stage, Value::Null).await;
    wait::until("no Certificate", SAID_WITHIN, async || api.get(&path).await.is_null().then_some(())).await;
    proof.holds("cert-manager gone and come back: told, and mended; without TLS the Certificate goes");
    stage.end().await;
}

async fn set_tls(stage: &Stage, tls: Value) {
    let patch = json!({ "spec": { "security": { "tls": tls } } });
    if let Err(refusal) = stage.proof.api.patch(&shop::service_path(&stage.namespace), &patch).await {
        panic!("{refusal}");
    }
}

async fn said(stage: &Stage, reason: &str) {
    wait::until(&format!("the service to say {reason}"), SAID_WITHIN, async || {
        let (status, said, message) = shop::condition(&stage.service().await, "ConfigurationApplied");
        (status == "False" && said == reason && !message.is_empty()).then_some(())
    })
    .await;
}

/// Whether the pods have the certificate mounted.
async fn mounts(stage: &Stage) -> bool {
    let path = format!("{}/shop-main", folder(&stage.namespace, "deployments"));
    let deployment = stage.proof.api.get(&path).await;
    let volumes = deployment["spec"]["template"]["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    volumes.iter().any(|volume| volume["secret"]["secretName"] == "shop-tls")
}
