//! The words of a status: the types of its conditions, and their reasons. Programs compare them, so a word
//! that was once written stays as it is.

use std::fmt;

/// An enum of words, each of which is written as it is named.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $word:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$doc])* $word,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$word,)*];

            /// The word, as a status has it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => stringify!($word),)*
                }
            }

            /// What is written so; none for a word of somebody else's, or of another version.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == word)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What a condition is about.
    ConditionType {
        /// Of all three kinds: it serves by the resources as they are.
        Ready,
        /// Of a service: every group has a ready pod.
        Available,
        /// Of a service: something is under way.
        Progressing,
        /// Of a service: something is wrong, whether requests are served or not.
        Degraded,
        /// Of a service: pods that were told to end finish what they began, or it is being deleted itself.
        Draining,
        /// Of a service: every ready pod runs the wanted configuration.
        ConfigurationApplied,
        /// Of a service: pods reach every backend.
        BackendsReachable,
        /// Of a service: a backend refuses writes for want of room.
        StorageFull,
        /// Of a service: a backend is set so that an acknowledged write can be lost.
        DurabilityReduced,
        /// Of a service: a password is where others can read it.
        PlaintextPassword,
        /// Of a pool: stored records cannot be read.
        UnreadableRecords,
    }
}

impl ConditionType {
    /// Whether all is well while it is true; else it tells of trouble, or of something under way.
    pub fn is_good(self) -> bool {
        match self {
            Self::Ready | Self::Available | Self::ConfigurationApplied | Self::BackendsReachable => true,
            Self::Progressing
            | Self::Degraded
            | Self::Draining
            | Self::StorageFull
            | Self::DurabilityReduced
            | Self::PlaintextPassword
            | Self::UnreadableRecords => false,
        }
    }
}

words! {
    /// Why a condition is as it is. A pool that its pods cannot serve has their word instead, such as
    /// `TableMissing`.
    Reason {
        // ---- what the author of the resources has to mend
        /// The resources have faults: the last good configuration keeps running.
        InvalidConfiguration,
        /// The API server refuses a child.
        ApplyFailed,
        /// A certificate is to be issued, but cert-manager is not installed.
        CertManagerMissing,
        /// A Secret that is named is not there.
        SecretMissing,
        /// The stores could not be brought up to another image: it is tried again.
        MigrationFailed,
        /// One pod that took the change first did worse than the others.
        CanaryFailed,
        /// The service is paused.
        Paused,

        // ---- what is under way
        /// What is wanted is being written, or is tried again after a failure.
        Applying,
        /// A Job brings the stores up to another image.
        Migrating,
        /// One pod takes a change first.
        Canary,
        /// Pods are being replaced.
        RollingOut,
        /// Pods start.
        StartingPods,
        /// Some pods do not run the configuration yet.
        ApplyingConfiguration,
        /// Some pods do not run the configuration yet; of a pool or tier, what it was before is served.
        Pending,
        /// Some pods do not say what they run.
        PodsNotReporting,
        /// Nothing is under way.
        Settled,

        // ---- how many pods there are
        /// No pods are wanted, so nothing is served.
        ScaledToZero,
        /// No pods are wanted, or none is there.
        NoPods,
        /// A group has fewer ready pods than it should.
        PodsNotReady,
        /// A group has no ready pod.
        NoReadyPods,
        /// Every group has a ready pod.
        PodsReady,
        /// No node has a place for a pod.
        Unschedulable,
        /// A node cannot pull the image.
        ImageNotPulled,
        /// A node cannot make a container.
        ContainerNotCreated,
        /// A container was killed for want of memory.
        OutOfMemory,
        /// A container ends again and again.
        CrashLooping,
        /// A quota of the namespace admits no more pods.
        QuotaExceeded,
        /// The API server, or who admits for it, takes no pod.
        PodsRefused,
        /// Pods that were told to end finish what they began.
        PodsEnding,
        /// No pod was told to end.
        NoPodsEnding,
        /// The service is being deleted.
        Deleting,

        // ---- what goes wrong
        /// A rollout makes no progress.
        RolloutStuck,
        /// Pods will not become ready by waiting.
        PodsFailing,
        /// Pods cannot use what a Secret holds, and go on with its former content.
        SecretNotApplied,
        /// A backend has things of another owner under the service's names.
        OwnedByAnother,
        /// Pods cannot reach a backend.
        BackendUnreachable,
        /// A backend does not know the account, or its password is another.
        WrongPassword,
        /// The account may not do what is needed.
        MissingRight,
        /// Nobody knows the backend's host.
        UnknownHost,
        /// Nobody listens at the backend's address.
        ConnectionRefused,
        /// The backend's certificate is not one that is trusted, or it has no TLS.
        NotTrusted,
        /// The database is not there.
        DatabaseMissing,
        /// Pods cannot serve a pool because of its table or collection.
        PoolUnavailable,
        /// More than half of the requests fail in some pods.
        RequestsFailing,
        /// More than half of the requests are refused in some pods, because more come than can be done.
        Overloaded,
        /// The autoscaler cannot tell how many pods are needed.
        AutoscalingInactive,
        /// Fields hold numbers that many readers of JSON round.
        InexactNumbers,
        /// Stored records hold what has no exact meaning in their fields.
        NoExactMeaning,
        /// A backend refuses writes for want of room.
        StorageFull,
        /// A backend's own settings can lose an acknowledged write.
        BackendSettings,
        /// The next release refuses what is still taken.
        RefusedNextRelease,

        // ---- that all is well
        /// Requests are served; of a pool or tier, by whom the message says.
        Serving,
        /// Every ready pod runs the configuration.
        Applied,
        /// Nothing is wrong.
        AsExpected,
        /// Pods reach every backend.
        Reachable,
        /// No backend refuses writes for want of room.
        RoomLeft,

        // ---- what nobody can tell, or is about nobody
        /// No backends are declared.
        NoBackends,
        /// No pod says what it can reach.
        NoReports,
        /// No service serves the pool or uses the tier.
        NotReferenced,
        /// No service that names the pool or uses the tier is ready.
        ServiceNotReady,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_word_is_one_that_the_api_server_takes_and_is_read_as_it_was_written() {
        let words = |all: Vec<&'static str>| {
            let takes = |word: &str| word.chars().all(|one| one.is_ascii_alphanumeric());
            assert!(all.iter().all(|word| word.starts_with(|one: char| one.is_ascii_uppercase())), "{all:?}");
            assert!(all.iter().all(|word| takes(word)), "{all:?}");
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "each is there once");
        };
        words(ConditionType::ALL.iter().map(|one| one.as_str()).collect());
        words(Reason::ALL.iter().map(|one| one.as_str()).collect());
        assert!(Reason::ALL.iter().all(|one| Reason::parse(one.as_str()) == Some(*one)));
        assert!(ConditionType::ALL.iter().all(|one| ConditionType::parse(one.as_str()) == Some(*one)));
        assert_eq!(
            (Reason::parse("TableMissing"), Reason::Serving.to_string()),
            (None, "Serving".to_owned())
        );
    }
}
