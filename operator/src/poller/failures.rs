//! Whether most requests to a pod come to nothing, and why. It counts from its start on, so what it has
//! counted at two looks is compared: some seconds apart, or few requests would make it change its mind again
//! and again.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::report::{RequestsReport, Trouble};

/// How far apart the looks are; a little less than the pause between two reconciles of a service where
/// nothing is under way.
const APART: Duration = Duration::from_secs(9);
/// The same where fewer requests than this came meanwhile.
const APART_MAX: Duration = Duration::from_secs(25);
const REQUESTS_FROM: u64 = 20;

/// What is known of one pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct Failures {
    before: Option<(Instant, RequestsReport)>,
    trouble: Option<Trouble>,
}

impl Failures {
    /// Takes in what the pod has counted by now. Trouble is where more than half of its requests come to
    /// nothing; it ends with less than a quarter. It fails where that is so without those that it refuses.
    pub fn look(&mut self, at: Instant, now: RequestsReport) -> Option<Trouble> {
        let counted = |(since, before): (Instant, RequestsReport)| {
            let total = now.total.checked_sub(before.total)?;
            let (errors, refused) =
                (now.errors.checked_sub(before.errors)?, now.refused.checked_sub(before.refused)?);
            Some((at.duration_since(since), total, errors, refused))
        };
        let Some(before) = self.before else {
            self.before = Some((at, now));
            return self.trouble;
        };
        // Its process is another since: it has all of its life before it.
        let Some((apart, total, errors, refused)) = counted(before) else {
            *self = Self { before: Some((at, now)), trouble: None };
            return None;
        };
        let lost = errors + refused;
        let tells = total >= REQUESTS_FROM || lost == 0 || apart >= APART_MAX;
        if apart >= APART && tells {
            let part = |of: u64| if self.trouble.is_some() { of / 4 } else { of / 2 };
            let trouble = match total >= REQUESTS_FROM && lost > part(total) {
                true if errors > part(total - refused.min(total)) => Some(Trouble::Failing),
                true => Some(Trouble::Overloaded),
                false => None,
            };
            *self = Self { before: Some((at, now)), trouble };
        }
        self.trouble
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks this many seconds after the start, at totals, errors and refusals; what is said of each.
    fn told(looks: &[(u64, u64, u64, u64)]) -> Vec<Option<Trouble>> {
        let (start, mut failures) = (Instant::now(), Failures::default());
        let look = |&(second, total, errors, refused): &(u64, u64, u64, u64)| {
            failures.look(
                start + Duration::from_secs(second),
                RequestsReport { total, errors, refused, seconds: 0.0 },
            )
        };
        looks.iter().map(look).collect()
    }

    /// The same without refusals: whether it fails.
    fn said(looks: &[(u64, u64, u64)]) -> Vec<bool> {
        let looks: Vec<_> = looks.iter().map(|&(second, total, errors)| (second, total, errors, 0)).collect();
        told(&looks).into_iter().map(|trouble| trouble == Some(Trouble::Failing)).collect()
    }

    #[test]
    fn what_it_refuses_is_told_apart_from_what_it_fails() {
        let (failing, overloaded) = (Some(Trouble::Failing), Some(Trouble::Overloaded));
        assert_eq!(told(&[(0, 0, 0, 0), (10, 100, 0, 51)]), [None, overloaded]);
        assert_eq!(told(&[(0, 0, 0, 0), (10, 100, 0, 50)]), [None, None], "half are not enough");
        assert_eq!(
            told(&[(0, 0, 0, 0), (10, 100, 10, 50)]),
            [None, overloaded],
            "a few of those that it took failed"
        );
        assert_eq!(
            told(&[(0, 0, 0, 0), (10, 100, 26, 50)]),
            [None, failing],
            "most of those that it took failed"
        );
        let ends = [(0, 0, 0, 0), (10, 100, 0, 80), (20, 200, 0, 110), (30, 300, 0, 130)];
        assert_eq!(told(&ends), [None, overloaded, overloaded, None]);
        assert_eq!(
            told(&[(0, 0, 0, 0), (10, 100, 0, 80), (20, 10, 0, 0)]),
            [None, overloaded, None],
            "another process"
        );
    }

    #[test]
    fn what_came_before_the_first_look_says_nothing() {
        assert_eq!(said(&[(0, 1000, 1000), (10, 1100, 1000), (20, 1200, 1000)]), [false, false, false]);
    }

    #[test]
    fn more_than_half_fail_between_two_looks_some_seconds_apart() {
        assert_eq!(said(&[(0, 0, 0), (2, 100, 100), (10, 200, 101)]), [false, false, true]);
        assert_eq!(said(&[(0, 0, 0), (10, 200, 100)]), [false, false], "half are not enough");
        assert_eq!(said(&[(0, 0, 0), (10, 19, 19)]), [false, false], "nor are a few");
        assert_eq!(said(&[(0, 0, 0), (10, 19, 19), (20, 38, 38)]), [false, false, true], "which add up");
        assert_eq!(said(&[(0, 0, 0), (25, 19, 19), (40, 38, 38)]), [false, false, false], "but not for ever");
    }

    #[test]
    fn it_does_not_change_its_mind_at_each_look() {
        let failing = (10, 100, 100);
        assert_eq!(said(&[(0, 0, 0), failing, (20, 200, 140), (30, 300, 165)]), [false, true, true, false]);
        assert_eq!(
            said(&[(0, 0, 0), failing, (20, 103, 100)]),
            [false, true, false],
            "a few good ones end it"
        );
        assert_eq!(said(&[(0, 0, 0), failing, (20, 103, 103), (36, 104, 104)]), [false, true, true, false]);
        assert_eq!(said(&[(0, 0, 0), failing, (20, 10, 10)]), [false, true, false], "it is another process");
    }
}
