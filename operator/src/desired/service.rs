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
    let scheme = reached(target);
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
    let reaches_pods = front_of(target).and_then(selects).unwrap_or(false);
    let serve =
        |gateway: bool| observed.pods.iter().any(|pod| pod.group.is_none() == gateway && pod.ready && !pod.terminating);
    reaches_pods && serve(false) && !serve(true)
}

/// How clients reach the API: as before a change to TLS or from it for as long as no pod of the change is ready, so that one which does not work
/// takes nothing away.
fn reached(target: &Target<'_>) -> &'static str {
    let (wanted, observed) = (scheme(target), target.observed);
    let former = front_of(target).and_then(|live| live.object.data.pointer("/spec/ports/0/name")?.as_str());
    let former = ["http", "https"].into_iter().find(|scheme| former == Some(scheme));
    let gateway = target.validated.gateway.is_some() && !is_awaited(target);
    let is_served = observed.pods.iter().any(|pod| {
        let new = pod.rolling.as_ref() == Some(&target.validated.rolling);
        pod.group.is_none() == gateway && pod.job.is_none() && new && pod.ready && !pod.terminating
    });
    former.filter(|_| !is_served).unwrap_or(wanted)
}

fn front_of<'a>(target: &Target<'a>) -> Option<&'a Live> {
    let mut children = target.observed.children.iter();
    children.find(|live| live.reference.kind == ChildKind::Service && live.reference.name == target.name())
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
