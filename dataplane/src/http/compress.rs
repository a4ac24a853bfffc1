//! Large answers in fewer bytes, for clients that take them. Small ones, which are most, pass no layer.

use std::{convert::Infallible, future::ready};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
    response::Response,
};
use http::{HeaderValue, header};
use tower::{ServiceExt, service_fn};
use tower_http::{CompressionLevel, compression::Compression};

/// From how many bytes on an answer is worth the time.
const LARGE: u64 = 4 << 10;

/// Whether an answer is worth compressing.
pub fn is_large(response: &Response) -> bool {
    response.body().size_hint().exact().is_some_and(|bytes| bytes >= LARGE)
}

/// The answer in the best encoding that the client takes: zstd, gzip, or as it is.
pub async fn compressed(accepted: HeaderValue, response: Response) -> Response {
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert(header::ACCEPT_ENCODING, accepted);
    let mut answer = Some(response);
    let service = service_fn(move |_: Request| ready(Ok::<_, Infallible>(answer.take().unwrap_or_default())));
    match Compression::new(service).quality(CompressionLevel::Fastest).oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}
