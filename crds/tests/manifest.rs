//! The offline check: every fault of a folder with its file and line, and as strict as the API server.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{fs, path::Path};

use crds::manifest::{check, load, read};
use serde::Deserialize;
use serde_json::{Value, json};

const EXAMPLE: &str = include_str!("example.yaml");
const TIER: &str =
    "apiVersion: flyweight.dev/v1alpha1\nkind: CacheTier\nmetadata: { name: hot }\nspec: { memory: {} }\n";

fn faults(files: &[(&str, &str)], service: Option<&str>) -> Vec<String> {
    let files: Vec<(String, String)> =
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    check(&files, service).settings.err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

/// The example with one text in the place of another.
fn changed(from: &str, to: &str) -> String {
    assert_eq!(EXAMPLE.matches(from).count(), 1, "{from} is there once");
    EXAMPLE.replace(from, to)
}

#[track_caller]
fn one_change(from: &str, to: &str, expected: &[&str]) {
    let line = EXAMPLE[..EXAMPLE.find(from).unwrap()].matches('\n').count() + 1;
    let expected: Vec<String> =
        expected.iter().map(|fault| fault.replace("a.yaml:@", &format!("a.yaml:{line}"))).collect();
    assert_eq!(faults(&[("a.yaml", &changed(from, to))], None), expected, "{from} -> {to}");
}

#[test]
fn the_example_passes_as_it_is_written() {
    assert_eq!(faults(&[("example.yaml", EXAMPLE)], None), Vec::<String>::new());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/example.yaml");
    assert_eq!(load(&path, Some("shop")).unwrap().pools.len(), 2);
}

#[test]
fn shapes_are_checked_as_the_api_server_does() {
    one_change(
        "  jitter: 10 ",
        "  jiter: 10 ",
        &[
            "a.yaml:@: CacheTier/hot spec.jiter: unknown field; there are: jitter, memory, negativeTtl, redis, staleIfError, staleWhileRevalidate, ttl, write",
        ],
    );
    one_change(
        "policy: S3FIFO }",
        "policy: MRU }",
        &["a.yaml:@: CacheTier/hot spec.memory.policy: \"MRU\" is not one of LRU, LFU, FIFO, S3FIFO, SIEVE"],
    );
    one_change(
        "  ttl: 60s",
        "  ttl: 60",
        &[
            "a.yaml:@: CacheTier/hot spec.ttl: must be a string, not 60: write a whole number and ms, s, m, h or d, as in 60s",
        ],
    );
    one_change(
        "  ttl: 60s",
        "  ttl: 60sec",
        &[
            "a.yaml:@: CacheTier/hot spec.ttl: \"60sec\" is not allowed: write a whole number and ms, s, m, h or d, as in 60s",
        ],
    );
    one_change(
        "  image: flyweight/dataplane:0.1.0\n",
        "",
        &["a.yaml:52: FlyweightService/shop spec.image: is required"],
    );
    one_change(
        "capacity: 1000000 ",
        "capacity: 0 ",
        &["a.yaml:@: FlyweightPool/products spec.capacity: must be at least 1"],
    );
    one_change(
        "networkPolicy: true",
        "networkPolicy: \"true\"",
        &[
            "a.yaml:@: FlyweightService/shop spec.networkPolicy: must be true or false, not the string \"true\"",
        ],
    );
    one_change(
        "metadata: { name: hot }",
        "metadata: { name: hot, lables: {} }",
        &[
            "a.yaml:@: CacheTier/hot metadata.lables: unknown field; there are: annotations, finalizers, labels, name, namespace",
        ],
    );
    one_change(
        "maxBytes: 256Mi",
        "maxBytes: -1",
        &["a.yaml:@: CacheTier/hot spec.memory.maxBytes: must be at least 0"],
    );
}

#[test]
fn numbers_need_no_quotes_and_null_is_nothing() {
    let text = changed("maxBytes: 256Mi", "maxBytes: 268435456").replace("cpu: 100m", "cpu: 1");
    assert_eq!(faults(&[("a.yaml", &text)], None), Vec::<String>::new());
    one_change("  paused: false", "  paused: null\n  replicas: ~", &[]);
}

#[test]
fn a_wrong_value_gives_one_fault() {
    one_change(
        "  entity: Product ",
        "  entity: Prodct ",
        &[
            "a.yaml:@: FlyweightPool/products spec.entity: \"Prodct\" is not one of User, Payment, Order, Product, NotificationTemplate, Configuration, Custom",
        ],
    );
    one_change(
        "memory: { maxBytes: 256Mi, policy: S3FIFO }",
        "memory: 256Mi",
        &["a.yaml:@: CacheTier/hot spec.memory: must be a mapping, not the string \"256Mi\""],
    );
    one_change(
        "{ name: opening_hours, type: Json,",
        "{ name: opening_hours, type: Jason,",
        &[
            "a.yaml:@: FlyweightPool/stores spec.fields[1].type: \"Jason\" is not one of String, Integer, Decimal, Boolean, Json, Timestamp",
        ],
    );
    one_change(
        "  tierRefs: [ { name: hot }, { name: shared } ]",
        "  tierRefs: [ hot, { name: shared } ]",
        &["a.yaml:@: FlyweightPool/products spec.tierRefs[0]: must be a mapping, not the string \"hot\""],
    );
}

#[test]
fn five_faults_in_five_places_are_five() {
    let tiers = "apiVersion: flyweight.dev/v1alpha1\nkind: CacheTier\nmetadata: { name: hot }\nspec:\n  memory: {}\n  ttl: 0s\n  jiter: 5\n";
    let pools = "apiVersion: flyweight.dev/v1alpha1\nkind: FlyweightPool\nmetadata: { name: users }\nspec:\n  entity: User\n  capacity: many\n  tierRefs:\n  - name: hott\n";
    let service = "apiVersion: flyweight.dev/v1alpha1\nkind: FlyweightService\nmetadata: { name: shop }\nspec:\n  image: x\n  poolRefs: [ { name: users } ]\n";
    let five = [
        "pools.yaml:6: FlyweightPool/users spec.capacity: must be a whole number, not the string \"many\"",
        "service.yaml:4: FlyweightPool/users spec.source: FlyweightService \"shop\" declares no mysql backend, which this pool needs: declare one, or name another store in spec.source",
        "pools.yaml:8: FlyweightPool/users spec.tierRefs[0].name: no CacheTier \"hott\"; there is: hot",
        "tiers.yaml:6: CacheTier/hot spec.ttl: must be more than 0s",
        "tiers.yaml:7: CacheTier/hot spec.jiter: unknown field",
    ];
    let used = pools.replace("- name: hott\n", "- name: hott\n  - name: hot\n");
    let found = faults(&[("pools.yaml", &used), ("service.yaml", service), ("tiers.yaml", tiers)], None);
    assert_eq!(found.len(), five.len(), "{found:#?}");
    for expected in five {
        let expected = expected.replace("service.yaml:4: FlyweightPool", "pools.yaml:4: FlyweightPool");
        assert!(found.iter().any(|fault| fault.starts_with(&expected)), "{expected}\n{found:#?}");
    }
}

#[test]
fn the_service_is_chosen_by_name() {
    let other = EXAMPLE.replace("metadata: { name: shop }", "metadata: { name: second }");
    let service = other.rsplit("---\n").next().unwrap();
    let files = [("a.yaml", EXAMPLE), ("b.yaml", service)];
    assert_eq!(faults(&files, None), ["there are several services, choose one: second, shop"]);
    assert_eq!(faults(&files, Some("second")), Vec::<String>::new());
    assert_eq!(
        faults(&files, Some("third")),
        ["no FlyweightService \"third\" in the manifests; there are: second, shop"]
    );
    assert_eq!(faults(&[("a.yaml", TIER)], None), ["there is no FlyweightService in the manifests"]);
}

#[test]
fn a_backend_that_does_not_say_how_its_password_goes_is_warned_of() {
    let text = changed(", allowPlaintext: false", "");
    let checked = check(&[("a.yaml".to_owned(), text)], None);
    let told: Vec<String> = checked.warnings.iter().map(ToString::to_string).collect();
    assert!(checked.settings.is_ok() && told.len() == 2, "{told:?}");
    let path = "FlyweightService/shop spec.backends[1].mongodb.allowPlaintext: is left out";
    assert!(told[0].contains(path) && told[0].starts_with("a.yaml:"), "{told:?}");
}

#[test]
fn an_account_in_an_address_belongs_into_a_secret() {
    let with =
        |http: &str| changed("  pipeline: { ", &format!("  pipeline: {{ payments: {{ http: {http} }}, "));
    let of = |http: &str| faults(&[("a.yaml", &with(http))], None);
    let told = of("{ url: \"https://user:hunter2@pay.example.com\" }");
    let [one] = told.as_slice() else { panic!("{told:?}") };
    assert!(
        one.contains("spec.pipeline.payments.http.url: holds an account") && !one.contains("hunter2"),
        "{one}"
    );
    for fine in ["{ url: \"https://pay.example.com/@x\" }", "{ secretRef: { name: pay } }"] {
        assert_eq!(of(fine), Vec::<String>::new(), "{fine}");
    }
    let nowhere = of("{}");
    assert!(nowhere.len() == 1 && nowhere[0].contains("spec.pipeline.payments.http.url"), "{nowhere:?}");
    let hook = changed(
        "  pipeline: { ",
        "  pipeline: { notifications: { webhookUrl: \"https://u:p@hooks.example.com\" }, ",
    );
    let told = faults(&[("a.yaml", &hook)], None);
    assert!(told.len() == 1 && told[0].contains("spec.pipeline.notifications.webhookUrl"), "{told:?}");
}

#[test]
fn a_pool_that_does_not_say_who_writes_is_warned_of_where_tokens_are_asked_for() {
    let warnings = |text: String| {
        let checked = check(&[("a.yaml".to_owned(), text)], None);
        assert!(checked.settings.is_ok(), "it works as before");
        checked.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let found = warnings(EXAMPLE.to_owned());
    let [one] = found.as_slice() else { panic!("{found:?}") };
    assert!(one.starts_with("a.yaml:40: FlyweightPool/stores spec.access.write: is left out"), "{one}");
    for (from, to) in [
        // nobody shows a token
        ("jwt: { secretRef: { name: shop-jwt } }, ", ""),
        // nobody can write
        ("key: code, version: version }", "key: code }"),
        // somebody is named
        ("  tierRefs: [ { name: hot } ]\n", "  tierRefs: [ { name: hot } ]\n  access: { write: [\"*\"] }\n"),
    ] {
        assert_eq!(warnings(changed(from, to)), Vec::<String>::new(), "{to}");
    }
}

#[test]
fn namespaces_keep_apart() {
    let elsewhere = format!("{EXAMPLE}---\n{}", TIER.replace("name: hot", "name: hot, namespace: other"));
    assert_eq!(faults(&[("a.yaml", &elsewhere)], None), Vec::<String>::new());
    let twice = format!("{EXAMPLE}---\n{TIER}");
    assert_eq!(
        faults(&[("a.yaml", &twice)], None),
        ["a.yaml:72: CacheTier/hot metadata.name: is declared twice, first in a.yaml:2",]
    );
}

#[test]
fn what_is_not_flyweights_is_noted_and_what_is_nearly_so_is_a_fault() {
    let with = |text: &str| vec![("a.yaml".to_owned(), format!("{EXAMPLE}---\n{text}"))];
    let checked = check(&with("apiVersion: v1\nkind: Namespace\nmetadata: { name: shop }\n"), None);
    assert!(checked.settings.is_ok());
    assert_eq!(checked.notes, ["a.yaml:73: v1 Namespace is not one of Flyweight's kinds: left aside"]);
    for (text, fault) in [
        (
            "apiVersion: flyweight.dev/v1alpha1\nkind: FlyweightPol\n",
            "a.yaml:73: flyweight.dev has no kind FlyweightPol; there are: CacheTier, FlyweightPool, FlyweightService",
        ),
        ("just text\n", "a.yaml:72: is not a Kubernetes resource: it has no kind"),
        (
            &TIER.replace("v1alpha1", "v1").replace("hot", "warm"),
            "a.yaml:72: CacheTier/warm apiVersion: \"flyweight.dev/v1\" is not one of flyweight.dev/v1alpha1",
        ),
        (&TIER.replace("name: hot", ""), "a.yaml:74: CacheTier/? metadata.name: is required"),
        (
            &TIER.replace("memory: {}", "memory: {}, memory: {}").replace("hot", "warm"),
            "a.yaml:75: CacheTier/warm spec.memory: is written twice in the same mapping",
        ),
        ("a: [", "a.yaml:73: cannot be read as YAML: did not find expected node content"),
    ] {
        let faults = check(&with(text), None).settings.unwrap_err();
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(faults.len(), 1, "{text}{faults:#?}");
        assert!(faults[0].starts_with(fault), "{text}{faults:#?}");
    }
}

/// As `kubectl get -o yaml` writes them, and the API server.
#[test]
fn the_resources_of_a_list_are_read_each_with_its_line() {
    let indented: String = TIER.lines().map(|line| format!("  {line}\n")).collect();
    let item = format!("- {}", indented.trim_start()).replace("name: hot", "name: warm");
    let list = |items: &str| format!("{EXAMPLE}---\napiVersion: v1\nkind: List\nitems:\n{items}");
    assert_eq!(faults(&[("a.yaml", &list(&item))], None), Vec::<String>::new());
    let wrong = item.replace("memory: {}", "memory: {}, ttl: soon");
    let found = faults(&[("a.yaml", &list(&format!("{item}{wrong}")))], None);
    assert!(found.iter().any(|fault| fault.contains("is declared twice")), "{found:?}");
    assert!(found.iter().any(|fault| fault.contains("CacheTier/warm spec.ttl")), "{found:?}");
    let bare = "apiVersion: flyweight.dev/v1alpha1\nkind: CacheTierList\nitems:\n- metadata: { name: warm }\n  spec: { memory: {}, ttl: soon }\n";
    let found = faults(&[("a.yaml", &format!("{EXAMPLE}---\n{bare}"))], None);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("CacheTier/warm spec.ttl"), "{found:?}");
    assert!(found[0].starts_with("a.yaml:76:"), "{found:?}");
}

#[test]
fn folders_are_read_in_order_and_bounded() {
    let folder = std::env::temp_dir().join(format!("flyweight-manifest-{}", std::process::id()));
    let fault = |path: &Path| read(path).unwrap_err()[0].to_string();
    fs::create_dir_all(&folder).unwrap();
    assert!(fault(&folder).ends_with("holds no .yaml, .yml or .json file"));
    assert!(fault(&folder.join("none.yaml")).contains("cannot be read"));
    for (name, text) in
        [("b.yml", "b"), ("a.yaml", "a"), ("c.json", "{}"), ("d.txt", "d"), ("secrets.yaml.example", "e")]
    {
        fs::write(folder.join(name), text).unwrap();
    }
    let texts: Vec<String> = read(&folder).unwrap().into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["a", "b", "{}"]);
    fs::write(folder.join("large.yaml"), "x".repeat((1 << 20) + 1)).unwrap();
    assert!(fault(&folder).ends_with("is larger than 1048576 bytes"));
    fs::remove_dir_all(&folder).unwrap();
}

/// Every place in a value, as steps from its top.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| places(value, &format!("{at}/{key}"), found))
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, value)| places(value, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

#[test]
fn whatever_is_wrong_the_rest_is_still_read() {
    let documents: Vec<Value> = serde_yaml_ng::Deserializer::from_str(EXAMPLE)
        .map(|document| Value::deserialize(document).unwrap())
        .collect();
    let wrong = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1.5),
        json!(""),
        json!("Wrong!"),
        json!([]),
        json!([1]),
        json!({}),
        json!({ "a": 1 }),
    ];
    let mut checked = 0;
    for (number, document) in documents.iter().enumerate() {
        let mut all = Vec::new();
        places(&document["spec"], "/spec", &mut all);
        for (place, value) in all.iter().flat_map(|place| wrong.iter().map(move |value| (place, value))) {
            let mut changed = documents.clone();
            *changed[number].pointer_mut(place).unwrap() = value.clone();
            let files: Vec<(String, String)> =
                changed.iter().map(|document| ("a".to_owned(), document.to_string())).collect();
            for fault in check(&files, None).settings.err().unwrap_or_default() {
                let unread = [
                    "invalid type",
                    "invalid value",
                    "missing field",
                    "unknown variant",
                    "data did not match",
                ];
                assert!(
                    !unread.iter().any(|text| fault.message.contains(text)),
                    "{place} = {value}: {fault}"
                );
            }
            checked += 1;
        }
    }
    assert!(checked > 1_000, "only {checked} changes were tried");
}
