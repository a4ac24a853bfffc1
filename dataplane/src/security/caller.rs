//! Who calls, and whether that is one of the roles that may.

use std::borrow::Cow;

use crate::domain::actor;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's subject.
    pub subject: String,
    /// The token's roles.
    pub roles: Vec<String>,
}

impl Caller {
    /// The caller's name in the audit.
    pub fn actor(&self) -> Cow<'_, str> {
        actor::of_subject(&self.subject)
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
