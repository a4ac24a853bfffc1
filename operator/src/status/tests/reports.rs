//! What pods say of themselves and of their backends.

use super::*;

#[test]
fn a_full_disk_and_settings_that_lose_writes_are_told_and_say_nothing_of_readiness() {
    let status = status_of(&with_pods(|i, pod| {
        let backends = &mut pod.report.as_mut().unwrap().backends;
        let backend = backends.iter_mut().find(|one| one.name == "mysql").unwrap();
        backend.storage_full = (i == 0).then(|| "the disk is full".to_owned());
        backend.durability = vec!["sync_binlog = 0: writes can be lost".to_owned()];
    }));
    assert_eq!(says(&status, "StorageFull"), "True/StorageFull");
    assert_eq!(find(&status.conditions, "StorageFull").unwrap().message, "mysql: the disk is full");
    assert_eq!(says(&status, "DurabilityReduced"), "True/BackendSettings");
    let told = &find(&status.conditions, "DurabilityReduced").unwrap().message;
    assert_eq!(told, "mysql: sync_binlog = 0: writes can be lost");
    assert_eq!(says(&status, "Ready"), "True/Serving");
}

#[test]
fn passwords_that_others_can_read_are_told_and_say_nothing_of_readiness() {
    let condition =
        |observed: &Observed| find(&status_of(observed).conditions, "PlaintextPassword").unwrap().clone();
    assert_eq!(condition(&settled()).status, "False");
    let of_a_pod = with_pods(|i, pod| {
        let backends = &mut pod.report.as_mut().unwrap().backends;
        backends.iter_mut().find(|one| one.name == "mysql").unwrap().plaintext_password = i == 0;
    });
    let told = condition(&of_a_pod);
    assert_eq!((told.status.as_str(), told.reason.as_str()), ("True", "RefusedNextRelease"));
    assert!(
        told.message.contains("backend mysql") && told.message.contains("allowPlaintext"),
        "{}",
        told.message
    );
    assert_eq!(says(&status_of(&of_a_pod), "Ready"), "True/Serving");
    let mut of_the_spec = observed_with(|spec| {
        spec["pipeline"] =
            json!({ "payments": { "http": { "url": "https://user:hunter2@pay.example.test" } } });
    });
    settle(&mut of_the_spec);
    let told = condition(&of_the_spec).message;
    assert!(told.contains("spec.pipeline.payments.http.url") && !told.contains("hunter2"), "{told}");
    assert_eq!(says(&status_of(&of_the_spec), "Ready"), "True/Serving");
}

#[test]
fn figures_are_sums_over_the_pods() {
    let observed = with_pods(|_, pod| {
        let pool = PoolReport {
            name: "products".to_owned(),
            entities: 10,
            hits: 3,
            misses: 1,
            bytes: 1024,
            bytes_saved: 512,
            staleness_ms: 1200,
            tiers: vec![TierReport { name: "hot".to_owned(), hits: 1, misses: 1, entries: 5 }],
            ..PoolReport::default()
        };
        pod.report.as_mut().unwrap().pools = vec![pool];
    });
    let status = status_of(&observed);
    let figures = &status.pools[0];
    assert_eq!(
        (figures.name.as_str(), figures.entities, figures.bytes_saved.as_str()),
        ("products", 30, "1.5Ki")
    );
    assert_eq!(figures.hit_ratio.as_deref(), Some("75.0%"));
    assert_eq!((figures.bytes.as_str(), figures.staleness.as_deref()), ("3Ki", Some("1.2s")));
    assert_eq!(figures.tiers[0].hit_ratio.as_deref(), Some("50.0%"));
    let quiet = status_of(&settled());
    assert_eq!(status.essence(), quiet.essence());
    assert_ne!(status, quiet);
}

#[test]
fn a_secret_that_cannot_be_used_is_said_while_requests_are_served() {
    let observed = with_pods(|at, pod| {
        let why = (at == 0).then(|| "the store is unavailable".to_owned());
        let secret = SecretReport { name: "backends/mysql".to_owned(), problem: why };
        pod.report.as_mut().unwrap().secrets.push(secret);
    });
    let status = status_of(&observed);
    let degraded = find(&status.conditions, "Degraded").unwrap();
    assert_eq!((degraded.status.as_str(), degraded.reason.as_str()), ("True", "SecretNotApplied"));
    assert!(degraded.message.contains("backends/mysql (the store is unavailable)"), "{}", degraded.message);
    assert_eq!(says(&status, "Ready"), "True/Serving");
}

#[test]
fn what_another_owner_has_is_told_with_the_owner_and_what_to_do() {
    let mut observed = settled();
    let report = observed.pods[0].report.as_mut().unwrap();
    let redis = report.backends.iter_mut().find(|backend| backend.name == "redis").unwrap();
    (redis.reachable, redis.owned_by) = (false, Some("team-a/shop".to_owned()));
    let status = status_of(&observed);
    for (condition, expected) in [
        ("Ready", "False/OwnedByAnother"),
        ("Degraded", "True/OwnedByAnother"),
        ("BackendsReachable", "True/Reachable"),
    ] {
        assert_eq!(says(&status, condition), expected);
    }
    let message = &find(&status.conditions, "Ready").unwrap().message;
    assert!(
        message.contains("backend redis: team-a/shop") && message.contains("take-over-from"),
        "{message}"
    );
}

#[test]
fn a_broker_that_is_away_matters_where_it_accepts_what_the_store_has_not() {
    // Writes that the store gets later, and events for products that can be written.
    let cases: [(&str, &str, &str, &str); 3] = [
        ("Configuration", "WriteThrough", "True/Serving", "their events come late"),
        ("Configuration", "WriteBehind", "False/BackendUnreachable", "writes fail"),
        ("Product", "WriteThrough", "False/BackendUnreachable", "events from outside are refused"),
    ];
    for (entity, write, expected, why) in cases {
        let mut observed = observed_with(|spec| {
            spec["poolRefs"] = json!([{ "name": "users" }]);
            spec["replicaGroups"] = json!([{ "name": "main", "replicas": 2 }]);
            let kafka = json!({ "name": "kafka", "kafka": { "secretRef": { "name": "shop-kafka" } } });
            spec["backends"].as_array_mut().unwrap().push(kafka);
        });
        observed.secrets.insert("shop-kafka".to_owned(), "1".to_owned());
        let pool =
            observed.pools.iter().position(|pool| pool.metadata.name.as_deref() == Some("users")).unwrap();
        crate::fixture::change_pool(&mut observed, pool, |spec| spec["entity"] = json!(entity));
        change_tier(&mut observed, |spec| spec["write"] = json!(write));
        settle(&mut observed);
        assert_eq!(says(&status_of(&observed), "Ready"), "True/Serving", "{why}: not while it is there");
        for pod in &mut observed.pods {
            let backends = &mut pod.report.as_mut().unwrap().backends;
            backends.iter_mut().filter(|one| one.name == "kafka").for_each(|one| one.reachable = false);
        }
        assert_eq!(says(&status_of(&observed), "Ready"), expected, "{why}");
    }
}

#[test]
fn numbers_that_readers_round_are_named_while_they_are_served() {
    let observed = with_pods(|at, pod| {
        let fields = if at == 0 { vec!["serial".to_owned()] } else { Vec::new() };
        let pool = PoolReport { name: "parts".to_owned(), inexact_numbers: fields, ..PoolReport::default() };
        pod.report.as_mut().unwrap().pools.push(pool);
    });
    let status = status_of(&observed);
    let degraded = find(&status.conditions, "Degraded").unwrap();
    assert_eq!((degraded.status.as_str(), degraded.reason.as_str()), ("True", "InexactNumbers"));
    assert!(degraded.message.starts_with("parts.serial hold"), "{}", degraded.message);
    assert_eq!(says(&status, "Ready"), "True/Serving");
}
