//! What to do to the cluster.

use super::{
    child::{Child, ChildRef},
    notice::Notification,
};

/// What to do to the cluster.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Why some or all children are left as they are.
    pub held: Option<Held>,
    /// The Secret with an encryption key to make.
    pub key_to_make: Option<String>,
    /// The total to begin autoscaling with.
    pub replicas_to_seed: Option<u32>,
    /// Children in the order of their application.
    pub children: Vec<Child>,
    /// While something is held back, the last good children in the place of those that it would change: they
    /// are applied first.
    pub restore: Vec<Child>,
    /// Children that nobody wants any more.
    pub prune: Vec<ChildRef>,
    /// Pods whose mounted settings or Secrets lag behind.
    pub notifications: Vec<Notification>,
    /// How many pods Deployments should have that are otherwise left as they are.
    pub resize: Vec<(ChildRef, u32)>,
    /// Deployments that are left as they are until others have taken over the pools that they hand over, and
    /// the gateway's until it finds all groups whole.
    pub waiting: Vec<ChildRef>,
    /// What has become of the stores' migration to another image.
    pub migration: Option<Migration>,
    /// What has become of the change that replaces pods, where one takes it first.
    pub trial: Option<Trial>,
}

/// Why children are left as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The resources have faults: the last good configuration keeps running.
    Faults,
    /// The service is paused.
    Paused,
    /// A certificate is to be issued, but cert-manager is not installed: pods and their settings stay as they
    /// are.
    CertManager,
    /// A Secret is missing, and what should run next needs it: pods and their settings stay as they are.
    Secrets,
    /// A Job brings the stores up to another image: pods and their settings stay as they are until it has.
    Migration,
    /// That Job failed: they stay so, and it is tried again.
    MigrationFailed,
    /// One pod takes a change first: the others and their settings stay as they are.
    Canary,
    /// That pod did worse: they stay so until the resources change.
    CanaryFailed,
}

/// What has become of a migration.
#[derive(Clone, Debug, PartialEq)]
pub enum Migration {
    /// Its Job starts, or is at work. Which one.
    Running(String),
    /// Its Job failed, or its pod does not start: which one, and why. It is tried again.
    Failed(String),
    /// The stores are ready for the image.
    Done,
}

/// What a change that replaces pods has come to.
#[derive(Clone, Debug, PartialEq)]
pub enum Trial {
    /// Its canary starts, or is watched. What it is.
    Running(String),
    /// Its canary did worse than the others: how.
    Failed(String),
    /// It may go on. What its canary did.
    Passed(String),
}
