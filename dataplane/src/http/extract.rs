//! What handlers take from a request: its parts without judging them, then key, caller and body, each judged
//! where it is needed.

use std::{convert::Infallible, ops::Deref, sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody},
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
};
use bytes::{Bytes, BytesMut};
use http::{Extensions, HeaderMap, StatusCode, Uri, header};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::{browsers::FromOtherSite, gate::Places, params::Params};
use crate::problem::Problem;
use crate::security::caller::Caller;
use model::{actor, budget::Held, change::Origin, key::Key};

/// The header that tells repeats of a request.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The bytes of a body that need no room of their own: most have no more.
const SMALL: usize = 4 << 10;
/// The longest value of that header.
const IDEMPOTENCY_KEY_MAX: usize = 255;

/// One request, taken apart.
pub struct Call {
    /// Where it goes.
    pub uri: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    body: Body,
    param: Option<String>,
    extensions: Extensions,
}

/// A body that has arrived, with what its request holds until it is answered.
pub struct Received<'a> {
    bytes: Bytes,
    _held: Held,
    _places: Places<'a>,
}

impl Deref for Received<'_> {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

impl<'a> Received<'a> {
    /// A body with the memory and the places of its request.
    pub fn new(bytes: Bytes, held: Held, places: Places<'a>) -> Self {
        Self { bytes, _held: held, _places: places }
    }
}

impl Call {
    /// A request whose path has this parameter.
    pub fn new(request: Request, param: Option<String>) -> Self {
        let (parts, body) = request.into_parts();
        Self { uri: parts.uri, headers: parts.headers, body, param, extensions: parts.extensions }
    }

    /// Who calls, as the guard found out; none for nobody known.
    pub fn caller(&self) -> Option<&Caller> {
        self.extensions.get::<Arc<Caller>>().map(AsRef::as_ref)
    }

    /// The request without its body.
    pub fn head(&self) -> Self {
        Self {
            uri: self.uri.clone(),
            headers: self.headers.clone(),
            body: Body::empty(),
            param: self.param.clone(),
            extensions: self.extensions.clone(),
        }
    }

    /// Who asks for a change, as the audit names them.
    pub fn origin(&self) -> Origin {
        match self.caller() {
            Some(caller) => Origin { roles: caller.roles.as_slice().into(), ..Origin::of(&caller.actor()) },
            None => Origin::of(actor::ANONYMOUS),
        }
    }

    /// The caller's key that tells repeats of this request.
    ///
    /// # Errors
    /// It is not 1 to 255 visible characters.
    pub fn idempotency_key(&self) -> Result<Option<String>, Problem> {
        let Some(value) = self.headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
        let text = value.to_str().ok().filter(|text| {
            (1..=IDEMPOTENCY_KEY_MAX).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_graphic())
        });
        let wrong = || format!("must be 1 to {IDEMPOTENCY_KEY_MAX} visible ASCII characters");
        text.map(|text| Some(text.to_owned())).ok_or_else(|| Problem::field("Idempotency-Key", wrong()))
    }

    /// The path's parameter as text; `name` is what faults call it.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn param(&self, name: &str) -> Result<&str, Problem> {
        self.param.as_deref().ok_or_else(|| Problem::field(name, "is not UTF-8"))
    }

    /// The key that the path names, or the parameter `id` of a collection's path, which takes every key.
    ///
    /// # Errors
    /// It is no key.
    pub fn key(&mut self, name: &str) -> Result<Key, Problem> {
        let (text, name) = match self.param.take() {
            Some(text) => (text, name),
            None => match Params::read(&self.uri, &["id"])?.get("id") {
                Some(text) => (text.to_owned(), "id"),
                None => {
                    return Err(Problem::field(
                        name,
                        "is not UTF-8, or missing: give it in the path or as ?id=",
                    ));
                }
            },
        };
        Key::try_from(text).map_err(|message| Problem::field(name, message))
    }

    /// Refuses query parameters, but for the `id` of a record that the path does not name.
    ///
    /// # Errors
    /// A parameter that is not known here.
    pub fn check_params(&self) -> Result<(), Problem> {
        let known: &[&str] = if self.param.is_some() { &[] } else { &["id"] };
        match self.uri.query() {
            Some(_) => Params::read(&self.uri, known).map(drop),
            None => Ok(()),
        }
    }

    /// The whole body, as JSON of one of these media types. A browser must name it; who else does not is
    /// taken at their word by what they send.
    ///
    /// # Errors
    /// Another media type or encoding, too many bytes, too slow, broken off, or there is no memory for it.
    pub async fn body(
        self,
        types: &[&str],
        bytes_max: usize,
        deadline: Duration,
        held: &Held,
    ) -> Result<Bytes, Problem> {
        let strict = self.extensions.get::<FromOtherSite>().is_some();
        media_type(&self.headers, types, strict)?;
        let declared =
            self.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if declared.is_some_and(|length: usize| length > bytes_max) {
            return Err(Problem::too_large(bytes_max));
        }
        timeout(deadline, collected(self.body, bytes_max, held)).await.unwrap_or_else(|_| {
            let detail = "the body did not arrive in time";
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "slow", "The body did not arrive", detail))
        })
    }
}

impl<S: Send + Sync> FromRequest<S> for Call {
    type Rejection = Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Self, Infallible> {
        let (mut parts, body) = request.into_parts();
        let param = match RawPathParams::from_request_parts(&mut parts, state).await {
            Ok(params) => params.iter().next().map(|(_, value)| value.to_owned()),
            Err(_) => None,
        };
        Ok(Self::new(Request::from_parts(parts, body), param))
    }
}

/// `strict`: the type must be one of these. Otherwise only another JSON than these is refused, such as a JSON
/// patch, and another charset.
fn media_type(headers: &HeaderMap, types: &[&str], strict: bool) -> Result<(), Problem> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|value| value != "identity") {
        return Err(Problem::coded());
    }
    let refused = || {
        let by = if strict { ", because a page of another site sends it" } else { "" };
        let detail = format!("Content-Type must be {} in UTF-8{by}", types.join(" or "));
        Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "media-type",
            "The body's type is not supported",
            detail,
        )
    };
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return if strict { Err(refused()) } else { Ok(()) };
    };
    let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let sound_type =
        parts.next().is_some_and(|found| types.contains(&found) || !strict && !found.ends_with("+json"));
    let sound_charset = parts
        .filter_map(|part| part.strip_prefix("charset="))
        .all(|charset| charset.trim_matches('"') == "utf-8");
    if sound_type && sound_charset { Ok(()) } else { Err(refused()) }
}

/// A body in one piece, as far as there is memory for it.
async fn collected(mut body: Body, bytes_max: usize, held: &Held) -> Result<Bytes, Problem> {
    let (mut whole, mut length) = (BytesMut::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let broken = |_| {
            let detail = "the body broke off";
            Problem::new(StatusCode::BAD_REQUEST, "malformed", "The body cannot be read", detail)
        };
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length > bytes_max {
            return Err(Problem::too_large(bytes_max));
        }
        if length > SMALL && !held.grow(data.len() as u64) {
            return Err(Problem::no_memory());
        }
        if body.is_end_stream() && whole.is_empty() {
            return Ok(data);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}
