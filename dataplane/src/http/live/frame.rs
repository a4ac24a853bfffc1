//! An event as it is sent, written once for all clients; and which clients want it.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::catalogue::{Catalogue, HEALTH_CHECK, Topics};
use crate::http::health::{Check, Condition, overall};
use model::{event::Envelope, ownership::Ownership, value::Timestamp};

/// An event as it is sent.
#[derive(Debug)]
pub struct Frame {
    /// The place in the feed.
    pub cursor: Option<String>,
    /// Its text.
    pub text: Utf8Bytes,
    topic: usize,
    concern: Concern,
    event_stream: OnceLock<Bytes>,
}

/// How the service does, as `health_check` says it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct State {
    status: Condition,
    checks: BTreeMap<String, Condition>,
}

/// Whom an event concerns.
#[derive(Debug, PartialEq, Eq)]
enum Concern {
    /// Whoever asks for its topic.
    Everybody,
    /// One user.
    User(String),
    /// Some user, who cannot be known.
    Somebody,
    /// All clients, also those of one user.
    All,
}

/// What a client wants.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Only events that concern this user, and shared ones where topics were asked for.
    pub user: Option<String>,
    /// The event types.
    pub topics: Topics,
    /// Whether the client named topics.
    pub asked: bool,
}

impl Frame {
    /// The frame of an event; none for an entity that is not served here.
    pub fn of(event: &Envelope, catalogue: &Catalogue) -> Option<Arc<Self>> {
        let (topic, ownership) = catalogue.place(event)?;
        let concern = match ownership {
            Ownership::Shared => Concern::Everybody,
            Ownership::Users => Concern::User(event.key.clone()),
            Ownership::OfUser(_) => owner(event).map_or(Concern::Somebody, Concern::User),
        };
        Self::new(event, topic, concern)
    }

    /// A frame that says that the feed is alive, how far the client has it, and how the service does.
    pub fn health_check(
        cursor: Option<String>,
        catalogue: &Catalogue,
        event: &Envelope,
    ) -> Option<Arc<Self>> {
        Self::new(&Envelope { cursor, ..event.clone() }, catalogue.health_check(), Concern::All)
    }

    fn new(event: &Envelope, topic: usize, concern: Concern) -> Option<Arc<Self>> {
        let text = serde_json::to_string(event).ok()?;
        let cursor = event.cursor.clone();
        Some(Arc::new(Self { cursor, text: text.into(), topic, concern, event_stream: OnceLock::new() }))
    }

    /// The frame for an event stream. Written once, when it is first needed.
    pub fn event_stream(&self) -> Bytes {
        let write = || {
            let cursor = self.cursor.as_deref().unwrap_or_default();
            format!("id: {cursor}\ndata: {}\n\n", self.text).into()
        };
        self.event_stream.get_or_init(write).clone()
    }

    /// The one user whom it concerns, if it is about one.
    pub fn user(&self) -> Option<&str> {
        match &self.concern {
            Concern::User(user) => Some(user),
            Concern::Everybody | Concern::Somebody | Concern::All => None,
        }
    }
}

impl State {
    /// The state that checks add up to. How fast each part answers is none of it.
    pub fn of(checks: &BTreeMap<String, Check>) -> Self {
        let each = checks.iter().map(|(name, check)| (name.clone(), check.status));
        Self { status: overall(checks.values()), checks: each.collect() }
    }
}

impl Filter {
    /// Whether the client wants an event.
    pub fn wants(&self, frame: &Frame) -> bool {
        let concerned = match (&self.user, &frame.concern) {
            (None, _) | (Some(_), Concern::All) => true,
            (Some(user), Concern::User(owner)) => user == owner,
            (Some(_), Concern::Everybody | Concern::Somebody) => self.asked,
        };
        concerned && self.topics.contains(frame.topic)
    }
}

/// The event that says how a replica does.
pub fn health_check(replica: &str, state: &State) -> Envelope {
    Envelope {
        id: Uuid::now_v7(),
        kind: HEALTH_CHECK.to_owned(),
        entity: HEALTH_CHECK.to_owned(),
        key: replica.to_owned(),
        version: 0,
        cursor: None,
        at: Timestamp::now().to_string(),
        owner: None,
        data: serde_json::value::to_raw_value(state).ok(),
    }
}

/// The user whose the record is. Events from before owners were noted tell it only where they have the
/// record.
fn owner(event: &Envelope) -> Option<String> {
    if let Some(owner) = &event.owner {
        return Some(owner.clone());
    }
    #[derive(Deserialize)]
    struct Owned {
        user_id: Option<String>,
    }
    serde_json::from_str::<Owned>(event.data.as_ref()?.get()).ok()?.user_id
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::{super::catalogue::LiveEntity, *};
    use crate::security::policy::{Policies, Policy};
    use crate::testing::events::event;
    use model::{
        entities::{order, product, user},
        schema::Schema,
    };

    fn catalogue() -> Catalogue {
        let policies = Policies::none();
        let entity = |schema: Schema| {
            policies.put([(&*schema.collection, Policy::open())]);
            LiveEntity::of(&schema, policies.of_pool(&schema.collection))
        };
        Catalogue::new([product::schema(), order::schema(), user::schema()].map(entity).into())
    }

    fn frame(entity: &str, happening: &str, key: &str, data: Option<&str>) -> Arc<Frame> {
        let event = Envelope {
            kind: format!("{entity}_{happening}"),
            entity: entity.to_owned(),
            data: data.map(|data| RawValue::from_string(data.to_owned()).unwrap()),
            ..event(key, 1)
        };
        Frame::of(&event, &catalogue()).unwrap()
    }

    #[test]
    fn a_user_gets_what_concerns_the_user_and_shared_topics_that_were_asked_for() {
        let filter = |user: Option<&str>, list: Option<&str>| Filter {
            user: user.map(str::to_owned),
            topics: catalogue().topics(list, None).unwrap(),
            asked: list.is_some(),
        };
        let mine = frame("order", "created", "o1", Some(r#"{"total":1,"user_id":"ann"}"#));
        let other = frame("order", "created", "o2", Some(r#"{"user_id":"bob"}"#));
        let gone = frame("order", "deleted", "o2", None);
        let mut noted = event("o1", 2);
        (noted.kind, noted.entity, noted.owner) =
            ("order_deleted".into(), "order".into(), Some("ann".into()));
        noted.data = None;
        let mine_gone = Frame::of(&noted, &catalogue()).unwrap();
        let me = frame("user", "updated", "ann", Some("{}"));
        let product = frame("product", "updated", "p", Some(r#"{"user_id":"ann"}"#));
        let alive = health_check("", &State::of(&BTreeMap::new()));
        let alive = Frame::health_check(None, &catalogue(), &alive).unwrap();
        let all = [&mine, &other, &gone, &me, &product, &alive, &mine_gone];
        let seen = |filter: Filter| all.map(|frame| filter.wants(frame));
        assert_eq!(seen(filter(None, None)), [true; 7]);
        assert_eq!(seen(filter(None, Some("order"))), [true, true, true, false, false, false, true]);
        assert_eq!(seen(filter(Some("ann"), None)), [true, false, false, true, false, true, true]);
        assert_eq!(
            seen(filter(Some("ann"), Some("product,order"))),
            [true, false, true, false, true, false, true]
        );
        assert_eq!(
            seen(filter(Some("ann"), Some("user,health_check"))),
            [false, false, false, true, false, true, false]
        );
        assert_eq!(seen(filter(Some("bob"), None)), [false, true, false, false, false, true, false]);
    }

    #[test]
    fn a_frame_is_the_envelope() {
        let mut event = event("a", 3);
        event.cursor = Some("xyz".to_owned());
        let frame = Frame::of(&event, &catalogue()).unwrap();
        assert_eq!(frame.text.as_str(), serde_json::to_string(&event).unwrap());
        assert_eq!(frame.event_stream(), format!("id: xyz\ndata: {}\n\n", frame.text));
        assert!(!frame.text.contains('\n'), "an event stream's data is one line");
    }
}
