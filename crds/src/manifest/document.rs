//! YAML texts as documents: bounded, with the line of every field, and with keys that are written twice.

use std::rc::Rc;

use serde::Deserialize;
use serde_json::Value;

use super::{lines::Lines, path::Path};
use crate::fault::Fault;

/// The largest file that is read, so that no file can take the process down.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;
/// How deep brackets may be nested; the reader's own limit is lower, but it takes quadratic time to find out.
const BRACKETS_DEEP_MAX: usize = 1_000;
/// The most documents in one file.
const DOCUMENTS_MAX: usize = 1_000;

/// One document of a file.
#[derive(Debug)]
pub(super) struct Document {
    file: String,
    /// The lines of the file before the document.
    lines_before: usize,
    lines: Rc<Lines>,
    /// Where the resource is in the document: it may be one of a list.
    base: Path,
    pub(super) value: Value,
}

impl Document {
    /// `pools.yaml:14`
    pub(super) fn place(&self, path: &Path) -> String {
        place(&self.file, self.lines_before + self.lines.line(&self.base.join(path)))
    }

    /// Keys that are written twice, each with its place.
    pub(super) fn twice(&self) -> impl Iterator<Item = (Path, String)> {
        let own = |(path, line): &(Path, usize)| Some((path.below(&self.base)?, *line));
        let own = self.lines.twice().iter().filter_map(own);
        own.map(|(path, line)| (path, place(&self.file, self.lines_before + line)))
    }

    /// The resources of a list as `kubectl get` writes it, or this one.
    fn resources(mut self) -> Vec<Self> {
        let kind = self.value["kind"].as_str().unwrap_or_default().to_owned();
        let (Some(of), true) = (kind.strip_suffix("List"), self.value["items"].is_array()) else {
            return vec![self];
        };
        let version = self.value["apiVersion"].take();
        let Value::Array(items) = self.value["items"].take() else { return Vec::new() };
        let base = self.base.key("items");
        let each = items.into_iter().enumerate().map(|(index, mut value)| {
            // in a list of one kind the API server leaves it out
            if !of.is_empty() && value.is_object() && value["kind"].is_null() {
                (value["kind"], value["apiVersion"]) = (of.into(), version.clone());
            }
            let (file, lines) = (self.file.clone(), self.lines.clone());
            Self { file, lines_before: self.lines_before, lines, base: base.index(index), value }
        });
        each.collect()
    }
}

/// The documents of a file that can be read, and a fault for each that cannot. Empty documents are left out.
pub(super) fn documents(file: &str, text: &str, faults: &mut Vec<Fault>) -> Vec<Document> {
    if text.len() as u64 > FILE_BYTES_MAX {
        faults.push(unreadable(file.to_owned(), format!("is larger than {FILE_BYTES_MAX} bytes")));
        return Vec::new();
    }
    if brackets_deep(text) > BRACKETS_DEEP_MAX {
        faults.push(unreadable(file.to_owned(), format!("nests more than {BRACKETS_DEEP_MAX} brackets")));
        return Vec::new();
    }
    let parts = split(text);
    if parts.len() > DOCUMENTS_MAX {
        faults.push(unreadable(file.to_owned(), format!("has more than {DOCUMENTS_MAX} documents")));
        return Vec::new();
    }
    let mut documents = Vec::with_capacity(parts.len());
    for (lines_before, part) in parts {
        match parse(part) {
            Ok((Value::Null, _)) => {}
            Ok((value, lines)) => {
                let (file, base, lines) = (file.to_owned(), Path::default(), Rc::new(lines));
                documents.extend(Document { file, lines_before, lines, base, value }.resources());
            }
            Err(error) => {
                let line = error.location().map_or(1, |location| location.line());
                let message = error.to_string();
                let what = message.split(" at line ").next().unwrap_or(&message);
                faults.push(unreadable(
                    place(file, lines_before + line),
                    format!("cannot be read as YAML: {what}"),
                ));
            }
        }
    }
    documents
}

/// A fault of a file rather than of a resource.
pub(super) fn unreadable(place: String, message: String) -> Fault {
    Fault { resource: String::new(), path: String::new(), message, place: Some(place) }
}

fn place(file: &str, line: usize) -> String {
    format!("{file}:{line}")
}

/// How many brackets are open at most, those in strings and comments included.
fn brackets_deep(text: &str) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

/// The documents between the `---` lines, each with the number of lines before it: a fault in one leaves the
/// others readable.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut lines_before, mut offset) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let ends = matches!(line.strip_prefix("---"), Some(rest) if rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if ends && offset > start {
            parts.push((lines_before, &text[start..offset]));
            (start, lines_before) = (offset, number);
        }
        offset += line.len();
    }
    parts.push((lines_before, &text[start..]));
    parts
}

fn parse(text: &str) -> Result<(Value, Lines), serde_yaml_ng::Error> {
    let strict = serde_yaml_ng::from_str::<serde_yaml_ng::Value>(text).and_then(|mut value| {
        value.apply_merge()?;
        Value::deserialize(value)
    });
    // JSON's reader takes the last of two equal keys, so that everything else in the document can still be
    // checked.
    let value = strict.or_else(|error| serde_yaml_ng::from_str(text).map_err(|_| error))?;
    Ok((value, Lines::of(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Value>, Vec<String>) {
        let mut faults = Vec::new();
        let documents = documents("a.yaml", text, &mut faults);
        (
            documents.into_iter().map(|document| document.value).collect(),
            faults.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn documents_are_read_apart() {
        let (values, faults) = read("# top\n---\na: 1\n---\n# nothing\n---\nb: [\n---\nc: 3\n");
        assert_eq!(values, [serde_json::json!({ "a": 1 }), serde_json::json!({ "c": 3 })]);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("a.yaml:8: cannot be read as YAML"), "{faults:?}");
    }

    #[test]
    fn merge_keys_and_aliases_are_followed() {
        let (values, faults) = read("base: &b { x: 1 }\nuse: { <<: *b, y: 2 }\n");
        assert_eq!(values[0]["use"], serde_json::json!({ "x": 1, "y": 2 }));
        assert_eq!(faults, Vec::<String>::new());
    }

    #[test]
    fn no_file_takes_the_process_down() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        (1..12).for_each(|n| {
            bomb.push_str(&format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", ")))
        });
        let large = "a: x\n".repeat(300_000);
        for text in [
            bomb,
            "[".repeat(900),
            "[".repeat(1_000_000),
            "{a: ".repeat(200_000),
            large,
            "---\n".repeat(2_000) + "a: 1\n",
        ] {
            let (values, faults) = read(&text);
            assert!(values.is_empty(), "{:.40} was read", text);
            assert_eq!(faults.len(), 1, "{:.40}", text);
        }
    }
}
