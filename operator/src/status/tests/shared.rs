//! What the services that share a pool or a tier make of its status.

use std::{collections::BTreeMap, sync::Arc};

use crds::{
    fault::Fault,
    pool::FlyweightPool,
    status::{PoolStatus, TierStatus},
};
use kube::ResourceExt;

use crate::{
    fixture::{change_pool, now, observed, update, validated},
    model::{
        report::{BackendReport, PodReport, PoolReport, ProblemReport, UnavailableReport},
        update::StatusUpdate,
    },
    status::{conditions::find, pool, readiness::FAILING, tier},
};

fn says(status: &PoolStatus) -> (String, String) {
    let ready = find(&status.conditions, "Ready").unwrap();
    (format!("{}/{}", ready.status, ready.reason), ready.message.clone())
}

fn status_with(updates: Vec<StatusUpdate>) -> PoolStatus {
    let updates: Vec<Arc<StatusUpdate>> = updates.into_iter().map(Arc::new).collect();
    pool::status(&observed().pools[0], &updates, &PoolStatus::default(), now())
}

#[test]
fn records_that_cannot_be_read_are_a_condition_of_the_pool_until_they_are_mended() {
    let report = |count: u64| -> PodReport {
        let text = format!(
            r#"{{"pools":[{{"name":"{}","unreadable":{count},"unreadableExample":{{"key":"k1","field":"price"}}}}]}}"#,
            observed().pools[0].name_any()
        );
        serde_json::from_str(&text).unwrap()
    };
    let status = status_with(vec![StatusUpdate { reports: vec![report(2), report(3)], ..update(true) }]);
    let odd = find(&status.conditions, "UnreadableRecords").unwrap();
    assert_eq!((odd.status.as_str(), odd.reason.as_str()), ("True", "NoExactMeaning"));
    assert!(
        odd.message.starts_with("3 stored records") && odd.message.contains("price of \"k1\""),
        "{}",
        odd.message
    );
    assert_eq!(says(&status).0, "True/Serving", "what can be read is served");
    let mended = status_with(vec![StatusUpdate { reports: vec![report(0)], ..update(true) }]);
    assert!(find(&mended.conditions, "UnreadableRecords").is_none());
}

#[test]
fn a_pool_is_ready_when_a_service_serves_it() {
    assert_eq!(says(&status_with(vec![])).0, "False/NotReferenced");
    assert_eq!(
        says(&status_with(vec![update(true)])),
        ("True/Serving".to_owned(), "served by shop".to_owned())
    );
    let (reason, message) = says(&status_with(vec![update(false)]));
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("False/ServiceNotReady", "not served by shop (PodsNotReady)")
    );
    for trouble in FAILING {
        let failing = StatusUpdate { trouble: trouble.to_string(), ..update(true) };
        let (reason, message) = says(&status_with(vec![failing]));
        assert_eq!(
            (reason, message),
            ("False/ServiceNotReady".to_owned(), format!("not served by shop ({trouble})"))
        );
    }
    let rolling = StatusUpdate { trouble: "PodsNotReady".to_owned(), ..update(true) };
    assert_eq!(says(&status_with(vec![rolling])).0, "True/Serving");
    let other = StatusUpdate { service: "mall".to_owned(), ..update(true) };
    assert_eq!(says(&status_with(vec![update(false), other])).1, "served by mall");
    let many =
        (1..=10).map(|number| StatusUpdate { service: format!("s{number}"), ..update(true) }).collect();
    assert_eq!(says(&status_with(many)).1, "served by s1, s2, s3, s4, s5, s6, s7, s8 and 2 more");
}

#[test]
fn a_pool_and_a_tier_tell_of_their_own_backend_alone() {
    let report = |away: &str| {
        let backend = |name: &str| BackendReport {
            name: name.to_owned(),
            reachable: name != away,
            problem: (name == away).then(|| ProblemReport {
                reason: "WrongPassword".to_owned(),
                message: "it does not take the password".to_owned(),
            }),
            ..BackendReport::default()
        };
        PodReport { backends: ["mysql", "mongodb", "redis"].map(backend).into(), ..PodReport::default() }
    };
    let of_pool = |away: &str| {
        let trouble = "WrongPassword".to_owned();
        says(&status_with(vec![StatusUpdate { reports: vec![report(away)], trouble, ..update(true) }]))
    };
    assert_eq!(of_pool("mysql").0, "True/Serving", "products are in MongoDB");
    let (reason, message) = of_pool("mongodb");
    assert_eq!(reason, "False/WrongPassword");
    assert_eq!(message, "pods cannot reach mongodb (it does not take the password)");
}

#[test]
fn a_pool_whose_table_is_missing_says_so() {
    let report = |unavailable: Option<UnavailableReport>| {
        let pools = vec![PoolReport { name: "products".to_owned(), unavailable, ..PoolReport::default() }];
        PodReport { pools, ..PodReport::default() }
    };
    let why =
        UnavailableReport { reason: "TableMissing".to_owned(), message: "no table products".to_owned() };
    let away = StatusUpdate { reports: vec![report(None), report(Some(why))], ..update(true) };
    assert_eq!(
        says(&status_with(vec![away])),
        ("False/TableMissing".to_owned(), "no table products".to_owned())
    );
    let back = StatusUpdate { reports: vec![report(None), report(None)], ..update(true) };
    assert_eq!(says(&status_with(vec![back])).0, "True/Serving");
}

/// A pool whose status is looked at again and again.
#[derive(Default)]
struct Watched(PoolStatus);

impl Watched {
    /// What is said of this generation where services have seen and applied so much.
    fn look(&mut self, generation: i64, services: &[(i64, bool)]) -> String {
        let mut pool = (*observed().pools[0]).clone();
        pool.metadata.generation = Some(generation);
        let update = |(seen, applied): &(i64, bool)| {
            let seen = BTreeMap::from([("FlyweightPool/products".to_owned(), *seen)]);
            let trouble = if *applied { "" } else { "Canary" }.to_owned();
            Arc::new(StatusUpdate { applied: *applied, seen, trouble, ..update(true) })
        };
        self.after(&pool, &services.iter().map(update).collect::<Vec<_>>())
    }

    fn after(&mut self, pool: &FlyweightPool, updates: &[Arc<StatusUpdate>]) -> String {
        self.0 = pool::status(pool, updates, &self.0, now());
        let (reason, message) = says(&self.0);
        format!("{reason}: {message}")
    }
}

const IS_SERVED: &str = "True/Serving: served by shop";
const IS_PENDING: &str = "False/Pending: served as it was before by shop (Canary)";

#[test]
fn a_pool_is_not_ready_before_its_new_content_is_served() {
    let mut pool = Watched::default();
    assert_eq!(pool.look(1, &[(1, false)]), IS_PENDING, "it is new, and pods of before serve");
    assert_eq!(pool.look(1, &[(1, true)]), IS_SERVED);
    assert_eq!(pool.look(1, &[(1, false)]), IS_SERVED, "another resource has changed");
    assert_eq!(pool.look(2, &[(1, true)]), "False/Pending: served as it was before by shop", "not seen yet");
    assert_eq!(pool.look(2, &[(2, false)]), IS_PENDING);
    assert_eq!(pool.look(2, &[(2, false)]), IS_PENDING, "and it stays so");
    assert_eq!(pool.look(2, &[(2, true)]), IS_SERVED);
    assert_eq!(pool.look(3, &[(3, false)]), IS_PENDING, "seen before its status was written");
}

#[test]
fn a_pool_that_changed_while_nobody_served_it_is_pending_when_somebody_does() {
    let mut pool = Watched::default();
    pool.look(1, &[(1, true)]);
    let away = StatusUpdate { trouble: "RequestsFailing".to_owned(), applied: false, ..update(true) };
    let mut second = (*observed().pools[0]).clone();
    second.metadata.generation = Some(2);
    assert!(pool.after(&second, &[Arc::new(away)]).starts_with("False/ServiceNotReady"));
    assert_eq!(pool.look(2, &[(2, false)]), IS_PENDING);
    assert_eq!(pool.look(2, &[(2, true)]), IS_SERVED);
}

#[test]
fn a_change_is_waited_for_in_every_service_and_a_return_in_one() {
    let mut pool = Watched::default();
    pool.look(1, &[(1, true), (1, true)]);
    assert_eq!(pool.look(2, &[(2, true), (2, false)]), IS_PENDING, "one of two serves what it was");
    pool.look(2, &[(2, true), (2, true)]);
    pool.look(2, &[]);
    assert_eq!(
        pool.look(2, &[(2, true), (2, false)]),
        "True/Serving: served by shop, shop",
        "held for another change"
    );
}

#[test]
fn a_pool_shows_its_own_faults_only() {
    let fault = |resource: &str| Fault {
        resource: resource.to_owned(),
        path: "spec.tierRefs[0].name".to_owned(),
        message: "there is no tier".to_owned(),
        place: None,
    };
    let with = |resource| status_with(vec![StatusUpdate { faults: vec![fault(resource)], ..update(true) }]);
    assert_eq!(
        says(&with("FlyweightPool/products")),
        ("False/InvalidConfiguration".to_owned(), "spec.tierRefs[0].name: there is no tier".to_owned())
    );
    assert_eq!(says(&with("FlyweightPool/users")).0, "True/Serving");
}

#[test]
fn a_tier_is_ready_when_a_running_pool_uses_it() {
    let tier = &observed().tiers[0];
    let status = tier::status(tier, &[Arc::new(update(true))], &TierStatus::default(), now());
    assert_eq!(
        (status.kind.as_deref(), find(&status.conditions, "Ready").unwrap().reason.as_str()),
        (Some("memory"), "Serving")
    );
    let mut without = observed();
    (0..2)
        .for_each(|index| change_pool(&mut without, index, |spec| spec["tierRefs"] = serde_json::json!([])));
    let unused = StatusUpdate { settings: Some(Arc::new(validated(&without).settings)), ..update(true) };
    let status = tier::status(tier, &[Arc::new(unused)], &TierStatus::default(), now());
    assert_eq!(find(&status.conditions, "Ready").unwrap().reason, "ServiceNotReady");
}
