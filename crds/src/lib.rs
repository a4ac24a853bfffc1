//! The contract between users, operator and data plane: the three custom resources, and the settings that
//! they resolve to.
//!
//! `resolve` is the only way from resources to [`settings::Settings`], on a laptop and in a cluster; it is
//! pure. The feature `kube` adds what only the operator needs: object types, schemas, statuses.

#![cfg_attr(
    feature = "kube",
    expect(clippy::duplicated_attributes, reason = "kube's printer columns repeat their keys by design")
)]

pub mod annotations;
#[cfg(feature = "kube")]
pub mod conditions;
#[cfg(feature = "kube")]
pub mod definitions;
pub mod fault;
pub mod manifest;
pub mod network;
pub mod pool;
pub mod resolve;
pub mod schema;
pub mod service;
pub mod settings;
#[cfg(feature = "kube")]
pub mod status;
pub mod tier;
pub mod units;

/// The API group of all three kinds.
pub const GROUP: &str = "flyweight.dev";
/// The served and stored version of all three kinds.
pub const VERSION: &str = "v1alpha1";
