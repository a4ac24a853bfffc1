//! Who calls, and whether that is one of the roles that may.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use model::actor;

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The token's subject.
    pub subject: String,
    /// The token's roles.
    pub roles: Vec<String>,
    /// Until when the token is good.
    pub validity: Validity,
}

/// Until when a token is good, in seconds since 1970: its own end, or that of the key that signed it where
/// that comes first.
#[derive(Clone, Debug)]
pub struct Validity {
    /// The claim `exp`.
    pub expires_s: i64,
    /// The end of its key.
    pub key: KeyEnd,
}

/// The end of a key's acceptance, for all whose tokens it signed. It is set when the key is replaced.
#[derive(Clone, Debug)]
pub struct KeyEnd(Arc<AtomicI64>);

impl Caller {
    /// The caller's name in the audit.
    pub fn actor(&self) -> Cow<'_, str> {
        actor::of_subject(&self.subject)
    }
}

impl Validity {
    /// The end.
    pub fn ends_s(&self) -> i64 {
        self.expires_s.min(self.key.get())
    }
}

impl Default for Validity {
    /// Without an end.
    fn default() -> Self {
        Self { expires_s: i64::MAX, key: KeyEnd::default() }
    }
}

impl KeyEnd {
    /// No end.
    pub const NEVER: i64 = i64::MAX;

    /// The end, in seconds since 1970.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Acquire)
    }

    /// Sets the end.
    pub fn set(&self, ends_s: i64) {
        self.0.store(ends_s, Ordering::Release);
    }
}

impl Default for KeyEnd {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(Self::NEVER)))
    }
}

/// Whether the caller has one of these roles; `*` is everybody.
pub fn permits(roles: &[String], caller: Option<&Caller>) -> bool {
    allows(roles, caller.map_or(&[], |caller| &caller.roles))
}

/// Whether somebody with these roles has one of those that may; `*` is everybody.
pub fn allows(wanted: &[String], roles: &[String]) -> bool {
    wanted.iter().any(|role| role == "*" || roles.contains(role))
}
