//! Whether a canary does worse than the others. A few requests prove little, and a pod that has just started
//! is a little slower. What a pod refuses because more comes than it can take says little of what it runs:
//! only where it refuses far more than the others is it the change that takes less.

use serde::{Deserialize, Serialize};

/// Requests from which on failures are compared.
const FAILURES_FROM: u64 = 20;
/// How many of a hundred may fail more than of the others.
const FAILURES_MORE: f64 = 0.05;
/// Fewer requests tell only where nearly all of them fail, and few of the others do.
const FEW_FROM: u64 = 5;
const NEARLY_ALL: f64 = 0.8;
const FEW_OF_OTHERS: f64 = 0.2;
/// How much larger the part that is refused may be than that of the others.
const REFUSALS_MORE: f64 = 0.5;
/// Requests of either side from which on times are compared.
const TIMES_FROM: u64 = 50;
/// How many times as long an answer may take, on average, and how much longer besides: caches are cold at
/// first.
const TIMES_FACTOR: f64 = 3.0;
const TIMES_SLACK_S: f64 = 0.05;

/// What pods have answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Figures {
    pub requests: u64,
    /// Those that the pods failed.
    pub errors: u64,
    /// Those that they refused for overload.
    pub refused: u64,
    /// What the others took in all.
    pub seconds: f64,
}

impl Figures {
    /// What came on top of an earlier count; none where it is that of a pod that has started anew since, and
    /// counts from zero.
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        Some(Self {
            requests: self.requests.checked_sub(earlier.requests)?,
            errors: self.errors.checked_sub(earlier.errors)?,
            refused: self.refused.checked_sub(earlier.refused)?,
            seconds: (self.seconds - earlier.seconds).max(0.0),
        })
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        let Self { requests, errors, refused, seconds } = other;
        Self {
            requests: self.requests + requests,
            errors: self.errors + errors,
            refused: self.refused + refused,
            seconds: self.seconds + seconds,
        }
    }

    /// `120 requests, 3 of them failed, in 4.1 ms each, and refused 7`.
    pub fn told(&self) -> String {
        let (taken, Self { errors, refused, .. }) = (self.taken(), self);
        let answered = match taken {
            0 => "no request".to_owned(),
            _ => format!("{taken} requests, {errors} of them failed, in {:.1} ms each", self.mean() * 1000.0),
        };
        if *refused == 0 { answered } else { format!("{answered}, and refused {refused}") }
    }

    /// Those that were not refused.
    fn taken(&self) -> u64 {
        self.requests.saturating_sub(self.refused)
    }

    #[expect(clippy::cast_precision_loss, reason = "a share needs no more")]
    fn share(part: f64, of: u64) -> f64 {
        if of == 0 { 0.0 } else { part / of as f64 }
    }

    #[expect(clippy::cast_precision_loss, reason = "a share needs no more")]
    fn failing(&self) -> f64 {
        Self::share(self.errors as f64, self.taken())
    }

    #[expect(clippy::cast_precision_loss, reason = "a share needs no more")]
    fn refusing(&self) -> f64 {
        Self::share(self.refused as f64, self.requests)
    }

    fn mean(&self) -> f64 {
        Self::share(self.seconds, self.taken())
    }
}

/// What the figures say.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// It does as well as the others.
    NoWorse,
    /// It fails or refuses requests, but too few, or the others do so, too.
    Unclear,
    /// It does worse. How.
    Worse(String),
}

/// How the canary does beside the others.
pub(super) fn judge(canary: &Figures, others: &Figures) -> Verdict {
    let worse = |how: &str| Verdict::Worse(format!("{how}: {}; the others {}", canary.told(), others.told()));
    let many = canary.taken() >= FAILURES_FROM && canary.failing() > others.failing() + FAILURES_MORE;
    let few =
        canary.taken() >= FEW_FROM && canary.failing() >= NEARLY_ALL && others.failing() < FEW_OF_OTHERS;
    if many || few {
        return worse("fails more requests");
    }
    if canary.requests >= FAILURES_FROM && canary.refusing() > others.refusing() + REFUSALS_MORE {
        return worse("refuses more requests");
    }
    let comparable = canary.taken() >= TIMES_FROM && others.taken() >= TIMES_FROM;
    if comparable && canary.mean() > others.mean() * TIMES_FACTOR + TIMES_SLACK_S {
        return worse("answers more slowly");
    }
    let is_unclear = canary.failing() > FAILURES_MORE || canary.refusing() > REFUSALS_MORE;
    if is_unclear { Verdict::Unclear } else { Verdict::NoWorse }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(requests: u64, errors: u64, seconds: f64) -> Figures {
        Figures { requests, errors, seconds, refused: 0 }
    }

    /// The same with refusals beside the requests.
    fn refusing(refused: u64, figures: Figures) -> Figures {
        Figures { refused, requests: figures.requests + refused, ..figures }
    }

    fn worse(canary: &Figures, others: &Figures) -> Option<String> {
        match judge(canary, others) {
            Verdict::Worse(how) => Some(how),
            Verdict::NoWorse | Verdict::Unclear => None,
        }
    }

    #[test]
    fn failures_are_compared_with_those_of_the_others() {
        let others = figures(1000, 100, 1.0);
        assert_eq!(judge(&figures(100, 14, 0.1), &others), Verdict::Unclear, "the others fail as many");
        assert_eq!(judge(&figures(100, 5, 0.1), &others), Verdict::NoWorse);
        let told = worse(&figures(100, 16, 0.1), &others).unwrap();
        assert!(told.starts_with("fails more requests: 100 requests, 16 of them failed"), "{told}");
        assert!(
            worse(&figures(20, 20, 0.1), &Figures::default()).is_some(),
            "even where the others get none"
        );
    }

    #[test]
    fn a_few_requests_tell_where_nearly_all_of_them_fail_and_the_others_do_not() {
        let others = figures(1000, 100, 1.0);
        assert!(worse(&figures(19, 19, 0.1), &others).is_some());
        assert!(worse(&figures(5, 4, 0.1), &others).is_some());
        assert_eq!(judge(&figures(4, 4, 0.1), &others), Verdict::Unclear, "too few to say");
        assert_eq!(judge(&figures(19, 14, 0.1), &others), Verdict::Unclear, "not nearly all");
        assert_eq!(
            judge(&figures(19, 19, 0.1), &figures(1000, 200, 1.0)),
            Verdict::Unclear,
            "nor is it well elsewhere"
        );
    }

    #[test]
    fn times_are_compared_once_both_have_answered_enough() {
        let others = figures(100, 0, 1.0);
        assert_eq!(worse(&figures(100, 0, 7.9), &others), None);
        assert!(
            worse(&figures(100, 0, 8.1), &others).is_some_and(|how| how.starts_with("answers more slowly"))
        );
        assert_eq!(worse(&figures(49, 0, 49.0), &others), None);
        assert_eq!(worse(&figures(100, 0, 100.0), &figures(49, 0, 0.1)), None);
    }

    #[test]
    fn overload_is_no_failure_unless_the_canary_has_far_more_of_it() {
        let (busy, calm) = (refusing(60, figures(100, 0, 1.0)), figures(100, 0, 1.0));
        assert_eq!(judge(&busy, &calm), Verdict::NoWorse, "it is cold, and the load is high");
        assert_eq!(judge(&refusing(150, calm), &refusing(60, calm)), Verdict::Unclear, "most are refused");
        let told = worse(&refusing(150, calm), &calm).unwrap();
        let expected = "refuses more requests: 100 requests, 0 of them failed, in 10.0 ms each, and refused 150; the others";
        assert!(told.starts_with(expected), "{told}");
        assert!(
            worse(&refusing(20, figures(0, 0, 0.0)), &calm).unwrap().contains("no request, and refused 20")
        );
        assert_eq!(judge(&refusing(19, figures(0, 0, 0.0)), &calm), Verdict::Unclear, "too few to say");
        let failing = refusing(300, figures(20, 2, 0.1));
        assert!(
            worse(&failing, &refusing(300, calm)).unwrap().starts_with("fails more"),
            "of those that it took"
        );
    }

    #[test]
    fn a_pod_that_starts_anew_makes_no_comparison() {
        assert_eq!(figures(10, 0, 1.0).since(&figures(20, 0, 2.0)), None);
        assert_eq!(figures(30, 2, 3.0).since(&figures(20, 1, 2.0)), Some(figures(10, 1, 1.0)));
    }
}
