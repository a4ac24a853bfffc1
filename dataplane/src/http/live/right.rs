//! The right to what a client is subscribed to. It is asked for at each frame, and ends with the caller's
//! token or when the policy of a pool takes it away.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::catalogue::{Catalogue, Topics};
use crate::{
    problem::Problem,
    security::{caller::Caller, policy::Changes},
};
use model::value::Timestamp;

/// The longest wait for a token's end before the clock is read again: clocks are corrected, and keys are
/// replaced.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The close codes: HTTP's statuses, among the codes that RFC 6455 leaves to applications.
pub const TOKEN: u16 = 4401;
/// See [`TOKEN`].
pub const POLICY: u16 = 4403;

/// A caller's right to some topics.
#[derive(Clone)]
pub struct Right {
    caller: Option<Arc<Caller>>,
    topics: Topics,
    catalogue: Arc<Catalogue>,
    changes: Changes,
}

/// Why a right ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The token has ended.
    Token,
    /// The policy no longer lets the caller read this entity.
    Policy(String),
}

impl Right {
    /// The right of a caller to the topics of a list; without a list, to all that the caller may read now.
    ///
    /// # Errors
    /// 400 for a name that is no topic; 403 for one that the caller may not read; 401 where the token has
    /// ended.
    pub fn new(
        catalogue: &Arc<Catalogue>,
        changes: Changes,
        list: Option<&str>,
        caller: Option<Arc<Caller>>,
    ) -> Result<Self, Problem> {
        let topics = catalogue.topics(list, caller.as_deref())?;
        let right = Self { caller, topics, catalogue: Arc::clone(catalogue), changes };
        // guards let a token in for a while after its end; here that would only end at once
        if right.has_ended() { Err(Problem::unauthenticated(Ended::Token.reason())) } else { Ok(right) }
    }

    /// The topics.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Whether it holds now. Cheap where nothing changed.
    ///
    /// # Errors
    /// It has ended.
    pub fn check(&mut self) -> Result<(), Ended> {
        if self.has_ended() {
            return Err(Ended::Token);
        }
        let Self { caller, topics, catalogue, changes } = self;
        changes.check(|| match catalogue.forbidden(topics, caller.as_deref()) {
            Some(entity) => Err(Ended::Policy(entity.to_owned())),
            None => Ok(()),
        })
    }

    /// Waits for its end.
    pub async fn ended(mut self) -> Ended {
        loop {
            if let Err(ended) = self.check() {
                return ended;
            }
            let wait = self.remaining().unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN);
            tokio::select! {
                () = self.changes.next() => {}
                () = sleep(wait) => {}
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }

    /// How long the token is good still; none for a caller without one.
    fn remaining(&self) -> Option<Duration> {
        let ends_s = self.caller.as_ref()?.validity.ends_s();
        let ms = ends_s.saturating_mul(1_000).saturating_sub(Timestamp::now().0);
        Some(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
    }
}

impl Ended {
    /// The close code.
    pub fn code(&self) -> u16 {
        match self {
            Self::Token => TOKEN,
            Self::Policy(_) => POLICY,
        }
    }

    /// Why, and what to do; short enough for a close frame (123 bytes).
    pub fn reason(&self) -> String {
        match self {
            Self::Token => "the token has ended: connect with a new one".to_owned(),
            Self::Policy(entity) => format!("the token's roles may no longer read {entity:.60}"),
        }
    }
}
