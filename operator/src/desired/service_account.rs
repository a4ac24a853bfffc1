//! ServiceAccount: the identity of the pods. They never talk to the API server, so no token is mounted.

use serde_json::json;

use super::{Component, Target};
use crate::child::{Child, ChildKind};

/// The account of all pods of the service.
pub(super) fn child(target: &Target<'_>) -> Child {
    let content = json!({ "automountServiceAccountToken": false });
    target.child(
        ChildKind::ServiceAccount,
        target.name().to_owned(),
        Component::Dataplane,
        json!({}),
        content,
    )
}
