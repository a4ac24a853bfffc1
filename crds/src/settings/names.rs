//! The names of what a service keeps outside: prefixes of keys and topics, where their author left them out.

use serde::{Deserialize, Serialize};

use super::{BackendKind, Settings, TierKind};
use crate::{annotations::TAKE_OVER_FROM, fault::Fault};

/// A prefix that its author left out, until [`Settings::named`] puts another in its place. No prefix can be
/// written so.
pub const BY_OWNER: &str = "{owner}";

/// What prefixes are made of that their authors left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// Nothing: the names of services that ran before names were made of their owners. They keep them.
    Bare,
    /// The namespace and the service: those of a cluster.
    Of {
        /// The namespace.
        namespace: String,
        /// The service.
        service: String,
    },
    /// The service and its database: those outside a cluster.
    In {
        /// The service.
        service: String,
        /// What identifies the database.
        database: String,
    },
}

/// Whose settings these are, as far as manifests say so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Origin {
    /// `metadata.namespace` of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The owner whose marks the service takes over: `<namespace>/<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub take_over_from: Option<String>,
}

impl Origin {
    /// What is wrong with the owner whose marks are taken over; nothing where it is one, or none is named.
    pub fn fault(take_over_from: Option<&str>, service: &str) -> Option<Fault> {
        let from = take_over_from?;
        let is_name = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        };
        let sound = from.split_once('/').is_some_and(|(namespace, name)| is_name(namespace) && is_name(name));
        (!sound).then(|| Fault {
            resource: format!("FlyweightService/{service}"),
            path: format!("metadata.annotations.{TAKE_OVER_FROM}"),
            message: format!("\"{from}\" is not <namespace>/<name> of a FlyweightService, as in team-a/shop"),
            place: None,
        })
    }

    /// Whether nothing is said.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

impl Names {
    /// What every key in a shared Redis starts with.
    pub fn key_prefix(&self) -> String {
        match self {
            Self::Bare => String::new(),
            Self::Of { namespace, service } => format!("{namespace}:{service}:"),
            Self::In { service, database } => format!("{service}-{database}:"),
        }
    }

    /// What every topic in a shared Kafka starts with.
    pub fn topic_prefix(&self) -> String {
        match self {
            Self::Bare => String::new(),
            Self::Of { namespace, service } => format!("{namespace}.{service}."),
            Self::In { service, database } => format!("{service}-{database}."),
        }
    }
}

impl Settings {
    /// Whether a prefix was left out and is not chosen yet.
    pub fn is_unnamed(&self) -> bool {
        self.prefixes().any(|prefix| prefix == BY_OWNER)
    }

    /// The settings with each prefix that was left out made of these names.
    #[must_use]
    pub fn named(self, names: &Names) -> Self {
        let (keys, topics) = (names.key_prefix(), names.topic_prefix());
        self.with_prefixes(|_| Some(keys.clone()), |_| Some(topics.clone()))
    }

    /// The settings with each prefix that was left out as it is in those that run.
    #[must_use]
    pub fn named_as_in(self, running: &Self) -> Self {
        let tiers = |name: &str| {
            let mut tiers =
                running.pools.iter().flat_map(|pool| &pool.tiers).filter(|tier| tier.name == name);
            tiers.find_map(|tier| match &tier.kind {
                TierKind::Redis { key_prefix, .. } => Some(key_prefix.clone()),
                TierKind::Memory { .. } => None,
            })
        };
        let topics = |name: &str| {
            let mut backends = running.backends.iter().filter(|backend| backend.name == name);
            backends.find_map(|backend| match &backend.kind {
                BackendKind::Kafka { topic_prefix } => Some(topic_prefix.clone()),
                BackendKind::Mysql { .. } | BackendKind::Mongodb { .. } | BackendKind::Redis {} => None,
            })
        };
        self.with_prefixes(tiers, topics)
    }

    /// Replaces prefixes that were left out by what there is for the tier and for the backend of that name.
    fn with_prefixes(
        mut self,
        keys: impl Fn(&str) -> Option<String>,
        topics: impl Fn(&str) -> Option<String>,
    ) -> Self {
        for tier in self.pools.iter_mut().flat_map(|pool| &mut pool.tiers) {
            if let TierKind::Redis { key_prefix, .. } = &mut tier.kind
                && key_prefix == BY_OWNER
                && let Some(prefix) = keys(&tier.name)
            {
                *key_prefix = prefix;
            }
        }
        for backend in &mut self.backends {
            if let BackendKind::Kafka { topic_prefix } = &mut backend.kind
                && topic_prefix == BY_OWNER
                && let Some(prefix) = topics(&backend.name)
            {
                *topic_prefix = prefix;
            }
        }
        self
    }

    fn prefixes(&self) -> impl Iterator<Item = &str> {
        let tiers = self.pools.iter().flat_map(|pool| &pool.tiers).filter_map(|tier| match &tier.kind {
            TierKind::Redis { key_prefix, .. } => Some(key_prefix.as_str()),
            TierKind::Memory { .. } => None,
        });
        let topics = self.backends.iter().filter_map(|backend| match &backend.kind {
            BackendKind::Kafka { topic_prefix } => Some(topic_prefix.as_str()),
            BackendKind::Mysql { .. } | BackendKind::Mongodb { .. } | BackendKind::Redis {} => None,
        });
        tiers.chain(topics)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The sample shop, whose author left the prefixes out.
    fn sample() -> Settings {
        crate::manifest::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/samples"), None)
            .unwrap()
    }

    fn prefixes(settings: &Settings) -> Vec<&str> {
        let mut all: Vec<&str> = settings.prefixes().collect();
        all.dedup();
        all
    }

    #[test]
    fn names_are_made_of_namespace_and_service_or_of_service_and_database() {
        let of = |namespace: &str| Names::Of { namespace: namespace.to_owned(), service: "shop".to_owned() };
        assert!(sample().is_unnamed());
        assert_eq!(prefixes(&sample().named(&of("a"))), ["a:shop:", "a.shop."]);
        assert_eq!(prefixes(&sample().named(&of("b"))), ["b:shop:", "b.shop."]);
        let outside = Names::In { service: "shop".to_owned(), database: "1a2b".to_owned() };
        assert_eq!(prefixes(&sample().named(&outside)), ["shop-1a2b:", "shop-1a2b."]);
        assert_eq!(prefixes(&sample().named(&Names::Bare)), [""]);
    }

    #[test]
    fn whoever_is_taken_over_has_a_namespace_and_a_name() {
        assert_eq!(Origin::fault(None, "shop"), None);
        assert_eq!(Origin::fault(Some("team-a/shop"), "shop"), None);
        for wrong in ["", "shop", "team-a/", "/shop", "a/b/c", "Team/shop"] {
            let fault = Origin::fault(Some(wrong), "shop").unwrap().to_string();
            assert!(fault.contains("take-over-from") && fault.contains("<namespace>/<name>"), "{fault}");
        }
    }

    #[test]
    fn what_runs_keeps_its_names() {
        let mut running = sample().named(&Names::Bare);
        for backend in &mut running.backends {
            if let BackendKind::Kafka { topic_prefix } = &mut backend.kind {
                *topic_prefix = "old.".to_owned();
            }
        }
        let kept = sample().named_as_in(&running);
        assert_eq!(prefixes(&kept), ["", "old."]);
        assert_eq!(
            kept.clone().named(&Names::In { service: "x".to_owned(), database: "y".to_owned() }),
            kept
        );
    }
}
