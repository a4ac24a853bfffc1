//! Pools and tiers: whether they are served, by whom, and their figures over all services that share them.
//!
//! Each service's reconcile leaves here what it knows of its pools; the status of a pool or tier is made of
//! what all of them left.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crds::{
    fault::Fault,
    pool::FlyweightPool,
    service::FlyweightService,
    settings::{PoolSettings, Settings},
    status::{PoolStatus, TierStatus},
    tier::CacheTier,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::{
    Resource, ResourceExt,
    runtime::{controller::Action, reflector::ObjectRef},
};
use parking_lot::Mutex;

use crate::{
    context::Context,
    error::Error,
    observe::{
        Observed,
        report::{PodReport, UnavailableReport},
    },
    status::{
        ANYTHING_EVERY, Published,
        conditions::{Draft, Holds, find, settle},
        figures::{self, PoolSum},
        publish,
    },
    watches::Request,
};

/// How often a status is looked at without a change that wakes it.
const RECHECK: Duration = Duration::from_secs(30);
/// How soon to look again when a service has not been reconciled yet.
const SOON: Duration = Duration::from_secs(2);

/// Services that a message names.
const NAMED_MAX: usize = 8;

/// Why a service with ready pods serves nothing all the same: the reasons of its own condition.
const FAILING: [&str; 3] = ["BackendUnreachable", "RequestsFailing", "Overloaded"];

/// Why a resource is ready.
const SERVING: &str = "Serving";
/// Why a resource whose former content is served is not ready.
const PENDING: &str = "Pending";

/// What one service knows of its pools.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// The service's name.
    pub service: String,
    /// Whether requests find a pod.
    pub available: bool,
    /// The reason why the service is not ready; empty when it is.
    pub trouble: String,
    /// Whether every pod runs by the resources as they are.
    pub applied: bool,
    /// Which generation of its pools and tiers it has seen, by kind and name.
    pub seen: BTreeMap<String, i64>,
    /// What is wrong with its resources.
    pub faults: Vec<Fault>,
    /// What its pods run by.
    pub settings: Option<Arc<Settings>>,
    /// What its pods say.
    pub reports: Vec<PodReport>,
}

/// The shares of all services, by namespace and name.
#[derive(Default)]
pub struct Shares(Mutex<BTreeMap<(String, String), Arc<Share>>>);

impl Shares {
    /// Replaces a service's share. Says whether it differs from the former one.
    pub fn put(&self, namespace: &str, service: &str, share: Share) -> bool {
        let mut shares = self.0.lock();
        let key = (namespace.to_owned(), service.to_owned());
        if shares.get(&key).is_some_and(|former| **former == share) {
            return false;
        }
        shares.insert(key, Arc::new(share));
        true
    }

    /// The share of a service, once it has been reconciled.
    fn of(&self, service: &FlyweightService) -> Option<Arc<Share>> {
        let key = (service.namespace().unwrap_or_default(), service.name_any());
        self.0.lock().get(&key).cloned()
    }

    /// Forgets services that are gone.
    pub fn retain(&self, living: impl Fn(&str, &str) -> bool) {
        self.0.lock().retain(|(namespace, name), _| living(namespace, name));
    }

    /// Wakes the pools and tiers that the service reaches.
    pub async fn wake(&self, observed: &Observed, context: &Context) {
        let pools = observed.pools.iter().filter(|pool| serves(&observed.service, &pool.name_any()));
        for pool in pools.clone() {
            context.wake.send(Request::Pool(ObjectRef::from_obj(&**pool))).await;
        }
        let used: BTreeSet<&str> =
            pools.flat_map(|pool| &pool.spec.tier_refs).map(|tier| tier.name.as_str()).collect();
        for tier in observed.tiers.iter().filter(|tier| used.contains(tier.name_any().as_str())) {
            context.wake.send(Request::Tier(ObjectRef::from_obj(&**tier))).await;
        }
    }
}

/// Writes the status of a pool.
///
/// # Errors
/// When it cannot be written.
pub async fn report_pool(pool: &Arc<FlyweightPool>, context: &Context) -> Result<Action, Error> {
    if let Some(rest) = too_soon(&**pool, context) {
        return Ok(Action::requeue(rest));
    }
    let name = pool.name_any();
    let services = context.caches.services_in(&pool.namespace().unwrap_or_default());
    let Some(shares) = shares_of(&services, context, |service| serves(service, &name)) else {
        return Ok(Action::requeue(SOON));
    };
    let former = pool.status.clone().unwrap_or_default();
    let status = pool_status(pool, &shares, &former, Timestamp::now());
    Ok(again(publish(&**pool, &former, &status, context).await?))
}

/// Writes the status of a tier.
///
/// # Errors
/// When it cannot be written.
pub async fn report_tier(tier: &Arc<CacheTier>, context: &Context) -> Result<Action, Error> {
    if let Some(rest) = too_soon(&**tier, context) {
        return Ok(Action::requeue(rest));
    }
    let (name, namespace) = (tier.name_any(), tier.namespace().unwrap_or_default());
    let pools = context.caches.pools_in(&namespace);
    let users: Vec<String> = pools
        .iter()
        .filter(|pool| pool.spec.tier_refs.iter().any(|one| one.name == name))
        .map(|pool| pool.name_any())
        .collect();
    let services = context.caches.services_in(&namespace);
    let uses = |service: &FlyweightService| users.iter().any(|pool| serves(service, pool));
    let Some(shares) = shares_of(&services, context, uses) else { return Ok(Action::requeue(SOON)) };
    let former = tier.status.clone().unwrap_or_default();
    let status = tier_status(tier, &shares, &former, Timestamp::now());
    Ok(again(publish(&**tier, &former, &status, context).await?))
}

fn again(published: Published) -> Action {
    Action::requeue(if published == Published::Later { SOON } else { RECHECK })
}

/// How long a status that was just written stays as it is. Every service that shares a pool wakes it, and
/// there may be many.
fn too_soon(object: &impl ResourceExt, context: &Context) -> Option<Duration> {
    context.memory.until_report(&object.uid()?, ANYTHING_EVERY)
}

/// Whether the service names the pool.
pub fn serves(service: &FlyweightService, pool: &str) -> bool {
    service.spec.pool_refs.iter().any(|one| one.name == pool)
}

/// The shares of the services that match; none while one of them has not been reconciled.
fn shares_of(
    services: &[Arc<FlyweightService>],
    context: &Context,
    matches: impl Fn(&FlyweightService) -> bool,
) -> Option<Vec<Arc<Share>>> {
    services.iter().filter(|service| matches(service)).map(|service| context.shares.of(service)).collect()
}

fn pool_status(
    pool: &FlyweightPool,
    shares: &[Arc<Share>],
    former: &PoolStatus,
    now: Timestamp,
) -> PoolStatus {
    let name = pool.name_any();
    let resource = label(pool);
    let find = |share: &Share| share.settings.as_ref()?.pools.iter().find(|one| one.name == name).cloned();
    let news = News::of(pool, former.observed_generation, &former.conditions);
    let is_late = is_late(&resource, pool.meta().generation);
    let mut ready = ready(&resource, shares, (news, is_late), |share| find(share).is_some());
    let reports = shares.iter().flat_map(|share| &share.reports).flat_map(|report| &report.pools);
    let unavailable =
        reports.filter(|pool| pool.name == name).filter_map(|pool| pool.unavailable.as_ref()).min();
    if let Some(UnavailableReport { reason, message }) = unavailable.filter(|_| ready.holds == Holds::Yes) {
        ready = Draft::new("Ready", Holds::No, reason, message.clone());
    }
    let is_read_only = |pool: PoolSettings| pool.source.version.is_none();
    if ready.holds == Holds::Yes && shares.iter().any(|share| find(share).is_some_and(is_read_only)) {
        ready.message.push_str("; read-only: its source declares no version column");
    }
    let sum = figures::pool(shares.iter().flat_map(|share| &share.reports), &name);
    let conditions = std::iter::once(ready).chain(sum.as_ref().and_then(unreadable)).collect();
    PoolStatus {
        conditions: settle(conditions, &former.conditions, pool.meta().generation, now),
        observed_generation: pool.meta().generation,
        entities: sum.as_ref().map(|sum| figures::count(sum.entities)),
        distinct: sum.as_ref().map(|sum| figures::count(sum.distinct)),
        bytes: sum.as_ref().map(|sum| figures::bytes(sum.bytes)),
        bytes_saved: sum.as_ref().map(|sum| figures::bytes(sum.bytes_saved)),
        hit_ratio: sum.as_ref().and_then(|sum| figures::ratio(sum.hits, sum.misses)),
        tiers: sum.as_ref().map(PoolSum::shares).unwrap_or_default(),
        backlog: sum.as_ref().and_then(|sum| sum.backlog.map(figures::count)),
        staleness: sum.as_ref().and_then(PoolSum::staleness),
    }
}

/// Says that stored records cannot be read, and names one; nothing where no pod knows of any.
fn unreadable(sum: &PoolSum) -> Option<Draft> {
    let count = (sum.unreadable > 0).then_some(sum.unreadable)?;
    let example = sum.unreadable_example.as_ref().map_or(String::new(), |one| {
        format!(", such as {} of {:?}", one.field, one.key.as_deref().unwrap_or("a record without a key"))
    });
    let message = format!(
        "{count} stored records hold what has no exact meaning in their fields{example}: \
         lists name them, and replacing or deleting one mends it"
    );
    Some(Draft::new("UnreadableRecords", Holds::Yes, "NoExactMeaning", message))
}

fn tier_status(tier: &CacheTier, shares: &[Arc<Share>], former: &TierStatus, now: Timestamp) -> TierStatus {
    let name = tier.name_any();
    let runs = |share: &Share| {
        let pools = share.settings.as_ref().map(|settings| settings.pools.as_slice()).unwrap_or_default();
        pools.iter().flat_map(|pool| &pool.tiers).any(|one| one.name == name)
    };
    let news = News::of(tier, former.observed_generation, &former.conditions);
    let resource = label(tier);
    let ready = ready(&resource, shares, (news, is_late(&resource, tier.meta().generation)), runs);
    let sum = figures::tier(shares.iter().flat_map(|share| &share.reports), &name);
    let in_memory = tier.spec.memory.is_some();
    TierStatus {
        conditions: settle(vec![ready], &former.conditions, tier.meta().generation, now),
        observed_generation: tier.meta().generation,
        kind: Some(if in_memory { "memory" } else { "redis" }.to_owned()),
        entries: sum.filter(|_| in_memory).map(|sum| figures::count(sum.entries)),
        hit_ratio: sum.and_then(|sum| figures::ratio(sum.hits, sum.misses)),
    }
}

/// As faults name it.
pub fn label<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!("{}/{}", K::kind(&()), object.name_any())
}

/// Whether services' pods may still run by what the resource was before.
#[derive(Clone, Copy, PartialEq)]
enum News {
    /// It is as it was when it was last said to be served.
    None,
    /// It was not served since, or never: some service has to serve it as it is now.
    Back,
    /// It has changed since: each of them has.
    Changed,
}

impl News {
    /// From what was last said of it.
    fn of<K: Resource<DynamicType = ()>>(object: &K, said: Option<i64>, conditions: &[Condition]) -> Self {
        let reason = find(conditions, "Ready").map(|ready| ready.reason.as_str());
        match reason {
            _ if said != object.meta().generation => Self::Changed,
            Some(PENDING) => Self::Changed,
            Some(SERVING) => Self::None,
            _ => Self::Back,
        }
    }
}

/// Says of a service whether it may serve the resource by what that was before: it has not seen this
/// generation yet, or has not applied what it saw.
fn is_late(resource: &str, generation: Option<i64>) -> impl Fn(&Share) -> bool {
    move |share| share.seen.get(resource).copied() < generation || !share.applied
}

/// Whether the resource is in use: `runs` says whether a service's pods run by it.
fn ready(
    resource: &str,
    shares: &[Arc<Share>],
    (news, is_late): (News, impl Fn(&Share) -> bool),
    runs: impl Fn(&Share) -> bool,
) -> Draft {
    let draft =
        |holds: bool, reason: &str, message: String| Draft::new("Ready", holds.into(), reason, message);
    if shares.is_empty() {
        return draft(false, "NotReferenced", "no service serves it".to_owned());
    }
    let faults: BTreeSet<String> = shares
        .iter()
        .flat_map(|share| &share.faults)
        .filter(|fault| fault.resource == resource)
        .map(|fault| format!("{}: {}", fault.path, fault.message))
        .collect();
    if !faults.is_empty() {
        return draft(false, "InvalidConfiguration", faults.into_iter().collect::<Vec<_>>().join("; "));
    }
    // it has pods, but requests fail in them
    let fails = |share: &Share| FAILING.contains(&share.trouble.as_str());
    let serving = shares.iter().filter(|share| share.available && runs(share) && !fails(share));
    let serving: Vec<&Arc<Share>> = serving.collect();
    let late: Vec<&Arc<Share>> = serving.iter().copied().filter(|share| is_late(share)).collect();
    let pending = match news {
        News::None => false,
        News::Back => late.len() == serving.len(),
        News::Changed => true,
    };
    if pending && !late.is_empty() {
        let why = |share: &&Arc<Share>| match share.trouble.as_str() {
            "" => share.service.clone(),
            trouble => format!("{} ({trouble})", share.service),
        };
        let late: Vec<String> = late.iter().map(why).collect();
        return draft(false, PENDING, format!("served as it was before by {}", some(&late)));
    }
    let serving: Vec<&str> = serving.iter().map(|share| share.service.as_str()).collect();
    if !serving.is_empty() {
        return draft(true, SERVING, format!("served by {}", some(&serving)));
    }
    let waiting: Vec<String> =
        shares.iter().map(|share| format!("{} ({})", share.service, share.trouble)).collect();
    draft(false, "ServiceNotReady", format!("not served by {}", some(&waiting)))
}

/// The first few by name, and how many there are besides.
fn some<S: AsRef<str>>(all: &[S]) -> String {
    let named: Vec<&str> = all.iter().take(NAMED_MAX).map(AsRef::as_ref).collect();
    match all.len().saturating_sub(NAMED_MAX) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture::{change_pool, now, observed, validated},
        observe::report::PoolReport,
    };

    fn share(available: bool) -> Share {
        Share {
            service: "shop".to_owned(),
            available,
            trouble: if available { String::new() } else { "PodsNotReady".to_owned() },
            applied: true,
            seen: ["FlyweightPool/products", "FlyweightPool/users", "CacheTier/hot"]
                .map(|one| (one.to_owned(), 1))
                .into(),
            faults: Vec::new(),
            settings: Some(Arc::new(validated(&observed()).settings)),
            reports: Vec::new(),
        }
    }

    fn says(status: &PoolStatus) -> (String, String) {
        let ready = find(&status.conditions, "Ready").unwrap();
        (format!("{}/{}", ready.status, ready.reason), ready.message.clone())
    }

    fn status_with(shares: Vec<Share>) -> PoolStatus {
        let shares: Vec<Arc<Share>> = shares.into_iter().map(Arc::new).collect();
        pool_status(&observed().pools[0], &shares, &PoolStatus::default(), now())
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
        let status = status_with(vec![Share { reports: vec![report(2), report(3)], ..share(true) }]);
        let odd = find(&status.conditions, "UnreadableRecords").unwrap();
        assert_eq!((odd.status.as_str(), odd.reason.as_str()), ("True", "NoExactMeaning"));
        assert!(
            odd.message.starts_with("3 stored records") && odd.message.contains("price of \"k1\""),
            "{}",
            odd.message
        );
        assert_eq!(says(&status).0, "True/Serving", "what can be read is served");
        let mended = status_with(vec![Share { reports: vec![report(0)], ..share(true) }]);
        assert!(find(&mended.conditions, "UnreadableRecords").is_none());
    }

    #[test]
    fn a_pool_is_ready_when_a_service_serves_it() {
        assert_eq!(says(&status_with(vec![])).0, "False/NotReferenced");
        assert_eq!(
            says(&status_with(vec![share(true)])),
            ("True/Serving".to_owned(), "served by shop".to_owned())
        );
        let (reason, message) = says(&status_with(vec![share(false)]));
        assert_eq!(
            (reason.as_str(), message.as_str()),
            ("False/ServiceNotReady", "not served by shop (PodsNotReady)")
        );
        for trouble in FAILING {
            let failing = Share { trouble: trouble.to_owned(), ..share(true) };
            let (reason, message) = says(&status_with(vec![failing]));
            assert_eq!(
                (reason, message),
                ("False/ServiceNotReady".to_owned(), format!("not served by shop ({trouble})"))
            );
        }
        let rolling = Share { trouble: "PodsNotReady".to_owned(), ..share(true) };
        assert_eq!(says(&status_with(vec![rolling])).0, "True/Serving");
        let other = Share { service: "mall".to_owned(), ..share(true) };
        assert_eq!(says(&status_with(vec![share(false), other])).1, "served by mall");
        let many = (1..=10).map(|number| Share { service: format!("s{number}"), ..share(true) }).collect();
        assert_eq!(says(&status_with(many)).1, "served by s1, s2, s3, s4, s5, s6, s7, s8 and 2 more");
    }

    #[test]
    fn a_pool_whose_table_is_missing_says_so() {
        let report = |unavailable: Option<UnavailableReport>| {
            let pools =
                vec![PoolReport { name: "products".to_owned(), unavailable, ..PoolReport::default() }];
            PodReport { pools, ..PodReport::default() }
        };
        let why =
            UnavailableReport { reason: "TableMissing".to_owned(), message: "no table products".to_owned() };
        let away = Share { reports: vec![report(None), report(Some(why))], ..share(true) };
        assert_eq!(
            says(&status_with(vec![away])),
            ("False/TableMissing".to_owned(), "no table products".to_owned())
        );
        let back = Share { reports: vec![report(None), report(None)], ..share(true) };
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
            let share = |(seen, applied): &(i64, bool)| {
                let seen = BTreeMap::from([("FlyweightPool/products".to_owned(), *seen)]);
                let trouble = if *applied { "" } else { "Canary" }.to_owned();
                Arc::new(Share { applied: *applied, seen, trouble, ..share(true) })
            };
            self.shared(&pool, &services.iter().map(share).collect::<Vec<_>>())
        }

        fn shared(&mut self, pool: &FlyweightPool, shares: &[Arc<Share>]) -> String {
            self.0 = pool_status(pool, shares, &self.0, now());
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
        assert_eq!(
            pool.look(2, &[(1, true)]),
            "False/Pending: served as it was before by shop",
            "not seen yet"
        );
        assert_eq!(pool.look(2, &[(2, false)]), IS_PENDING);
        assert_eq!(pool.look(2, &[(2, false)]), IS_PENDING, "and it stays so");
        assert_eq!(pool.look(2, &[(2, true)]), IS_SERVED);
        assert_eq!(pool.look(3, &[(3, false)]), IS_PENDING, "seen before its status was written");
    }

    #[test]
    fn a_pool_that_changed_while_nobody_served_it_is_pending_when_somebody_does() {
        let mut pool = Watched::default();
        pool.look(1, &[(1, true)]);
        let away = Share { trouble: "BackendUnreachable".to_owned(), applied: false, ..share(true) };
        let mut second = (*observed().pools[0]).clone();
        second.metadata.generation = Some(2);
        assert!(pool.shared(&second, &[Arc::new(away)]).starts_with("False/ServiceNotReady"));
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
        let with = |resource| status_with(vec![Share { faults: vec![fault(resource)], ..share(true) }]);
        assert_eq!(
            says(&with("FlyweightPool/products")),
            ("False/InvalidConfiguration".to_owned(), "spec.tierRefs[0].name: there is no tier".to_owned())
        );
        assert_eq!(says(&with("FlyweightPool/users")).0, "True/Serving");
    }

    #[test]
    fn a_tier_is_ready_when_a_running_pool_uses_it() {
        let tier = &observed().tiers[0];
        let status = tier_status(tier, &[Arc::new(share(true))], &TierStatus::default(), now());
        assert_eq!(
            (status.kind.as_deref(), find(&status.conditions, "Ready").unwrap().reason.as_str()),
            (Some("memory"), "Serving")
        );
        let mut without = observed();
        (0..2).for_each(|index| {
            change_pool(&mut without, index, |spec| spec["tierRefs"] = serde_json::json!([]))
        });
        let unused = Share { settings: Some(Arc::new(validated(&without).settings)), ..share(true) };
        let status = tier_status(tier, &[Arc::new(unused)], &TierStatus::default(), now());
        assert_eq!(find(&status.conditions, "Ready").unwrap().reason, "ServiceNotReady");
    }

    #[test]
    fn a_share_is_news_only_when_it_differs() {
        let shares = Shares::default();
        assert!(shares.put("web", "shop", share(true)));
        assert!(!shares.put("web", "shop", share(true)));
        assert!(shares.put("web", "shop", share(false)));
        shares.retain(|_, _| false);
        assert!(shares.put("web", "shop", share(false)));
    }
}
