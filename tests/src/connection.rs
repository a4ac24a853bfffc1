//! One connection over which a test calls, for promises that are made to a connection.
//!
//! A client with a pool opens a second connection whenever the first is not back in time, so it cannot show
//! what one connection is promised.

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::client::Answer;

/// An HTTP/1.1 connection that is kept open.
pub struct Connection {
    host: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Connects to `http://host:port`.
    ///
    /// # Panics
    /// Nobody listens there.
    pub async fn open(base: &str) -> Self {
        let host = base.trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&host)
            .await
            .unwrap_or_else(|error| panic!("no connection to {host}: {error}"));
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .unwrap_or_else(|error| panic!("no HTTP at {host}: {error}"));
        tokio::spawn(connection);
        Self { host, sender }
    }

    /// Calls with JSON, or without a body where it is null, once the answer before has been read.
    ///
    /// # Panics
    /// The connection broke off: it is never opened anew.
    pub async fn call(&mut self, method: Method, path: &str, body: &Value) -> Answer {
        let answered = self.try_call(method, path, &[], body).await;
        answered.unwrap_or_else(|error| panic!("no answer from {path} over this connection: {error:?}"))
    }

    /// The same with headers, where there may be no answer.
    ///
    /// # Errors
    /// The connection broke off.
    ///
    /// # Panics
    /// It is no request.
    pub async fn try_call(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Answer, hyper::Error> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, &self.host);
        let mut bytes = Bytes::new();
        if !body.is_null() {
            request = request.header(header::CONTENT_TYPE, "application/json");
            bytes = body.to_string().into();
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(bytes)).unwrap_or_else(|error| panic!("{path}: {error}"));
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        let text = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, text })
    }
}
