//! What the feed can be asked for: topics as clients name them, and as bits of a set that is tested once for
//! each event and client.

use std::collections::HashMap;

use crate::{
    problem::Problem,
    security::{caller::Caller, policy::PoolPolicy},
};
use model::{event::Envelope, ownership::Ownership, schema::Schema};

/// The type of the events that only say that the feed is alive.
pub const HEALTH_CHECK: &str = "health_check";

const HAPPENINGS: [&str; 3] = ["created", "updated", "deleted"];
/// Names that one request may list.
const NAMES_MAX: usize = 256;

/// One served entity.
#[derive(Clone, Debug)]
pub struct LiveEntity {
    entity: String,
    collection: String,
    ownership: Ownership,
    policy: PoolPolicy,
}

/// All that the feed can be asked for.
#[derive(Debug)]
pub struct Catalogue {
    entities: Vec<LiveEntity>,
    by_entity: HashMap<String, usize>,
}

/// Event types as bits, by their number in the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics(Box<[u64]>);

impl LiveEntity {
    /// The entity of a schema; its pool's policy says who may read it.
    pub fn of(schema: &Schema, policy: PoolPolicy) -> Self {
        let (entity, collection) = (schema.entity.clone(), schema.collection.clone());
        Self { entity, collection, ownership: Ownership::of(schema), policy }
    }
}

impl Catalogue {
    /// The catalogue of all served entities.
    pub fn new(entities: Vec<LiveEntity>) -> Self {
        let by_entity =
            entities.iter().enumerate().map(|(index, entity)| (entity.entity.clone(), index)).collect();
        Self { entities, by_entity }
    }

    /// The number of an event's type and whose its record is; none for an entity that is not served here.
    pub fn place(&self, event: &Envelope) -> Option<(usize, Ownership)> {
        let index = *self.by_entity.get(&event.entity)?;
        let happening = event.kind.strip_prefix(&event.entity)?.strip_prefix('_')?;
        let number = HAPPENINGS.iter().position(|name| *name == happening)?;
        Some((index * HAPPENINGS.len() + number, self.entities[index].ownership))
    }

    /// The number of `health_check`.
    pub fn health_check(&self) -> usize {
        self.entities.len() * HAPPENINGS.len()
    }

    /// The topics of a list such as `product,user_deleted`: entities, collections, event types. Without a
    /// list all that the caller may read.
    ///
    /// # Errors
    /// 400 for a name that is none; 403 for one that the caller may not read.
    pub fn topics(&self, list: Option<&str>, caller: Option<&Caller>) -> Result<Topics, Problem> {
        let mut topics = Topics(vec![0; self.health_check() / 64 + 1].into());
        let Some(list) = list else {
            let readable =
                self.entities.iter().enumerate().filter(|(_, entity)| entity.policy.may_read(caller));
            readable.flat_map(|(index, _)| types_of(index)).for_each(|number| topics.insert(number));
            topics.insert(self.health_check());
            return Ok(topics);
        };
        if list.split(',').count() > NAMES_MAX {
            return Err(Problem::field("topics", format!("must name at most {NAMES_MAX} topics")));
        }
        for name in list.split(',') {
            for number in self.named(name).ok_or_else(|| Problem::field("topics", self.unknown(name)))? {
                let entity = self.entities.get(number / HAPPENINGS.len());
                if entity.is_some_and(|entity| !entity.policy.may_read(caller)) {
                    return Err(Problem::forbidden(format!("the caller may not read the topic {name}")));
                }
                topics.insert(number);
            }
        }
        Ok(topics)
    }

    /// An entity among these topics that the caller may not read now.
    pub fn forbidden(&self, topics: &Topics, caller: Option<&Caller>) -> Option<&str> {
        let asked =
            |(index, _): &(usize, &LiveEntity)| types_of(*index).any(|number| topics.contains(number));
        let mut entities = self.entities.iter().enumerate().filter(asked);
        let (_, entity) = entities.find(|(_, entity)| !entity.policy.may_read(caller))?;
        Some(&entity.entity)
    }

    fn named(&self, name: &str) -> Option<Vec<usize>> {
        if name == HEALTH_CHECK {
            return Some(vec![self.health_check()]);
        }
        let whole =
            self.entities.iter().position(|entity| entity.entity == name || entity.collection == name);
        if let Some(index) = whole {
            return Some(types_of(index).collect());
        }
        let (entity, happening) = name.rsplit_once('_')?;
        let index = self.by_entity.get(entity)?;
        let number = HAPPENINGS.iter().position(|name| *name == happening)?;
        Some(vec![index * HAPPENINGS.len() + number])
    }

    fn unknown(&self, name: &str) -> String {
        let shown: String = name.chars().take(40).collect();
        let entities: Vec<&str> = self.entities.iter().map(|entity| entity.entity.as_str()).collect();
        format!(
            "names \"{shown}\"; there are {HEALTH_CHECK} and, each also with _created, _updated or _deleted, {}",
            entities.join(", ")
        )
    }
}

fn types_of(entity: usize) -> impl Iterator<Item = usize> {
    let first = entity * HAPPENINGS.len();
    first..first + HAPPENINGS.len()
}

impl Topics {
    /// Whether the event type with this number is asked for.
    pub fn contains(&self, number: usize) -> bool {
        self.0.get(number / 64).is_some_and(|bits| bits >> (number % 64) & 1 == 1)
    }

    fn insert(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }
}

#[cfg(test)]
mod tests {
    use crds::pool::{Access, PoolLimits};

    use super::*;
    use crate::security::{
        caller::Validity,
        policy::{Policies, Policy},
    };
    use crate::testing::events::event;

    fn catalogue() -> Catalogue {
        let policies = Policies::none();
        let entity = |name: &str, read: &[&str]| {
            let access =
                Access { read: read.iter().map(|role| (*role).to_owned()).collect(), ..Access::default() };
            policies.put([(name, Policy { access, limits: PoolLimits::default() })]);
            let (entity, collection, policy) = (name.to_owned(), format!("{name}s"), policies.of_pool(name));
            LiveEntity { entity, collection, ownership: Ownership::Shared, policy }
        };
        let mut entities = vec![entity("product", &["*"]), entity("notification_template", &["*"])];
        entities.push(entity("secret", &["chief"]));
        // more than one word of bits
        entities.extend((0..30).map(|number| entity(&format!("e{number}"), &["*"])));
        Catalogue::new(entities)
    }

    #[test]
    fn names_are_entities_collections_and_types() {
        let catalogue = catalogue();
        let number = |kind: &str, entity: &str| {
            let event = Envelope { kind: kind.to_owned(), entity: entity.to_owned(), ..event("a", 1) };
            catalogue.place(&event).unwrap().0
        };
        let topics = |list: &str| catalogue.topics(Some(list), None).unwrap();
        let (created, updated) = (number("product_created", "product"), number("product_updated", "product"));
        let deleted = number("notification_template_deleted", "notification_template");
        assert!(topics("product").contains(created) && topics("products").contains(updated));
        assert!(topics("product_updated").contains(updated) && !topics("product_updated").contains(created));
        assert!(topics("notification_template_deleted,e29").contains(deleted));
        assert!(topics("e29").contains(number("e29_created", "e29")) && !topics("e29").contains(created));
        assert!(topics(HEALTH_CHECK).contains(catalogue.health_check()));
        let all = catalogue.topics(None, None).unwrap();
        assert!(all.contains(created) && all.contains(deleted) && all.contains(catalogue.health_check()));
        let strange = Envelope { entity: "stranger".to_owned(), ..event("a", 1) };
        assert!(catalogue.place(&strange).is_none());
        for bad in ["", "product,", "PRODUCT", "product_", "product_bought", "_created", "product updated"] {
            assert_eq!(catalogue.topics(Some(bad), None).unwrap_err().status(), 400, "{bad}");
        }
        assert_eq!(catalogue.topics(Some(&vec!["e1"; 257].join(",")), None).unwrap_err().status(), 400);
    }

    #[test]
    fn who_may_not_read_gets_no_events() {
        let catalogue = catalogue();
        let event = Envelope { kind: "secret_updated".into(), entity: "secret".into(), ..event("a", 1) };
        let (number, _) = catalogue.place(&event).unwrap();
        let chief =
            Caller { subject: "x".into(), roles: vec!["chief".into()], validity: Validity::default() };
        assert!(!catalogue.topics(None, None).unwrap().contains(number));
        assert!(catalogue.topics(None, Some(&chief)).unwrap().contains(number));
        assert_eq!(catalogue.topics(Some("product,secret"), None).unwrap_err().status(), 403);
        let topics = catalogue.topics(Some("secrets"), Some(&chief)).unwrap();
        assert!(topics.contains(number));
        assert_eq!(
            (catalogue.forbidden(&topics, Some(&chief)), catalogue.forbidden(&topics, None)),
            (None, Some("secret"))
        );
    }
}
