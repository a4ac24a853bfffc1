//! Which pods are asked for a request: what the table of routes says, for the pools that the groups of pods
//! serve.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use crds::{
    pool::Entity,
    settings::{PoolSettings, Settings},
};
use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;

use super::registry::{Registry, Upstream};
use model::routes::{Found, Owner, join::Rule};

/// Pods that can answer a request, any of them as well as the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Those that serve a pool, by its name.
    Pool(String),
    /// Those of a group.
    Group(String),
    /// Those that serve all pools, or any where the service has shared its pools out.
    Any,
}

/// Who answers a request.
#[derive(Clone, Debug)]
pub enum Targets {
    /// One pod.
    One(Target),
    /// A pod of each of these groups, whose answers are joined.
    Every(Vec<Target>, &'static Rule),
    /// A pod of one of these groups: one after another is asked until one can.
    InTurn(Vec<Target>),
}

/// Who answers a request, by its row of the table, its query, and its body where that is small.
pub fn targets(
    registry: &Registry,
    settings: &Settings,
    found: &Found,
    query: Option<&str>,
    body: &[u8],
) -> Targets {
    let mut owner = &found.owner;
    loop {
        let pool = match owner {
            Owner::Home | Owner::Any | Owner::Gateway => return Targets::One(Target::Any),
            Owner::Every(rule) => {
                return match shares(registry, settings) {
                    Some(groups) => Targets::Every(groups, rule),
                    None => Targets::One(Target::Any),
                };
            }
            Owner::InTurn => {
                return match shares(registry, settings) {
                    Some(groups) => Targets::InTurn(groups),
                    None => Targets::One(Target::Any),
                };
            }
            Owner::Entity(entity) => settings.pools.iter().find(|pool| pool.entity == *entity),
            Owner::Declared => {
                let named = |pool: &&PoolSettings| found.pool.as_deref() == Some(pool.name.as_str());
                settings.pools.iter().filter(|pool| pool.entity == Entity::Custom).find(named)
            }
            Owner::Query(name, _) => in_query(query, name).and_then(|pool| named(settings, &pool)),
            Owner::Body(name, _) => in_body(body, name).and_then(|pool| named(settings, &pool)),
        };
        match (pool, owner) {
            (Some(pool), _) => return Targets::One(Target::Pool(pool.name.clone())),
            (None, Owner::Query(_, next) | Owner::Body(_, next)) => owner = next,
            // there is no such pool: for a pod to say
            (None, _) => return Targets::One(Target::Any),
        }
    }
}

/// The healthy pods of a target, or else the suspect ones.
pub fn candidates(registry: &Registry, settings: &Settings, target: &Target) -> Vec<Arc<Upstream>> {
    let all = registry.all();
    let those = |serves: &dyn Fn(&Upstream) -> bool| {
        let fit = |fit: fn(&Upstream) -> bool| -> Vec<Arc<Upstream>> {
            all.iter().filter(|upstream| fit(upstream) && serves(upstream)).cloned().collect()
        };
        let healthy = fit(Upstream::is_healthy);
        if healthy.is_empty() { fit(Upstream::is_suspect) } else { healthy }
    };
    match target {
        Target::Pool(pool) => return those(&|upstream| upstream.serves(pool, settings)),
        Target::Group(group) => return those(&|upstream| upstream.group == *group),
        Target::Any => (),
    }
    let whole = those(&|upstream| settings.pools.iter().all(|pool| upstream.serves(&pool.name, settings)));
    let mut wholes =
        settings.groups.iter().filter(|group| group.pools.len() == settings.pools.len()).peekable();
    if !whole.is_empty() || settings.groups.is_empty() {
        return whole;
    }
    match wholes.peek() {
        // until its pods are those of these settings, the former ones serve all that there was
        Some(_) => those(&|upstream| wholes.clone().any(|group| group.name == upstream.group)),
        None => those(&|_| true),
    }
}

/// The fewest groups, taken by their sizes, that serve all pools between them; none where one group serves
/// them all. What pods say comes before the settings.
fn shares(registry: &Registry, settings: &Settings) -> Option<Vec<Target>> {
    let all = registry.all();
    let mut groups: Vec<&str> = settings.groups.iter().map(|group| group.name.as_str()).collect();
    groups.extend(all.iter().map(|upstream| upstream.group.as_str()));
    let serves = |group: &str, pool: &str| {
        let mut pods = all.iter().filter(|upstream| upstream.group == group).peekable();
        match pods.peek() {
            Some(_) => pods.any(|upstream| upstream.serves(pool, settings)),
            None => {
                settings.groups.iter().any(|one| one.name == group && one.pools.iter().any(|own| own == pool))
            }
        }
    };
    let mut open: Vec<&str> = settings.pools.iter().map(|pool| pool.name.as_str()).collect();
    let mut chosen = Vec::new();
    while !open.is_empty() {
        let count = |group: &str| open.iter().filter(|pool| serves(group, pool)).count();
        // of groups of one size the first
        let Some(best) =
            groups.iter().rev().max_by_key(|group| count(group)).filter(|group| count(group) > 0)
        else {
            // nobody serves the rest
            break;
        };
        let best = *best;
        open.retain(|pool| !serves(best, pool));
        chosen.push(Target::Group(best.to_owned()));
    }
    (chosen.len() > 1).then_some(chosen)
}

/// The pool with this name, or whose entity has it.
fn named<'a>(settings: &'a Settings, name: &str) -> Option<&'a PoolSettings> {
    let entity = |pool: &PoolSettings| crds::schema::of_pool(pool).entity;
    settings.pools.iter().find(|pool| pool.name == name || entity(pool) == name)
}

fn in_query<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(known, _)| *known == name)
        .find_map(|(_, value)| percent_decode_str(value).decode_utf8().ok())
}

fn in_body(body: &[u8], name: &str) -> Option<String> {
    let members: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(body).ok()?;
    serde_json::from_str(members.get(name)?.get()).ok()
}
