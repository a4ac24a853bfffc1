//! A small HTTP client for tests: what was answered, whole.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::{Certificate, Client, ClientBuilder, Method, header::HeaderMap};
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

/// Calls one API, at one address or at several replicas in turn.
#[derive(Clone)]
pub struct Api {
    client: Client,
    bases: Arc<[String]>,
    turn: Arc<AtomicUsize>,
    session: Option<Arc<Session>>,
}

/// A call that was answered.
#[derive(Clone, Debug)]
pub struct Called {
    /// The method.
    pub method: Method,
    /// The path, without the query.
    pub path: String,
    /// The status of the answer.
    pub status: u16,
}

/// What one client did.
#[derive(Default)]
struct Session {
    /// The version that it last wrote, by the record's path.
    written: Mutex<HashMap<String, u64>>,
    calls: Mutex<Vec<Called>>,
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
        Self::at_all(&[base], |client| client)
    }

    /// An API at `https://host:port`, whose certificate is signed by one of these, as PEM.
    pub fn over_tls(base: &str, authorities: &[u8]) -> Self {
        let authorities = Certificate::from_pem_bundle(authorities);
        let authorities = authorities.unwrap_or_else(|error| panic!("not certificates: {error}"));
        Self::at_all(&[base], |client| client.tls_certs_only(authorities))
    }

    /// One client of all these replicas: each call goes to the next one. Its calls are noted; and where there
    /// are several replicas it reads its own writes, as any client may: it asks for at least the version that
    /// it was answered.
    pub fn session(bases: &[&str]) -> Self {
        Self { session: Some(Arc::default()), ..Self::at_all(bases, |client| client) }
    }

    fn at_all(bases: &[&str], change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Self {
        // The first one stays; who installed it does not matter.
        _ = rustls::crypto::ring::default_provider().install_default();
        let client = change(Client::builder().timeout(Duration::from_secs(30)).no_proxy())
            .build()
            .unwrap_or_else(|error| panic!("no HTTP client: {error}"));
        let bases = bases.iter().map(ToString::to_string).collect();
        Self { client, bases, turn: Arc::default(), session: None }
    }

    /// Where it is; of several replicas, the first.
    pub fn base(&self) -> &str {
        self.bases.first().map_or("", String::as_str)
    }

    /// Where all replicas are.
    pub fn bases(&self) -> &[String] {
        &self.bases
    }

    /// How many replicas it calls.
    pub fn replicas(&self) -> usize {
        self.bases.len()
    }

    /// What a session called so far.
    pub fn calls(&self) -> Vec<Called> {
        let calls =
            |session: &Arc<Session>| session.calls.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.session.as_ref().map(calls).unwrap_or_default()
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
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.bases.len();
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.bases[turn]));
        if let Some(version) = self.least_version(&method, path, headers) {
            request = request.header("if-min-version", version);
        }
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
        let answer =
            Answer { status, headers, text: String::from_utf8_lossy(&response.bytes().await?).into_owned() };
        if let Some(session) = &self.session {
            session.note(method, path, &answer);
        }
        Ok(answer)
    }

    /// The version that a read of this session must have; none where it wrote nothing there, or says it
    /// itself.
    fn least_version(&self, method: &Method, path: &str, headers: &[(&str, &str)]) -> Option<u64> {
        let asks = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("if-min-version"));
        if asks || *method != Method::GET || self.replicas() < 2 {
            return None;
        }
        self.session
            .as_ref()?
            .written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&record_of(path))
            .copied()
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

/// The path of the record that a request is about.
fn record_of(path: &str) -> String {
    path.trim_end_matches("/status").replace("?id=", "/")
}

impl Session {
    fn note(&self, method: Method, path: &str, answer: &Answer) {
        let version = answer
            .header("etag")
            .trim_matches('"')
            .split('-')
            .next()
            .and_then(|version| version.parse().ok());
        if let (Some(version), false) = (version, method == Method::GET) {
            let location = answer.header("location");
            let record = record_of(if location.is_empty() { path } else { location });
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            written.insert(record, version);
        }
        // a read by `?id=` is described where the record has its own path
        let path = if method == Method::GET { path.replacen("?id=", "/", 1) } else { path.to_owned() };
        let path = path.split(['?', '&']).next().unwrap_or_default().to_owned();
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(Called { method, path, status: answer.status });
    }
}

fn answered(path: &str, answer: Result<Answer, reqwest::Error>) -> Answer {
    answer.unwrap_or_else(|error| panic!("no answer from {path}: {error:?}"))
}
