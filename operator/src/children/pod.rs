//! What the pods of the data plane and of the gateway have in common: ports, probes, and as few rights as
//! possible.

use crds::{
    annotations::{RESTARTED_AT, TAKE_OVER_FROM},
    service::pod_template::PodTemplate,
};
use k8s_openapi::{
    api::{
        apps::v1::{DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, EnvVarSource,
            HTTPGetAction, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
            ResourceFieldSelector, ResourceRequirements, SeccompProfile, SecurityContext,
            TopologySpreadConstraint, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::ResourceExt;

use super::{
    pod_template,
    target::{Component, Labels, Target, int, labels, matching},
};
use crate::model::child::{MANAGER, SETTINGS_KEY, annotation, label};

/// Where the ConfigMap is mounted: the folder, never the single file, which would not be updated.
pub const CONFIG_FOLDER: &str = "/etc/flyweight/config";
/// Longer than the process needs to be taken out of service and to finish what it began.
const GRACE_SECONDS: i64 = 60;

/// What differs between the two.
pub struct Pod<'a> {
    pub component: Component<'a>,
    /// The ConfigMap with the settings.
    pub settings: &'a str,
    pub container: &'static str,
    pub args: Vec<String>,
    pub resources: ResourceRequirements,
    /// Labels besides those that select.
    pub labels: Labels,
    /// Volumes besides the settings, each with where it is mounted.
    pub volumes: Vec<(Volume, VolumeMount)>,
    /// What is merged into it after what is merged into all.
    pub own: Option<&'a PodTemplate>,
}

/// The path of the settings in the pod.
pub fn settings_path() -> String {
    format!("{CONFIG_FOLDER}/{SETTINGS_KEY}")
}

/// The CPU and memory of pods that do little.
pub fn few_resources() -> ResourceRequirements {
    let amounts = |cpu: &str, memory: &str| {
        let amounts = [("cpu", cpu), ("memory", memory)];
        Some(amounts.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))).into())
    };
    // with limits: a namespace with a quota on them admits nothing without
    ResourceRequirements { requests: amounts("50m", "64Mi"), limits: amounts("2", "512Mi"), claims: None }
}

/// The pod template.
pub fn template(target: &Target<'_>, pod: Pod<'_>) -> PodTemplateSpec {
    let Pod { component, settings, container, args, resources, labels: more, volumes, own } = pod;
    let (volumes, mounts): (Vec<Volume>, Vec<VolumeMount>) =
        [settings_volume(settings)].into_iter().chain(volumes).unzip();
    let mut all_labels = target.selector(component);
    all_labels.insert(label::MANAGED_BY.to_owned(), MANAGER.to_owned());
    all_labels.extend(more);
    let mut annotations = labels([(annotation::ROLLING, target.validated.rolling.as_str())]);
    if let Some(time) = target.observed.service.annotations().get(RESTARTED_AT) {
        annotations.insert(RESTARTED_AT.to_owned(), time.clone());
    }
    let spread = TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(matching(target.selector(component))),
        ..TopologySpreadConstraint::default()
    };
    // No user and no group: they are those of the image, or those that the cluster chooses.
    let security = PodSecurityContext {
        run_as_non_root: Some(true),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    };
    let spec = PodSpec {
        service_account_name: Some(target.name().to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(security),
        topology_spread_constraints: Some(vec![spread]),
        containers: vec![Container {
            name: container.to_owned(),
            image: Some(target.validated.image.clone()),
            args: Some(args),
            env: Some(env(target)),
            resources: Some(resources),
            volume_mounts: Some(mounts),
            ..container_of_all()
        }],
        volumes: Some(volumes),
        ..PodSpec::default()
    };
    let metadata =
        ObjectMeta { labels: Some(all_labels), annotations: Some(annotations), ..ObjectMeta::default() };
    let made = PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) };
    let added = target.validated.pod_template.iter().chain(own);
    added.fold(made, |pods, added| pod_template::merge(pods, added, container))
}

/// A Deployment's spec around the template: a new pod is ready before an old one goes.
pub fn deployment_spec(
    target: &Target<'_>,
    component: Component<'_>,
    replicas: u32,
    template: PodTemplateSpec,
) -> DeploymentSpec {
    DeploymentSpec {
        replicas: Some(int(replicas)),
        // said, so that a rollout that somebody paused goes on
        paused: Some(false),
        revision_history_limit: Some(3),
        selector: matching(target.selector(component)),
        strategy: Some(DeploymentStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(RollingUpdateDeployment {
                max_surge: Some(IntOrString::Int(1)),
                max_unavailable: Some(IntOrString::Int(0)),
            }),
        }),
        template,
        ..DeploymentSpec::default()
    }
}

/// What the containers of all pods have in common: ports, probes and rights.
fn container_of_all() -> Container {
    let port = |name: &str, number: i32| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    Container {
        ports: Some(vec![port("http", 8080), port("admin", 9090)]),
        // The start may take as long as the warm-up of two minutes; readiness is asked often, because a pod
        // that ends says so there.
        startup_probe: Some(probe("/livez", 1, 120)),
        readiness_probe: Some(probe("/readyz", 2, 2)),
        liveness_probe: Some(probe("/livez", 10, 3)),
        // what a process said last is told in the status
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn env(target: &Target<'_>) -> Vec<EnvVar> {
    let value = |name: &str, value: &str| EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    };
    let memory = ResourceFieldSelector {
        resource: "limits.memory".to_owned(),
        divisor: Some(Quantity("1".to_owned())),
        ..ResourceFieldSelector::default()
    };
    let mut env = vec![
        // a pod is there for others, by either family of addresses
        value("LISTEN", "[::]"),
        field_env("POD_NAME", "metadata.name"),
        field_env("POD_NAMESPACE", "metadata.namespace"),
        // in bytes; where there is no limit, what the node has
        EnvVar {
            name: "MEMORY_LIMIT".to_owned(),
            value_from: Some(EnvVarSource { resource_field_ref: Some(memory), ..EnvVarSource::default() }),
            ..EnvVar::default()
        },
    ];
    let from = target.observed.service.annotations().get(TAKE_OVER_FROM);
    env.extend(from.map(|owner| value("TAKE_OVER_FROM", owner)));
    env
}

fn field_env(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: path.to_owned() };
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    }
}

fn settings_volume(config_map: &str) -> (Volume, VolumeMount) {
    let source = ConfigMapVolumeSource {
        name: config_map.to_owned(),
        default_mode: Some(0o444),
        ..ConfigMapVolumeSource::default()
    };
    let volume = Volume { name: "config".to_owned(), config_map: Some(source), ..Volume::default() };
    (volume, mount("config", CONFIG_FOLDER))
}

/// The volume at this path, to read from.
pub fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("admin".to_owned()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failures),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}
