//! What a service must be by itself, and its groups.

use std::collections::{BTreeMap, BTreeSet};

use super::{Named, Report, missing, quantity::nanos};
use crate::{
    network::Network,
    pool::Ref,
    service::{
        Autoscaling, ServiceSpec,
        exposure::ExposureType,
        groups::{ReplicaGroup, Resources},
    },
    settings::GroupSettings,
    units::Span,
};

/// What the address of a payment provider must be.
const PROVIDER: &str =
    "must start with https:// or http://, or be left out where the Secret of secretRef has it";
/// Children are called `<service>-<group>` and the like, within the 63 characters of a label and a DNS name.
const NAME_LENGTH_MAX: usize = 36;
/// Children of the service itself are called so, after its name.
const GROUPS_RESERVED: [&str; 3] = ["gateway", "settings", "encryption"];
const RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Checks what the service says of itself, apart from its backends and groups of pools.
pub(super) fn check(service: &Named<ServiceSpec>, report: &mut Report<'_>) {
    let Named { name, spec } = service;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    report.ensure(
        name.len() <= NAME_LENGTH_MAX
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && !name.ends_with('-')
            && name.chars().all(plain),
        "metadata.name",
        format!("must be at most {NAME_LENGTH_MAX} of a-z, 0-9 and -, beginning with a letter and not ending with -"),
    );
    report.ensure(!spec.image.is_empty(), "spec.image", "must not be empty");
    let kept = spec.audit.retention.is_none_or(|kept| kept >= Span::from_secs(3_600));
    report.ensure(kept, "spec.audit.retention", "must be at least 1h");
    report.ensure(!spec.pool_refs.is_empty(), "spec.poolRefs", "name at least one pool");
    let exposure = &spec.service;
    report.ensure(
        exposure.load_balancer_class.is_none() || exposure.kind == ExposureType::LoadBalancer,
        "spec.service.loadBalancerClass",
        "is a load balancer's: set type: LoadBalancer",
    );
    scaling(spec, report);
    egress(spec, report);
    durations(spec, report);
    origins(spec, report);
    if let Some(tls) = &spec.security.tls {
        let named = tls.secret_ref.is_some() || tls.issuer_ref.is_some();
        report.ensure(named, "spec.security.tls", "name secretRef, issuerRef or both");
    }
    if let Some(rate) = &spec.security.rate_limit {
        report.ensure(
            rate.requests_per_second > 0,
            "spec.security.rateLimit.requestsPerSecond",
            "must be at least 1",
        );
        report.ensure(rate.burst > 0, "spec.security.rateLimit.burst", "must be at least 1");
    }
}

fn scaling(spec: &ServiceSpec, report: &mut Report<'_>) {
    let groups = spec.replica_groups.len() as u64;
    if let Some(replicas) = spec.replicas {
        report.ensure(
            replicas == 0 || u64::from(replicas) >= groups,
            "spec.replicas",
            format!("must be 0, or at least 1 for each replica group: there are {groups}"),
        );
    }
    let Some(autoscaling) = &spec.autoscaling else { return };
    let Autoscaling { min_replicas, max_replicas, target_cpu_percent, target_queue_depth, target_hit_micros } =
        autoscaling;
    for (field, target) in [("targetQueueDepth", target_queue_depth), ("targetHitMicros", target_hit_micros)]
    {
        report.ensure(*target != Some(0), format!("spec.autoscaling.{field}"), "must be at least 1");
    }
    report.ensure(
        min_replicas <= max_replicas,
        "spec.autoscaling",
        "minReplicas must not exceed maxReplicas",
    );
    report.ensure(
        u64::from(*min_replicas) >= groups.max(1),
        "spec.autoscaling.minReplicas",
        format!("must be at least 1 for each replica group: there are {groups}"),
    );
    report.ensure(
        (1..=100).contains(target_cpu_percent),
        "spec.autoscaling.targetCpuPercent",
        "must be from 1 to 100 percent",
    );
}

fn egress(spec: &ServiceSpec, report: &mut Report<'_>) {
    let Some(ports) = &spec.egress_ports else { return };
    report.ensure(spec.network_policy, "spec.egressPorts", "are a NetworkPolicy's: set networkPolicy: true");
    report.ensure(!ports.is_empty(), "spec.egressPorts", "name at least one port, or leave it out");
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.egressPorts[{index}]");
        report.ensure(*port > 0, path.clone(), "must be from 1 to 65535");
        report.ensure(!ports[..index].contains(port), path, format!("{port} is named twice"));
    }
}

fn durations(spec: &ServiceSpec, report: &mut Report<'_>) {
    let retry = &spec.pipeline.retry;
    report.ensure(
        retry.initial_delay <= retry.max_delay,
        "spec.pipeline.retry",
        format!("initialDelay {} must not exceed maxDelay {}", retry.initial_delay, retry.max_delay),
    );
    let payments = &spec.pipeline.payments;
    if let Some(http) = &payments.http {
        let (path, in_secret) =
            ("spec.pipeline.payments.http.url", http.url.is_empty() && http.secret_ref.is_some());
        report.ensure(is_address(&http.url) || in_secret, path, PROVIDER);
    }
    if let Some(url) = &spec.pipeline.notifications.webhook_url {
        report.ensure(
            is_address(url),
            "spec.pipeline.notifications.webhookUrl",
            "must start with https:// or http://",
        );
    }
    let mut positive = vec![
        ("spec.pipeline.payments.timeout", payments.timeout),
        ("spec.pipeline.breaker.timeout", spec.pipeline.breaker.timeout),
        ("spec.ingest.batchFlushInterval", spec.ingest.batch_flush_interval),
        ("spec.webSocket.pingInterval", spec.web_socket.ping_interval),
        ("spec.limits.connectionTimeout", spec.limits.connection_timeout),
    ];
    if let Some(gateway) = &spec.gateway {
        positive.push(("spec.gateway.healthCheck.interval", gateway.health_check.interval));
        positive.push(("spec.gateway.healthCheck.timeout", gateway.health_check.timeout));
        for (index, proxy) in gateway.trusted_proxies.iter().enumerate() {
            if let Err(fault) = proxy.parse::<Network>() {
                report.add(format!("spec.gateway.trustedProxies[{index}]"), fault);
            }
        }
    }
    for (path, span) in positive {
        report.ensure(span > Span::default(), path, "must be more than 0s");
    }
}

/// Whether a text can be the address of something that is called over HTTP.
pub fn is_address(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains([' ', '#']))
}

fn origins(spec: &ServiceSpec, report: &mut Report<'_>) {
    for (index, origin) in spec.security.cors.allow_origins.iter().enumerate() {
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        let sound = host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', ' ', ',']));
        report.ensure(
            origin == "*" || sound,
            format!("spec.security.cors.allowOrigins[{index}]"),
            "must be * or a scheme and host without a path, as in https://shop.example.com",
        );
    }
}

/// The groups with the pools that each serves, in the service's order.
pub(super) fn groups(spec: &ServiceSpec, report: &mut Report<'_>) -> Vec<GroupSettings> {
    let groups = &spec.replica_groups;
    report.ensure(!groups.is_empty(), "spec.replicaGroups", "declare at least one group");
    report.unique("spec.replicaGroups", "name", groups.iter().map(|group| group.name.as_str()));
    let resolved: Vec<GroupSettings> = groups
        .iter()
        .enumerate()
        .map(|(index, group)| {
            let path = format!("spec.replicaGroups[{index}]");
            report.ensure(group.replicas > 0, format!("{path}.replicas"), "must be at least 1");
            report.ensure(
                !GROUPS_RESERVED.contains(&group.name.as_str()),
                format!("{path}.name"),
                format!("\"{}\" is kept for the service's own parts: choose another name", group.name),
            );
            resources(&group.resources, &path, report);
            GroupSettings {
                name: group.name.clone(),
                pools: pools(spec, group, &path, report),
                weight: group.weight,
            }
        })
        .collect();
    let all: BTreeSet<&str> = names(&spec.pool_refs).collect();
    let serves_all = |group: &ReplicaGroup| {
        group.pool_refs.is_empty() || names(&group.pool_refs).collect::<BTreeSet<_>>().is_superset(&all)
    };
    let reached: BTreeSet<&str> =
        resolved.iter().flat_map(|group| group.pools.iter().map(String::as_str)).collect();
    for (index, name) in names(&spec.pool_refs).enumerate().filter(|(_, name)| !reached.contains(name)) {
        report.add(format!("spec.poolRefs[{index}].name"), format!("no replica group serves \"{name}\""));
    }
    report.ensure(
        spec.gateway.is_some() || groups.is_empty() || groups.iter().any(serves_all),
        "spec.replicaGroups",
        "without a gateway at least one group serves all pools: leave its poolRefs out, or declare a gateway",
    );
    report.ensure(
        groups.is_empty() || groups.iter().any(|group| group.weight > 0),
        "spec.replicaGroups",
        "at least one group has a weight above 0",
    );
    resolved
}

fn names(refs: &[Ref]) -> impl Iterator<Item = &str> {
    refs.iter().map(|one| one.name.as_str())
}

fn pools(spec: &ServiceSpec, group: &ReplicaGroup, path: &str, report: &mut Report<'_>) -> Vec<String> {
    let all: Vec<&str> = names(&spec.pool_refs).collect();
    if group.pool_refs.is_empty() {
        return all.into_iter().map(str::to_owned).collect();
    }
    report.unique(&format!("{path}.poolRefs"), "name", names(&group.pool_refs));
    for (index, name) in names(&group.pool_refs).enumerate().filter(|(_, name)| !all.contains(name)) {
        let message = missing("pool of this service", name, all.iter().copied());
        report.add(format!("{path}.poolRefs[{index}].name"), message);
    }
    let own: BTreeSet<&str> = names(&group.pool_refs).collect();
    all.into_iter().filter(|name| own.contains(name)).map(str::to_owned).collect()
}

fn resources(resources: &Resources, path: &str, report: &mut Report<'_>) {
    let Resources { requests, limits } = resources;
    let requested = amounts(requests, &format!("{path}.resources.requests"), report);
    let limited = amounts(limits, &format!("{path}.resources.limits"), report);
    for (name, request) in requested {
        let fits = limited.get(name).is_none_or(|limit| request <= *limit);
        report.ensure(fits, format!("{path}.resources.requests.{name}"), "must not exceed the limit");
    }
}

fn amounts<'a>(
    declared: &'a BTreeMap<String, String>,
    path: &str,
    report: &mut Report<'_>,
) -> BTreeMap<&'a str, u128> {
    let mut amounts = BTreeMap::new();
    for (name, text) in declared {
        let at = format!("{path}.{name}");
        report.ensure(
            RESOURCES.contains(&name.as_str()),
            &at,
            format!("is not one of {}", RESOURCES.join(", ")),
        );
        match nanos(text) {
            Some(amount) => drop(amounts.insert(name.as_str(), amount)),
            None => report.add(at, format!("\"{text}\" is not a quantity: write one as in 100m or 128Mi")),
        }
    }
    amounts
}
