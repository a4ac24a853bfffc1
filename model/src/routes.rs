//! The one table of routes: for each its method and path, whose pods answer it, and what it changes.
//!
//! The router mounts the paths that are named here, the gateway goes by the owners and effects, the direct
//! path and the names of records go by the fixed words, and a test holds the router and the OpenAPI document
//! against all of it.

use std::sync::LazyLock;

use http::Method;
use matchit::Router;

use crate::{entities::Entity, entity::List};

pub mod join;
mod table;

use join::Rule;
pub use table::*;

/// What every path of the API starts with.
pub const BASE: &str = "/api/v1";

/// The names that no record has in a path, whatever the collection: RFC 3986 gives them another meaning, or
/// there is nothing.
const NO_NAMES: [&str; 3] = ["", ".", ".."];

/// Words that may become routes of collections: no path of a record has them.
const RESERVED: [&str; 3] = ["import", "export", "history"];

/// One row of the table.
#[derive(Debug)]
pub struct Route {
    /// The method. HEAD goes with GET.
    pub method: Method,
    /// The path with `{parameters}`: below a collection's where [`Self::owner`] is [`Owner::Home`], else
    /// whole.
    pub path: &'static str,
    /// Whose pods answer.
    pub owner: Owner,
    /// What it changes.
    pub effect: Effect,
}

/// Whose pods answer a request. Groups of pods may serve different pools.
#[derive(Clone, Copy, Debug)]
pub enum Owner {
    /// Those that serve the collection that the path is below.
    Home,
    /// Those that serve this entity.
    Entity(Entity),
    /// Those that serve the pool that the path names as `{pool}`.
    Declared,
    /// Those that serve the pool that this parameter of the query names; without one, whoever comes next.
    Query(&'static str, &'static Owner),
    /// Those that serve the pool that this member of the body names; without one, whoever comes next.
    Body(&'static str, &'static Owner),
    /// Each group for its own pools. The answers are joined.
    Every(&'static Rule),
    /// One group after another, until one can.
    InTurn,
    /// Any.
    Any,
    /// The gateway itself.
    Gateway,
}

/// What a request changes, and so whether it can be sent again when its answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it can be sent again, and to several pods at once.
    Reads,
    /// What memory holds, and no record: it can be sent again.
    Caches,
    /// Records. An `Idempotency-Key` makes a repeat harmless.
    WritesByKey,
    /// Records. A repeat can have another effect.
    Writes,
}

/// A row for one path of the API.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The row.
    pub route: &'static Route,
    /// The entity whose collection the path is below; none where it is below none.
    pub home: Option<Entity>,
}

/// What the table says of a request.
#[derive(Debug)]
pub struct Found {
    /// Whose pods answer.
    pub owner: Owner,
    /// What it changes.
    pub effect: Effect,
    /// Whether its path names one record, or with `?id=` its collection.
    pub of_record: bool,
    /// The declared pool that the path names.
    pub pool: Option<String>,
}

impl Entry {
    /// The whole path with its `{parameters}`.
    pub fn path(&self) -> String {
        match (self.route.owner, self.home) {
            (Owner::Home, Some(entity)) => format!("{}{}", home_of(entity), self.route.path),
            _ => self.route.path.to_owned(),
        }
    }

    fn owner(&self) -> Owner {
        match (self.route.owner, self.home) {
            (Owner::Home, Some(Entity::Custom)) => Owner::Declared,
            (Owner::Home, Some(entity)) => Owner::Entity(entity),
            (owner, _) => owner,
        }
    }
}

impl Effect {
    /// Whether a request that may have been carried out can be sent again.
    pub fn may_repeat(self, has_key: bool) -> bool {
        match self {
            Self::Reads | Self::Caches => true,
            Self::WritesByKey => has_key,
            Self::Writes => false,
        }
    }
}

/// The path of an entity's collection.
pub fn home_of(entity: Entity) -> &'static str {
    entity.definition().path
}

/// Every path of the API with each of its methods.
pub fn all() -> impl Iterator<Item = Entry> {
    TABLE.iter().copied().chain(LISTS.iter()).flat_map(|route| {
        let homes: Vec<Option<Entity>> = match route.owner {
            Owner::Home => Entity::ALL.iter().copied().map(Some).collect(),
            Owner::Entity(entity) => vec![Some(entity)],
            _ => vec![None],
        };
        homes.into_iter().map(move |home| Entry { route, home })
    })
}

/// What the table says of a request. A path that it does not have is for a pod to refuse: one of those that
/// serve the collection that it is below.
pub fn find(method: &Method, path: &str) -> Found {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    let (matched, pool) = match PATHS.at(path) {
        Ok(found) => (Some(found.value), found.params.get("pool").map(str::to_owned)),
        Err(_) => (None, None),
    };
    if let Some(entry) =
        matched.and_then(|entries| entries.iter().find(|entry| entry.route.method == *method))
    {
        let of_record = matches!(entry.route.owner, Owner::Home) && matches!(entry.route.path, "" | "/{key}");
        return Found { owner: entry.owner(), effect: entry.route.effect, of_record, pool };
    }
    let effect = if method.is_safe() { Effect::Reads } else { Effect::Writes };
    let owner = match matched.and_then(|entries| entries.first()).map(Entry::owner) {
        Some(owner @ (Owner::Entity(_) | Owner::Declared)) => owner,
        Some(_) => Owner::Any,
        None => by_home(path),
    };
    Found { owner, effect, of_record: false, pool: pool.or_else(|| declared(path)) }
}

/// The words that are routes in the place of a record's key, below this collection.
pub fn fixed_words(home: &str) -> Vec<&'static str> {
    let below = |entry: Entry| {
        let path = entry.route.path;
        let rest = match entry.route.owner {
            Owner::Home => path,
            _ => path.strip_prefix(home)?,
        };
        let word = rest.strip_prefix('/')?.split('/').next()?;
        (!word.starts_with('{')).then_some(word)
    };
    let mut words: Vec<&str> = all().filter_map(below).chain(NO_NAMES).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// Whether a path with this word in the place of a key leads elsewhere, below some collection.
pub fn is_fixed_word(word: &str) -> bool {
    static WORDS: LazyLock<Vec<&str>> = LazyLock::new(|| {
        Entity::ALL.iter().flat_map(|entity| fixed_words(home_of(*entity))).chain(RESERVED).collect()
    });
    WORDS.contains(&word)
}

/// The lists of single entities.
static LISTS: LazyLock<Vec<Route>> = LazyLock::new(|| {
    let of = |entity: &Entity| {
        let owner = Owner::Entity(*entity);
        let route =
            move |list: &List| Route { method: Method::GET, path: list.path, owner, effect: Effect::Reads };
        entity.definition().lists.iter().map(route)
    };
    Entity::ALL.iter().flat_map(of).collect()
});

/// The entries of each path.
static PATHS: LazyLock<Router<Vec<Entry>>> = LazyLock::new(|| {
    let mut by_path: Vec<(String, Vec<Entry>)> = Vec::new();
    for entry in all() {
        let path = entry.path();
        match by_path.iter_mut().find(|(known, _)| *known == path) {
            Some((_, entries)) => entries.push(entry),
            None => by_path.push((path, vec![entry])),
        }
    }
    let mut router = Router::new();
    for (path, entries) in by_path {
        let placed = router.insert(path, entries);
        debug_assert!(placed.is_ok(), "two paths of the table collide: {placed:?}");
    }
    router
});

fn by_home(path: &str) -> Owner {
    let below =
        |home: &str| path.strip_prefix(home).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let home =
        Entity::ALL.iter().find(|entity| below(home_of(**entity))).map(|entity| Owner::Entity(*entity));
    home.unwrap_or(if declared(path).is_some() { Owner::Declared } else { Owner::Any })
}

fn declared(path: &str) -> Option<String> {
    let rest = path.strip_prefix("/api/v1/pools/")?;
    rest.split('/').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_found_and_fixed_words_win() {
        for entry in all() {
            let path = entry.path();
            let found = find(&entry.route.method, &path.replace("{key}", "k").replace("{pool}", "stores"));
            assert_eq!(found.effect, entry.route.effect, "{} {path}", entry.route.method);
        }
        let owner = |path: &str| format!("{:?}", find(&Method::GET, path).owner);
        assert_eq!(owner("/api/v1/users/7"), "Entity(User)");
        assert_eq!(owner("/api/v1/users/7/payments"), "Entity(Payment)");
        assert_eq!(owner("/api/v1/users/7/nothing"), "Entity(User)");
        assert_eq!(owner("/api/v1/pools/stores/7"), "Declared");
        assert_eq!(owner("/nothing"), "Any");
        assert_eq!(find(&Method::GET, "/api/v1/pools/stores/7").pool.as_deref(), Some("stores"));
        assert_eq!(find(&Method::GET, "/api/v1/pools/stores/a/b").pool.as_deref(), Some("stores"));
        assert!(find(&Method::HEAD, "/api/v1/users/7").of_record);
        assert!(!find(&Method::GET, "/api/v1/users/search").of_record);
        assert_eq!(find(&Method::TRACE, "/api/v1/pools").effect, Effect::Reads);
        assert_eq!(find(&Method::POST, "/api/v1/nothing").effect, Effect::Writes);
    }

    #[test]
    fn fixed_words_are_those_of_the_table() {
        assert_eq!(fixed_words(home_of(Entity::Product)), ["", ".", "..", "batch", "category", "search"]);
        assert_eq!(fixed_words("/api/v1/pools/stores"), ["", ".", "..", "batch"]);
        assert!(is_fixed_word("user") && is_fixed_word("search") && !is_fixed_word("lamp"));
    }
}
