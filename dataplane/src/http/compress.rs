//! Large answers in fewer bytes, for clients that take them. Small ones, which are most, pass no layer.

use std::{convert::Infallible, future::ready};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
    response::Response,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tower::{ServiceExt, service_fn};
use tower_http::{CompressionLevel, compression::Compression};

use super::conditions::coded_etag;

/// From how many bytes on an answer is worth the time.
const LARGE: u64 = 4 << 10;

/// Whether an answer is worth compressing.
pub fn is_large(response: &Response) -> bool {
    response.body().size_hint().exact().is_some_and(|bytes| bytes >= LARGE)
}

/// The answer that the client has already what would be sent, of so many bytes.
pub fn not_modified(bytes: usize) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    if bytes as u64 >= LARGE {
        varies(response.headers_mut());
    }
    response
}

/// A large answer in the best encoding that the client takes: zstd, gzip, or as it is; also where the client
/// takes none, for a change that was made is made.
pub async fn compressed(accepted: Option<HeaderValue>, response: Response) -> Response {
    let Some(accepted) = accepted else {
        let mut response = response;
        varies(response.headers_mut());
        return response;
    };
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert(header::ACCEPT_ENCODING, accepted);
    let (status, mut answer) = (response.status(), Some(response));
    let service = service_fn(move |_: Request| ready(Ok::<_, Infallible>(answer.take().unwrap_or_default())));
    let mut response =
        match Compression::new(service).quality(CompressionLevel::Fastest).oneshot(request).await {
            Ok(response) => response.map(Body::new),
            Err(never) => match never {},
        };
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let coding = headers.get(header::CONTENT_ENCODING).and_then(|coding| coding.to_str().ok());
    if let (Some(coding), Some(tag)) = (coding, headers.get(header::ETAG))
        && let Some(tag) = coded_etag(tag, coding)
    {
        headers.insert(header::ETAG, tag);
    }
    response
}

fn varies(headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
}
