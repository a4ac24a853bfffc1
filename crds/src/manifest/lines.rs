//! In which line of a document each field is, and which keys are written twice.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser};

use super::path::{Path, Step};

/// A node of a document with its line, counted from 1.
#[derive(Debug, Default)]
struct Node {
    line: usize,
    children: BTreeMap<Step, Node>,
}

/// The lines of one document.
#[derive(Debug, Default)]
pub(super) struct Lines {
    root: Node,
    twice: Vec<(Path, usize)>,
}

impl Lines {
    /// Reads a document that is known to parse, and to be nested no deeper than the YAML reader allows.
    pub(super) fn of(text: &str) -> Self {
        let mut open: Vec<Open> = Vec::new();
        let mut lines = Self::default();
        for (event, span) in Parser::new_from_str(text).map_while(Result::ok) {
            let line = span.start.line();
            match event {
                Event::MappingStart(..) => open.push(Open::new(line, Kind::Mapping { key: None })),
                Event::SequenceStart(..) => open.push(Open::new(line, Kind::Sequence { next: 0 })),
                Event::MappingEnd | Event::SequenceEnd => {
                    if let Some(Open { node, .. }) = open.pop() {
                        lines.close(&mut open, node);
                    }
                }
                Event::Scalar(text, ..) => match open.last_mut().map(|parent| &mut parent.kind) {
                    Some(Kind::Mapping { key: key @ None }) => *key = Some((text.into_owned(), line)),
                    _ => lines.close(&mut open, Node { line, children: BTreeMap::new() }),
                },
                Event::Alias(_) => lines.close(&mut open, Node { line, children: BTreeMap::new() }),
                _ => {}
            }
        }
        lines
    }

    /// The line of a field, or of the nearest thing around it.
    pub(super) fn line(&self, path: &Path) -> usize {
        let mut node = &self.root;
        for step in &path.0 {
            match node.children.get(step) {
                Some(child) => node = child,
                None => break,
            }
        }
        node.line.max(1)
    }

    /// Keys that are written again in the same mapping, each with its line.
    pub(super) fn twice(&self) -> &[(Path, usize)] {
        &self.twice
    }

    /// Puts a finished node into its parent.
    fn close(&mut self, open: &mut [Open], node: Node) {
        let Some(parent) = open.last_mut() else {
            self.root = node;
            return;
        };
        let (step, line) = match &mut parent.kind {
            Kind::Mapping { key } => match key.take() {
                Some((key, line)) => (Step::Key(key), line),
                // A list or mapping as a key: the reader refuses it, so nothing is looked up below it.
                None => {
                    *key = Some((String::new(), node.line));
                    return;
                }
            },
            Kind::Sequence { next } => {
                *next += 1;
                (Step::Index(*next - 1), node.line)
            }
        };
        let again = parent.node.children.insert(step.clone(), Node { line, ..node }).is_some();
        if again {
            let path = open.iter().filter_map(Open::step).chain([step]).collect();
            self.twice.push((Path(path), line));
        }
    }
}

/// A mapping or list that is being read.
struct Open {
    node: Node,
    kind: Kind,
}

enum Kind {
    Mapping { key: Option<(String, usize)> },
    Sequence { next: usize },
}

impl Open {
    fn new(line: usize, kind: Kind) -> Self {
        Self { node: Node { line, children: BTreeMap::new() }, kind }
    }

    /// The step from this node to the child that is being read.
    fn step(&self) -> Option<Step> {
        match &self.kind {
            Kind::Mapping { key } => key.as_ref().map(|(key, _)| Step::Key(key.clone())),
            Kind::Sequence { next } => Some(Step::Index(*next)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
kind: A
spec:
  list:
    - name: one
    - { name: two,
        size: 3 }
  list2: [a, b]
  name: x
  name: y
";

    #[test]
    fn every_field_has_its_line() {
        let lines = Lines::of(TEXT);
        for (path, line) in [
            ("kind", 1),
            ("spec", 2),
            ("spec.list[0].name", 4),
            ("spec.list[1].name", 5),
            ("spec.list[1].size", 6),
            ("spec.list[1].colour", 5),
            ("spec.list2[1]", 7),
            ("spec.other.deeper", 2),
            ("status", 1),
        ] {
            assert_eq!(lines.line(&Path::parse(path)), line, "{path}");
        }
    }

    #[test]
    fn a_key_that_is_there_twice_is_found() {
        let twice: Vec<(String, usize)> =
            Lines::of(TEXT).twice().iter().map(|(path, line)| (path.to_string(), *line)).collect();
        assert_eq!(twice, [("spec.name".to_owned(), 9)]);
        let nested = Lines::of("a: [{b: 1}, {b: 1, b: 2}]");
        assert_eq!(nested.twice()[0].0.to_string(), "a[1].b");
    }
}
