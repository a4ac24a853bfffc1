//! `diff -f`: what manifests would change in the cluster, field by field, each with its change class.

mod class;

use std::collections::BTreeMap;

use crds::{
    fault::Fault,
    manifest::{check, read},
};
use kube::ResourceExt;
use serde_json::{Value, json};

use self::class::{Class, Classes};
use crate::{
    Answer,
    args::{Diff, Output},
    check,
    cluster::Cluster,
    manifests::{Manifest, parse},
    paint::Paint,
};

/// The longest value that is shown.
const SHOWN_MAX: usize = 80;

/// A field that would change.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// `FlyweightPool/products`.
    pub resource: String,
    /// `spec.backends[name=mysql].mysql.maxConnections`; empty for the resource as a whole.
    pub path: String,
    /// The value in the cluster.
    pub before: Option<Value>,
    /// The value in the manifest.
    pub after: Option<Value>,
    /// What the change does.
    pub class: Class,
}

/// Compares files with the cluster, and checks what the two would make together.
///
/// # Errors
/// A file cannot be read, or the cluster does not answer.
pub async fn run(cluster: &Cluster, args: &Diff, output: Output) -> anyhow::Result<Answer> {
    let files = match read(&args.path) {
        Ok(files) => files,
        Err(faults) => return Ok(answer(&[], &faults, output)),
    };
    let mut wanted = Vec::new();
    for (file, text) in &files {
        match parse(file, text) {
            Ok(manifests) => wanted.extend(manifests),
            // The check says more, and where.
            Err(error) => match check(&files, None).settings {
                Err(faults) => return Ok(answer(&[], &faults, output)),
                Ok(_) => return Err(error),
            },
        }
    }
    let live = live(cluster).await?;
    let changes = changes(&live, &wanted, &Classes::new()?);
    let faults = faults_together(&files, &live, &wanted);
    Ok(answer(&changes, &faults, output))
}

async fn live(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, Manifest>> {
    let services = cluster.all_services().await?;
    let (pools, tiers) = (cluster.pools().await?, cluster.tiers().await?);
    let all = (services.iter().map(|one| Manifest::new("FlyweightService", one.name_any(), &one.spec)))
        .chain(pools.iter().map(|one| Manifest::new("FlyweightPool", one.name_any(), &one.spec)))
        .chain(tiers.iter().map(|one| Manifest::new("CacheTier", one.name_any(), &one.spec)));
    Ok(all.map(|one| (one.label(), one)).collect())
}

/// What would be wrong after the files were applied: they are completed by the rest of the cluster.
fn faults_together(
    files: &[(String, String)],
    live: &BTreeMap<String, Manifest>,
    wanted: &[Manifest],
) -> Vec<Fault> {
    let mut files = files.to_vec();
    let namespace = wanted.iter().find_map(|one| one.namespace.as_deref());
    let rest = live.values().filter(|one| wanted.iter().all(|other| other.label() != one.label()));
    let rest: Vec<String> = rest.map(|one| one.document(namespace)).collect();
    if !rest.is_empty() {
        files.push(("cluster".to_owned(), rest.join("\n---\n")));
    }
    let services = live.values().chain(wanted).filter(|one| one.kind == "FlyweightService");
    let names: std::collections::BTreeSet<&str> = services.map(|one| one.name.as_str()).collect();
    let faults = names.into_iter().filter_map(|name| check(&files, Some(name)).settings.err()).flatten();
    faults.collect::<std::collections::BTreeSet<Fault>>().into_iter().collect()
}

/// Every field that differs, in the order of the files.
pub fn changes(live: &BTreeMap<String, Manifest>, wanted: &[Manifest], classes: &Classes) -> Vec<Change> {
    let mut changes = Vec::new();
    for manifest in wanted {
        let resource = manifest.label();
        let Some(before) = live.get(&resource) else {
            let after = Some(manifest.spec.clone());
            changes.push(Change { resource, path: String::new(), before: None, after, class: Class::New });
            continue;
        };
        let mut leaves = Vec::new();
        compare("spec", Some(&before.spec), Some(&manifest.spec), &mut leaves);
        changes.extend(leaves.into_iter().map(|(path, before, after)| Change {
            class: classes.of(&manifest.kind, &path),
            resource: resource.clone(),
            path,
            before,
            after,
        }));
    }
    changes
}

type Leaf = (String, Option<Value>, Option<Value>);

fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, leaves: &mut Vec<Leaf>) {
    // An empty list and none are the same.
    let empty = Value::Array(Vec::new());
    let (before, after) = match (before, after) {
        (None, Some(Value::Array(_))) => (Some(&empty), after),
        (Some(Value::Array(_)), None) => (before, Some(&empty)),
        both => both,
    };
    match (before, after) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                compare(&format!("{path}.{name}"), a.get(name), b.get(name), leaves);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) if a != b && named(a) && named(b) => {
            let find = |list: &[Value], name: &str| list.iter().find(|one| one["name"] == name).cloned();
            let names: std::collections::BTreeSet<&str> =
                a.iter().chain(b).filter_map(|one| one["name"].as_str()).collect();
            let count = leaves.len();
            for name in names {
                let (before, after) = (find(a, name), find(b, name));
                compare(&format!("{path}[name={name}]"), before.as_ref(), after.as_ref(), leaves);
            }
            // The same entries in another order: tiers are asked in order.
            if leaves.len() == count {
                leaves.push((path.to_owned(), before.cloned(), after.cloned()));
            }
        }
        (before, after) if before != after => leaves.push((path.to_owned(), before.cloned(), after.cloned())),
        _ => (),
    }
}

fn named(list: &[Value]) -> bool {
    list.iter().all(|one| one["name"].is_string())
}

fn answer(changes: &[Change], faults: &[Fault], output: Output) -> Answer {
    let text = match output {
        Output::Json => {
            let one = |change: &Change| {
                let Change { resource, path, before, after, class } = change;
                json!({ "resource": resource, "path": path, "before": before, "after": after, "class": class.name() })
            };
            let changes: Vec<Value> = changes.iter().map(one).collect();
            format!("{:#}\n", json!({ "changes": changes, "faults": check::as_json(faults) }))
        }
        Output::Text => as_text(changes, faults, Paint::new()),
    };
    Answer { text, well: faults.is_empty() }
}

fn as_text(changes: &[Change], faults: &[Fault], paint: Paint) -> String {
    let mut text: String = changes.iter().map(|change| line(change, paint)).collect();
    if !faults.is_empty() {
        text.push_str(&format!("{}:\n", paint.bad("would not run")));
        text.push_str(&check::as_text(faults, "fault", paint));
        return text;
    }
    let worst = changes.iter().map(|change| change.class).max();
    text.push_str(match worst {
        None => "no differences\n",
        Some(Class::New) => "new resources are made\n",
        Some(Class::Hot) => "pods go on running: every change acts in place\n",
        Some(Class::Rolling) => "pods are replaced, one by one\n",
        Some(Class::Fixed) => "the API server refuses this: a fixed field would change\n",
    });
    text
}

fn line(change: &Change, paint: Paint) -> String {
    let Change { resource, path, before, after, class } = change;
    let name = match class {
        Class::Hot | Class::New => paint.good(class.name()),
        Class::Rolling => paint.warm(class.name()),
        Class::Fixed => paint.bad(class.name()),
    };
    let what = match (path.is_empty(), before, after) {
        (true, ..) => String::new(),
        (_, before, after) => format!(" {path}: {} -> {}", shown(before.as_ref()), shown(after.as_ref())),
    };
    format!("{name:<8} {}{what}\n", paint.bold(resource))
}

fn shown(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "(left out)".to_owned(), Value::to_string);
    if text.chars().count() <= SHOWN_MAX {
        text
    } else {
        text.chars().take(SHOWN_MAX).chain(['…']).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Manifest {
        let mut full = json!({ "image": "i", "poolRefs": [{ "name": "users" }] });
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let document = json!({ "apiVersion": "flyweight.dev/v1alpha1", "kind": "FlyweightService",
            "metadata": { "name": "shop" }, "spec": full });
        parse("a", &document.to_string()).unwrap().remove(0)
    }

    fn between(before: Value, after: Value) -> Vec<(String, &'static str)> {
        let live = [("FlyweightService/shop".to_owned(), service(before))].into();
        let changes = changes(&live, &[service(after)], &Classes::new().unwrap());
        changes.into_iter().map(|change| (change.path, change.class.name())).collect()
    }

    #[test]
    fn fields_have_their_class() {
        let group = |replicas: u32, cpu: &str| json!({ "replicaGroups": [{ "name": "main", "replicas": replicas, "resources": { "requests": { "cpu": cpu } } }] });
        assert_eq!(
            between(group(2, "1"), group(3, "2")),
            [
                ("spec.replicaGroups[name=main].replicas".to_owned(), "hot"),
                ("spec.replicaGroups[name=main].resources.requests.cpu".to_owned(), "rolling"),
            ]
        );
        assert_eq!(between(json!({}), json!({ "paused": true })), [("spec.paused".to_owned(), "hot")]);
        assert_eq!(between(json!({}), json!({ "image": "j" })), [("spec.image".to_owned(), "rolling")]);
        assert!(
            between(json!({}), json!({ "pipeline": { "retry": { "initialDelay": "100ms" } } })).is_empty()
        );
    }

    #[test]
    fn a_new_resource_is_new_and_a_new_entry_has_the_class_of_its_list() {
        let changes = changes(&BTreeMap::new(), &[service(json!({}))], &Classes::new().unwrap());
        assert_eq!((changes.len(), changes[0].class), (1, Class::New));
        let backend = json!({ "backends": [{ "name": "m", "redis": { "secretRef": { "name": "s" } } }] });
        assert_eq!(between(json!({}), backend), [("spec.backends[name=m]".to_owned(), "rolling")]);
    }

    #[test]
    fn files_are_completed_by_the_cluster() {
        let live: BTreeMap<String, Manifest> =
            [service(json!({ "backends": [{ "name": "m", "mysql": { "secretRef": { "name": "s" } } }] }))]
                .map(|one| (one.label(), one))
                .into();
        let pool = |tier: &str| {
            let text = format!(
                "apiVersion: flyweight.dev/v1alpha1\nkind: FlyweightPool\nmetadata:\n  name: users\nspec:\n  entity: User\n{tier}"
            );
            (vec![("pool.yaml".to_owned(), text.clone())], parse("pool.yaml", &text).unwrap())
        };
        let (files, wanted) = pool("");
        assert_eq!(faults_together(&files, &live, &wanted), []);
        let (files, wanted) = pool("  tierRefs:\n    - name: nowhere\n");
        let faults = faults_together(&files, &live, &wanted);
        assert_eq!(faults[0].place.as_deref(), Some("pool.yaml:8"), "{faults:?}");
    }

    #[test]
    fn the_last_line_says_what_happens_to_pods() {
        let change = |class| Change {
            resource: "FlyweightService/shop".to_owned(),
            path: "spec.image".to_owned(),
            before: Some(json!("a")),
            after: Some(json!("b")),
            class,
        };
        let text = as_text(&[change(Class::Hot), change(Class::Rolling)], &[], Paint::plain());
        assert!(
            text.starts_with("hot      FlyweightService/shop spec.image: \"a\" -> \"b\"\nrolling "),
            "{text}"
        );
        assert!(text.ends_with("pods are replaced, one by one\n"), "{text}");
        assert_eq!(as_text(&[], &[], Paint::plain()), "no differences\n");
    }
}
