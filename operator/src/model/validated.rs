//! What shall run: the resources without a fault, parsed and resolved.

use crds::{
    fault::Fault,
    service::{
        Autoscaling, exposure::Exposure, groups::Resources, pod_template::PodTemplate, security::IssuerRef,
    },
    settings::Settings,
};

/// The name of the Secret with the encryption key is the service's name and this, where the service names no
/// other.
pub const ENCRYPTION_SUFFIX: &str = "-encryption";

/// What runs when all faults are mended: everything that `children` and `rollout` need.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    /// The settings of the data plane.
    pub settings: Settings,
    /// [`Settings::hash`].
    pub hash: String,
    /// [`Settings::rolling_hash`].
    pub rolling: String,
    /// The image.
    pub image: String,
    /// The groups of pods, in the service's order.
    pub groups: Vec<Group>,
    /// The gateway's pods; none without a gateway.
    pub gateway: Option<GatewayPods>,
    /// How clients reach the service.
    pub exposure: Exposure,
    /// What is merged into all pods.
    pub pod_template: Option<PodTemplate>,
    /// How the service scales by itself.
    pub autoscaling: Option<Autoscaling>,
    /// The total to begin with where autoscaling is on and nobody has set one.
    pub replicas_to_seed: Option<u32>,
    /// Pods of a group that may be away at once.
    pub max_unavailable: u32,
    /// Whether traffic is restricted.
    pub network_policy: bool,
    /// The TCP ports that the policy lets pods out to; none for all.
    pub egress_ports: Option<Vec<u16>>,
    /// Who issues the certificate of the API; none where the Secret is made by others.
    pub issuer: Option<IssuerRef>,
    /// Whether children stay as they are.
    pub paused: bool,
    /// Identifies the content of all named Secrets by their resource versions; none while one is missing.
    pub secrets: Option<String>,
    /// Secrets that are named and are not there, each with who names it.
    pub missing: Vec<MissingSecret>,
    /// The Secret with the encryption key that has yet to be made.
    pub key_to_make: Option<String>,
    /// What is wrong with the spec from the next release on.
    pub warnings: Vec<Fault>,
}

/// A group of pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// How many pods.
    pub replicas: u32,
    /// CPU and memory of each.
    pub resources: Resources,
    /// Whether it serves every pool of the service.
    pub serves_all: bool,
    /// What is merged into its pods.
    pub pod_template: Option<PodTemplate>,
}

/// The gateway's pods.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayPods {
    /// How many.
    pub replicas: u32,
    /// CPU and memory of each.
    pub resources: Resources,
    /// What is merged into them.
    pub pod_template: Option<PodTemplate>,
}

/// A Secret that is named and is not there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MissingSecret {
    /// Its name.
    pub name: String,
    /// The field that names it.
    pub path: String,
}
