//! NetworkPolicy: only the needed traffic. Clients of the namespace reach the API; whoever scrapes reaches the admin port, which holds no data.
//! Stores are named in Secrets that the operator never reads, so the way out stays open for TCP, and for DNS.

use serde_json::json;

use super::{Component, Target};
use crate::child::{Child, ChildKind, label};

/// The policy of all pods of the service, the gateway's included.
pub(super) fn child(target: &Target<'_>) -> Child {
    let mut pods = target.selector(Component::Dataplane);
    pods.remove(label::COMPONENT);
    let content = json!({ "spec": {
        "podSelector": { "matchLabels": pods },
        "policyTypes": ["Egress", "Ingress"],
        "ingress": [
            { "from": [{ "podSelector": {} }], "ports": [{ "port": 8080, "protocol": "TCP" }] },
            { "ports": [{ "port": 9090, "protocol": "TCP" }] },
        ],
        "egress": [
            { "ports": [{ "port": 53, "protocol": "UDP" }] },
            { "ports": [{ "port": 1, "endPort": 65535, "protocol": "TCP" }] },
        ],
    }});
    target.child(ChildKind::NetworkPolicy, target.name().to_owned(), Component::Dataplane, json!({}), content)
}
