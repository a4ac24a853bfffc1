//! How long the entries of a tier may be served: a tier's settings in milliseconds, replaced while running.

use std::time::Duration;

use super::{TierConfig, WriteStrategy};
use crate::memory;

/// The rules of one tier.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    pub life: memory::Lifetime,
    pub while_revalidate_ms: u64,
    pub if_error_ms: u64,
    pub write_through: bool,
}

/// How long an entry of a shared tier may be served since it was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// As fresh.
    pub fresh_ms: u64,
    /// Afterwards, as stale.
    pub stale_ms: u64,
}

/// What an entry of some age is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// To be served.
    Fresh,
    /// To be served while a fresh one is loaded.
    Revalidate,
    /// To be served when the store fails.
    IfError,
    /// Nothing.
    Nothing,
}

/// How long entries live in a memory tier of these settings, as the tier is to be configured.
pub fn lifetime(settings: &TierConfig) -> memory::Lifetime {
    Rules::new(settings).life
}

impl Rules {
    /// The rules in a tier's settings.
    pub fn new(settings: &TierConfig) -> Self {
        let TierConfig {
            name: _,
            place: _,
            ttl,
            jitter_percent,
            negative_ttl,
            stale_while_revalidate,
            stale_if_error,
            write,
        } = settings;
        let ms = |span: &Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let (while_revalidate_ms, if_error_ms) = (ms(stale_while_revalidate), ms(stale_if_error));
        Self {
            life: memory::Lifetime {
                ttl_ms: ms(ttl),
                negative_ttl_ms: ms(negative_ttl),
                jitter_percent: (*jitter_percent).min(100),
                stale_ms: while_revalidate_ms.max(if_error_ms),
            },
            while_revalidate_ms,
            if_error_ms,
            write_through: *write == WriteStrategy::WriteThrough,
        }
    }

    /// How long a new entry lives in a shared tier, shortened at random.
    pub fn span(&self, present: bool) -> Span {
        let full_ms = self.full_ms(present);
        let most_ms = full_ms / 100 * u64::from(self.life.jitter_percent);
        let shorter_ms = if most_ms > 0 { rand::random_range(0..=most_ms) } else { 0 };
        Span { fresh_ms: full_ms - shorter_ms, stale_ms: if present { self.life.stale_ms } else { 0 } }
    }

    /// What an entry of a shared tier is good for: by the span it was given, and by the settings of now,
    /// whichever is stricter.
    pub fn worth_at(&self, present: bool, age_ms: u64, span: Span) -> Worth {
        let fresh_ms = span.fresh_ms.min(self.full_ms(present));
        self.worth(present, age_ms.checked_sub(fresh_ms))
    }

    /// What an entry is good for that is over its time by so much.
    pub fn worth(&self, present: bool, over_ms: Option<u64>) -> Worth {
        match over_ms {
            None => Worth::Fresh,
            // that there is nothing is never served as stale
            Some(_) if !present => Worth::Nothing,
            Some(over_ms) if over_ms < self.while_revalidate_ms => Worth::Revalidate,
            Some(over_ms) if over_ms < self.if_error_ms => Worth::IfError,
            Some(_) => Worth::Nothing,
        }
    }

    /// How long an entry may be fresh at most.
    pub fn full_ms(&self, present: bool) -> u64 {
        if present { self.life.ttl_ms } else { self.life.negative_ttl_ms }
    }
}

impl Span {
    /// Fresh and stale together.
    pub fn total_ms(&self) -> u64 {
        self.fresh_ms.saturating_add(self.stale_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            life: memory::Lifetime { ttl_ms: 1_000, negative_ttl_ms: 100, jitter_percent: 20, stale_ms: 500 },
            while_revalidate_ms: 300,
            if_error_ms: 500,
            write_through: false,
        }
    }

    #[test]
    fn jitter_only_shortens_and_within_its_bound() {
        let lives: Vec<u64> = (0..1_000).map(|_| rules().span(true).fresh_ms).collect();
        assert!(lives.iter().all(|ms| (800..=1_000).contains(ms)));
        assert!(lives.iter().min() < lives.iter().max());
        assert!(rules().span(false).total_ms() <= 100);
    }

    #[test]
    fn an_entry_is_fresh_then_revalidated_then_for_errors_only() {
        let worth = |age| rules().worth_at(true, age, Span { fresh_ms: 1_000, stale_ms: 500 });
        use Worth::*;
        assert_eq!([0, 999].map(worth), [Fresh, Fresh]);
        assert_eq!(
            [1_000, 1_299, 1_300, 1_499, 1_500].map(worth),
            [Revalidate, Revalidate, IfError, IfError, Nothing]
        );
        assert_eq!(rules().worth_at(false, 100, Span { fresh_ms: 100, stale_ms: 0 }), Nothing);
    }

    #[test]
    fn a_shorter_ttl_counts_for_entries_that_are_there() {
        let mut shorter = rules();
        shorter.life.ttl_ms = 100;
        let span = Span { fresh_ms: 1_000, stale_ms: 500 };
        assert_eq!(shorter.worth_at(true, 99, span), Worth::Fresh);
        assert_eq!(shorter.worth_at(true, 100, span), Worth::Revalidate);
    }
}
