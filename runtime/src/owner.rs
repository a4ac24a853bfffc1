//! Whose a prefix of keys or topics is: what a service is known by, the mark that it leaves, and whether it
//! may use what it finds.
//!
//! In a cluster an owner is a namespace and a service; elsewhere it is a service and its database. What
//! carries no mark is adopted: it is the service's own from before there were marks, or nobody's.

use std::{collections::BTreeSet, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// How long a caller waits for the first verdict.
pub const VERDICT_WAIT: Duration = Duration::from_secs(5);

/// What a service is known by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// `metadata.namespace`, where there is one.
    pub namespace: Option<String>,
    /// The service.
    pub service: String,
    /// What identifies its databases, as far as they have answered.
    pub databases: BTreeSet<String>,
    /// The owner whose marks it takes over: `<namespace>/<name>`.
    pub take_over_from: Option<String>,
}

/// What a service leaves under a prefix that it uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// `<namespace>/<service>`, or `<service>@<database>` outside a cluster.
    pub owner: String,
    /// What identifies its databases.
    #[serde(default)]
    pub databases: BTreeSet<String>,
}

/// Whether a service may use what is under a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has looked yet, or the service does not know yet who it is.
    #[default]
    Unknown,
    /// It is its own.
    Own,
    /// It is this owner's: it is neither read nor written.
    Another(String),
}

/// What to do about a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Too little is known yet.
    Wait,
    /// The mark is the service's own.
    Keep,
    /// This mark is to be left. `anew` where another owner's was there: what that one kept is not to be
    /// believed.
    Leave {
        /// The new mark.
        mark: String,
        /// Whether another owner's was there.
        anew: bool,
    },
    /// Another owner's.
    Refuse(String),
}

/// What is known of one prefix: who asks, and the answer that everybody who uses it waits for.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Who asks.
    pub owner: watch::Receiver<Owner>,
    /// The answer.
    pub standing: watch::Sender<Standing>,
}

impl Owner {
    /// What its mark is signed with; none until it is known.
    pub fn name(&self) -> Option<String> {
        match &self.namespace {
            Some(namespace) => Some(format!("{namespace}/{}", self.service)),
            None => self.databases.first().map(|database| format!("{}@{database}", self.service)),
        }
    }

    /// What to do about what was found.
    pub fn judge(&self, found: Option<&str>) -> Verdict {
        let Some(name) = self.name() else { return Verdict::Wait };
        let Some(found) = found.filter(|found| !found.is_empty()) else {
            return self.leave(name, BTreeSet::new(), false);
        };
        let Ok(mark) = serde_json::from_str::<Mark>(found) else {
            return Verdict::Refuse("what is marked by something else than Flyweight".to_owned());
        };
        if mark.owner == name {
            let news = !self.databases.is_subset(&mark.databases);
            return if news { self.leave(name, mark.databases, false) } else { Verdict::Keep };
        }
        if self.takes_over(&mark.owner) {
            return self.leave(name, BTreeSet::new(), true);
        }
        let other = mark.owner.split_once('/').map(|(namespace, _)| namespace);
        let apart = self.namespace.as_deref().zip(other).is_some_and(|(own, other)| own != other);
        match self.databases.is_disjoint(&mark.databases) {
            // two services of one database see each other's changes
            false if !apart => Verdict::Keep,
            true if !apart && self.databases.is_empty() => Verdict::Wait,
            _ => Verdict::Refuse(mark.owner),
        }
    }

    fn leave(&self, owner: String, mut databases: BTreeSet<String>, anew: bool) -> Verdict {
        databases.extend(self.databases.iter().cloned());
        // a struct of texts is always JSON
        let mark = serde_json::to_string(&Mark { owner, databases }).unwrap_or_default();
        Verdict::Leave { mark, anew }
    }

    /// A service that was marked by its database, before it had a namespace, is meant by its name.
    fn takes_over(&self, owner: &str) -> bool {
        self.take_over_from.as_deref().is_some_and(|from| {
            let by_database = owner.split_once('@').map(|(service, _)| service);
            owner == from
                || (by_database.is_some() && by_database == from.split_once('/').map(|(_, name)| name))
        })
    }
}

impl Claim {
    /// A claim that is not judged yet.
    pub fn new(owner: watch::Receiver<Owner>) -> Self {
        Self { owner, standing: watch::Sender::default() }
    }

    /// The answer, waited for as long as nobody has looked.
    ///
    /// # Errors
    /// The prefix is another's, or nobody could look in time.
    pub async fn settled(&self) -> Result<(), Refusal> {
        let mut standing = self.standing.subscribe();
        let known = standing.wait_for(|standing| *standing != Standing::Unknown);
        match tokio::time::timeout(VERDICT_WAIT, known).await {
            Ok(Ok(standing)) => standing.allowed(),
            _ => Err(Refusal::Unknown),
        }
    }

    /// Takes a new answer; says so once.
    pub fn settle(&self, what: &str, standing: Standing) {
        self.standing.send_if_modified(|former| {
            if *former == standing {
                return false;
            }
            match &standing {
                Standing::Another(owner) => {
                    tracing::error!(
                        prefix = what,
                        owner,
                        "what is kept under this prefix is another's: it is left alone"
                    );
                }
                Standing::Own if matches!(former, Standing::Another(_)) => {
                    tracing::info!(prefix = what, "what is kept under this prefix is the service's own now");
                }
                Standing::Own | Standing::Unknown => {}
            }
            *former = standing;
            true
        });
    }
}

impl Standing {
    /// Whether it may be used.
    ///
    /// # Errors
    /// Why not.
    pub fn allowed(&self) -> Result<(), Refusal> {
        match self {
            Self::Own => Ok(()),
            Self::Unknown => Err(Refusal::Unknown),
            Self::Another(owner) => Err(Refusal::Another(owner.clone())),
        }
    }

    /// The other owner.
    pub fn another(&self) -> Option<String> {
        match self {
            Self::Another(owner) => Some(owner.clone()),
            Self::Own | Self::Unknown => None,
        }
    }
}

/// Why a prefix cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not known yet whose it is.
    Unknown,
    /// It is this owner's.
    Another(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("it is not known yet whose the prefix is"),
            Self::Another(owner) => write!(f, "what is kept under this prefix belongs to {owner}"),
        }
    }
}

#[doc(hidden)]
pub mod testing {
    //! Owners for tests.

    use super::*;

    /// A service of a namespace, with its database.
    pub fn of(namespace: &str, database: &str) -> watch::Receiver<Owner> {
        let owner = Owner {
            namespace: Some(namespace.to_owned()),
            service: "shop".to_owned(),
            databases: [database.to_owned()].into(),
            take_over_from: None,
        };
        watch::channel(owner).1
    }

    /// The same, which takes over what was this owner's.
    pub fn after(namespace: &str, from: &str) -> watch::Receiver<Owner> {
        let owner =
            Owner { take_over_from: Some(from.to_owned()), ..of(namespace, namespace).borrow().clone() };
        watch::channel(owner).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(namespace: Option<&str>, service: &str, databases: &[&str]) -> Owner {
        Owner {
            namespace: namespace.map(str::to_owned),
            service: service.to_owned(),
            databases: databases.iter().map(ToString::to_string).collect(),
            take_over_from: None,
        }
    }

    /// What an owner leaves where nothing is.
    fn mark(owner: &Owner) -> String {
        let Verdict::Leave { mark, anew: false } = owner.judge(None) else { panic!("no mark") };
        mark
    }

    #[test]
    fn what_has_no_mark_is_adopted_and_known_again() {
        for own in [owner(Some("a"), "shop", &[]), owner(None, "shop", &["d1"])] {
            assert_eq!(own.judge(Some(&mark(&own))), Verdict::Keep);
        }
        assert_eq!(owner(None, "shop", &[]).judge(None), Verdict::Wait, "its database has not answered");
    }

    #[test]
    fn another_namespace_and_another_database_are_others() {
        let other = mark(&owner(Some("a"), "shop", &["d1"]));
        let refused = Verdict::Refuse("a/shop".to_owned());
        assert_eq!(owner(Some("b"), "shop", &["d2"]).judge(Some(&other)), refused);
        assert_eq!(owner(Some("b"), "shop", &["d1"]).judge(Some(&other)), refused, "a copied database");
        assert_eq!(owner(Some("a"), "admin", &["d2"]).judge(Some(&other)), refused);
        assert_eq!(owner(None, "shop", &["d2"]).judge(Some(&other)), refused);
        assert_eq!(
            owner(Some("b"), "shop", &["d2"]).judge(Some("mine")),
            owner(Some("a"), "x", &[]).judge(Some("mine"))
        );
    }

    #[test]
    fn services_of_one_database_share() {
        let other = mark(&owner(Some("a"), "shop", &["d1", "d2"]));
        assert_eq!(owner(Some("a"), "admin", &["d2"]).judge(Some(&other)), Verdict::Keep);
        assert_eq!(
            owner(Some("a"), "admin", &[]).judge(Some(&other)),
            Verdict::Wait,
            "its database has not answered"
        );
        assert_eq!(
            owner(None, "shop", &["d1"]).judge(Some(&other)),
            Verdict::Keep,
            "before it had a namespace"
        );
    }

    #[test]
    fn databases_that_answer_later_are_added() {
        let early = mark(&owner(Some("a"), "shop", &["d1"]));
        let Verdict::Leave { mark, anew: false } = owner(Some("a"), "shop", &["d2"]).judge(Some(&early))
        else {
            panic!("not added")
        };
        assert_eq!(
            serde_json::from_str::<Mark>(&mark).unwrap().databases,
            ["d1", "d2"].map(str::to_owned).into()
        );
    }

    #[test]
    fn a_move_says_where_it_comes_from() {
        let taking =
            Owner { take_over_from: Some("a/shop".to_owned()), ..owner(Some("b"), "store", &["d2"]) };
        for former in [owner(Some("a"), "shop", &["d1"]), owner(None, "shop", &["d1"])] {
            let Verdict::Leave { mark, anew: true } = taking.judge(Some(&mark(&former))) else {
                panic!("refused")
            };
            assert_eq!(taking.judge(Some(&mark)), Verdict::Keep);
            assert_eq!(former.judge(Some(&mark)), Verdict::Refuse("b/store".to_owned()));
        }
        let third = mark(&owner(Some("c"), "shop", &["d3"]));
        assert_eq!(taking.judge(Some(&third)), Verdict::Refuse("c/shop".to_owned()));
    }
}
