//! Services: one that clients call, and one per group by which the gateway finds the group's pods.

use serde_json::json;

use super::{Component, Target};
use crate::{
    child::{Child, ChildKind, Live, label},
    validate::Group,
};

/// Port 80 of the service's name, or 443 over TLS: the gateway where there is one, else the pods that serve every pool. A gateway that comes later
/// takes over when it is ready: clients must always find somebody.
pub(super) fn front(target: &Target<'_>) -> Child {
    let (component, selector) = if target.validated.gateway.is_some() && !is_awaited(target) {
        (Component::Gateway, target.selector(Component::Gateway))
    } else {
        let mut selector = target.selector(Component::Dataplane);
        selector.insert(label::SERVES.to_owned(), "all".into());
        (Component::Dataplane, selector)
    };
    let scheme = scheme(target);
    let port = if scheme == "https" { 443 } else { 80 };
    let content = json!({ "spec": {
        "type": "ClusterIP",
        "selector": selector,
        "ports": [{ "name": scheme, "port": port, "targetPort": "http", "protocol": "TCP", "appProtocol": scheme }],
    }});
    target.child(ChildKind::Service, target.name().to_owned(), component, json!({}), content)
}

/// Whether clients still reach the pods and no gateway could take over.
fn is_awaited(target: &Target<'_>) -> bool {
    let observed = target.observed;
    let selects = |live: &Live| {
        let selector = live.object.data.pointer("/spec/selector")?;
        Some(selector.get(label::COMPONENT)?.as_str()? == Component::Dataplane.name())
    };
    let mut fronts = observed
        .children
        .iter()
        .filter(|live| live.reference.kind == ChildKind::Service && live.reference.name == target.name());
    let reaches_pods = fronts.next().and_then(selects).unwrap_or(false);
    let serve =
        |gateway: bool| observed.pods.iter().any(|pod| pod.group.is_none() == gateway && pod.ready && !pod.terminating);
    reaches_pods && serve(false) && !serve(true)
}

/// How the API is served.
fn scheme(target: &Target<'_>) -> &'static str {
    if target.settings().security.tls_secret.is_some() { "https" } else { "http" }
}

/// A headless Service: its DNS name resolves to the ready pods of the group, and only to those.
pub(super) fn of_group(target: &Target<'_>, group: &Group) -> Child {
    let component = Component::Group(&group.name);
    let content = json!({ "spec": {
        "type": "ClusterIP",
        "clusterIP": "None",
        "selector": target.selector(component),
        "ports": [{ "name": "http", "port": 8080, "targetPort": "http", "protocol": "TCP", "appProtocol": scheme(target) }],
    }});
    target.child(ChildKind::Service, target.name_of(&group.name), component, json!({}), content)
}
