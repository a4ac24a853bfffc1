//! From resources to settings: pure, complete, and the only way.
//! What is wrong is reported all at once, each fault with the resource and the path of its field.
//!
//! What the CRDs say by CEL is checked here again, because on a laptop there is no API server.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    fault::Fault,
    pool::{Entity, PoolSpec, Ref},
    resolve::backend::Backends,
    service::{ServiceSpec, gateway::Gateway, security::SecretUse},
    settings::{PoolSettings, SecuritySettings, Settings, names::Origin},
    tier::TierSpec,
};

mod backend;
pub mod plaintext;
mod pod_template;
mod pool;
pub mod quantity;
mod replicas;
mod service;
mod tier;
mod tokens;

pub use pod_template::CONTAINERS;
pub use replicas::replicas_of;
pub use service::is_address;

/// A resource's spec under its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Named<S> {
    /// `metadata.name`.
    pub name: String,
    /// `spec`.
    pub spec: S,
}

/// Resolves one service with the pools and tiers of its namespace. Pools and tiers that the service does not
/// reach are left out. Names of things outside that the author left out are chosen afterwards, by
/// [`Settings::named`].
///
/// # Errors
/// Every fault in what the service reaches, sorted by resource and path, each once.
pub fn resolve(
    service: &Named<ServiceSpec>,
    pools: &[Named<PoolSpec>],
    tiers: &[Named<TierSpec>],
) -> Result<Settings, Vec<Fault>> {
    let mut faults = BTreeSet::new();
    let mut report = Report::new("FlyweightService", &service.name, &mut faults);
    service::check(service, &mut report);
    pod_template::check(&service.spec, &mut report);
    tokens::check(&service.spec.security, &mut report);
    let backends = Backends::of(service, &mut report);
    let named = references("FlyweightPool", "spec.poolRefs", &service.spec.pool_refs, pools, &mut report);
    let mut resolved: Vec<(usize, PoolSettings)> = Vec::new();
    for (index, pool) in &named {
        let report = &mut Report::new("FlyweightPool", &pool.name, &mut faults);
        resolved.extend(pool::settings(pool, &backends, tiers, report).map(|settings| (*index, settings)));
    }
    let mut report = Report::new("FlyweightService", &service.name, &mut faults);
    unique_pools(&named, &resolved, &mut report);
    let groups = service::groups(&service.spec, &mut report);
    if !faults.is_empty() {
        return Err(faults.into_iter().collect());
    }
    let ServiceSpec {
        pipeline,
        ingest,
        gateway,
        security,
        web_socket,
        observability,
        audit,
        limits,
        image: _,
        service: _,
        replicas: _,
        pool_refs: _,
        replica_groups: _,
        backends: _,
        autoscaling: _,
        disruption: _,
        network_policy: _,
        egress_ports: _,
        pod_template: _,
        paused: _,
    } = service.spec.clone();
    let pools: Vec<PoolSettings> = resolved.into_iter().map(|(_, pool)| pool).collect();
    let encryption_secret = encryption_secret(&service.name, security.encryption, &pools);
    let jwt = security.jwt.unwrap_or_default();
    let name_of = |secret: &Ref| secret.name.clone();
    let payments_secret =
        pipeline.payments.http.as_ref().and_then(|http| http.secret_ref.as_ref().map(name_of));
    let notifications_secret = pipeline.notifications.secret_ref.as_ref().map(name_of);
    Ok(Settings {
        service: service.name.clone(),
        pools,
        groups,
        backends: backends.into_settings(),
        pipeline,
        ingest,
        gateway: gateway.map(Gateway::without_pods),
        security: SecuritySettings {
            jwt_secret: jwt.secret_ref.map(|secret| secret.name),
            issuers: jwt.issuers,
            encryption_secret,
            payments_secret,
            notifications_secret,
            tls_secret: security.tls.map(|tls| tls.secret_name(&service.name)),
            rate_limit: security.rate_limit,
            cors_allow_origins: security.cors.allow_origins,
        },
        web_socket,
        observability,
        origin: Origin::default(),
        audit,
        limits,
    })
}

/// The Secret with the key of encrypted fields; none where no field is encrypted.
fn encryption_secret(service: &str, named: Option<SecretUse>, pools: &[PoolSettings]) -> Option<String> {
    let mut fields = pools.iter().flat_map(|pool| &pool.fields);
    let own = || format!("{service}-encryption");
    fields.any(|field| field.encrypt).then(|| named.map_or_else(own, |secret| secret.secret_ref.name))
}

/// Takes down what is wrong with one resource.
struct Report<'a> {
    resource: String,
    faults: &'a mut BTreeSet<Fault>,
}

impl<'a> Report<'a> {
    fn new(kind: &str, name: &str, faults: &'a mut BTreeSet<Fault>) -> Self {
        Self { resource: format!("{kind}/{name}"), faults }
    }

    /// Another resource, into the same list.
    fn on(&mut self, kind: &str, name: &str) -> Report<'_> {
        Report::new(kind, name, self.faults)
    }

    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        let (path, message) = (path.into(), message.into());
        self.faults.insert(Fault { resource: self.resource.clone(), path, message, place: None });
    }

    fn ensure(&mut self, holds: bool, path: impl Into<String>, message: impl Into<String>) {
        if !holds {
            self.add(path, message);
        }
    }

    /// Every name once.
    fn unique<'n>(&mut self, path: &str, field: &str, names: impl IntoIterator<Item = &'n str>) {
        let mut seen = BTreeSet::new();
        for (index, name) in names.into_iter().enumerate() {
            self.ensure(
                seen.insert(name),
                format!("{path}[{index}].{field}"),
                format!("\"{name}\" is named twice"),
            );
        }
    }
}

/// The resources that a list of references names, with their places in the list: each once, and each there.
fn references<'a, S>(
    kind: &str,
    path: &str,
    refs: &[Ref],
    all: &'a [Named<S>],
    report: &mut Report<'_>,
) -> Vec<(usize, &'a Named<S>)> {
    let known: BTreeMap<&str, &Named<S>> = all.iter().map(|one| (one.name.as_str(), one)).collect();
    let mut seen = BTreeSet::new();
    let mut found = Vec::with_capacity(refs.len());
    for (index, Ref { name }) in refs.iter().enumerate() {
        let at = format!("{path}[{index}].name");
        if !seen.insert(name) {
            report.add(at, format!("\"{name}\" is named twice"));
        } else if let Some(one) = known.get(name.as_str()) {
            found.push((index, *one));
        } else {
            report.add(at, missing(kind, name, known.keys().copied()));
        }
    }
    found
}

/// `no CacheTier "hott"; there are: hot, shared`
fn missing<'n>(kind: &str, name: &str, known: impl Iterator<Item = &'n str>) -> String {
    // What the offline check puts where a name is missing is no name.
    let known: Vec<&str> = known.filter(|name| !name.is_empty()).collect();
    match known.as_slice() {
        [] => format!("no {kind} \"{name}\"; there is none"),
        [one] => format!("no {kind} \"{name}\"; there is: {one}"),
        many => format!("no {kind} \"{name}\"; there are: {}", many.join(", ")),
    }
}

/// One pool for each built-in entity, and one for each table.
fn unique_pools(
    named: &[(usize, &Named<PoolSpec>)],
    resolved: &[(usize, PoolSettings)],
    report: &mut Report<'_>,
) {
    let mut entities: BTreeMap<Entity, &str> = BTreeMap::new();
    let mut twice = BTreeSet::new();
    for (index, Named { name, spec }) in named {
        if spec.entity == Entity::Custom {
            continue;
        }
        if let Some(first) = entities.insert(spec.entity, name) {
            let message = format!(
                "\"{first}\" and \"{name}\" both serve {:?}: a service has one pool for it",
                spec.entity
            );
            report.add(format!("spec.poolRefs[{index}].name"), message);
            twice.insert(name.as_str());
        }
    }
    let mut sources: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for (index, PoolSettings { name, source, .. }) in
        resolved.iter().filter(|(_, pool)| !twice.contains(&*pool.name))
    {
        if let Some(first) = sources.insert((&source.backend, &source.collection), name) {
            let message = format!(
                "\"{first}\" and \"{name}\" both serve {} of backend {}",
                source.collection, source.backend
            );
            report.add(format!("spec.poolRefs[{index}].name"), message);
        }
    }
}
