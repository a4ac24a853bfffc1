//! PodDisruptionBudget: how many pods maintenance may take away at once.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::target::{self, Component, Target, int, matching};
use crate::model::{
    child::{Child, ChildKind},
    validated::Group,
};

/// The budget of one group.
pub fn of_group(target: &Target<'_>, group: &Group) -> Child {
    child(target, target.name_of(&group.name), Component::Group(&group.name))
}

/// The budget of the gateway.
pub fn of_gateway(target: &Target<'_>) -> Child {
    child(target, target.name_of("gateway"), Component::Gateway)
}

fn child(target: &Target<'_>, name: String, component: Component<'_>) -> Child {
    let spec = PodDisruptionBudgetSpec {
        max_unavailable: Some(IntOrString::Int(int(target.validated.max_unavailable))),
        selector: Some(matching(target.selector(component))),
        // a pod that cannot start must not keep a node from being emptied
        unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
        ..PodDisruptionBudgetSpec::default()
    };
    let budget = PodDisruptionBudget {
        metadata: target.metadata(name, component),
        spec: Some(spec),
        ..PodDisruptionBudget::default()
    };
    target::child(ChildKind::PodDisruptionBudget, &budget)
}
