//! Who calls, and whether that is one of the roles that may.

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's subject.
    pub subject: String,
    /// The token's roles.
    pub roles: Vec<String>,
}

/// Whether the caller has one of these roles; `*` is everybody.
pub fn permits(roles: &[String], caller: Option<&Caller>) -> bool {
    roles.iter().any(|role| role == "*" || caller.is_some_and(|caller| caller.roles.contains(role)))
}
