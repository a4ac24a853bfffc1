//! PodDisruptionBudget: how many pods maintenance may take away at once.

use serde_json::json;

use super::{Component, Target};
use crate::{
    child::{Child, ChildKind},
    validate::Group,
};

/// The budget of one group.
pub(super) fn of_group(target: &Target<'_>, group: &Group) -> Child {
    child(target, target.name_of(&group.name), Component::Group(&group.name))
}

/// The budget of the gateway.
pub(super) fn of_gateway(target: &Target<'_>) -> Child {
    child(target, target.name_of("gateway"), Component::Gateway)
}

fn child(target: &Target<'_>, name: String, component: Component<'_>) -> Child {
    let content = json!({ "spec": {
        "maxUnavailable": target.validated.max_unavailable,
        "selector": { "matchLabels": target.selector(component) },
    }});
    target.child(ChildKind::PodDisruptionBudget, name, component, json!({}), content)
}
