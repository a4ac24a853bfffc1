//! What is wrong with a field that a client sent.

/// One field of a request that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFault {
    /// The field: `price`, `items[2].quantity`.
    pub field: String,
    /// What is wrong with it and what it must be.
    pub message: String,
}

impl FieldFault {
    /// A fault of one field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}
