//! The path of a field in a resource: `spec.tierRefs[0].name`.

use std::fmt;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// From the resource down to a field.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path(pub(super) Vec<Step>);

impl Path {
    pub(super) fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    fn then(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// Reads what `Display` writes. A key that itself has a dot in it is taken apart.
    pub(super) fn parse(text: &str) -> Self {
        let parts = text.split(['.', '[']).filter(|part| !part.is_empty());
        Self(
            parts
                .map(|part| match part.strip_suffix(']').and_then(|index| index.parse().ok()) {
                    Some(index) => Step::Index(index),
                    None => Step::Key(part.to_owned()),
                })
                .collect(),
        )
    }

    /// The other below this one.
    pub(super) fn join(&self, other: &Self) -> Self {
        Self(self.0.iter().chain(&other.0).cloned().collect())
    }

    /// What of it is below the other; none where it is elsewhere.
    pub(super) fn below(&self, base: &Self) -> Option<Self> {
        self.0.strip_prefix(base.0.as_slice()).map(|rest| Self(rest.to_vec()))
    }

    pub(super) fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if place == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
