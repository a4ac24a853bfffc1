//! A payment provider that is called over HTTP.
//!
//! `POST {url}/charges` with `{order_id, user_id, amount, currency}`: 2xx `{transaction_id}` is approved, 409
//! with a `transaction_id` is a repetition of an approved one, 402 `{reason}` is declined. `POST
//! {url}/reversals` with `{order_id}` gives back; 404 says that nothing was charged. Under one key nothing is
//! charged twice, and nothing after a reversal: a provider that charges late all the same is told to give
//! back once more. Both have `Idempotency-Key`, `traceparent`, and `Flyweight-Signature:
//! t=<seconds>,v1=<hex>`: the HMAC-SHA256 of `<seconds>.<body>`.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use hmac::{Hmac, Mac};
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use super::{Charge, Charged, PaymentProvider};
use crate::{
    service::{
        failure::{Class, Failure},
        notify::Address,
    },
    telemetry::trace,
};

/// The most bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The key that calls are signed with, which may be replaced at any time; none where they are not signed.
pub type SigningKey = Arc<ArcSwapOption<Vec<u8>>>;

/// A provider at an address.
pub struct HttpProvider {
    client: Client,
    url: String,
    /// The address of the Secret, which wins over `url`.
    secret: Address,
    key: SigningKey,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    transaction_id: Option<String>,
    reason: Option<String>,
}

impl HttpProvider {
    /// The provider at the address of its Secret, else at `url`; calls are signed where there is a key.
    pub fn new(client: Client, url: &str, secret: Address, key: SigningKey) -> Self {
        Self { client, url: url.trim_end_matches('/').to_owned(), secret, key }
    }

    async fn post(&self, path: &str, charge: &Charge, body: Value) -> Result<(StatusCode, Answer), Failure> {
        let body = body.to_string();
        let secret = self.secret.load();
        let url = secret.as_deref().map_or(self.url.as_str(), |url| url.trim_end_matches('/'));
        if url.is_empty() {
            let why = "the provider has no address: spec.pipeline.payments.http.url is left out, and its Secret has no key `url`";
            return Err(Failure::retryable(why));
        }
        let mut request = self
            .client
            .post(format!("{url}/{path}"))
            .header("content-type", "application/json")
            .header("idempotency-key", charge.key.as_str())
            .header("traceparent", trace::parent(&charge.trace));
        if let Some(key) = self.key.load().as_deref() {
            let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            request = request.header("flyweight-signature", signature(key, seconds, &body));
        }
        // the address may hold a secret, so it is left out of what is said
        let lost =
            |error: reqwest::Error| Failure::retryable(format!("the provider: {}", error.without_url()));
        let response = request.body(body).send().await.map_err(lost)?;
        let status = response.status();
        match status.as_u16() {
            200..=299 | 402 | 404 | 409 => Ok((status, read(response).await.map_err(lost)?)),
            408 | 425 | 429 | 500..=599 => Err(Failure::retryable(format!("the provider answers {status}"))),
            300..=399 => Err(Failure::redirected("the provider", status)),
            _ => Err(Failure::new(Class::NotRetryable, format!("the provider answers {status}"))),
        }
    }
}

#[async_trait]
impl PaymentProvider for HttpProvider {
    fn name(&self) -> &'static str {
        "http"
    }

    async fn charge(&self, charge: &Charge) -> Result<Charged, Failure> {
        let Charge { order, user, amount, currency, .. } = charge;
        let body = json!({ "order_id": order.as_str(), "user_id": user, "amount": amount.to_string(), "currency": currency });
        let (status, Answer { transaction_id, reason }) = self.post("charges", charge, body).await?;
        match (status.as_u16(), transaction_id) {
            (200..=299 | 409, Some(transaction)) => Ok(Charged::Approved { transaction }),
            (402, _) => Ok(Charged::Declined { reason: reason.unwrap_or_else(|| "declined".to_owned()) }),
            // charged, perhaps: by its key the next call finds out
            (200..=299, None) => Err(Failure::retryable("the provider approves without a transaction_id")),
            _ => Err(Failure::new(Class::NotRetryable, format!("the provider answers {status}"))),
        }
    }

    async fn reverse(&self, charge: &Charge) -> Result<(), Failure> {
        let (status, _) =
            self.post("reversals", charge, json!({ "order_id": charge.order.as_str() })).await?;
        match status.is_success() || status == StatusCode::NOT_FOUND {
            true => Ok(()),
            false => {
                Err(Failure::new(Class::NotRetryable, format!("the provider answers {status} to a reversal")))
            }
        }
    }
}

/// The header that says who calls.
fn signature(key: &[u8], seconds: u64, body: &str) -> String {
    let hex = match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mut mac) => {
            mac.update(format!("{seconds}.{body}").as_bytes());
            mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
        }
        Err(_) => String::new(),
    };
    format!("t={seconds},v1={hex}")
}

async fn read(mut response: Response) -> Result<Answer, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Ok(Answer::default());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(serde_json::from_slice(&bytes).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_signed_with_its_time() {
        // as any tool makes it: printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key
        let signed = signature(b"key", 1_700_000_000, r#"{"a":1}"#);
        let (time, hex) = signed.split_once(",v1=").unwrap();
        assert_eq!(time, "t=1700000000");
        assert_eq!(hex.len(), 64);
        assert_ne!(signature(b"key", 1_700_000_001, r#"{"a":1}"#), signed);
        assert_ne!(signature(b"other", 1_700_000_000, r#"{"a":1}"#), signed);
    }
}
