//! The client that all requests to pods share, with its pool of connections: over plain HTTP or TLS, as the
//! pods serve.

use std::time::Duration;

use axum::body::Body;
use http::{Request, Uri, uri::InvalidUri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, ResponseFuture, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::ClientConfig;

use super::registry::{CONNECT_TIMEOUT, Upstream};

/// Calls pods.
pub struct UpstreamClient {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    scheme: &'static str,
}

impl UpstreamClient {
    /// A client that checks certificates by `tls`, where pods serve over TLS.
    pub fn new(tls: ClientConfig, over_tls: bool) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(256)
            .build(connector);
        Self { client, scheme: if over_tls { "https" } else { "http" } }
    }

    /// Where a pod serves this path.
    ///
    /// # Errors
    /// The path is none.
    pub fn uri(&self, upstream: &Upstream, path: &str) -> Result<Uri, InvalidUri> {
        format!("{}://{}{path}", self.scheme, upstream.addr).parse()
    }

    /// Sends a request to such an address.
    pub fn request(&self, request: Request<Body>) -> ResponseFuture {
        self.client.request(request)
    }
}
