//! Whether a pod fails most of its requests. It counts from its start on, so what it has counted at two looks is compared: some seconds apart, or few
//! requests would make it change its mind again and again. A refusal for overload is among the failures: pods do not tell them apart.

use std::time::Duration;

use tokio::time::Instant;

use crate::observe::report::RequestsReport;

/// How far apart the looks are; a little less than the pause between two reconciles of a service where nothing is under way.
const APART: Duration = Duration::from_secs(9);
/// The same where fewer requests than this came meanwhile.
const APART_MAX: Duration = Duration::from_secs(25);
const REQUESTS_FROM: u64 = 20;

/// What is known of one pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct Failures {
    before: Option<(Instant, RequestsReport)>,
    failing: bool,
}

impl Failures {
    /// Takes in what the pod has counted by now. More than half of its requests make it one that fails, less than a quarter one that does not.
    pub fn look(&mut self, at: Instant, now: RequestsReport) -> bool {
        let counted = |(since, before): (Instant, RequestsReport)| {
            let (total, errors) = (now.total.checked_sub(before.total)?, now.errors.checked_sub(before.errors)?);
            Some((at.duration_since(since), total, errors))
        };
        let Some(before) = self.before else {
            self.before = Some((at, now));
            return self.failing;
        };
        // Its process is another since: it has all of its life before it.
        let Some((apart, total, errors)) = counted(before) else {
            *self = Self { before: Some((at, now)), failing: false };
            return false;
        };
        let tells = total >= REQUESTS_FROM || errors == 0 || apart >= APART_MAX;
        if apart >= APART && tells {
            let part = if self.failing { total / 4 } else { total / 2 };
            *self = Self { before: Some((at, now)), failing: total >= REQUESTS_FROM && errors > part };
        }
        self.failing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks this many seconds after the start, at totals and errors; what is said of each.
    fn said(looks: &[(u64, u64, u64)]) -> Vec<bool> {
        let (start, mut failures) = (Instant::now(), Failures::default());
        let look = |(second, total, errors): &(u64, u64, u64)| {
            let report = RequestsReport { total: *total, errors: *errors, seconds: 0.0 };
            failures.look(start + Duration::from_secs(*second), report)
        };
        looks.iter().map(look).collect()
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
        assert_eq!(said(&[(0, 0, 0), failing, (20, 103, 100)]), [false, true, false], "a few good ones end it");
        assert_eq!(said(&[(0, 0, 0), failing, (20, 103, 103), (36, 104, 104)]), [false, true, true, false]);
        assert_eq!(said(&[(0, 0, 0), failing, (20, 10, 10)]), [false, true, false], "it is another process");
    }
}
