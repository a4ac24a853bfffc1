//! Resources of Flyweight as plain values: from files and from the cluster, both in the form that the types
//! give them.

use anyhow::{Context, bail};
use crds::{GROUP, VERSION, pool::PoolSpec, service::ServiceSpec, tier::TierSpec};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// One resource: its kind, its name, and its spec with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// `FlyweightPool`.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`, where the file says one.
    pub namespace: Option<String>,
    /// The spec.
    pub spec: Value,
}

impl Manifest {
    /// From a spec that is already typed.
    pub fn new(kind: &str, name: String, spec: &impl Serialize) -> Self {
        Self {
            kind: kind.to_owned(),
            name,
            namespace: None,
            spec: serde_json::to_value(spec).unwrap_or_default(),
        }
    }

    /// `FlyweightPool/products`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }

    /// As a document of a manifest.
    pub fn document(&self, namespace: Option<&str>) -> String {
        let mut metadata = json!({ "name": self.name });
        if let Some(namespace) = namespace {
            metadata["namespace"] = namespace.into();
        }
        json!({ "apiVersion": format!("{GROUP}/{VERSION}"), "kind": self.kind, "metadata": metadata, "spec": self.spec })
            .to_string()
    }
}

/// The resources of Flyweight in a file; others are left aside.
///
/// # Errors
/// What cannot be read as YAML or as the kind that it says it is.
pub fn parse(file: &str, text: &str) -> anyhow::Result<Vec<Manifest>> {
    let mut found = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let value = Value::deserialize(document).with_context(|| file.to_owned())?;
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        if !text("/apiVersion").unwrap_or_default().starts_with(&format!("{GROUP}/")) {
            continue;
        }
        let (kind, name) = (text("/kind").unwrap_or_default(), text("/metadata/name").unwrap_or_default());
        let spec = value["spec"].clone();
        let spec = match kind.as_str() {
            "FlyweightService" => normal::<ServiceSpec>(spec),
            "FlyweightPool" => normal::<PoolSpec>(spec),
            "CacheTier" => normal::<TierSpec>(spec),
            other => bail!("{file}: {GROUP} has no kind {other}"),
        };
        let spec = spec.with_context(|| format!("{file}: {kind}/{name}"))?;
        found.push(Manifest { kind, name, namespace: text("/metadata/namespace"), spec });
    }
    Ok(found)
}

/// Read and written again: every default is there, and each value has one form.
fn normal<S: DeserializeOwned + Serialize>(spec: Value) -> serde_json::Result<Value> {
    serde_json::to_value(serde_json::from_value::<S>(spec)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_filled_in_and_other_kinds_left_aside() {
        let text = "apiVersion: v1\nkind: Secret\nmetadata: { name: a }\n---\n\
                    apiVersion: flyweight.dev/v1alpha1\nkind: CacheTier\nmetadata: { name: hot }\nspec: { memory: {}, ttl: 120s }\n";
        let found = parse("a.yaml", text).unwrap();
        assert_eq!((found.len(), found[0].label().as_str()), (1, "CacheTier/hot"));
        assert_eq!((&found[0].spec["ttl"], &found[0].spec["jitter"]), (&json!("2m"), &json!(10)));
        assert!(parse("a.yaml", &text.replace("CacheTier", "CacheTear")).is_err());
    }
}
