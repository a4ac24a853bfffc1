//! What can go wrong between the operator and the cluster. Faults of resources are no errors: they are
//! conditions (see `validate`).

use thiserror::Error;

/// A step that did not succeed and is tried again later.
#[derive(Debug, Error)]
pub enum Error {
    /// The API server refused or could not be reached.
    #[error("cannot {verb} {object}: {}", reason(source))]
    Api {
        /// What was attempted: `apply`, `delete`.
        verb: &'static str,
        /// On what: `Deployment shop-main`.
        object: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("cannot {verb} {object}: no answer within {seconds} s")]
    Timeout {
        /// What was attempted.
        verb: &'static str,
        /// On what.
        object: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Another replica may be working: nothing was written.
    #[error("this replica does not hold the lease")]
    NotLeader,
    /// An object of the child's name exists and belongs to somebody else: it is left alone.
    #[error("{object} exists and does not belong to this service: rename or delete it")]
    Foreign {
        /// Which object.
        object: String,
    },
}

impl Error {
    /// Whether the author of the resources can mend it: the API server refused the content.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Api { source, .. } => {
                matches!(&**source, kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422))
            }
            Self::Foreign { .. } => true,
            Self::Timeout { .. } | Self::NotLeader => false,
        }
    }
}

impl Error {
    /// Whether the API server knows nothing of it.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether something else changed it meanwhile.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// The HTTP status of the API server's refusal.
    fn code(&self) -> Option<u16> {
        let Self::Api { source, .. } = self else { return None };
        if let kube::Error::Api(status) = &**source { Some(status.code) } else { None }
    }
}

/// The API server's own words, without the debug form of its answer.
fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}
