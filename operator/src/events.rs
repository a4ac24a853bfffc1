//! Events about the three kinds, as `kubectl describe` shows them. A lost event is only logged; too many are
//! dropped.

use std::{collections::HashMap, time::Duration};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{model::child::MANAGER, writer::Writer};

/// How many events of one severity one object may get at once; then one per [`REFILL`].
const BURST: f64 = 30.0;
const REFILL: Duration = Duration::from_secs(10);
const NOTE_LENGTH_MAX: usize = 1000;

/// Sends events.
pub struct Events {
    client: Client,
    identity: String,
    writer: Writer,
    budgets: Mutex<HashMap<String, Budget>>,
}

struct Budget {
    left: f64,
    at: Instant,
}

impl Events {
    /// Events are reported by the replica called `identity`.
    pub fn new(client: Client, identity: &str, writer: Writer) -> Self {
        Self { client, identity: identity.to_owned(), writer, budgets: Mutex::default() }
    }

    /// Reports that something went as it should.
    pub async fn normal(&self, about: &ObjectReference, reason: &str, note: String) {
        self.send(about, "Normal", reason, note).await;
    }

    /// Reports that something needs attention.
    pub async fn warning(&self, about: &ObjectReference, reason: &str, note: String) {
        self.send(about, "Warning", reason, note).await;
    }

    async fn send(&self, about: &ObjectReference, severity: &str, reason: &str, note: String) {
        let budget = format!("{severity} {}", about.uid.as_deref().unwrap_or_default());
        if !self.may_send(&budget, Instant::now()) {
            return;
        }
        let event = self.event(about, severity, reason, note);
        let api: Api<Event> =
            Api::namespaced(self.client.clone(), about.namespace.as_deref().unwrap_or("default"));
        let parameters = PostParams::default();
        let request = api.create(&parameters, &event);
        if let Err(error) = self.writer.write("create", "Event", reason, request).await {
            tracing::warn!(%error, "an event is lost");
        }
    }

    fn event(&self, about: &ObjectReference, severity: &str, reason: &str, note: String) -> Event {
        let now = Timestamp::now();
        let name = about.name.as_deref().unwrap_or(MANAGER);
        Event {
            action: Some("Reconcile".to_owned()),
            event_time: Some(MicroTime(now)),
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", now.as_nanosecond())),
                namespace: about.namespace.clone(),
                ..ObjectMeta::default()
            },
            note: Some(clip(note)),
            reason: Some(reason.to_owned()),
            regarding: Some(about.clone()),
            reporting_controller: Some(MANAGER.to_owned()),
            reporting_instance: Some(self.identity.clone()),
            type_: Some(severity.to_owned()),
            ..Event::default()
        }
    }

    fn may_send(&self, budget: &str, now: Instant) -> bool {
        let mut budgets = self.budgets.lock();
        budgets.retain(|_, budget| budget.refilled(now) < BURST);
        let left = budgets.get(budget).map_or(BURST, |budget| budget.refilled(now));
        if left >= 1.0 {
            budgets.insert(budget.to_owned(), Budget { left: left - 1.0, at: now });
        }
        left >= 1.0
    }
}

impl Budget {
    fn refilled(&self, now: Instant) -> f64 {
        (self.left + now.duration_since(self.at).as_secs_f64() / REFILL.as_secs_f64()).min(BURST)
    }
}

/// The API server takes 1 kB at most.
fn clip(mut note: String) -> String {
    if note.len() > NOTE_LENGTH_MAX {
        let end = (0..=NOTE_LENGTH_MAX).rev().find(|&at| note.is_char_boundary(at)).unwrap_or(0);
        note.truncate(end);
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lease::Leadership, metrics::Metrics};

    #[test]
    fn a_note_is_cut_between_characters() {
        let clipped = clip("ä".repeat(900));
        assert!(clipped.len() <= NOTE_LENGTH_MAX + 3 && clipped.ends_with('…'));
        assert_eq!(clip("short".to_owned()), "short");
    }

    #[tokio::test]
    async fn a_flood_is_dammed() {
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let writer = Writer::new(Leadership::new().1, Metrics::new().unwrap());
        let events = Events::new(client, "me", writer);
        let now = Instant::now();
        let sent = (0..100).filter(|_| events.may_send("uid", now)).count();
        assert_eq!(sent, 30);
        assert!(events.may_send("another", now));
        let later = now + REFILL;
        assert!(events.may_send("uid", later) && !events.may_send("uid", later));
    }
}
