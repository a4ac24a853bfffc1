//! Conditions: what they say now, with the time since when.

use std::borrow::Cow;

use crds::conditions::{ConditionType, Reason};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// The API server takes this many bytes of a message, and a list of faults can be longer.
const MESSAGE_LENGTH_MAX: usize = 8000;

/// A condition without its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// What it is about.
    pub kind: ConditionType,
    /// Whether it holds.
    pub holds: Holds,
    /// One word for programs: a [`Reason`], or the word of a pod.
    pub reason: Cow<'static, str>,
    /// A sentence for people; the same as long as nothing changes.
    pub message: String,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// Nobody can tell.
    Unknown,
}

impl Draft {
    /// A condition with its reason and message.
    pub fn new(kind: ConditionType, holds: Holds, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, holds, reason: Cow::Borrowed(reason.as_str()), message: message.into() }
    }

    /// A condition with the reason that a pod gives.
    pub fn reported(kind: ConditionType, holds: Holds, reason: &str, message: impl Into<String>) -> Self {
        Self { kind, holds, reason: Cow::Owned(reason.to_owned()), message: message.into() }
    }
}

impl From<bool> for Holds {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl Holds {
    fn text(self) -> &'static str {
        match self {
            Self::Yes => "True",
            Self::No => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// The drafts as conditions. The time is that of the last change of the status, not of the reason.
pub fn settle(
    drafts: Vec<Draft>,
    former: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    drafts
        .into_iter()
        .map(|Draft { kind, holds, reason, message }| {
            let status = holds.text();
            let since = former.iter().find(|one| one.type_ == kind.as_str() && one.status == status);
            Condition {
                last_transition_time: since.map_or(Time(now), |one| one.last_transition_time.clone()),
                message: clip(message),
                observed_generation: generation,
                reason: reason.into_owned(),
                status: status.to_owned(),
                type_: kind.as_str().to_owned(),
            }
        })
        .collect()
}

/// The condition of this kind.
pub fn find(conditions: &[Condition], kind: impl AsRef<str>) -> Option<&Condition> {
    conditions.iter().find(|one| one.type_ == kind.as_ref())
}

fn clip(mut message: String) -> String {
    if message.len() > MESSAGE_LENGTH_MAX {
        let end = (0..=MESSAGE_LENGTH_MAX).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_time_moves_with_the_status_only() {
        let first = settle(
            vec![Draft::new(ConditionType::Ready, Holds::No, Reason::Paused, "a")],
            &[],
            Some(1),
            at(10),
        );
        assert_eq!(first[0].last_transition_time.0, at(10));
        let second = settle(
            vec![Draft::new(ConditionType::Ready, Holds::No, Reason::NoPods, "b")],
            &first,
            Some(2),
            at(20),
        );
        assert_eq!((second[0].last_transition_time.0, second[0].reason.as_str()), (at(10), "NoPods"));
        assert_eq!(second[0].observed_generation, Some(2));
        let third = settle(
            vec![Draft::new(ConditionType::Ready, Holds::Yes, Reason::Serving, "c")],
            &second,
            Some(2),
            at(30),
        );
        assert_eq!(third[0].last_transition_time.0, at(30));
    }

    #[test]
    fn a_long_message_is_cut() {
        let long = settle(
            vec![Draft::new(ConditionType::Ready, Holds::No, Reason::Paused, "ß".repeat(9000))],
            &[],
            None,
            at(1),
        );
        assert!(long[0].message.len() < 8010 && long[0].message.ends_with('…'));
    }
}
