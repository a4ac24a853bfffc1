//! The gateway's Deployment: it finds the pods of each group by the group's headless Service.

use k8s_openapi::api::apps::v1::Deployment;

use super::{
    deployment::{SECURITY_FOLDER, requirements, secret},
    pod,
    target::{self, Component, Labels, Target},
};
use crate::model::{
    child::{Child, ChildKind, settings_name},
    validated::GatewayPods,
};

/// The gateway's pods.
pub fn child(target: &Target<'_>, pods: &GatewayPods) -> Child {
    // The gateway itself puts each group's name in the place of {group}.
    let upstream = format!("{}-{{group}}.{}.svc", target.name(), target.observed.namespace);
    let mut args = vec!["gateway".to_owned(), "--config".to_owned(), pod::settings_path()];
    args.extend(["--upstream-domain".to_owned(), upstream]);
    let mut volumes = Vec::new();
    if let Some(name) = &target.settings().security.tls_secret {
        args.extend(["--security".to_owned(), SECURITY_FOLDER.to_owned()]);
        volumes.push(secret("security-tls", name, &format!("{SECURITY_FOLDER}/tls")));
    }
    let component = Component::Gateway;
    let template = pod::template(
        target,
        pod::Pod {
            component,
            settings: &settings_name(target.name()),
            container: "gateway",
            args,
            resources: match pods.resources.is_default() {
                true => pod::few_resources(),
                false => requirements(&pods.resources),
            },
            labels: Labels::new(),
            volumes,
            own: pods.pod_template.as_ref(),
        },
    );
    let deployment = Deployment {
        metadata: target.metadata(target.name_of("gateway"), component),
        spec: Some(pod::deployment_spec(target, component, pods.replicas, template)),
        ..Deployment::default()
    };
    target::child(ChildKind::Deployment, &deployment)
}
