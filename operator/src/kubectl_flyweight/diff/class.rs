//! The change class of a field: the last word of its description in the definition, or of the nearest field
//! around it that says one.

use std::collections::BTreeMap;

use crds::definitions::definitions;
use serde_json::Value;

/// What a change does, from the mildest to the gravest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A new resource.
    New,
    /// Acts in running pods.
    Hot,
    /// Replaces pods.
    Rolling,
    /// Is refused.
    Fixed,
}

impl Class {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Hot => "hot",
            Self::Rolling => "rolling",
            Self::Fixed => "fixed",
        }
    }

    /// From a field's description, which ends in its class.
    fn of_text(text: &str) -> Option<Self> {
        let words = [("Hot", Self::Hot), ("Rolling", Self::Rolling), ("Fixed", Self::Fixed)];
        words
            .into_iter()
            .filter_map(|(word, class)| Some((text.rfind(&format!(". {word}"))?, class)))
            .max()
            .map(|(_, c)| c)
    }
}

/// The schemas of the kinds' specs.
pub struct Classes(BTreeMap<String, Value>);

impl Classes {
    /// From the definitions that this program was built with.
    ///
    /// # Errors
    /// When a definition cannot be written as JSON, which the tests rule out.
    pub fn new() -> anyhow::Result<Self> {
        let of = |object: Value| {
            let schema = "/spec/versions/0/schema/openAPIV3Schema/properties";
            let kind =
                object.pointer("/spec/names/kind").and_then(Value::as_str).unwrap_or_default().to_owned();
            (kind, object.pointer(schema).cloned().unwrap_or_default())
        };
        Ok(Self(definitions()?.into_iter().map(|definition| of(definition.object)).collect()))
    }

    /// The class of `spec.backends[name=mysql].mysql.maxConnections` of a kind. What nobody describes
    /// replaces pods: the safe guess.
    pub fn of(&self, kind: &str, path: &str) -> Class {
        let Some(mut fields) = self.0.get(kind) else { return Class::Rolling };
        let mut class = None;
        for step in path.split('.') {
            let name = step.split('[').next().unwrap_or(step);
            let Some(field) = fields.get(name) else { break };
            class = field["description"].as_str().and_then(Class::of_text).or(class);
            let below = if field["items"].is_object() { &field["items"] } else { field };
            fields = &below["properties"];
        }
        class.unwrap_or(Class::Rolling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_is_the_last_that_a_description_names() {
        assert_eq!(Class::of_text("Stops things. Hot."), Some(Class::Hot));
        assert_eq!(Class::of_text("Who may call. Hot, but for the Secrets."), Some(Class::Hot));
        assert_eq!(Class::of_text("A name. Fixed (another name is another group)."), Some(Class::Fixed));
        assert_eq!(Class::of_text("Rolling stones gather no moss."), None);
    }

    #[test]
    fn what_says_nothing_has_the_class_of_what_is_around_it() {
        let classes = Classes::new().unwrap();
        for (kind, path, class) in [
            ("FlyweightService", "spec.security.cors.allowOrigins", Class::Hot),
            ("FlyweightService", "spec.security.jwt.secretRef.name", Class::Rolling),
            ("FlyweightService", "spec.backends[name=a].name", Class::Rolling),
            ("FlyweightPool", "spec.entity", Class::Fixed),
            ("FlyweightPool", "spec.tierRefs", Class::Rolling),
            ("CacheTier", "spec.ttl", Class::Hot),
            ("CacheTier", "spec.memory.maxBytes", Class::Hot),
            ("CacheTier", "spec.memory.policy", Class::Rolling),
        ] {
            assert_eq!(classes.of(kind, path), class, "{kind} {path}");
        }
    }
}
