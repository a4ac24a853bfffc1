//! The operations of the service's own OpenAPI document, for suites that ask for all of them.

use harness::client::Api;
use reqwest::Method;
use serde_json::Value;

/// The feed: its answers do not end.
pub const FEED: [&str; 3] = ["/ws", "/api/v1/ws", "/api/v1/events/stream"];

/// An operation of the document.
pub struct Operation {
    /// The method.
    pub method: Method,
    /// The path, with its parameters in braces.
    pub path: String,
    /// What the document says of it.
    pub described: Value,
}

impl Operation {
    /// Whether the document has this status for it.
    pub fn can_answer(&self, status: u16) -> bool {
        self.described["responses"].get(status.to_string()).is_some()
    }

    /// The path with something in the place of each parameter.
    pub fn path_with(&self, value: &str) -> String {
        self.path
            .split('/')
            .map(|part| if part.starts_with('{') { value } else { part })
            .collect::<Vec<_>>()
            .join("/")
    }

    /// The name of the parameter that the path ends in.
    pub fn key(&self) -> Option<&str> {
        self.path.rsplit('/').next()?.strip_prefix('{')?.strip_suffix('}')
    }

    /// For messages.
    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Its parameters in a place: `path`, `query` or `header`.
    pub fn parameters(&self, place: &str) -> Vec<String> {
        let all = self.described["parameters"].as_array().cloned().unwrap_or_default();
        let of_place = all.iter().filter(|parameter| parameter["in"] == place);
        of_place.filter_map(|parameter| parameter["name"].as_str().map(str::to_owned)).collect()
    }

    /// How many parameters it takes for this to be the operation of a path; none where it is not.
    pub fn fits(&self, method: &Method, path: &str) -> Option<usize> {
        let (mine, theirs): (Vec<&str>, Vec<&str>) =
            (self.path.split('/').collect(), path.split('/').collect());
        let same = |(mine, theirs): (&&str, &&str)| mine.starts_with('{') || mine == theirs;
        let all = self.method == *method && mine.len() == theirs.len() && mine.iter().zip(&theirs).all(same);
        all.then(|| mine.iter().filter(|part| part.starts_with('{')).count())
    }
}

/// All operations of the service's document.
pub async fn operations(api: &Api) -> Vec<Operation> {
    let document = api.get("/openapi.json").await.json();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, described) in item.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            operations.push(Operation { method, path: path.clone(), described: described.clone() });
        }
    }
    operations
}
