//! Certificate: cert-manager issues the API's certificate by it, into the Secret that the pods have mounted,
//! and renews it there.

use crds::service::security::IssuerRef;
use kube::api::DynamicObject;
use serde_json::json;

use super::target::{self, Component, Target};
use crate::model::child::{Child, ChildKind};

/// What cert-manager calls its API group.
const GROUP: &str = "cert-manager.io";

/// For every name by which clients and the gateway reach the service; none where the API is served over plain
/// HTTP.
pub fn child(target: &Target<'_>, issuer: &IssuerRef) -> Option<Child> {
    let secret = target.settings().security.tls_secret.as_ref()?;
    let (name, namespace) = (target.name(), &target.observed.namespace);
    let front = format!("{name}.{namespace}.svc");
    let mut names =
        vec![name.to_owned(), format!("{name}.{namespace}"), format!("{front}.cluster.local"), front];
    let groups = target.validated.groups.iter();
    names.extend(groups.map(|group| format!("{}.{namespace}.svc", target.name_of(&group.name))));
    let content = json!({ "spec": {
        "secretName": secret,
        "dnsNames": names,
        "usages": ["digital signature", "key encipherment", "server auth"],
        "issuerRef": { "group": GROUP, "kind": issuer.kind, "name": issuer.name },
    }});
    // The type is cert-manager's: there is none for it here.
    let mut certificate = DynamicObject::new("", &ChildKind::Certificate.resource()).data(content);
    certificate.metadata = target.metadata(target.name_of("tls"), Component::Dataplane);
    Some(target::child(ChildKind::Certificate, &certificate))
}
