//! What each pool allows, and to whom. Every way to a record asks this one place at the moment: requests,
//! lists, the feed, dead letters, the pipeline. Nobody keeps a copy, so a change holds for all of them at
//! once, open sockets included.

use std::{collections::HashMap, sync::Arc};

use crds::{
    pool::{Access, PoolLimits},
    settings::PoolSettings,
};
use tokio::sync::watch;

use super::caller::{Caller, allows, permits};

/// The policies of the service's pools, those of other groups included.
#[derive(Debug)]
pub struct Policies(watch::Sender<HashMap<String, Arc<Policy>>>);

/// What one pool allows. It may change while the process runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Which roles read and write.
    pub access: Access,
    /// Bounds on records.
    pub limits: PoolLimits,
}

/// One pool's policy, whatever it is at the moment.
#[derive(Clone, Debug)]
pub struct PoolPolicy {
    policies: Arc<Policies>,
    pool: Arc<str>,
}

/// Tells when policies change.
#[derive(Clone, Debug)]
pub struct Changes(watch::Receiver<HashMap<String, Arc<Policy>>>);

impl Policies {
    /// None: every pool is closed to everybody.
    pub fn none() -> Arc<Self> {
        Arc::new(Self(watch::Sender::default()))
    }

    /// The policies of these pools.
    pub fn of(pools: &[PoolSettings]) -> Arc<Self> {
        let policies = Self::none();
        policies.apply(pools);
        policies
    }

    /// Takes those of new settings. Who asks from now on is answered by them.
    pub fn apply(&self, pools: &[PoolSettings]) {
        let policy =
            |pool: &PoolSettings| Policy { access: pool.access.clone(), limits: pool.limits.clone() };
        self.put(pools.iter().map(|pool| (pool.name.as_str(), policy(pool))));
    }

    /// Takes these. A pool that is not among them keeps its own: a process that still serves it is about to
    /// be replaced.
    pub fn put<'a>(&self, policies: impl IntoIterator<Item = (&'a str, Policy)>) {
        self.0.send_if_modified(|table| {
            let mut changed = false;
            for (pool, policy) in policies {
                if table.get(pool).is_none_or(|known| **known != policy) {
                    table.insert(pool.to_owned(), Arc::new(policy));
                    changed = true;
                }
            }
            changed
        });
    }

    /// The policy of a pool, now and later.
    pub fn of_pool(self: &Arc<Self>, pool: &str) -> PoolPolicy {
        PoolPolicy { policies: Arc::clone(self), pool: pool.into() }
    }

    /// Tells of changes from now on.
    pub fn changes(&self) -> Changes {
        Changes(self.0.subscribe())
    }
}

impl PoolPolicy {
    /// As it is now; of a pool that there is not, one that allows nobody anything.
    pub fn now(&self) -> Arc<Policy> {
        self.policies.0.borrow().get(&*self.pool).cloned().unwrap_or_else(|| Arc::new(Policy::closed()))
    }

    /// Whether a caller may read.
    pub fn may_read(&self, caller: Option<&Caller>) -> bool {
        permits(&self.now().access.read, caller)
    }

    /// Whether a caller may create, change and delete.
    pub fn may_write(&self, caller: Option<&Caller>) -> bool {
        permits(&self.now().access.write, caller)
    }

    /// Whether somebody with these roles may set other prices than the catalogue's.
    pub fn may_set_prices(&self, roles: &[String]) -> bool {
        allows(&self.now().access.price, roles)
    }
}

impl Policy {
    /// Open to everybody, but for prices.
    #[cfg(test)]
    pub fn open() -> Self {
        Self { access: Access::default(), limits: PoolLimits::default() }
    }

    fn closed() -> Self {
        let access = Access { read: Vec::new(), write: Vec::new(), price: Vec::new() };
        Self { access, limits: PoolLimits::default() }
    }
}

impl Changes {
    /// Waits for a change that was not looked at.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // whoever could change them has gone
            std::future::pending::<()>().await;
        }
        // it is there, but was not looked at
        self.0.mark_changed();
    }

    /// Looks at what has changed since it was last found sound; nothing is looked at where nothing changed.
    ///
    /// # Errors
    /// What `look` finds wrong. It is asked again next time.
    pub fn check<E>(&mut self, look: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        if !self.0.has_changed().unwrap_or(false) {
            return Ok(());
        }
        // before the look: a change that comes meanwhile is a change still
        self.0.mark_unchanged();
        look().inspect_err(|_| self.0.mark_changed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(role: &str) -> Policy {
        let access = Access { read: vec![role.to_owned()], ..Access::default() };
        Policy { access, limits: PoolLimits::default() }
    }

    fn caller(role: &str) -> Caller {
        Caller { subject: "ann".to_owned(), roles: vec![role.to_owned()], validity: Default::default() }
    }

    #[test]
    fn a_policy_is_always_that_of_now_and_what_is_unknown_is_closed() {
        let policies = Policies::none();
        let orders = policies.of_pool("orders");
        assert!(!orders.may_read(None) && !orders.may_write(Some(&caller("clerk"))));
        policies.put([("orders", reading("clerk"))]);
        assert!(orders.may_read(Some(&caller("clerk"))) && !orders.may_read(None));
        policies.put([("orders", reading("chief")), ("users", reading("clerk"))]);
        assert!(!orders.may_read(Some(&caller("clerk"))));
        policies.put([("users", reading("chief"))]);
        assert!(orders.may_read(Some(&caller("chief"))), "a pool that is not named keeps its policy");
    }

    #[tokio::test]
    async fn a_change_is_looked_at_until_it_is_found_sound() {
        let policies = Policies::none();
        let mut changes = policies.changes();
        assert_eq!(changes.check(|| Err("looked at nothing")), Ok(()));
        policies.put([("orders", reading("chief"))]);
        changes.next().await;
        assert_eq!(changes.check(|| Err("no")), Err("no"));
        assert_eq!(changes.check(|| Err("no")), Err("no"), "it is still not sound");
        assert_eq!(changes.check(|| Ok::<_, &str>(())), Ok(()));
        policies.put([("orders", reading("chief"))]);
        assert_eq!(changes.check(|| Err("the same is no change")), Ok(()));
    }
}
