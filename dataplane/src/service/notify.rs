//! How customers are told what became of their order.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use reqwest::Client;
use serde_json::{Value, json};

use super::{
    failure::{Class, Failure},
    rendering,
};
use crate::telemetry::trace;
use model::{fault::FieldFault, template};

/// An address that may be replaced at any time; none where it is not known.
pub type Address = Arc<ArcSwapOption<String>>;

/// Sends messages. A repetition has the same key and must have no second effect.
#[async_trait]
pub trait Notifier: Send + Sync {
    /// Sends one message.
    async fn send(&self, message: &Message) -> Result<(), Failure>;
}

/// A message to a customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Names the message.
    pub key: String,
    /// The user.
    pub to: String,
    /// What it is about.
    pub subject: String,
    /// The text.
    pub body: String,
    /// The trace of the request that led to it.
    pub trace: String,
}

/// Writes messages to the log, without their text: it may be personal.
pub struct LogNotifier;

/// Posts messages as JSON to an address, with `Idempotency-Key`.
pub struct Webhook {
    /// Calls it.
    pub client: Client,
    /// Where it is.
    pub address: Address,
}

#[async_trait]
impl Notifier for LogNotifier {
    async fn send(&self, message: &Message) -> Result<(), Failure> {
        tracing::info!(message = message.key, to = message.to, trace = message.trace, "notified");
        Ok(())
    }
}

#[async_trait]
impl Notifier for Webhook {
    async fn send(&self, message: &Message) -> Result<(), Failure> {
        let Message { key, to, subject, body, trace } = message;
        let text =
            json!({ "id": key, "to": to, "subject": subject, "body": body, "trace_id": trace }).to_string();
        let Some(url) = self.address.load_full() else {
            return Err(Failure::retryable("the webhook has no address".to_owned()));
        };
        let request = self.client.post(url.as_str()).header("content-type", "application/json");
        let request = request.header("idempotency-key", key).header("traceparent", trace::parent(trace));
        let lost =
            |error: reqwest::Error| Failure::retryable(format!("the webhook: {}", error.without_url()));
        let status = request.body(text).send().await.map_err(lost)?.status();
        match status.as_u16() {
            200..=299 | 409 => Ok(()),
            408 | 425 | 429 | 500..=599 => Err(Failure::retryable(format!("the webhook answers {status}"))),
            300..=399 => Err(Failure::redirected("the webhook", status)),
            _ => Err(Failure::new(Class::NotRetryable, format!("the webhook answers {status}"))),
        }
    }
}

/// The subject and the body of a template with their variables filled in.
///
/// # Errors
/// `Validation` where the template is wrong, or names what is not there; `Retryable` where there was no time
/// for it.
pub async fn render(subject: String, body: String, variables: Value) -> Result<(String, String), Failure> {
    let wrong =
        |fault: FieldFault| Failure::new(Class::Validation, format!("{} {}", fault.field, fault.message));
    let filled = rendering::apart(move || {
        [subject, body].map(|text| template::render("the template", &text, &variables).map_err(wrong))
    });
    let late = || Failure::retryable("templates are filled in as fast as they can be".to_owned());
    let [subject, body] = filled.await.ok_or_else(late)?;
    Ok((subject?, body?))
}

#[cfg(test)]
mod tests {
    use axum::{Router, http::StatusCode, routing::post};

    use super::*;

    async fn webhook(status: StatusCode) -> Arc<String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/secret", listener.local_addr().unwrap());
        let router = Router::new().route("/secret", post(move || std::future::ready(status)));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Arc::new(url)
    }

    #[tokio::test]
    async fn an_address_is_taken_over_and_never_told() {
        let address = Address::default();
        _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().build().unwrap();
        let webhook_of = Webhook { client, address: address.clone() };
        let message = Message {
            key: "k".to_owned(),
            to: "u1".to_owned(),
            subject: "s".to_owned(),
            body: "b".to_owned(),
            trace: String::new(),
        };
        let failure = webhook_of.send(&message).await.unwrap_err();
        assert_eq!(failure.class, Class::Retryable, "{failure:?}");
        address.store(Some(webhook(StatusCode::BAD_REQUEST).await));
        let failure = webhook_of.send(&message).await.unwrap_err();
        assert_eq!(failure.class, Class::NotRetryable, "{failure:?}");
        assert!(!format!("{failure:?}").contains("secret"), "{failure:?}");
        address.store(Some(webhook(StatusCode::OK).await));
        webhook_of.send(&message).await.unwrap();
    }

    #[tokio::test]
    async fn templates_are_strict() {
        let order = json!({ "order": { "id": "o1", "l": vec![0; 1_000] } });
        let render = async |text: &str| render(text.to_owned(), String::new(), order.clone()).await;
        assert_eq!(render("Order {{ order.id }}").await.unwrap().0, "Order o1");
        // who writes templates cannot hold up the workers: what asks for too much is a fault of the template
        let endless = "{% for a in order.l %}{% for b in order.l %}{% for c in order.l %}x{% endfor %}{% endfor %}{% endfor %}";
        for bad in ["{{ nothing }}", "{{ order.id", endless] {
            assert_eq!(render(bad).await.unwrap_err().class, Class::Validation, "{bad}");
        }
    }
}
