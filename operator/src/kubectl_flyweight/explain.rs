//! `explain POOL`: what a pool shares, what that saves, and why.

use anyhow::Context;
use crds::{
    pool::{FlyweightPool, Role},
    status::PoolStatus,
};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::{args::Output, cluster::Cluster, paint::Paint};

/// Explains one pool.
///
/// # Errors
/// There is no such pool.
pub async fn run(cluster: &Cluster, name: &str, output: Output) -> anyhow::Result<String> {
    let pools = cluster.pools().await?;
    let names: Vec<String> = pools.iter().map(ResourceExt::name_any).collect();
    let pool = pools.iter().find(|pool| pool.name_any() == name).with_context(|| {
        format!(
            "no FlyweightPool \"{name}\" in namespace {}; there are: {}",
            cluster.namespace,
            names.join(", ")
        )
    })?;
    let services = cluster.all_services().await?;
    let users: Vec<String> = services
        .iter()
        .filter(|service| service.spec.pool_refs.iter().any(|one| one.name == name))
        .map(ResourceExt::name_any)
        .collect();
    Ok(match output {
        Output::Json => format!("{:#}\n", as_json(pool, &users)),
        Output::Text => as_text(pool, &users, Paint::new()),
    })
}

/// What sharing does for the pool, in one sentence.
fn verdict(status: &PoolStatus) -> String {
    let (Some(entities), Some(distinct), Some(saved)) =
        (status.entities, status.distinct, &status.bytes_saved)
    else {
        return "nothing is known yet: no pod has said what it holds".to_owned();
    };
    match (entities, distinct) {
        (0, _) => "nothing is in memory yet: read some records first".to_owned(),
        (_, 0) => "nothing is shared: no field is Intrinsic, and none was found worth sharing".to_owned(),
        (entities, distinct) if distinct >= entities => {
            "nearly every record has its own state: sharing finds no equals, and turns itself off where it does not pay"
                .to_owned()
        }
        (entities, distinct) => {
            #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
            let each = entities as f64 / distinct as f64;
            format!("{entities} records share {distinct} states, {each:.1} records to a state: that saves {saved}")
        }
    }
}

fn as_json(pool: &FlyweightPool, services: &[String]) -> Value {
    let status = pool.status.clone().unwrap_or_default();
    json!({
        "pool": pool.name_any(),
        "entity": pool.spec.entity,
        "services": services,
        "fields": pool.spec.fields,
        "tiers": pool.spec.tier_refs.iter().map(|tier| &tier.name).collect::<Vec<_>>(),
        "verdict": verdict(&status),
        "status": status,
    })
}

fn as_text(pool: &FlyweightPool, services: &[String], paint: Paint) -> String {
    let status = pool.status.clone().unwrap_or_default();
    let by_role = |role: Role| {
        let fields = pool.spec.fields.iter().filter(|field| field.role == role && !field.encrypt);
        fields.map(|field| field.name.as_str()).collect::<Vec<_>>()
    };
    let encrypted: Vec<&str> =
        pool.spec.fields.iter().filter(|field| field.encrypt).map(|field| field.name.as_str()).collect();
    let mut text = format!("{} serves {:?}", paint.bold(&pool.name_any()), pool.spec.entity);
    text.push_str(&match services {
        [] => format!("; {}\n", paint.bad("no service serves it")),
        services => format!(" in {}\n", services.join(", ")),
    });
    for (fields, why) in [
        (by_role(Role::Intrinsic), "shared: equal values are stored once"),
        (by_role(Role::Extrinsic), "not shared: every record has its own"),
        (encrypted, "encrypted in the store, and so never shared"),
        (by_role(Role::Auto), "measured, and shared where that saves memory"),
    ] {
        if !fields.is_empty() {
            text.push_str(&format!("  {}: {why}\n", fields.join(", ")));
        }
    }
    text.push_str("  every other field: measured, and shared where that saves memory\n");
    text.push_str(&format!("{}\n", paint.good(&verdict(&status))));
    if let (Some(bytes), Some(saved)) = (&status.bytes, &status.bytes_saved) {
        text.push_str(&format!("  in memory {bytes}; without sharing it would be {bytes} + {saved}\n"));
    }
    for tier in &status.tiers {
        let ratio = tier.hit_ratio.as_deref().unwrap_or("no reads yet");
        text.push_str(&format!("  tier {} answers {ratio} of the reads that reach it\n", tier.name));
    }
    if pool.spec.tier_refs.is_empty() {
        text.push_str("  it has no tiers: every read goes to the store\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> FlyweightPool {
        serde_json::from_value(json!({
            "apiVersion": "flyweight.dev/v1alpha1", "kind": "FlyweightPool", "metadata": { "name": "products" },
            "spec": { "entity": "Product", "fields": [
                { "name": "description", "role": "Intrinsic" },
                { "name": "price", "role": "Extrinsic" },
                { "name": "phone", "encrypt": true },
            ] },
            "status": { "entities": 1000, "distinct": 10, "bytes": "1Mi", "bytesSaved": "3Mi",
                "tiers": [{ "name": "hot", "hitRatio": "98.5%" }] },
        }))
        .unwrap()
    }

    #[test]
    fn the_reasons_and_the_saving_are_said() {
        let text = as_text(&pool(), &["shop".to_owned()], Paint::plain());
        for part in [
            "products serves Product in shop\n",
            "description: shared",
            "price: not shared",
            "phone: encrypted",
            "1000 records share 10 states, 100.0 records to a state: that saves 3Mi",
            "tier hot answers 98.5%",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn sharing_that_does_not_pay_is_said() {
        let says = |entities, distinct| {
            let (entities, distinct, bytes_saved) = (Some(entities), Some(distinct), Some("0".to_owned()));
            verdict(&PoolStatus { entities, distinct, bytes_saved, ..PoolStatus::default() })
        };
        assert!(says(0, 0).starts_with("nothing is in memory"));
        assert!(says(5, 0).starts_with("nothing is shared"));
        assert!(says(5, 5).starts_with("nearly every record"));
        assert_eq!(as_json(&pool(), &[])["status"]["distinct"], 10);
    }
    #[test]
    fn what_nobody_has_measured_is_not_said_to_be_nothing() {
        let silent = FlyweightPool { status: None, ..pool() };
        let text = as_text(&silent, &["shop".to_owned()], Paint::plain());
        assert!(text.contains("nothing is known yet") && !text.contains("in memory"), "{text}");
    }
}
