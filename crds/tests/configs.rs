//! The samples and the production example are sound.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{collections::BTreeSet, path::Path};

use crds::{manifest::load, pool::Entity, settings::Settings};

fn loaded(path: &str) -> Settings {
    let faults = |faults: Vec<crds::fault::Fault>| faults.iter().map(ToString::to_string).collect::<Vec<_>>();
    load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(path), None).map_err(faults).unwrap()
}

#[test]
fn the_samples_serve_every_entity_to_everybody() {
    let settings = loaded("samples");
    assert_eq!(settings.service, "shop");
    let entities: BTreeSet<Entity> = settings.pools.iter().map(|pool| pool.entity).collect();
    assert_eq!(entities.len(), 7, "the six built-in entities and a declared table");
    assert_eq!(settings.security.jwt_secret, None, "so that curl works");
}

#[test]
fn the_production_example_resolves() {
    let settings = loaded("production.yaml");
    assert_eq!(settings.security.jwt_secret.as_deref(), Some("shop-jwt"));
    assert!(
        settings.groups.iter().all(|group| group.pools.len() < settings.pools.len()),
        "groups of their own"
    );
}
