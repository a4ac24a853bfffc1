//! Where a change is seen.

use serde_json::Value;

use super::leaves::at;
use crate::operator::{scenario::Stage, shop};

/// What becomes of a change.
pub enum Shown {
    /// The configuration that pods run by has this value at this place, and the status names another
    /// configuration than before.
    Settings(String, Value),
    /// A child (`deployments/shop-main`) has this value at this place; null where there is nothing, or no
    /// such child.
    Child(&'static str, &'static str, Value),
    /// A condition of the service has this reason.
    Condition(&'static str, &'static str),
    /// The API server refuses it with this sentence.
    Refused(&'static str),
    /// `ConfigurationApplied` is false and `Ready` says why, for this reason and with this in its message; no
    /// child is changed.
    Held(&'static str, &'static str),
}

/// A look at everything that an author can see.
pub struct World {
    /// All children.
    pub children: Vec<Value>,
    service: Value,
}

impl World {
    /// How it is now. The status is older than the children, so that what it says is said of them or of those
    /// before.
    pub async fn of(stage: &Stage) -> Self {
        let service = stage.service().await;
        Self { children: shop::children(&stage.proof.api, &stage.namespace).await, service }
    }

    fn child(&self, name: &str, place: &str) -> &Value {
        let is = |child: &&Value| {
            let found = child["plural"].as_str().zip(child["metadata"]["name"].as_str());
            found == name.split_once('/')
        };
        self.children.iter().find(is).and_then(|child| at(child, place)).unwrap_or(&Value::Null)
    }

    fn settings(&self) -> Value {
        let text = self.child("configmaps/shop-settings", "data/settings.json").as_str();
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    fn configuration(&self) -> &Value {
        &self.service["status"]["configuration"]
    }

    /// Whether the change is to be seen, in contrast to how it was.
    pub fn shows(&self, shown: &Shown, calm: &Self) -> bool {
        match shown {
            Shown::Settings(place, value) => {
                let named = self
                    .child("configmaps/shop-settings", "metadata/annotations/flyweight.dev~1configuration");
                let is_there = at(&self.settings(), place) == Some(value);
                is_there && self.configuration() == named && self.configuration() != calm.configuration()
            }
            Shown::Child(child, place, value) => self.child(child, place) == value,
            Shown::Condition(kind, reason) => shop::condition(&self.service, kind).1 == *reason,
            Shown::Held(reason, told) => {
                let (applied, why, _) = shop::condition(&self.service, "ConfigurationApplied");
                let (ready, not_ready, message) = shop::condition(&self.service, "Ready");
                let held = [applied, ready].iter().all(|status| status == "False") && why == *reason;
                held && not_ready == *reason && message.contains(told)
            }
            Shown::Refused(_) => false,
        }
    }

    /// Whether all is as it was, and said to be.
    pub fn is_like(&self, calm: &Self) -> bool {
        // a cluster without nodes: it is told after a moment that no pod has a place
        let said = |world: &Self, kind: &str| match shop::condition(&world.service, kind).1.as_str() {
            "Unschedulable" => "PodsNotReady".to_owned(),
            reason => reason.to_owned(),
        };
        let same = ["Ready", "ConfigurationApplied"].iter().all(|kind| said(self, kind) == said(calm, kind));
        same && self.configuration() == calm.configuration() && self.children == calm.children
    }
}
