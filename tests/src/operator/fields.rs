//! Every field of every kind: changed, seen where it acts, changed back, seen again. The fields come from the
//! schemas, so that a new one must be thought of here.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::future::join_all;
use serde_json::Value;

use super::{Proof, api::folder, certificates, scenario::Stage};
use crate::wait;

mod changes;
mod leaves;
mod sample;
mod shown;

use changes::Change;
use shown::{Shown, World};

/// What the project promises of every status.
const SEEN_WITHIN: Duration = Duration::from_secs(30);
/// How many shops are changed at once.
const AT_ONCE: usize = 4;
const KINDS: [&str; 3] = ["cachetiers", "flyweightpools", "flyweightservices"];

/// Makes every change in turn.
pub async fn run(proof: &Proof) {
    proof.step("Every field of every kind: changed, seen, changed back, seen");
    certificates::define(&proof.api).await;
    let changes = changes::all();
    let counts = counted(&changes);
    let shops = (0..AT_ONCE).map(|first| one_shop(proof, changes.iter().skip(first).step_by(AT_ONCE)));
    join_all(shops).await;
    for (plural, count) in counts {
        proof.holds(&format!("{plural}: {count}"));
    }
    let tried = |is: fn(&Shown) -> bool| changes.iter().filter(|change| is(&change.shown)).count();
    let (held, refused) =
        (tried(|it| matches!(it, Shown::Held(..))), tried(|it| matches!(it, Shown::Refused(_))));
    proof.holds(&format!(
        "of values that cannot be, {held} were held back with the field's path, {refused} refused"
    ));
}

/// How many fields of each kind are seen. No field is left out, and none is made up.
fn counted(changes: &[Change]) -> BTreeMap<&'static str, String> {
    let count = |plural: &'static str| {
        let schema = leaves::schema(plural);
        let all = leaves::leaves(&schema);
        let of = |is: fn(&Shown) -> bool| -> BTreeSet<String> {
            let own = changes.iter().filter(|change| change.plural() == plural && is(&change.shown));
            own.map(|change| leaves::field(&schema, &change.place)).collect()
        };
        let seen = of(|shown| matches!(shown, Shown::Settings(..) | Shown::Child(..) | Shown::Condition(..)));
        let refused: BTreeSet<String> =
            of(|shown| matches!(shown, Shown::Refused(_))).difference(&seen).cloned().collect();
        let unknown: Vec<&String> = seen.difference(&all).collect();
        assert!(unknown.is_empty(), "{plural}: the schema does not have {unknown:?}");
        let missing: Vec<&String> =
            all.iter().filter(|field| !seen.contains(*field) && !refused.contains(*field)).collect();
        assert!(
            missing.is_empty(),
            "{plural}: new fields? Say in fields/changes.rs how they are seen: {missing:?}"
        );
        format!("of {} fields {} seen, {} fixed and refused", all.len(), seen.len(), refused.len())
    };
    KINDS.into_iter().map(|plural| (plural, count(plural))).collect()
}

/// Makes these changes, one after the other, in a shop of their own.
async fn one_shop(proof: &Proof, changes: impl Iterator<Item = &Change>) {
    let stage = Stage::new(proof, "fields").await;
    let specs: BTreeMap<String, Value> = sample::make(&stage).await.into_iter().collect();
    stage.quiet().await;
    let calm = World::of(&stage).await;
    for change in changes {
        let spec =
            specs.get(change.resource).unwrap_or_else(|| panic!("the sample has no {}", change.resource));
        try_out(&stage, change, spec, &calm).await;
    }
    stage.end().await;
}

async fn try_out(stage: &Stage, change: &Change, spec: &Value, calm: &World) {
    let Change { resource, place, value, shown } = change;
    let before = leaves::at(spec, place).cloned().unwrap_or_default();
    let what = format!("{resource} {place}: {before} -> {value}");
    assert!(before != *value && !calm.shows(shown, calm), "{what}: is so already");
    let (plural, name) = resource.split_once('/').unwrap_or_default();
    let path = format!("{}/{name}", folder(&stage.namespace, plural));
    let taken = stage.proof.api.replace_spec(&path, &leaves::with(spec, place, value)).await;
    match (shown, taken) {
        (Shown::Refused(why), Err(refusal)) => {
            assert!(refusal.contains(why), "{what}: refused, but not because \"{why}\": {refusal}");
            return;
        }
        (Shown::Refused(_), Ok(())) => panic!("{what}: was taken"),
        (_, Err(refusal)) => panic!("{what}: {refusal}"),
        (_, Ok(())) => {}
    }
    let seen = wait::until(&format!("{what} to be seen"), SEEN_WITHIN, async || {
        Some(World::of(stage).await).filter(|world| world.shows(shown, calm))
    })
    .await;
    assert!(!matches!(shown, Shown::Held(..)) || seen.children == calm.children, "{what}: changed a child");
    if let Err(refusal) = stage.proof.api.replace_spec(&path, spec).await {
        panic!("{what}: back: {refusal}");
    }
    wait::until(&format!("{what} to be undone"), SEEN_WITHIN, async || {
        let world = World::of(stage).await;
        (world.is_like(calm) && !world.shows(shown, calm)).then_some(())
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_change() {
        let counts = counted(&changes::all());
        assert_eq!(counts.len(), KINDS.len(), "{counts:?}");
    }
}
