//! A small HTTP client for tests: what was answered, whole.

use std::time::Duration;

use reqwest::{Client, Method, header::HeaderMap};
use serde_json::Value;

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub text: String,
}

/// Calls one API.
#[derive(Clone)]
pub struct Api {
    client: Client,
    base: String,
}

impl Answer {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// A header as text; empty where it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The faulty fields that a problem names.
    pub fn fields(&self) -> Vec<String> {
        let errors = self.json();
        let list = errors["errors"].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|error| error["field"].as_str().map(str::to_owned)).collect()
    }
}

impl Api {
    /// An API at `http://host:port`.
    pub fn at(base: &str) -> Self {
        // The first one stays; who installed it does not matter.
        _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .timeout(Duration::from_secs(30))
            .no_proxy()
            .build()
            .unwrap_or_else(|error| panic!("no HTTP client: {error}"));
        Self { client, base: base.to_owned() }
    }

    /// Where it is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Calls with headers and a body of bytes.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if body.is_some() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = match body {
            Some(body) => request.body(body).send().await?,
            None => request.send().await?,
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, text: String::from_utf8_lossy(&response.bytes().await?).into_owned() })
    }

    /// GET.
    ///
    /// # Panics
    /// There was no answer.
    pub async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    /// GET with headers.
    ///
    /// # Panics
    /// There was no answer.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        answered(path, self.call(Method::GET, path, headers, None).await)
    }

    /// POST of JSON.
    ///
    /// # Panics
    /// There was no answer.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        answered(path, self.call(Method::POST, path, &[], Some(body.to_string().into_bytes())).await)
    }

    /// Any method, with headers and JSON.
    ///
    /// # Panics
    /// There was no answer.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let body = (!body.is_null()).then(|| body.to_string().into_bytes());
        answered(path, self.call(method, path, headers, body).await)
    }
}

fn answered(path: &str, answer: Result<Answer, reqwest::Error>) -> Answer {
    answer.unwrap_or_else(|error| panic!("no answer from {path}: {error:?}"))
}
