//! One operation of the document: a method on a path, what it takes, and every answer that it can give.

use serde_json::{Map, Value as Json, json};

/// An operation as the document shows it.
pub struct Operation {
    method: &'static str,
    path: String,
    id: String,
    tag: String,
    summary: &'static str,
    parameters: Vec<Json>,
    body: Option<Json>,
    answers: Map<String, Json>,
}

impl Operation {
    /// GET.
    pub fn get(path: impl Into<String>, id: impl Into<String>, summary: &'static str) -> Self {
        Self::new("get", path.into(), id.into(), summary)
    }

    /// POST.
    pub fn post(path: impl Into<String>, id: impl Into<String>, summary: &'static str) -> Self {
        Self::new("post", path.into(), id.into(), summary)
    }

    /// PUT.
    pub fn put(path: impl Into<String>, id: impl Into<String>, summary: &'static str) -> Self {
        Self::new("put", path.into(), id.into(), summary)
    }

    /// PATCH.
    pub fn patch(path: impl Into<String>, id: impl Into<String>, summary: &'static str) -> Self {
        Self::new("patch", path.into(), id.into(), summary)
    }

    /// DELETE.
    pub fn delete(path: impl Into<String>, id: impl Into<String>, summary: &'static str) -> Self {
        Self::new("delete", path.into(), id.into(), summary)
    }

    fn new(method: &'static str, path: String, id: String, summary: &'static str) -> Self {
        let tag = "service".to_owned();
        Self { method, path, id, tag, summary, parameters: Vec::new(), body: None, answers: Map::new() }
    }

    /// The group that it is shown in.
    #[must_use]
    pub fn tag(mut self, tag: &str) -> Self {
        tag.clone_into(&mut self.tag);
        self
    }

    /// A parameter of the path.
    #[must_use]
    pub fn in_path(self, name: &str, schema: Json) -> Self {
        self.parameter("path", name, true, "", schema)
    }

    /// The same operation on a record that the query names: at the path of its collection.
    #[must_use]
    pub fn by_query(mut self, collection: &str, about: &'static str) -> Self {
        collection.clone_into(&mut self.path);
        self.id.push_str("ById");
        self.parameters.retain(|parameter| parameter["in"] != "path");
        self.answers.remove("405");
        self.summary = about;
        let schema = json!({ "type": "string", "maxLength": 255 });
        self.parameter("query", "id", true, "The key: any text of up to 255 bytes.", schema)
    }

    /// An optional parameter of the query.
    #[must_use]
    pub fn query(self, name: &str, about: &str, schema: Json) -> Self {
        self.parameter("query", name, false, about, schema)
    }

    /// An optional header of the request.
    #[must_use]
    pub fn header(self, name: &str, about: &str, schema: Json) -> Self {
        self.parameter("header", name, false, about, schema)
    }

    fn parameter(mut self, place: &str, name: &str, required: bool, about: &str, schema: Json) -> Self {
        let mut parameter = json!({ "in": place, "name": name, "required": required, "schema": schema });
        if !about.is_empty() {
            parameter["description"] = about.into();
        }
        self.parameters.push(parameter);
        self
    }

    /// The body that it needs, as JSON.
    #[must_use]
    pub fn takes(self, schema: Json) -> Self {
        self.takes_as(&["application/json"], schema)
    }

    /// The body that it needs, in any of these media types.
    #[must_use]
    pub fn takes_as(mut self, types: &[&str], schema: Json) -> Self {
        let content: Map<String, Json> =
            types.iter().map(|media| ((*media).to_owned(), json!({ "schema": schema }))).collect();
        self.body = Some(json!({ "required": true, "content": content }));
        self
    }

    /// The body that it may have, as JSON.
    #[must_use]
    pub fn may_take(self, schema: Json) -> Self {
        let mut operation = self.takes(schema);
        if let Some(body) = &mut operation.body {
            body["required"] = false.into();
        }
        operation
    }

    /// An answer with a JSON body.
    #[must_use]
    pub fn gives(self, status: u16, about: &str, schema: Json) -> Self {
        self.gives_as(status, about, "application/json", schema)
    }

    /// An answer with a body of a media type.
    #[must_use]
    pub fn gives_as(mut self, status: u16, about: &str, media: &str, schema: Json) -> Self {
        let mut content = Map::new();
        content.insert(media.to_owned(), json!({ "schema": schema }));
        self.answers.insert(status.to_string(), json!({ "description": about, "content": content }));
        self
    }

    /// An answer without a body.
    #[must_use]
    pub fn gives_nothing(mut self, status: u16, about: &str) -> Self {
        self.answers.insert(status.to_string(), json!({ "description": about }));
        self
    }

    /// Headers of an answer that was described before; each with whether it is always there.
    #[must_use]
    pub fn with_headers(mut self, status: u16, names: &[(&str, bool)]) -> Self {
        if let Some(answer) = self.answers.get_mut(&status.to_string()) {
            for (name, always) in names {
                answer["headers"][*name] = header(name, *always);
            }
        }
        self
    }

    /// Problems that it can answer with.
    #[must_use]
    pub fn fails(mut self, statuses: &[u16]) -> Self {
        for status in statuses {
            let answer = json!({ "$ref": format!("#/components/responses/{status}") });
            self.answers.insert(status.to_string(), answer);
        }
        self
    }

    /// What every guarded operation can answer: no token, no right, too often, a fault of this side.
    #[must_use]
    pub fn guarded(self) -> Self {
        self.fails(&[400, 401, 403, 429, 500, 503])
    }

    /// Puts itself into the paths of a document.
    pub fn insert_into(self, paths: &mut Map<String, Json>) {
        let Self { method, path, id, tag, summary, parameters, body, answers } = self;
        let mut operation =
            json!({ "operationId": id, "tags": [tag], "summary": summary, "responses": answers });
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if let Some(body) = body {
            operation["requestBody"] = body;
        }
        let item = paths.entry(path).or_insert_with(|| json!({}));
        item[method] = operation;
    }
}

/// The problems that answers refer to, by status.
pub fn problem_responses() -> Json {
    const PROBLEMS: [(u16, &str); 21] = [
        (400, "The request is not valid: `errors` names each field, parameter or header that is wrong."),
        (401, "A valid token is needed."),
        (403, "The caller may not do this."),
        (404, "There is nothing here."),
        (405, "The key is the word of another route, which wins: ask at the collection with `?id=`."),
        (406, "None of the types that the client takes can be given."),
        (408, "The body did not arrive in time."),
        (
            409,
            "The record's state does not allow this; for a value that must be unique, `errors` names the field.",
        ),
        (410, "What is asked for is no longer kept."),
        (412, "The record is not as the condition says."),
        (413, "The body is too large."),
        (415, "The body's type is not supported."),
        (422, "The request is understood and cannot be done here."),
        (424, "What this depends on failed."),
        (426, "A WebSocket is needed here."),
        (429, "Too many requests."),
        (500, "The service failed; its log says more."),
        (502, "A part that this needs answered badly."),
        (503, "The service cannot do this now: try again."),
        (504, "The outcome is not known."),
        (507, "There is no room to store this: nothing was changed, and reads go on."),
    ];
    let answer = |(status, about): (u16, &str)| {
        let schema = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
        let mut answer = json!({ "description": about, "content": { "application/problem+json": schema } });
        match status {
            401 => answer["headers"]["WWW-Authenticate"] = header("WWW-Authenticate", true),
            429 | 503 | 507 => answer["headers"]["Retry-After"] = header("Retry-After", true),
            _ => {}
        }
        (status.to_string(), answer)
    };
    Json::Object(PROBLEMS.into_iter().map(answer).collect())
}

fn header(name: &str, always: bool) -> Json {
    let (about, schema) = match name {
        "ETag" => (
            "The record's version as an entity tag; with the content coding, where it is sent in one.",
            json!({ "type": "string", "pattern": "^\"[0-9]+(-gzip|-zstd)?\"$" }),
        ),
        "Location" => ("The path of the new record.", json!({ "type": "string", "pattern": "^/" })),
        "Retry-After" => ("Seconds to wait.", json!({ "type": "integer", "minimum": 0 })),
        "Age" => ("How old a stale answer is, in seconds.", json!({ "type": "integer", "minimum": 0 })),
        "Warning" => ("Said of a stale answer.", json!({ "type": "string" })),
        "WWW-Authenticate" => ("How to authenticate.", json!({ "type": "string" })),
        "Flyweight-Explain" => (
            "The tier, the version and the age of what was served, where it was asked for.",
            json!({ "type": "string" }),
        ),
        _ => ("", json!({ "type": "string" })),
    };
    json!({ "description": about, "required": always, "schema": schema })
}
