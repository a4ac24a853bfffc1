//! ServiceAccount: the identity of the pods. They never talk to the API server, so no token is mounted.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::target::{self, Component, Target};
use crate::model::child::{Child, ChildKind};

/// The account of all pods of the service.
pub fn child(target: &Target<'_>) -> Child {
    let account = ServiceAccount {
        metadata: target.metadata(target.name().to_owned(), Component::Dataplane),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    target::child(ChildKind::ServiceAccount, &account)
}
