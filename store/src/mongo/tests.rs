//! What the conformance suite looks at from inside.

use mongodb::event::{EventHandler, command::CommandEvent};
use parking_lot::Mutex;

use super::*;

/// The commands that a store sent, in order.
pub type Sent = Arc<Mutex<Vec<Document>>>;

/// A store, and what it sends.
pub async fn watched(options: &MongoOptions, sealer: Arc<dyn Sealer>) -> (MongoStore, Sent) {
    let (sent, mut told) = (Sent::default(), options.client_options().await.unwrap());
    let into = sent.clone();
    told.command_event_handler = Some(EventHandler::callback(move |event| {
        if let CommandEvent::Started(started) = event {
            into.lock().push(started.command);
        }
    }));
    (MongoStore::with(options, told, sealer).unwrap(), sent)
}
