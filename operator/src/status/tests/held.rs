//! What keeps a configuration from being applied.

use super::*;

#[test]
fn faults_are_listed_and_the_last_good_configuration_keeps_running() {
    let mut observed = settled();
    let good = status_of(&observed).configuration;
    crate::fixture::change_pool(&mut observed, 0, |spec| spec["tierRefs"] = json!([{ "name": "cold" }]));
    observed.pools.pop();
    let status = status_of(&observed);
    assert_eq!(says(&status, "Ready"), "False/InvalidConfiguration");
    assert_eq!(says(&status, "ConfigurationApplied"), "False/InvalidConfiguration");
    assert_eq!(says(&status, "Progressing"), "False/InvalidConfiguration");
    assert_eq!(says(&status, "Available"), "True/PodsReady");
    assert_eq!((status.configuration, status.pods_ready.as_deref()), (good, Some("3/3")));
    let message = &find(&status.conditions, "Ready").unwrap().message;
    for part in
        ["FlyweightPool/products spec.tierRefs[0].name", "FlyweightService/shop spec.poolRefs[0].name", "; "]
    {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn a_missing_secret_is_named() {
    let mut first = observed();
    first.secrets.remove("shop-mysql");
    let status = status_of(&first);
    assert_eq!(says(&status, "Ready"), "False/SecretMissing");
    assert_eq!(says(&status, "Degraded"), "True/SecretMissing");
    assert_eq!(says(&status, "ConfigurationApplied"), "False/SecretMissing");
    let message = &find(&status.conditions, "Ready").unwrap().message;
    assert_eq!(message, "missing: Secret \"shop-mysql\" (spec.backends[name=mysql].secretRef)");
}

#[test]
fn a_certificate_that_nobody_can_issue_is_told_with_what_to_do() {
    let mut observed = settled();
    let with_tls =
        observed_with(|spec| spec["security"]["tls"] = json!({ "issuerRef": { "name": "authority" } }));
    observed.service = with_tls.service;
    let status = status_of(&observed);
    assert_eq!(says(&status, "ConfigurationApplied"), "False/CertManagerMissing");
    assert_eq!(says(&status, "Ready"), "False/CertManagerMissing");
    assert_eq!(says(&status, "Available"), "True/PodsReady", "what ran runs on");
    let message = &find(&status.conditions, "ConfigurationApplied").unwrap().message;
    assert!(
        message.contains("Issuer \"authority\"") && message.contains("install cert-manager"),
        "{message}"
    );
    observed.cert_manager = true;
    assert_eq!(
        says(&status_of(&observed), "ConfigurationApplied"),
        "False/SecretMissing",
        "until it is issued"
    );
}

#[test]
fn a_pause_matters_only_while_something_waits_for_its_end() {
    let pause = |spec: &mut Value| spec["paused"] = json!(true);
    let mut idle = observed_with(pause);
    let settled = settled();
    idle.children.clone_from(&settled.children);
    idle.pods.clone_from(&settled.pods);
    idle.running.clone_from(&settled.running);
    let status = status_of(&idle);
    assert_eq!(
        (says(&status, "Ready"), says(&status, "Progressing")),
        ("True/Serving".to_owned(), "False/Paused".to_owned())
    );
    change_tier(&mut idle, |spec| spec["ttl"] = json!("7s"));
    let status = status_of(&idle);
    assert_eq!(
        (says(&status, "Ready"), says(&status, "ConfigurationApplied")),
        ("False/Paused".to_owned(), "False/Paused".to_owned())
    );
}

#[test]
fn a_refusal_of_the_api_server_is_a_condition_and_an_outage_is_not() {
    let refused = Err(Error::Foreign { object: "Service shop".to_owned() });
    assert_eq!(says(&status_after(&settled(), refused), "Ready"), "False/ApplyFailed");
    let status = status_after(&settled(), outage());
    assert_eq!((says(&status, "Ready"), says(&status, "Progressing")), said("True/Serving", "True/Applying"));
    assert_eq!(
        find(&status.conditions, "Progressing").unwrap().message,
        "cannot apply Service shop: no answer within 5 s; it is tried again"
    );
}

fn outage() -> Result<(), Error> {
    Err(Error::Timeout { verb: "apply", object: "Service shop".to_owned(), seconds: 5 })
}

fn said(one: &str, other: &str) -> (String, String) {
    (one.to_owned(), other.to_owned())
}

#[test]
fn what_could_not_be_written_is_not_settled() {
    let mut observed = settled();
    observed.service = observed_with(|spec| spec["replicaGroups"][0]["replicas"] = json!(5)).service;
    let status = status_after(&observed, outage());
    assert_eq!(
        (says(&status, "Ready"), says(&status, "Progressing")),
        said("False/PodsNotReady", "True/Applying")
    );
    assert_eq!(status.pods_ready.as_deref(), Some("3/6"));
    assert_eq!(says(&status, "ConfigurationApplied"), "False/Applying");
    let message = &find(&status.conditions, "ConfigurationApplied").unwrap().message;
    assert!(
        message.contains("Deployment shop-main of configuration") && message.contains("no answer"),
        "{message}"
    );
    // Fewer pods than there are: enough are ready, but it is not what is wanted.
    observed.service = observed_with(|spec| spec["replicaGroups"][0]["replicas"] = json!(1)).service;
    assert_eq!(says(&status_after(&observed, outage()), "Ready"), "False/Applying");
}

#[test]
fn whatever_waits_for_the_end_of_a_pause_is_told() {
    type Alter = fn(&mut Value);
    let changes: [(&str, Alter); 4] = [
        ("an image", |spec| spec["image"] = json!("flyweight/dataplane:2")),
        ("replicas", |spec| spec["replicaGroups"][0]["replicas"] = json!(5)),
        ("resources", |spec| spec["replicaGroups"][0]["resources"]["requests"]["cpu"] = json!("2")),
        ("a gateway", |spec| spec["gateway"] = json!({ "replicas": 2 })),
    ];
    for (what, change) in changes {
        let mut observed = settled();
        let paused = observed_with(|spec| {
            spec["paused"] = json!(true);
            change(spec);
        });
        observed.service = paused.service;
        let status = status_of(&observed);
        assert_eq!(says(&status, "ConfigurationApplied"), "False/Paused", "{what}");
        assert_eq!(says(&status, "Ready"), "False/Paused", "{what}");
        assert_eq!(status.pods_ready.as_deref(), Some("3/3"), "{what}: they stay as they are");
    }
}
