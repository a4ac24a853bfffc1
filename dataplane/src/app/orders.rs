//! The order pipeline and the dead letters of this process: built from the pools, fed by the bus.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use async_trait::async_trait;
use axum::Router;
use crds::{pool::Entity, settings::Settings};
use reqwest::{Client, redirect::Policy};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use super::pools::{Builder, Letterbox, ServedPool};
use crate::{
    http::{pipeline as api, resource::Resource},
    service::{
        dead_letters::{DeadLetters, Letter, Source},
        error::ServiceError,
        failure::{Class, Failure},
        notify::Address,
        payment::http::SigningKey,
        pipeline::{Parts, Pipeline},
    },
};
use events::{
    EventBus,
    consumer::{Content, Delivery},
};
use model::{event::Envelope, key::Key, progress::Stage, record::Record};
use runtime::supervisor;

/// The group of consumers that works off orders.
const GROUP: &str = "orders";
/// The stage of dead letters that are no events.
const EVENTS: &str = "events";
/// The wait after the bus failed.
const RETRY: Duration = Duration::from_millis(500);
/// How long steps that are under way may take at the end.
const GRACE: Duration = Duration::from_secs(10);
/// How long a connection to what is outside may take to be made.
const CONNECT: Duration = Duration::from_secs(3);

/// The pipeline, where orders are served, and the dead letters.
pub struct Orders {
    /// The dead letters.
    pub letters: Arc<DeadLetters>,
    letters_resource: Arc<Resource>,
    served: Option<(Arc<Resource>, Arc<Pipeline>)>,
}

impl Orders {
    /// Builds the pipeline of the pools.
    ///
    /// # Errors
    /// Other metrics have the same names, or a store is not declared.
    pub fn build(
        builder: &Builder<'_>,
        pools: &[ServedPool],
        letterbox: Letterbox,
        (signing_key, webhook, provider): (SigningKey, Address, Address),
        registry: &prometheus::Registry,
    ) -> anyhow::Result<Self> {
        let Letterbox { resource, .. } = letterbox;
        let letters = Arc::new(DeadLetters::new(resource.records.clone()));
        let Some(orders) =
            pools.iter().find(|pool| pool.entity == Entity::Order && pool.resource.is_writable())
        else {
            return Ok(Self { letters, letters_resource: resource, served: None });
        };
        let records = |entity| -> anyhow::Result<_> {
            let served =
                pools.iter().find(|pool| pool.entity == entity).map(|pool| pool.resource.records.clone());
            let records = served.map_or_else(|| builder.unserved(entity), |records| Ok(Some(records)))?;
            Ok(records.filter(|records| records.collection().version_column.is_some()))
        };
        let parts = Parts {
            orders: orders.resource.records.clone(),
            products: records(Entity::Product)?,
            payments: records(Entity::Payment)?,
            templates: records(Entity::NotificationTemplate)?,
            letters: letters.clone(),
            signing_key,
            webhook,
            provider,
            client: client()?,
        };
        let pipeline = Pipeline::new(parts, &builder.settings.pipeline, registry)?;
        letters.serve(EVENTS, Arc::new(Unreadable(pipeline.clone())));
        Ok(Self { letters, letters_resource: resource, served: Some((orders.resource.clone(), pipeline)) })
    }

    /// The dead letters as the API serves them.
    pub fn letters_resource(&self) -> Arc<Resource> {
        self.letters_resource.clone()
    }

    /// What the API shows of it.
    pub fn routes(&self) -> Router {
        let letters = api::of_letters(self.letters_resource.clone(), self.letters.clone());
        match &self.served {
            Some((orders, pipeline)) => letters.merge(api::of_orders(orders.clone(), pipeline.clone())),
            None => letters,
        }
    }

    /// Starts once the stores are prepared. `alone` says that no other process serves these orders.
    pub fn start(&self, bus: Arc<dyn EventBus>, alone: bool, mut prepared: watch::Receiver<bool>) {
        let Some((_, pipeline)) = &self.served else { return };
        let (pipeline, letters) = (pipeline.clone(), self.letters.clone());
        let tasks = pipeline.clone();
        tasks.spawn(supervisor::ORDERS.watch(async move {
            let ready = async { prepared.wait_for(|prepared| *prepared).await.is_ok() };
            if pipeline.unless_stopped(ready).await == Some(true) {
                pipeline.start(alone);
                // at the end the consumer is dropped, which hands over its share at once
                pipeline.unless_stopped(feed(&*bus, &pipeline, &letters)).await;
            }
        }));
    }

    /// Orders that are under way here, or wait for it.
    pub fn waiting(&self) -> usize {
        self.served.as_ref().map_or(0, |(_, pipeline)| pipeline.under_way())
    }

    /// Takes new settings.
    pub fn apply(&self, settings: &Settings) {
        if let Some((_, pipeline)) = &self.served {
            pipeline.apply(&settings.pipeline);
        }
    }

    /// Ends what is under way.
    pub async fn finish(&self) {
        let Some((_, pipeline)) = &self.served else { return };
        if tokio::time::timeout(GRACE, pipeline.finish()).await.is_err() {
            tracing::warn!(
                "orders were left in the middle of a step: they go on when a process looks after them"
            );
        }
    }
}

/// Takes events of orders for as long as it is let.
async fn feed(bus: &dyn EventBus, pipeline: &Pipeline, letters: &DeadLetters) {
    let mut consumer = loop {
        match bus.consume(GROUP, "order").await {
            Ok(consumer) => break consumer,
            Err(error) => tracing::warn!(%error, "events of orders cannot be taken"),
        }
        tokio::time::sleep(RETRY).await;
    };
    let mut lost = false;
    loop {
        match consumer.next().await {
            Ok(delivery) => {
                lost = false;
                take(delivery, pipeline, letters).await;
            }
            Err(error) => {
                // one line for an outage
                if !std::mem::replace(&mut lost, true) {
                    tracing::warn!(%error, "events of orders do not come; a sweep finds what is open");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn take(Delivery { content, ticket }: Delivery, pipeline: &Pipeline, letters: &DeadLetters) {
    match content {
        Content::Event(event) => match event_of(&event) {
            Ok(Some((order, status))) => pipeline.offer(order, &status, ticket).await,
            Ok(None) => ticket.seen_to(),
            Err(error) => {
                let text = serde_json::to_string(&*event).unwrap_or_default();
                set_aside(letters, event.id.to_string(), text, error).await;
                ticket.seen_to();
            }
        },
        Content::Poison { place, text, error } => {
            set_aside(letters, place, text, error).await;
            ticket.seen_to();
        }
    }
}

/// The order that an event speaks of, and its status as far as it tells; none for one that is gone.
fn event_of(event: &Envelope) -> Result<Option<(Key, String)>, String> {
    #[derive(Default, Deserialize)]
    struct Seen {
        #[serde(default)]
        status: String,
    }
    let order: Key = event.key.parse().map_err(|why| format!("its key {why}"))?;
    if event.kind.ends_with("_deleted") {
        return Ok(None);
    }
    let seen = event.data.as_ref().map(|data| serde_json::from_str::<Seen>(data.get()));
    let seen = seen.transpose().map_err(|error| format!("its data: {error}"))?.unwrap_or_default();
    Ok(Some((order, seen.status)))
}

/// Keeps what is no event, for as long as it takes.
async fn set_aside(letters: &DeadLetters, subject: String, text: String, error: String) {
    let letter = Letter {
        stage: EVENTS.to_owned(),
        subject,
        failure: Failure::new(Class::Validation, error),
        attempts: 1,
        trace: String::new(),
        payload: json!({ "text": text }),
    };
    while let Err(error) = letters.put(letter.clone()).await {
        tracing::warn!(%error, "a dead letter could not be kept yet");
        tokio::time::sleep(RETRY).await;
    }
}

/// Dead letters that were no events: a replay reads them again.
struct Unreadable(Arc<Pipeline>);

#[async_trait]
impl Source for Unreadable {
    async fn replay(&self, letter: &Record, _actor: &str) -> Result<(), ServiceError> {
        let text = self.0.letter_text(letter);
        let event: Envelope = serde_json::from_str(&text)
            .map_err(|error| ServiceError::Conflict(format!("it is still no event: {error}")))?;
        if let Some((order, status)) = event_of(&event).map_err(ServiceError::Conflict)? {
            self.0.hint(Stage::of_status(&status), order);
        }
        Ok(())
    }

    async fn dropped(&self, _letter: &Record, _actor: &str) -> Result<(), ServiceError> {
        Ok(())
    }
}

/// Redirects are not followed: they would take what is charged, or said to customers, to an address that
/// nobody declared.
fn client() -> anyhow::Result<Client> {
    Client::builder().connect_timeout(CONNECT).redirect(Policy::none()).build().context("no HTTP client")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn event(key: &str, kind: &str, data: Value) -> Envelope {
        let event = json!({
            "id": "0198c0de-0000-7000-8000-000000000000", "type": kind, "entity": "order", "key": key, "version": 1,
            "at": "2026-01-01T00:00:00.000Z", "data": data,
        });
        serde_json::from_str(&event.to_string()).unwrap()
    }

    #[test]
    fn an_event_names_its_order_and_its_status() {
        let read = |key, kind, data| {
            event_of(&event(key, kind, data)).map(|seen| seen.map(|(key, status)| (key.to_string(), status)))
        };
        let paid = Some(("o1".to_owned(), "paid".to_owned()));
        assert_eq!(read("o1", "order_updated", json!({ "status": "paid" })), Ok(paid));
        // too large for a record: the order itself will tell
        assert_eq!(read("o1", "order_updated", Value::Null), Ok(Some(("o1".to_owned(), String::new()))));
        assert_eq!(read("o1", "order_deleted", Value::Null), Ok(None));
        assert!(read("no\0key", "order_updated", json!({})).is_err());
        assert!(read("o1", "order_updated", json!({ "status": 1 })).is_err());
    }
}
