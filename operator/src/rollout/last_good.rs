//! The last good children: what was wanted when nothing was held back, in a ConfigMap of its own. While a
//! change is held, what somebody deletes or changes is repaired by them; and a change stays known as one
//! where the Deployment that it would have changed is gone.
//!
//! They are written down before they are applied, so that what runs is never newer. What changes from look to
//! look is left out: what load asks for, and which versions the Secrets have. No Secret is in them, only
//! names of Secrets.

use std::io::{Read, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use k8s_openapi::{ByteString, api::core::v1::ConfigMap};
use kube::Resource;
use serde_json::{Map, Value, json};

use crate::{
    children::{
        deployment,
        target::{self, Component, Target, seal},
    },
    model::{
        child::{Child, ChildKind, ChildRef, annotation, label, settings_name},
        observed::Observed,
        validated::Group,
    },
};

/// The key of the ConfigMap.
const KEY: &str = "children.json.gz";
/// Where they take more room, before they are compressed, nothing is kept.
const BYTES_MAX: usize = 700 << 10;

/// The ConfigMap that keeps these; none where there are none, or too much.
pub(super) fn child(target: &Target<'_>, children: &[Child]) -> Option<Child> {
    let bodies: Vec<Value> =
        children.iter().filter(|child| is_kept(child.reference.kind)).map(bare).collect();
    let packed = (!bodies.is_empty()).then(|| pack(&bodies)).flatten()?;
    let map = ConfigMap {
        metadata: target.metadata(name(target.observed), Component::Dataplane),
        binary_data: Some([(KEY.to_owned(), packed)].into()),
        ..ConfigMap::default()
    };
    Some(target::child(ChildKind::ConfigMap, &map))
}

/// The same with the last good ones of these references: they are still to change.
pub(super) fn child_beside(target: &Target<'_>, wanted: &[Child], waiting: &[ChildRef]) -> Option<Child> {
    let former = children(target.observed).into_iter().filter(|child| waiting.contains(&child.reference));
    let mut all: Vec<Child> = wanted.iter().cloned().chain(former).collect();
    all.sort_by(|a, b| a.reference.cmp(&b.reference));
    child(target, &all)
}

/// The last good children; none where nothing is kept.
pub(super) fn children(observed: &Observed) -> Vec<Child> {
    let reference = ChildRef { kind: ChildKind::ConfigMap, name: name(observed) };
    let live = observed.children.iter().find(|live| live.reference == reference);
    let packed = live.and_then(|live| live.object.data.get("binaryData")?.get(KEY)?.as_str());
    let bodies = packed.and_then(unpack).unwrap_or_default();
    let children = bodies.into_iter().filter_map(|body| whole(observed, body));
    // A kind that the cluster does not know any more cannot be applied.
    children.filter(|child| child.reference.kind != ChildKind::Certificate || observed.cert_manager).collect()
}

/// The same with as many pods as the service wants now, and what keeps them: what is held back does not keep
/// a service from scaling.
pub(super) fn scaled(target: &Target<'_>) -> Vec<Child> {
    let scale = |child: Child| {
        let group = child.body.pointer("/metadata/labels").and_then(|labels| labels[label::GROUP].as_str());
        let group = target.validated.groups.iter().find(|one| Some(one.name.as_str()) == group);
        let Some(group) = group.filter(|_| child.reference.kind == ChildKind::Deployment) else {
            return child;
        };
        let Child { reference, mut body, hash: _ } = child;
        if let Some(replicas) = body.pointer_mut("/spec/replicas") {
            *replicas = group.replicas.into();
        }
        seal(reference, body)
    };
    let scaled: Vec<Child> = children(target.observed).into_iter().map(scale).collect();
    child(target, &scaled).into_iter().chain(scaled).collect()
}

/// What a group's pods were before a change.
pub(super) struct Former {
    /// What identifies them; none where their Deployment does not say it.
    pub identity: Option<String>,
    /// Their image.
    pub image: Option<String>,
    /// Whether their Deployment is gone, and this is what it last was.
    pub is_gone: bool,
}

impl Former {
    /// From the group's Deployment; none where there never was one.
    pub fn of(target: &Target<'_>, group: &Group) -> Option<Self> {
        let reference = ChildRef { kind: ChildKind::Deployment, name: target.name_of(&group.name) };
        if let Some(live) = target.observed.children.iter().find(|live| live.reference == reference) {
            return Some(Self {
                identity: live.annotation(annotation::TEMPLATE).map(str::to_owned),
                image: image(&live.object.data),
                is_gone: false,
            });
        }
        let kept = children(target.observed).into_iter().find(|child| child.reference == reference)?;
        let annotations = &kept.body["metadata"]["annotations"];
        let identity = annotations[annotation::TEMPLATE].as_str().map(str::to_owned);
        Some(Self { identity, image: image(&kept.body), is_gone: true })
    }

    /// Whether the change would replace them by others.
    pub fn differs(&self, target: &Target<'_>, group: &Group) -> bool {
        let wanted =
            deployment::identity(&deployment::template(target, group, &settings_name(target.name())));
        self.identity.as_ref() != Some(&wanted)
    }
}

fn image(deployment: &Value) -> Option<String> {
    deployment.pointer("/spec/template/spec/containers/0/image").and_then(Value::as_str).map(str::to_owned)
}

/// As a ConfigMap holds it; none where it is too much.
fn pack(bodies: &[Value]) -> Option<ByteString> {
    let text = serde_json::to_vec(bodies).ok().filter(|text| text.len() <= BYTES_MAX)?;
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&text).ok()?;
    Some(ByteString(packed.finish().ok()?))
}

fn unpack(packed: &str) -> Option<Vec<Value>> {
    let packed = STANDARD.decode(packed).ok()?;
    let mut text = Vec::new();
    GzDecoder::new(&packed[..]).take(BYTES_MAX as u64).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn name(observed: &Observed) -> String {
    format!("{}-last-good", observed.name)
}

/// Whether children of the kind are kept. An autoscaler follows the load of the moment, and a migration is
/// over.
fn is_kept(kind: ChildKind) -> bool {
    match kind {
        ChildKind::Job | ChildKind::HorizontalPodAutoscaler => false,
        ChildKind::ServiceAccount
        | ChildKind::Certificate
        | ChildKind::ConfigMap
        | ChildKind::Service
        | ChildKind::NetworkPolicy
        | ChildKind::Deployment
        | ChildKind::PodDisruptionBudget => true,
    }
}

/// The child without what it gets again from what is observed.
fn bare(child: &Child) -> Value {
    let mut body = child.body.clone();
    if let Some(metadata) = body["metadata"].as_object_mut() {
        metadata.remove("namespace");
        metadata.remove("ownerReferences");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(annotation::APPLIED);
            annotations.remove(annotation::SECRETS);
        }
    }
    body
}

/// The child, complete again; none where it is none of this service's.
fn whole(observed: &Observed, mut body: Value) -> Option<Child> {
    let kind = ChildKind::ALL.into_iter().find(|kind| is_kept(*kind) && body["kind"] == kind.name())?;
    let metadata = body.get_mut("metadata")?.as_object_mut()?;
    let name = metadata.get("name")?.as_str()?.to_owned();
    name.strip_prefix(&observed.name).filter(|rest| rest.is_empty() || rest.starts_with('-'))?;
    metadata.insert("namespace".to_owned(), observed.namespace.clone().into());
    metadata.insert("ownerReferences".to_owned(), json!([observed.service.controller_owner_ref(&())]));
    let annotations =
        metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new())).as_object_mut()?;
    let edition = observed.running.as_ref().and_then(|running| running.secrets.as_ref());
    if let Some(edition) = edition.filter(|_| kind == ChildKind::ConfigMap) {
        annotations.insert(annotation::SECRETS.to_owned(), edition.to_string().into());
    }
    Some(seal(ChildRef { kind, name }, body))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::SignedDuration;

    use super::*;
    use crate::{
        fixture::{apply, change_tier, now, observed, observed_with, settle},
        model::{
            observed::ObservedPod,
            plan::{Held, Migration, Plan, Trial},
        },
        rollout::{plan, prune::superfluous},
        validate::validate,
    };

    fn planned(observed: &Observed) -> Plan {
        plan(observed, &validate(observed))
    }

    /// The shop as it runs, with a pool that has a fault.
    fn faulty() -> Observed {
        let mut observed = observed_with(|spec| {
            spec["gateway"] = json!({ "replicas": 2 });
            spec["networkPolicy"] = json!(true);
            spec["autoscaling"] = json!({ "minReplicas": 2, "maxReplicas": 10 });
            spec["replicas"] = json!(3);
        });
        settle(&mut observed);
        observed.pools.clear();
        observed
    }

    fn is(kind: ChildKind, name: &str) -> ChildRef {
        ChildRef { kind, name: name.to_owned() }
    }

    fn take(observed: &mut Observed, kind: ChildKind, name: &str) {
        let before = observed.children.len();
        observed.children.retain(|live| live.reference != is(kind, name));
        assert_eq!(observed.children.len() + 1, before, "{kind:?} {name} was there");
    }

    fn restored<'a>(plan: &'a Plan, kind: ChildKind, name: &str) -> Option<&'a Child> {
        plan.restore.iter().find(|child| child.reference == is(kind, name))
    }

    /// Which children are missing, or applied with another content.
    fn written(observed: &Observed, plan: &Plan) -> Vec<String> {
        let is_there = |child: &&Child| {
            let mut live = observed.children.iter().filter(|live| live.reference == child.reference);
            live.any(|live| live.annotation(annotation::APPLIED) == Some(&child.hash))
        };
        let children = plan.restore.iter().chain(&plan.children).filter(|child| !is_there(child));
        children.map(|child| format!("{} {}", child.reference.kind.name(), child.reference.name)).collect()
    }

    #[test]
    fn with_a_fault_everything_is_repaired_as_it_was() {
        let before = faulty();
        let plan = planned(&before);
        assert_eq!((plan.held, plan.children.len()), (Some(Held::Faults), 0));
        assert_eq!(written(&before, &plan), [""; 0], "what is there is not written");
        for (kind, name) in [
            (ChildKind::ServiceAccount, "shop"),
            (ChildKind::ConfigMap, "shop-settings"),
            (ChildKind::Service, "shop"),
            (ChildKind::Service, "shop-main"),
            (ChildKind::NetworkPolicy, "shop"),
            (ChildKind::Deployment, "shop-main"),
            (ChildKind::Deployment, "shop-gateway"),
            (ChildKind::PodDisruptionBudget, "shop-catalog"),
        ] {
            let mut observed = faulty();
            take(&mut observed, kind, name);
            let plan = planned(&observed);
            assert_eq!(written(&observed, &plan), [format!("{} {name}", kind.name())]);
            assert!(plan.prune.is_empty());
            let was = before.children.iter().find(|live| live.reference == is(kind, name)).unwrap();
            let now = crate::fixture::live(restored(&plan, kind, name).unwrap());
            assert_eq!(now.object, was.object, "{kind:?} {name}");
        }
        assert_eq!(restored(&plan, ChildKind::HorizontalPodAutoscaler, "shop"), None, "it follows the load");
        let mut paused = (*before.service).clone();
        paused.spec.paused = true;
        assert_eq!(planned(&Observed { service: paused.into(), ..before }).restore, [], "a pause is a pause");
    }

    /// Two groups of pods run, and a change was found bad by its canary.
    fn bad() -> Observed {
        let mut observed = observed();
        settle(&mut observed);
        change_tier(&mut observed, |spec| spec["memory"]["policy"] = json!("LRU"));
        let plan = planned(&observed);
        apply(&mut observed, &plan);
        let canary = observed.children.iter().find(|live| live.reference.name == "shop-main-canary").unwrap();
        let canary = canary.annotation(annotation::CANARY).map(str::to_owned);
        observed.pods.push(ObservedPod {
            group: Some("main".to_owned()),
            canary,
            created: now(),
            ..ObservedPod::default()
        });
        observed.at = now() + SignedDuration::from_secs(3600);
        let plan = planned(&observed);
        assert_eq!(plan.held, Some(Held::CanaryFailed));
        apply(&mut observed, &plan);
        observed.pods.retain(|pod| pod.canary.is_none());
        observed
    }

    fn template(child: Option<&Child>) -> Value {
        child.map(|child| child.body["spec"]["template"].clone()).unwrap_or_default()
    }

    #[test]
    fn a_change_that_its_canary_found_bad_stays_so_where_the_deployment_is_deleted() {
        let mut observed = bad();
        let before = planned(&observed);
        assert_eq!(written(&observed, &before), [""; 0]);
        take(&mut observed, ChildKind::Deployment, "shop-main");
        observed.pods.retain(|pod| pod.group.as_deref() != Some("main"));
        let plan = planned(&observed);
        assert_eq!((plan.held, &plan.trial), (Some(Held::CanaryFailed), &before.trial));
        assert_eq!(written(&observed, &plan), ["Deployment shop-main"]);
        let main = restored(&plan, ChildKind::Deployment, "shop-main");
        assert_eq!(template(main), template(restored(&before, ChildKind::Deployment, "shop-main")));
        apply(&mut observed, &plan);
        assert_eq!(planned(&observed).held, Some(Held::CanaryFailed), "before its pods are back, too");
        // With what is known of the canary gone, too, it is tried again.
        take(&mut observed, ChildKind::Deployment, "shop-main");
        take(&mut observed, ChildKind::Deployment, "shop-main-canary");
        let plan = planned(&observed);
        assert!(matches!(plan.trial, Some(Trial::Running(_))), "{:?}", plan.trial);
        assert_eq!(written(&observed, &plan), ["Deployment shop-main", "Deployment shop-main-canary"]);
        apply(&mut observed, &plan);
        assert_eq!(planned(&observed).held, Some(Held::Canary));
    }

    #[test]
    fn a_migration_that_failed_stays_so_where_the_deployments_are_deleted() {
        let mut observed = observed();
        settle(&mut observed);
        observed.service = observed_with(|spec| spec["image"] = json!("flyweight/dataplane:2")).service;
        let plan = planned(&observed);
        apply(&mut observed, &plan);
        let job = observed.children.iter_mut().find(|live| live.reference.kind == ChildKind::Job).unwrap();
        let mut object = (*job.object).clone();
        object.data["status"] = json!({ "failed": 2 });
        job.object = object.into();
        for name in ["shop-main", "shop-catalog"] {
            take(&mut observed, ChildKind::Deployment, name);
        }
        observed.pods.clear();
        let plan = planned(&observed);
        assert!(matches!(plan.migration, Some(Migration::Failed(_))), "{:?}", plan.migration);
        assert_eq!(written(&observed, &plan), ["Deployment shop-catalog", "Deployment shop-main"]);
        for name in ["shop-main", "shop-catalog"] {
            let template = template(restored(&plan, ChildKind::Deployment, name));
            assert_eq!(template["spec"]["containers"][0]["image"], "flyweight/dataplane:0.1.0", "{name}");
        }
    }

    #[test]
    fn a_deployment_that_is_deleted_without_a_change_comes_back_at_once() {
        let mut observed = observed();
        settle(&mut observed);
        take(&mut observed, ChildKind::Deployment, "shop-main");
        observed.pods.clear();
        let plan = planned(&observed);
        assert_eq!((plan.held, plan.restore.len()), (None, 0));
        assert_eq!(written(&observed, &plan), ["Deployment shop-main"]);
    }

    #[test]
    fn scaling_goes_on_and_stays() {
        let mut observed = bad();
        let mut service = (*observed.service).clone();
        service.spec.replicas = Some(6);
        observed.service = service.into();
        let plan = planned(&observed);
        let scaled = ["ConfigMap shop-last-good", "Deployment shop-catalog", "Deployment shop-main"];
        assert_eq!(
            (plan.held, written(&observed, &plan)),
            (Some(Held::CanaryFailed), scaled.map(str::to_owned).into())
        );
        apply(&mut observed, &plan);
        assert_eq!(written(&observed, &planned(&observed)), [""; 0]);
        observed.pools.clear();
        let plan = planned(&observed);
        assert_eq!(
            (plan.held, written(&observed, &plan)),
            (Some(Held::Faults), Vec::new()),
            "a fault takes no pod away"
        );
    }

    #[test]
    fn while_a_secret_is_missing_the_former_service_comes_back() {
        let mut observed = observed();
        settle(&mut observed);
        let tls = |spec: &mut Value| spec["security"]["tls"] = json!({ "secretRef": { "name": "shop-tls" } });
        observed.service = observed_with(tls).service;
        take(&mut observed, ChildKind::Service, "shop");
        let plan = planned(&observed);
        assert_eq!(plan.held, Some(Held::Secrets));
        let front = restored(&plan, ChildKind::Service, "shop").unwrap();
        assert_eq!(front.body["spec"]["ports"][0]["port"], 80);
        assert!(plan.children.iter().all(|child| child.reference.kind != ChildKind::Service));
    }

    #[test]
    fn what_is_too_large_is_not_kept_and_what_was_kept_goes() {
        let mut observed = observed();
        settle(&mut observed);
        let validated = crate::fixture::validated(&observed);
        let target = Target { observed: &observed, validated: &validated };
        let of_size = |bytes: usize| {
            let body = json!({ "kind": "ConfigMap", "metadata": { "name": "x" }, "data": { "x": "x".repeat(bytes) } });
            child(&target, &[Child { reference: is(ChildKind::ConfigMap, "x"), body, hash: String::new() }])
        };
        assert!(of_size(BYTES_MAX - 100).is_some());
        assert_eq!(of_size(BYTES_MAX), None);
        assert_eq!(child(&target, &[]), None);
        assert!(superfluous(&target, &[], None, &[]).contains(&is(ChildKind::ConfigMap, "shop-last-good")));
        observed.pools.clear();
        take(&mut observed, ChildKind::ConfigMap, "shop-last-good");
        assert_eq!(planned(&observed).restore, [], "without it all stays as it is");
    }

    #[test]
    fn what_somebody_else_wrote_there_does_no_harm() {
        let bodies = |bodies: Value| STANDARD.encode(pack(bodies.as_array().unwrap()).unwrap().0);
        let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
        bomb.write_all(&vec![b' '; 2 * BYTES_MAX]).unwrap();
        for text in [
            String::new(),
            "x".to_owned(),
            STANDARD.encode("x"),
            STANDARD.encode(bomb.finish().unwrap()),
            bodies(json!([1, "x", {}, { "kind": "Service" }, { "kind": "Service", "metadata": 1 }])),
            bodies(json!([{ "kind": "Service", "metadata": { "name": "shop", "annotations": "x" } }])),
            bodies(json!([{ "kind": "Service", "metadata": { "name": "shopping" } }])),
            bodies(json!([{ "kind": "ClusterRole", "metadata": { "name": "shop" } }])),
        ] {
            let mut observed = faulty();
            let kept =
                observed.children.iter_mut().find(|live| live.reference.name == "shop-last-good").unwrap();
            let mut object = (*kept.object).clone();
            object.data["binaryData"][KEY] = text.into();
            kept.object = object.into();
            assert_eq!(planned(&observed).restore, []);
        }
    }
}
