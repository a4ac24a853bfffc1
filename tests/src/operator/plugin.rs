//! `kubectl flyweight` through a real API server, which takes `Authorization` for itself: the token for the
//! service's API arrives all the same.

use std::{net::UdpSocket, time::Duration};

use axum::{Json, Router, extract::Request};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc};

use super::{
    Proof,
    api::{Api, folder},
    shop,
};
use crate::{kubectl::Kubectl, wait};

const ACCOUNT_WITHIN: Duration = Duration::from_secs(30);
const TOKEN: &str = "header.claims.signature";

/// A service whose API is this process, asked with and without a token.
///
/// # Panics
/// The token does not arrive, or is shown.
pub async fn run(proof: &Proof) {
    proof.step("The plugin's token for a service passes the API server");
    let namespace = format!("plugin-{:x}", rand::random::<u32>());
    let (api, kubectl) = (&proof.api, Kubectl::new(&namespace));
    let (tell, mut seen) = mpsc::unbounded_channel();
    let router = Router::new().fallback(async move |request: Request| {
        let token = request.headers().get("flyweight-authorization");
        _ = tell.send(token.and_then(|token| token.to_str().ok()).map(str::to_owned));
        Json(json!({ "items": [{ "id": "7" }], "total": 1 }))
    });
    let address = reachable(&kubectl);
    let listener =
        TcpListener::bind((address.as_str(), 0)).await.unwrap_or_else(|error| panic!("{address}: {error}"));
    let port = listener.local_addr().map(|address| address.port()).unwrap_or_default();
    let server = tokio::spawn(async move { _ = axum::serve(listener, router).await });

    api.make_namespace(&namespace).await;
    let resource = shop::resource("FlyweightService", "shop", shop::service());
    api.create(&folder(&namespace, "flyweightservices"), &resource).await;
    let ports = json!([{ "name": "http", "port": 80, "targetPort": port }]);
    api.create(
        &folder(&namespace, "services"),
        &json!({ "metadata": { "name": "shop" }, "spec": { "ports": ports } }),
    )
    .await;
    stand_in(api, &namespace, &address).await;
    let pod = json!({ "kind": "Pod", "name": "api", "namespace": namespace });
    let subset = json!({ "addresses": [{ "ip": address, "targetRef": pod }], "ports": [{ "name": "http", "port": port }] });
    api.create(
        &folder(&namespace, "endpoints"),
        &json!({ "metadata": { "name": "shop" }, "subsets": [subset] }),
    )
    .await;

    for (env, expected) in [(&[("FLYWEIGHT_TOKEN", TOKEN)][..], Some(format!("Bearer {TOKEN}"))), (&[], None)]
    {
        let (text, well) = kubectl.flyweight(&["dead-letters", "shop", "-o", "json"], env);
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        assert!(well && answer["items"][0]["id"] == "7", "{text}");
        assert!(!text.contains(TOKEN), "the token is shown: {text}");
        assert_eq!(seen.try_recv(), Ok(expected));
    }
    proof.holds("it arrives as it was given, and is shown nowhere");
    server.abort();
    api.delete(&format!("/api/v1/namespaces/{namespace}")).await;
}

/// A pod that is said to have this address: the API server hands requests on to pods only.
async fn stand_in(api: &Api, namespace: &str, address: &str) {
    let account = format!("{}/default", folder(namespace, "serviceaccounts"));
    wait::until("the account of the pod", ACCOUNT_WITHIN, async || {
        (!api.get(&account).await.is_null()).then_some(())
    })
    .await;
    let pods = folder(namespace, "pods");
    let containers = json!([{ "name": "api", "image": "none" }]);
    api.create(&pods, &json!({ "metadata": { "name": "api" }, "spec": { "containers": containers } })).await;
    let status = json!({ "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] } });
    if let Err(refusal) = api.patch(&format!("{pods}/api/status"), &status).await {
        panic!("{refusal}");
    }
}

/// The address at which the API server reaches this machine: the one from which this machine reaches it.
fn reachable(kubectl: &Kubectl) -> String {
    let path = "jsonpath={.clusters[0].cluster.server}";
    let server =
        kubectl.call(&["config", "view", "--minify", "-o", path]).unwrap_or_else(|error| panic!("{error}"));
    let place = server.trim_start_matches("https://").trim_end_matches('/');
    let socket = UdpSocket::bind("0.0.0.0:0")
        .and_then(|socket| socket.connect(place).and_then(|()| socket.local_addr()));
    socket.unwrap_or_else(|error| panic!("no way to {place}: {error}")).ip().to_string()
}
