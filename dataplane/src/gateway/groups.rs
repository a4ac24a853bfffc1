//! One request to several groups of pods, each of which serves a part of the pools.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use futures::future::join_all;
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::{errand::Errand, lines, merge, route::Target, send::Answer};
use crate::{http::conditions::is_known, problem::Problem};
use model::{
    budget::{Held, until_sent},
    routes::{Effect, join::Rule},
};

/// The most bytes of one group's part of an answer.
const PART_BYTES_MAX: usize = 64 << 20;

/// Requests and answers under way hold as much as they may.
struct NoMemory;

/// Asks one group after another until one can: who cannot says 404 or 409.
///
/// # Errors
/// The answer that says why there is none.
pub async fn in_turn(errand: &Errand<'_>, groups: Vec<Target>) -> Result<Answer, Response> {
    let cannot =
        |answer: &Answer| matches!(answer.head().status(), StatusCode::NOT_FOUND | StatusCode::CONFLICT);
    let mut last = None;
    for group in groups {
        let answered = errand.to(group).carry_out().await;
        let goes_on = answered.as_ref().is_ok_and(cannot);
        last = Some(answered);
        if !goes_on {
            break;
        }
    }
    match last {
        Some(answered) => answered,
        None => Err(errand.proxy.no_pod(&errand.parts.uri)),
    }
}

/// Asks each group, at once where that changes nothing, and joins the answers. A group that may not show its
/// part, or has none, adds nothing to a read unless all say so; any other problem is the answer.
pub async fn of_every(errand: &Errand<'_>, groups: Vec<Target>, rule: &Rule) -> Response {
    // a tag is of the whole document, which no group has
    let mut parts = errand.parts.clone();
    parts.headers.remove(header::IF_NONE_MATCH);
    // they come as they are, to be read
    parts.headers.remove(header::ACCEPT_ENCODING);
    if parts.method == Method::HEAD {
        // the head is that of the joined document
        parts.method = Method::GET;
    }
    let asked = errand.with_head(&parts);
    let mut answers = Vec::with_capacity(groups.len());
    if errand.effect == Effect::Reads {
        answers = join_all(groups.iter().map(|group| ask(&asked, group.clone()))).await;
    } else {
        for group in &groups {
            let answer = ask(&asked, group.clone()).await;
            let stop = is_problem(&answer);
            answers.push(answer);
            if stop {
                break;
            }
        }
    }
    if let Rule::Report(_, status) = rule
        && answers.iter().any(|answer| !is_problem(answer))
    {
        for (answer, group) in answers.iter_mut().zip(&groups).filter(|(answer, _)| is_away(answer)) {
            *answer = report_of_away(group, *status);
        }
    }
    let spare = |answer: &Response| {
        errand.effect == Effect::Reads
            && matches!(answer.status(), StatusCode::NOT_FOUND | StatusCode::FORBIDDEN)
    };
    if let Some(at) = answers.iter().position(|answer| is_problem(answer) && !spare(answer)) {
        return answers.swap_remove(at);
    }
    let (mut good, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| !is_problem(answer));
    match (good.len(), rule) {
        (0, _) => refused.into_iter().next().unwrap_or_else(|| errand.proxy.no_pod(&errand.parts.uri)),
        (1, _) if !good.iter().any(|answer| answer.headers().contains_key(header::ETAG)) => {
            good.swap_remove(0)
        }
        (_, Rule::Lines) => lines::merged(good),
        (_, rule) => documents(good, rule, errand).await,
    }
}

async fn ask(errand: &Errand<'_>, group: Target) -> Response {
    match errand.to(group).carry_out().await {
        Ok(answer) => answer.respond(None),
        Err(response) => response,
    }
}

/// Whether nobody answered for a group.
fn is_away(answer: &Response) -> bool {
    let nobody = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
    is_problem(answer) && nobody.contains(&answer.status())
}

/// What is said for a group that is away.
fn report_of_away(group: &Target, status: u16) -> Response {
    let name = if let Target::Group(name) | Target::Pool(name) = group { name } else { "?" };
    let check = json!({ "status": "unhealthy", "latency_ms": 0, "message": "no pod of this group answers" });
    let report = json!({ "status": "unhealthy", "checks": { format!("group {name}"): check } });
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    (status, Json(report)).into_response()
}

/// What is joined is JSON, also where its status says that something is wrong.
fn is_problem(answer: &Response) -> bool {
    let media = answer.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    !answer.status().is_success() && !media.starts_with(b"application/json")
}

/// One group's part, as far as there is room for its text and for what is made of it; none where it broke off
/// or is no document.
async fn part_of(mut body: Body, held: &Held) -> Result<Option<Value>, NoMemory> {
    let mut text = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Ok(None) };
        let Ok(data) = frame.into_data() else { continue };
        if text.len() + data.len() > PART_BYTES_MAX {
            return Ok(None);
        }
        if !held.grow(2 * data.len() as u64) {
            return Err(NoMemory);
        }
        text.extend_from_slice(&data);
    }
    Ok(serde_json::from_slice(&text).ok())
}

fn unjoined(why: &str) -> Problem {
    let title = "The groups' answers cannot be joined";
    Problem::new(StatusCode::BAD_GATEWAY, "groups-unjoined", title, why)
}

/// The answers as one document, with the head of the worst of them. What is read for it counts in memory
/// until it is sent.
async fn documents(answers: Vec<Response>, rule: &Rule, errand: &Errand<'_>) -> Response {
    let (mut heads, mut parts, held) =
        (Vec::new(), Vec::new(), Arc::new(errand.proxy.budgets.answers.share()));
    for answer in answers {
        let (head, body) = answer.into_parts();
        let part = match part_of(body, &held).await {
            Ok(Some(part)) => part,
            Ok(None) => {
                let why = "a group of pods broke off, or gave more than can be joined: try again";
                return unjoined(why).respond(&errand.parts.uri);
            }
            Err(NoMemory) => return errand.proxy.no_memory(&errand.parts.uri),
        };
        heads.push(head);
        parts.push(part);
    }
    let Some(mut head) = heads.into_iter().max_by_key(|head| head.status) else {
        return unjoined("no group of pods answered: try again").respond(&errand.parts.uri);
    };
    let body = until_sent(merge::join(rule, parts).to_string().into(), held);
    head.headers.remove(header::CONTENT_LENGTH);
    if head.headers.contains_key(header::ETAG) {
        let tag = format!("\"{:016x}\"", xxh3_64(&body));
        let tag = HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"0\""));
        if is_known(&errand.parts.headers, &tag) {
            head.status = StatusCode::NOT_MODIFIED;
            head.headers.remove(header::CONTENT_TYPE);
        }
        head.headers.insert(header::ETAG, tag);
    }
    let body = if head.status == StatusCode::NOT_MODIFIED { Body::empty() } else { Body::from(body) };
    Response::from_parts(head, body)
}
