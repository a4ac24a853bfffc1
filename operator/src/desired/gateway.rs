//! The gateway's Deployment: it finds the pods of each group by the group's headless Service.

use serde_json::json;

use super::{Component, Target, pod, settings_name};
use crate::child::{Child, ChildKind};

/// The gateway's pods.
pub(super) fn child(target: &Target<'_>, replicas: u32) -> Child {
    // The gateway itself puts each group's name in the place of {group}.
    let upstream = format!("{}-{{group}}.{}.svc", target.name(), target.observed.namespace);
    let args = ["gateway", "--config", &pod::settings_path(), "--upstream-domain", &upstream];
    let component = Component::Gateway;
    let template = pod::template(
        target,
        pod::Pod {
            component,
            settings: &settings_name(target.name()),
            container: "gateway",
            args: args.into_iter().map(str::to_owned).collect(),
            resources: json!({ "requests": { "cpu": "50m", "memory": "64Mi" } }),
            labels: json!({}),
            secrets: None,
            volumes: Vec::new(),
        },
    );
    let content = pod::deployment_spec(target, component, replicas, template);
    target.child(ChildKind::Deployment, target.name_of("gateway"), component, json!({}), content)
}
