//! Whether a canary does worse than the others. A few requests prove nothing, and a pod that has just started is a little slower.

use serde::{Deserialize, Serialize};

/// Requests from which on failures are compared.
const FAILURES_FROM: u64 = 20;
/// How many of a hundred may fail more than of the others.
const FAILURES_MORE: f64 = 0.05;
/// Requests of either side from which on times are compared.
const TIMES_FROM: u64 = 50;
/// How many times as long an answer may take, on average, and how much longer besides: caches are cold at first.
const TIMES_FACTOR: f64 = 3.0;
const TIMES_SLACK_S: f64 = 0.05;

/// What pods have answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Figures {
    pub requests: u64,
    /// Those that the pods failed.
    pub errors: u64,
    /// What they took in all.
    pub seconds: f64,
}

impl Figures {
    /// What came on top of an earlier count. A pod that started anew counts from zero: then there is nothing to say.
    pub fn since(&self, earlier: &Self) -> Self {
        if self.requests < earlier.requests || self.errors < earlier.errors {
            return Self::default();
        }
        Self {
            requests: self.requests - earlier.requests,
            errors: self.errors - earlier.errors,
            seconds: (self.seconds - earlier.seconds).max(0.0),
        }
    }

    /// `120 requests, 3 of them failed, in 4.1 ms each`.
    pub fn told(&self) -> String {
        let Self { requests, errors, .. } = self;
        if *requests == 0 {
            return "no request".to_owned();
        }
        format!("{requests} requests, {errors} of them failed, in {:.1} ms each", self.mean() * 1000.0)
    }

    #[expect(clippy::cast_precision_loss, reason = "a share needs no more")]
    fn share(part: f64, of: u64) -> f64 {
        if of == 0 { 0.0 } else { part / of as f64 }
    }

    #[expect(clippy::cast_precision_loss, reason = "a share needs no more")]
    fn failing(&self) -> f64 {
        Self::share(self.errors as f64, self.requests)
    }

    fn mean(&self) -> f64 {
        Self::share(self.seconds, self.requests)
    }
}

/// How the canary does worse than the others; none where it does not.
pub(super) fn worse(canary: &Figures, others: &Figures) -> Option<String> {
    let against = || format!("{}; the others {}", canary.told(), others.told());
    if canary.requests >= FAILURES_FROM && canary.failing() > others.failing() + FAILURES_MORE {
        return Some(format!("fails more requests: {}", against()));
    }
    let comparable = canary.requests >= TIMES_FROM && others.requests >= TIMES_FROM;
    if comparable && canary.mean() > others.mean() * TIMES_FACTOR + TIMES_SLACK_S {
        return Some(format!("answers more slowly: {}", against()));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(requests: u64, errors: u64, seconds: f64) -> Figures {
        Figures { requests, errors, seconds }
    }

    #[test]
    fn failures_are_compared_with_those_of_the_others() {
        let others = figures(1000, 100, 1.0);
        assert_eq!(worse(&figures(100, 14, 0.1), &others), None);
        let told = worse(&figures(100, 16, 0.1), &others).unwrap();
        assert!(told.starts_with("fails more requests: 100 requests, 16 of them failed"), "{told}");
        assert_eq!(worse(&figures(19, 19, 0.1), &others), None, "too few to say");
        assert!(worse(&figures(20, 20, 0.1), &Figures::default()).is_some(), "even where the others get none");
    }

    #[test]
    fn times_are_compared_once_both_have_answered_enough() {
        let others = figures(100, 0, 1.0);
        assert_eq!(worse(&figures(100, 0, 7.9), &others), None);
        assert!(worse(&figures(100, 0, 8.1), &others).is_some_and(|how| how.starts_with("answers more slowly")));
        assert_eq!(worse(&figures(49, 0, 49.0), &others), None);
        assert_eq!(worse(&figures(100, 0, 100.0), &figures(49, 0, 0.1)), None);
    }

    #[test]
    fn a_pod_that_starts_anew_makes_no_comparison() {
        assert_eq!(figures(10, 0, 1.0).since(&figures(20, 0, 2.0)), Figures::default());
        assert_eq!(figures(30, 2, 3.0).since(&figures(20, 1, 2.0)), figures(10, 1, 1.0));
    }
}
