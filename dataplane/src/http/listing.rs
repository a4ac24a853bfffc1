//! The handlers of pages: all records, many by their keys, by a field of the path, by a search.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use bytes::Bytes;
use http::StatusCode;

use super::{
    conditions::IF_MIN_VERSION,
    extract::Call,
    metrics::Operation,
    params::Params,
    resource::{Resource, json},
};
use crate::problem::Problem;
use crate::{
    server::memory::{about, told},
    service::{
        cursor::{place_among, place_of},
        list::{Listing, PageRequest, list},
        pages::KeptPage,
        records::Many,
    },
};
use model::{
    budget::{Allowance, until_sent},
    entity::{Match, SearchParam},
    field::value_of,
    key::Key,
    query::{Comparison, Direction, Filter},
    record::Named,
    schema::{FieldRef, Schema},
    value::{Value, write_json_text},
};

const PAGE_PARAMS: [&str; 3] = ["limit", "offset", "cursor"];

/// The most words of a search.
const WORDS_MAX: usize = 8;

/// `GET /{collection}?limit=&offset=|cursor=|ids=`, or one record of any key: `?id=`
pub async fn list_all(State(resource): State<Arc<Resource>>, call: Call) -> Response {
    if Params::names(&call.uri, "id") {
        return resource.get(call).await;
    }
    resource.run(Operation::List, call, |call| all(&resource, call)).await
}

/// A page of the records whose field is what the path says.
pub async fn list_by(resource: Arc<Resource>, field: &'static str, call: Call) -> Response {
    resource.run(Operation::List, call, |call| matching_path(&resource, field, call)).await
}

/// A page of the records that match every given parameter.
pub async fn search(resource: Arc<Resource>, by: &'static [SearchParam], call: Call) -> Response {
    resource.run(Operation::List, call, |call| matching_search(&resource, by, call)).await
}

/// Checks that the caller may read pages; their versions cannot be asked for.
fn may_list(resource: &Resource, call: &Call) -> Result<(), Problem> {
    resource.may_read(call)?;
    if call.headers.contains_key(IF_MIN_VERSION) {
        return Err(Problem::field("If-Min-Version", "speaks of one record: leave it out of a list"));
    }
    Ok(())
}

async fn all(resource: &Resource, call: Call) -> Result<Response, Problem> {
    may_list(resource, &call)?;
    let params = Params::read(&call.uri, &["limit", "offset", "cursor", "ids", "id"])?;
    if let Some(keys) = params.ids(resource.records.schema().any_key)? {
        return many(resource, &keys, params.get("cursor")).await;
    }
    page(resource, Filter::All, Vec::new(), &params.page()?).await
}

/// Many by their keys, from the place of a cursor on.
async fn many(resource: &Resource, keys: &[Key], cursor: Option<&str>) -> Result<Response, Problem> {
    let place =
        |text| place_of(text, keys).ok_or_else(|| Problem::field("cursor", "is not a cursor of these ids"));
    let offset = cursor.map(place).transpose()?.unwrap_or_default();
    let held = Arc::new(resource.budgets().answers.share());
    let rest = keys.get(offset..).unwrap_or_default();
    let found = resource.records.get_many(rest, &Allowance::of(&held)).await;
    let many = found.map_err(|error| resource.problem(error))?;
    if !held.double() {
        return Err(Problem::no_memory());
    }
    let next = Some(offset + many.keys).filter(|next| *next < keys.len()).map(|next| place_among(keys, next));
    let body = entries_body(&many, keys.len(), offset, next);
    let about = about(&resource.path, many.versions.iter().map(|(key, version)| (key, *version)));
    Ok(told(json(until_sent(body.into(), held), StatusCode::OK), about))
}

async fn matching_path(resource: &Resource, field: &str, call: Call) -> Result<Response, Problem> {
    may_list(resource, &call)?;
    let params = Params::read(&call.uri, &PAGE_PARAMS)?;
    let filter = equal(resource.records.schema(), field, field, call.param(field)?)?;
    page(resource, filter, Vec::new(), &params.page()?).await
}

async fn matching_search(resource: &Resource, by: &[SearchParam], call: Call) -> Result<Response, Problem> {
    may_list(resource, &call)?;
    let known: Vec<&str> = by.iter().map(|param| param.name).chain(PAGE_PARAMS).collect();
    let params = Params::read(&call.uri, &known)?;
    let schema = resource.records.schema();
    let mut parts = Vec::new();
    for SearchParam { name, about: _, fields, how, max: _ } in by {
        let Some(text) = params.search(name)? else { continue };
        let one = |field: &&str| match how {
            Match::Whole => equal(schema, field, name, text),
            Match::Same => same(schema, field, name, text),
            Match::Part | Match::Words => holds(schema, field, name, text),
        };
        parts.push(match how {
            Match::Whole | Match::Same | Match::Part => {
                Filter::Or(fields.iter().map(one).collect::<Result<_, _>>()?)
            }
            Match::Words => words(schema, fields, name, text)?,
        });
    }
    page(resource, Filter::And(parts), Vec::new(), &params.page()?).await
}

/// A page of the records that a filter takes: as it was read before, if nothing changed since, or from the
/// store.
///
/// # Errors
/// A cursor that is not one of this list, or what the store says.
pub async fn page(
    resource: &Resource,
    filter: Filter,
    order: Vec<(FieldRef, Direction)>,
    page: &PageRequest,
) -> Result<Response, Problem> {
    let records = &resource.records;
    let query = format!("{filter:?} {order:?} {page:?}");
    if let Some(KeptPage { body, about }) = records.kept_page(&query) {
        return Ok(told(json(body, StatusCode::OK), about));
    }
    let generation = records.generation();
    let held = Arc::new(resource.budgets().answers.share());
    let listing = list(records, filter, order, page, Allowance::of(&held)).await;
    let listing = listing.map_err(|error| resource.problem(error))?;
    let read = usize::try_from(held.bytes()).unwrap_or(usize::MAX);
    if !held.double() {
        return Err(Problem::no_memory());
    }
    let body = Bytes::from(listing_body(records.schema(), &listing, page.limit, read));
    let about = about(&resource.path, listing.records.iter().map(|one| (&one.key, one.version)));
    records.keep_page(query, generation, &KeptPage { body: body.clone(), about: about.clone() });
    Ok(told(json(until_sent(body, held), StatusCode::OK), about))
}

/// The records that have each word of a text in one of some fields.
fn words(schema: &Schema, fields: &[&str], param: &str, text: &str) -> Result<Filter, Problem> {
    let readable = |field: &&&str| searchable(schema, field, param).is_ok();
    let fields: Vec<usize> =
        fields.iter().filter(readable).filter_map(|field| schema.index_of(field)).collect();
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() || words.len() > WORDS_MAX {
        return Err(Problem::field(param, format!("must have 1 to {WORDS_MAX} words")));
    }
    let within = |word: &&str| {
        Filter::Or(
            fields.iter().map(|field| Filter::Holds(FieldRef::Field(*field), (*word).to_owned())).collect(),
        )
    };
    Ok(Filter::And(words.iter().map(within).collect()))
}

/// The records whose field equals a text of the request.
fn equal(schema: &Schema, field: &str, param: &str, text: &str) -> Result<Filter, Problem> {
    let index = searchable(schema, field, param)?;
    let mut raw = String::new();
    write_json_text(text, &mut raw);
    let value = schema.fields.get(index).map(|field| value_of(field, &raw));
    match value {
        Some(Ok(value)) => Ok(Filter::Compare(FieldRef::Field(index), Comparison::Eq, value)),
        Some(Err(fault)) => Err(Problem::field(param, fault.message)),
        None => Err(Problem::field(param, "is not a field of this entity")),
    }
}

/// The records whose field equals a text of the request but for case: by its index, or, where a record is not
/// in that, by the text itself.
fn same(schema: &Schema, field: &str, param: &str, text: &str) -> Result<Filter, Problem> {
    equal(schema, field, param, text)?;
    let own = Filter::Same(FieldRef::Field(searchable(schema, field, param)?), text.to_owned());
    let Some(folded) = schema.folded_index_of(field).map(FieldRef::Field) else { return Ok(own) };
    Ok(Filter::Or(vec![
        Filter::Compare(folded, Comparison::Eq, Value::Text(text.to_lowercase())),
        Filter::And(vec![Filter::IsNull(folded), own]),
    ]))
}

/// The records whose field holds a text of the request.
fn holds(schema: &Schema, field: &str, param: &str, text: &str) -> Result<Filter, Problem> {
    Ok(Filter::Holds(FieldRef::Field(searchable(schema, field, param)?), text.to_owned()))
}

fn searchable(schema: &Schema, field: &str, param: &str) -> Result<usize, Problem> {
    let index =
        schema.index_of(field).ok_or_else(|| Problem::field(param, "is not a field of this entity"))?;
    if schema.fields.get(index).is_some_and(|field| field.encrypted) {
        return Err(Problem::field(param, format!("cannot be searched: {field} is encrypted")));
    }
    Ok(index)
}

fn listing_body(schema: &Schema, listing: &Listing, limit: u32, read: usize) -> String {
    let Listing { records, unreadable, total, offset, next_cursor } = listing;
    let mut out = String::with_capacity(read + 256 * (records.len() + 1));
    out.push_str("{\"items\":[");
    for (index, record) in records.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(&record.to_json(schema));
    }
    let cursor = next_cursor.clone().map_or(Value::Null, Value::Text);
    out.push_str(&format!("],\"total\":{total},\"limit\":{limit},\"offset\":{offset},\"next_cursor\":"));
    cursor.write_json(&mut out);
    write_unreadable(unreadable, &mut out);
    out.push('}');
    out
}

/// Appends the names of records that cannot be read; nothing where all can.
fn write_unreadable(unreadable: &[Named], out: &mut String) {
    if unreadable.is_empty() {
        return;
    }
    out.push_str(",\"unreadable\":[");
    for (index, Named { key, field }) in unreadable.iter().enumerate() {
        out.push_str(if index > 0 { ",{\"key\":" } else { "{\"key\":" });
        key.clone().map_or(Value::Null, Value::Text).write_json(out);
        out.push_str(",\"field\":");
        write_json_text(field, out);
        out.push('}');
    }
    out.push(']');
}

fn entries_body(many: &Many, asked: usize, offset: usize, next: Option<String>) -> Vec<u8> {
    let Many { entries, unreadable, keys: _, versions: _ } = many;
    let mut out = Vec::with_capacity(entries.iter().map(|entry| entry.body_len() + 1).sum::<usize>() + 80);
    out.extend_from_slice(b"{\"items\":[");
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&entry.own);
        out.extend_from_slice(&entry.shared);
        out.push(b'}');
    }
    let total = entries.len() + unreadable.len();
    let mut end = format!("],\"total\":{total},\"limit\":{asked},\"offset\":{offset},\"next_cursor\":");
    next.map_or(Value::Null, Value::Text).write_json(&mut end);
    write_unreadable(unreadable, &mut end);
    end.push('}');
    out.extend_from_slice(end.as_bytes());
    out
}
