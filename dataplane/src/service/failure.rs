//! Why a step failed, and what follows from it.

use reqwest::StatusCode;

use super::error::ServiceError;

/// A failed step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What follows from it.
    pub class: Class,
    /// What happened, without secrets.
    pub message: String,
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The message itself is wrong: it is set aside at once.
    Validation,
    /// It will fail again, whatever is done: it is set aside at once.
    NotRetryable,
    /// It may pass: it is tried again, so often and no more.
    Retryable,
    /// Something that the message has no part in: it is tried again until it passes, and counts as no
    /// attempt.
    System,
}

impl Class {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::NotRetryable => "not_retryable",
            Self::Retryable => "retryable",
            Self::System => "system",
        }
    }
}

impl Failure {
    /// A failure of a class.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }

    /// Something that may pass.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self::new(Class::Retryable, message)
    }

    /// What is outside wants to be called elsewhere, which is not done.
    pub fn redirected(who: &str, status: StatusCode) -> Self {
        let why = format!(
            "{who} answers {status}: redirects are not followed, so declare the address that they lead to"
        );
        Self::new(Class::NotRetryable, why)
    }

    /// Something that the message has no part in.
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(Class::System, message)
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        let class = match &error {
            ServiceError::Unavailable(_)
            | ServiceError::Full(_)
            | ServiceError::PoolUnavailable(_)
            | ServiceError::Timeout
            | ServiceError::Unknown(_)
            | ServiceError::Contended
            | ServiceError::Setup(_)
            | ServiceError::NotYet { .. } => Class::System,
            ServiceError::Invalid(_) | ServiceError::Malformed(_) => Class::Validation,
            _ => Class::NotRetryable,
        };
        Self::new(class, error.to_string())
    }
}
