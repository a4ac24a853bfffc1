//! The second step: whether what was observed can run at all. Pure. After it nobody looks at a spec again.

use std::collections::{BTreeMap, BTreeSet};

use crds::{
    annotations::{NAMES, NAMESPACED, PLAINTEXT, REFUSED, TAKE_OVER_FROM},
    fault::Fault,
    resolve::{Named, plaintext, replicas_of, resolve},
    service::ServiceSpec,
    settings::{
        Plaintext, Settings,
        names::{Names, Origin},
    },
};
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use crate::model::{
    observed::{Observed, Running},
    validated::{ENCRYPTION_SUFFIX, GatewayPods, Group, MissingSecret, Validated},
};

/// The service with its pools and tiers, parsed and resolved.
///
/// # Errors
/// Every fault, sorted.
pub fn validate(observed: &Observed) -> Result<Validated, Vec<Fault>> {
    let spec = observed.service.spec.clone();
    let pools: Vec<_> =
        observed.pools.iter().map(|pool| Named { name: pool.name_any(), spec: pool.spec.clone() }).collect();
    let tiers: Vec<_> =
        observed.tiers.iter().map(|tier| Named { name: tier.name_any(), spec: tier.spec.clone() }).collect();
    let named = Named { name: observed.name.clone(), spec };
    let from = observed.service.annotations().get(TAKE_OVER_FROM).map(String::as_str);
    if let Some(fault) = Origin::fault(from, &observed.name) {
        return Err(vec![fault]);
    }
    let readable = plaintext::in_spec(&named);
    if is_warned(observed) {
        let settings = warned(self::named(resolve(&named, &pools, &tiers)?, observed), &named.spec);
        return Ok(Validated { warnings: readable, ..complete(named.spec, settings, observed) });
    }
    match resolve(&named, &pools, &tiers) {
        Ok(settings) if readable.is_empty() => {
            Ok(complete(named.spec, self::named(settings, observed), observed))
        }
        resolved => Err(resolved
            .err()
            .into_iter()
            .flatten()
            .chain(readable)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()),
    }
}

/// Whether the service ran before passwords that others can read were refused.
fn is_warned(observed: &Observed) -> bool {
    observed.service.annotations().get(PLAINTEXT).is_none_or(|plaintext| plaintext != REFUSED)
}

/// The settings of such a service: what its author does not say stays as it was, for this release.
fn warned(mut settings: Settings, spec: &ServiceSpec) -> Settings {
    for (backend, declared) in settings.backends.iter_mut().zip(&spec.backends) {
        if declared.allow_plaintext().is_none() {
            backend.plaintext = Plaintext::Warned;
        }
    }
    settings
}

/// The settings with what the spec leaves out of names. A service that ran before they were made of its own
/// keeps what it has.
fn named(settings: Settings, observed: &Observed) -> Settings {
    let namespaced = observed.service.annotations().get(NAMES).is_some_and(|names| names == NAMESPACED);
    if namespaced {
        let (namespace, service) = (observed.namespace.clone(), observed.name.clone());
        return settings.named(&Names::Of { namespace, service });
    }
    let running = observed.running.as_ref().and_then(|running| running.settings.as_deref());
    let settings = running.map_or(settings.clone(), |running| settings.named_as_in(running));
    settings.named(&Names::Bare)
}

fn complete(spec: ServiceSpec, settings: Settings, observed: &Observed) -> Validated {
    let replicas: BTreeMap<String, u32> = replicas_of(&spec);
    let total: u32 = replicas.values().sum();
    let unset = spec.replicas.is_none();
    let key_to_make = key_to_make(&spec, &settings, observed);
    let issuer = spec.security.tls.and_then(|tls| tls.issuer_ref);
    let mut missing: Vec<MissingSecret> = named_secrets(&settings)
        .filter(|(name, _)| !observed.secrets.contains_key(*name) && key_to_make.as_deref() != Some(*name))
        .map(|(name, path)| MissingSecret { name: name.to_owned(), path })
        .collect();
    missing.sort();
    let secrets = secrets_version(&settings, observed);
    let groups = spec
        .replica_groups
        .into_iter()
        .zip(&settings.groups)
        .map(|(group, resolved)| Group {
            replicas: replicas.get(&group.name).copied().unwrap_or(group.replicas),
            name: group.name,
            resources: group.resources,
            serves_all: resolved.pools.len() == settings.pools.len(),
            pod_template: group.pod_template,
        })
        .collect();
    Validated {
        hash: settings.hash(),
        rolling: settings.rolling_hash(),
        settings,
        image: spec.image,
        groups,
        gateway: spec.gateway.map(|gateway| GatewayPods {
            replicas: gateway.replicas,
            resources: gateway.resources,
            pod_template: gateway.pod_template,
        }),
        exposure: spec.service,
        pod_template: spec.pod_template,
        replicas_to_seed: spec
            .autoscaling
            .as_ref()
            .filter(|_| unset)
            .map(|auto| total.clamp(auto.min_replicas, auto.max_replicas)),
        autoscaling: spec.autoscaling,
        max_unavailable: spec.disruption.max_unavailable,
        network_policy: spec.network_policy,
        egress_ports: spec.egress_ports,
        issuer,
        paused: spec.paused,
        secrets,
        missing,
        key_to_make,
        warnings: Vec::new(),
    }
}

/// Each Secret with the field that names it.
fn named_secrets(settings: &Settings) -> impl Iterator<Item = (&str, String)> {
    let backends = settings
        .backends
        .iter()
        .map(|backend| (backend.secret.as_str(), format!("spec.backends[name={}].secretRef", backend.name)));
    let jwt = settings
        .security
        .jwt_secret
        .iter()
        .map(|name| (name.as_str(), "spec.security.jwt.secretRef".to_owned()));
    let encryption = settings.security.encryption_secret.iter();
    let encryption = encryption.map(|name| (name.as_str(), "spec.security.encryption.secretRef".to_owned()));
    let payments = settings.security.payments_secret.iter();
    let payments = payments.map(|name| (name.as_str(), "spec.pipeline.payments.http.secretRef".to_owned()));
    let notifications = settings.security.notifications_secret.iter();
    let notifications =
        notifications.map(|name| (name.as_str(), "spec.pipeline.notifications.secretRef".to_owned()));
    let tls = settings.security.tls_secret.iter().map(|name| (name.as_str(), "spec.security.tls".to_owned()));
    backends.chain(jwt).chain(encryption).chain(payments).chain(notifications).chain(tls)
}

/// Changes with every change of a named Secret: pods are told, and take over what they find mounted.
fn secrets_version(settings: &Settings, observed: &Observed) -> Option<String> {
    let versions: Option<BTreeMap<&str, &String>> =
        named_secrets(settings).map(|(name, _)| Some((name, observed.secrets.get(name)?))).collect();
    let text = serde_json::to_vec(&versions?).unwrap_or_default();
    Some(Sha256::digest(text).iter().take(6).map(|byte| format!("{byte:02x}")).collect())
}

/// A key is made only where there never was one: a second key would make what the first one encrypted
/// unreadable.
fn key_to_make(spec: &ServiceSpec, settings: &Settings, observed: &Observed) -> Option<String> {
    let name = settings.security.encryption_secret.as_ref()?;
    let own = spec.security.encryption.is_none() && *name == format!("{}{ENCRYPTION_SUFFIX}", observed.name);
    let had_one = |running: &Running| running.encryption_secret.as_ref() == Some(name);
    let first = !observed.running.as_ref().is_some_and(had_one);
    (own && first && !observed.secrets.contains_key(name)).then(|| name.clone())
}

#[cfg(test)]
mod tests {
    use crds::settings::BackendKind;
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::{observed, observed_with, settle, validated};

    #[test]
    fn a_sound_service_has_everything_that_its_pods_need() {
        let validated = validated(&observed());
        assert_eq!(validated.hash, validated.settings.hash());
        let groups: Vec<_> =
            validated.groups.iter().map(|one| (one.name.as_str(), one.replicas, one.serves_all)).collect();
        assert_eq!(groups, [("main", 2, true), ("catalog", 1, false)]);
        assert!(validated.missing.is_empty());
    }

    /// What every topic starts with.
    fn topics(observed: &Observed) -> String {
        let settings = validated(observed).settings;
        let prefix = settings.backends.into_iter().find_map(|backend| match backend.kind {
            BackendKind::Kafka { topic_prefix } => Some(topic_prefix),
            _ => None,
        });
        prefix.unwrap()
    }

    #[test]
    fn a_new_service_has_names_of_its_own_and_one_that_runs_keeps_those_that_it_has() {
        let with = |kafka: Value| {
            observed_with(|spec| {
                let backends = spec["backends"].as_array_mut().unwrap();
                backends.push(json!({ "name": "kafka", "kafka": kafka }));
            })
        };
        let annotated = |observed: &mut Observed| {
            let mut service = (*observed.service).clone();
            service.annotations_mut().insert(NAMES.to_owned(), NAMESPACED.to_owned());
            observed.service = std::sync::Arc::new(service);
        };
        let secret = json!({ "secretRef": { "name": "shop-kafka" } });
        let mut new = with(secret.clone());
        assert_eq!(topics(&new), "", "as it was before: nothing says that it is new");
        annotated(&mut new);
        assert_eq!(topics(&new), "web.shop.");
        let mut explicit = with(json!({ "secretRef": { "name": "shop-kafka" }, "topicPrefix": "" }));
        annotated(&mut explicit);
        assert_eq!(topics(&explicit), "", "written is written");
        let mut runs = with(json!({ "secretRef": { "name": "shop-kafka" }, "topicPrefix": "shop." }));
        settle(&mut runs);
        let running = runs.running;
        let left_out = Observed { running, ..with(secret) };
        assert_eq!(topics(&left_out), "shop.", "a prefix that is left out now does not move what is there");
    }

    #[test]
    fn passwords_that_others_can_read_are_refused_of_a_new_service_and_warned_of_where_it_ran() {
        let ran = |allowed: Option<bool>| {
            observed_with(|spec| {
                spec["pipeline"] =
                    json!({ "payments": { "http": { "url": "https://user:hunter2@pay.example.test" } } });
                if let Some(allowed) = allowed {
                    spec["backends"][0]["mysql"]["allowPlaintext"] = json!(allowed);
                }
            })
        };
        let of = |settings: &Settings| settings.backends[0].plaintext;
        for (allowed, as_it_ran) in
            [(None, Plaintext::Warned), (Some(false), Plaintext::Refused), (Some(true), Plaintext::Allowed)]
        {
            let validated = validate(&ran(allowed)).unwrap();
            assert_eq!(of(&validated.settings), as_it_ran);
            assert_eq!(validated.warnings[0].path, "spec.pipeline.payments.http.url");
            assert!(!validated.warnings[0].message.contains("hunter2"));
        }
        let mut new = ran(None);
        let mut service = (*new.service).clone();
        service.annotations_mut().insert(PLAINTEXT.to_owned(), REFUSED.to_owned());
        new.service = std::sync::Arc::new(service);
        let faults = validate(&new).unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].path, "spec.pipeline.payments.http.url");
        let mut mended = new;
        let mut service = (*mended.service).clone();
        service.spec.pipeline.payments.http = None;
        mended.service = std::sync::Arc::new(service);
        assert_eq!(of(&validate(&mended).unwrap().settings), Plaintext::ProofOnly);
    }

    #[test]
    fn what_ran_before_is_told_nothing_new() {
        let before = serde_json::to_value(&validated(&observed()).settings.backends).unwrap();
        assert!(
            before
                .as_array()
                .unwrap()
                .iter()
                .all(|one| one.get("plaintext").is_none() && one.get("tls").is_none())
        );
    }

    #[test]
    fn all_faults_come_at_once() {
        let mut observed = observed_with(|spec| spec["replicaGroups"][1]["name"] = json!("gateway"));
        observed.tiers.clear();
        let faults = validate(&observed).unwrap_err();
        let paths: Vec<String> =
            faults.iter().map(|fault| format!("{} {}", fault.resource, fault.path)).collect();
        assert_eq!(
            paths,
            [
                "FlyweightPool/products spec.tierRefs[0].name",
                "FlyweightPool/users spec.tierRefs[0].name",
                "FlyweightService/shop spec.replicaGroups[1].name"
            ]
        );
    }

    #[test]
    fn every_secret_that_is_named_must_be_there() {
        let mut observed = observed();
        observed.secrets.clear();
        let missing: Vec<_> = validated(&observed).missing.into_iter().map(|secret| secret.name).collect();
        assert_eq!(missing, ["shop-jwt", "shop-mongodb", "shop-mysql", "shop-redis"]);
        assert_eq!(validated(&observed).secrets, None);
    }
}
