//! What is wrong with resources.

use std::fmt;

/// One thing that is wrong with the resources, caused and mendable by their author.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The resource: `FlyweightPool/products`. Empty where a file does not even hold a resource.
    pub resource: String,
    /// The path of the field: `spec.tierRefs[0].name`. Empty where the fault is the resource as a whole.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
    /// The file and line, where the resource was read from a file: `pools.yaml:14`.
    pub place: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, path, message, place } = self;
        if let Some(place) = place {
            write!(f, "{place}: ")?;
        }
        match (resource.is_empty(), path.is_empty()) {
            (true, _) => write!(f, "{message}"),
            (false, true) => write!(f, "{resource}: {message}"),
            (false, false) => write!(f, "{resource} {path}: {message}"),
        }
    }
}
