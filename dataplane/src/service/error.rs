//! Why a read or a write was refused or failed: the one error of this layer. Transports map it once.

use std::sync::Arc;

use engine::tiered::ReadError;
use model::{fault::FieldFault, json::BodyError, key::Version, record::Unreadable};
use store::{StoreError, confined::PoolFault};

/// Why a read or a write was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is no such record.
    #[error("there is no such record")]
    NotFound,
    /// The record is not in the state that the caller asked for.
    #[error("the record has version {current}")]
    Stale {
        /// The version that it has; 0 where it is not there.
        current: Version,
    },
    /// The record is there and the caller asked that it be not.
    #[error("a record with this key exists")]
    Exists,
    /// Another record has the same value in a unique field.
    #[error("another record has the same {field}")]
    Duplicate {
        /// The field.
        field: String,
    },
    /// The idempotency key came with another request before.
    #[error("the idempotency key came with another request before")]
    KeyReused,
    /// The change is not allowed in the record's state.
    #[error("{0}")]
    Conflict(String),
    /// Fields are not allowed in the record's state, or by what other records say.
    #[error("{}", refusal(.0))]
    Refused(Vec<FieldFault>),
    /// The body is not a JSON object.
    #[error("{0}")]
    Malformed(String),
    /// Fields of the request are wrong.
    #[error("fields are wrong")]
    Invalid(Vec<FieldFault>),
    /// The pool cannot be written.
    #[error("{0}")]
    ReadOnly(String),
    /// The store cannot do what is asked, whatever its state.
    #[error("{0}")]
    Unsupported(String),
    /// The store is not set up for what is asked: a table, column, right or setting is missing.
    #[error("{0}")]
    Setup(String),
    /// The version that a read must have has not arrived.
    #[error("version {wanted} has not arrived: the record has version {current}")]
    NotYet {
        /// What was asked for.
        wanted: Version,
        /// What there is.
        current: Version,
    },
    /// Others changed the record again and again.
    #[error("the record is changed too often")]
    Contended,
    /// The store cannot be reached or is overloaded; nothing was changed.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The pool cannot be used until its owner has mended its collection; nothing was changed.
    #[error("the pool is unavailable: {}", .0.message)]
    PoolUnavailable(PoolFault),
    /// The store, or the log before it, has no room left; nothing was changed.
    #[error("there is no room left: {0}")]
    Full(String),
    /// The process has no memory for the answer.
    #[error("there is no memory for this answer now")]
    Overloaded,
    /// The store did not answer in time; nothing was changed by a read.
    #[error("the store did not answer in time")]
    Timeout,
    /// The write may or may not have happened.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// The record is there, but something in it has no exact meaning: replaced or deleted, it is mended.
    #[error("{0}")]
    Unreadable(Arc<Unreadable>),
    /// What is stored is not as declared, or this program has a defect.
    #[error("{0}")]
    Internal(String),
    /// The data of an operation has more bytes than a record of the pool may have.
    #[error("the data may have at most {0} bytes")]
    TooLarge(usize),
    /// One of several changes was refused, so none was made.
    #[error("operation {index}: {error}")]
    At {
        /// Its place among them, from 0.
        index: usize,
        /// Why.
        error: Box<ServiceError>,
    },
}

impl ServiceError {
    /// One field of the request is wrong.
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldFault::new(field, message)])
    }

    /// The reason itself, and the change that it is of where there were several.
    pub fn split(self) -> (Option<usize>, Self) {
        match self {
            Self::At { index, error } => (Some(index), *error),
            error => (None, error),
        }
    }
}

/// `amount cannot change any more: the payment is completed`
fn refusal(faults: &[FieldFault]) -> String {
    let each = faults.iter().map(|FieldFault { field, message }| format!("{field} {message}"));
    each.collect::<Vec<_>>().join("; ")
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        Self::from(&error)
    }
}

impl From<&StoreError> for ServiceError {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::NotFound,
            StoreError::Stale { current } => Self::Stale { current: *current },
            StoreError::Exists => Self::Exists,
            StoreError::Duplicate { field } => Self::Duplicate { field: field.clone() },
            StoreError::KeyReused => Self::KeyReused,
            StoreError::ReadOnly(why) => Self::ReadOnly(why.clone()),
            StoreError::Unsupported(why) => Self::Unsupported(why.clone()),
            StoreError::Unprepared(fault) => Self::PoolUnavailable(fault.clone()),
            StoreError::Invalid(faults) => Self::Invalid(faults.clone()),
            StoreError::Setup(why) => Self::Setup(why.clone()),
            StoreError::Unavailable(why) => Self::Unavailable(why.clone()),
            StoreError::Full(why) => Self::Full(why.clone()),
            StoreError::Overloaded => Self::Overloaded,
            StoreError::Unknown(why) => Self::Unknown(why.clone()),
            StoreError::Corrupt(why) => Self::Internal(why.clone()),
            StoreError::At { index, error } => {
                Self::At { index: *index, error: Box::new(Self::from(&**error)) }
            }
        }
    }
}

impl From<ReadError> for ServiceError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotYet { required, found } => Self::NotYet { wanted: required, current: found },
            ReadError::Unreadable(unreadable) => Self::Unreadable(unreadable),
            ReadError::TimedOut => Self::Timeout,
            ReadError::Lost => Self::Internal("a load ended without an answer".to_owned()),
            ReadError::Load(error) => match error.downcast_ref::<StoreError>() {
                Some(error) => Self::from(error),
                None => Self::Unavailable(error.to_string()),
            },
        }
    }
}

impl From<BodyError> for ServiceError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Malformed(message) => Self::Malformed(message),
            BodyError::Invalid(faults) => Self::Invalid(faults),
        }
    }
}
