//! Texts with variables, as in `Hello {{ name }}`, with `if` and `for`. Strict: a variable that is not given
//! is a fault, not a gap.
//!
//! Who writes templates is not who runs the service, so a text can ask for no more than it may have: there is
//! fuel for its steps, its length is bounded, and what could double a text at each step (joining operators,
//! assignments, deep loops) is refused before it runs. The larger the variables are, the fewer the steps,
//! since each may go through all of them; filters of text have a number of bytes together.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use minijinja::{
    Environment, Error, ErrorKind, State, UndefinedBehavior, Value, context, filters, tests as checks,
    value::Rest,
};
use serde_json::Value as Tree;

use crate::fault::FieldFault;

/// The most steps of one text.
const FUEL: u64 = 200_000;
/// The most bytes that all steps of a text may go through, if each goes through all variables.
const WORK_MAX: u64 = 2 << 30;
/// The most bytes that the filters of a text may go through.
const FILTERED_MAX: u64 = 8 << 20;
/// The most bytes of variables.
pub const VARIABLES_MAX: usize = 256 << 10;
/// What a value counts for beside its text.
const VALUE: usize = 16;
/// The most bytes of a finished text.
const OUTPUT_MAX: usize = 256 << 10;
/// The most loops within one another.
const LOOPS_MAX: usize = 3;
/// The filters that go through the whole of a text, and under which names they do: no text can spell those.
const OF_TEXT: [(&str, &str); 7] = [
    ("upper", "of text: upper"),
    ("lower", "of text: lower"),
    ("title", "of text: title"),
    ("capitalize", "of text: capitalize"),
    ("trim", "of text: trim"),
    ("length", "of text: length"),
    ("escape", "of text: escape"),
];
/// The words that a `{% … %}` may begin with.
const TAGS: [&str; 8] = ["if", "elif", "else", "endif", "for", "endfor", "raw", "endraw"];

/// What is wrong with a text as a template; none where nothing is.
pub fn fault_of(text: &str) -> Option<String> {
    if let Some(fault) = refused(text) {
        return Some(fault);
    }
    let error = environment(FUEL).template_from_str(text).err()?;
    Some(format!("is no template: {}", told(&error)))
}

/// Fills in the variables of the text of a field.
///
/// # Errors
/// The text is no template, a variable is missing (named as `variables.…`), or it asks for too much.
pub fn render(field: &str, text: &str, variables: &Tree) -> Result<String, FieldFault> {
    let fault = |message: String| FieldFault::new(field, message);
    if let Some(refused) = refused(text) {
        return Err(fault(refused));
    }
    let weight = weight_of(variables);
    if weight > VARIABLES_MAX {
        let message =
            format!("are about {weight} bytes: send at most {VARIABLES_MAX}, what the template uses");
        return Err(FieldFault::new("variables", message));
    }
    let environment = environment((WORK_MAX / weight.max(1) as u64).min(FUEL));
    let template = environment
        .template_from_str(text)
        .map_err(|error| fault(format!("is no template: {}", told(&error))))?;
    let mut output = Bounded(Vec::new());
    let given = Value::from_serialize(variables);
    let given = if variables.is_object() {
        given
    } else {
        context! {}
    };
    match template.render_captured_to(given, &mut output) {
        Ok(_) => Ok(String::from_utf8_lossy(&output.0).into_owned()),
        Err(error) if error.kind() == ErrorKind::UndefinedError => {
            let mut missing: Vec<String> = template.undeclared_variables(true).into_iter().collect();
            missing.retain(|name| !has(variables, name));
            missing.sort();
            Err(match missing.first() {
                Some(name) => {
                    FieldFault::new(format!("variables.{name}"), format!("is required: {field} uses it"))
                }
                None => fault("uses a part of a variable that is not given".to_owned()),
            })
        }
        Err(error) if error.kind() == ErrorKind::OutOfFuel => {
            Err(fault("takes too many steps: use shorter variables or fewer loops".to_owned()))
        }
        Err(error) if error.kind() == ErrorKind::WriteFailure => {
            Err(fault(format!("becomes longer than {OUTPUT_MAX} bytes")))
        }
        Err(error) => Err(fault(format!("cannot be filled in: {}", told(&error)))),
    }
}

/// An environment with what a text may use, for so many steps.
fn environment(fuel: u64) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(fuel));
    environment.add_filter(OF_TEXT[0].1, filters::upper);
    environment.add_filter(OF_TEXT[1].1, filters::lower);
    environment.add_filter(OF_TEXT[2].1, filters::title);
    environment.add_filter(OF_TEXT[3].1, filters::capitalize);
    environment.add_filter(OF_TEXT[4].1, filters::trim);
    environment.add_filter(OF_TEXT[5].1, filters::length);
    environment.add_filter(OF_TEXT[6].1, filters::escape);
    let left = Arc::new(AtomicU64::new(FILTERED_MAX));
    for (name, own) in OF_TEXT {
        let left = left.clone();
        environment.add_filter(name, move |state: &State<'_, '_>, values: Rest<Value>| {
            let bytes = values.first().and_then(Value::as_str).map_or(0, str::len) as u64;
            let enough = |left: u64| left.checked_sub(bytes);
            if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enough).is_err() {
                let detail = format!("its filters go through more than {FILTERED_MAX} bytes of text");
                return Err(Error::new(ErrorKind::InvalidOperation, detail));
            }
            state.apply_filter(own, &values)
        });
    }
    environment.add_filter("default", filters::default);
    environment.add_filter("round", filters::round);
    environment.add_filter("first", filters::first);
    environment.add_filter("last", filters::last);
    environment.add_test("defined", checks::is_defined);
    environment.add_test("undefined", checks::is_undefined);
    environment.add_test("none", checks::is_none);
    environment
}

/// An error without the text around it.
fn told(error: &Error) -> String {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("{detail} (line {line})"),
        None => detail,
    }
}

/// The bytes of all texts and values in a tree, about.
fn weight_of(tree: &Tree) -> usize {
    VALUE
        + match tree {
            Tree::Null | Tree::Bool(_) | Tree::Number(_) => 0,
            Tree::String(text) => text.len(),
            Tree::Array(items) => items.iter().map(weight_of).sum(),
            Tree::Object(members) => members.iter().map(|(name, value)| name.len() + weight_of(value)).sum(),
        }
}

fn has(variables: &Tree, name: &str) -> bool {
    let mut place = Some(variables);
    for part in name.split('.') {
        place = place.and_then(|tree| tree.get(part));
    }
    place.is_some()
}

/// What a text may not use at all.
fn refused(text: &str) -> Option<String> {
    let (mut rest, mut loops) = (text, 0_usize);
    while let Some(start) = next_tag(rest) {
        let (kind, inside) = rest.get(start..)?.split_at_checked(2)?;
        if kind == "{#" {
            rest = inside.split_once("#}")?.1;
            continue;
        }
        let (code, after) = tag_of(inside, if kind == "{{" { "}}" } else { "%}" });
        let code = code.trim_matches(['-', '+']).trim();
        if let Some(operator) = joins(code) {
            return Some(format!("uses the operator {operator}: write the parts one after the other"));
        }
        rest = after;
        if kind == "{{" {
            continue;
        }
        let word = code.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        match word {
            "raw" => rest = rest.find("endraw").and_then(|end| rest.get(end..)).unwrap_or_default(),
            "for" => loops += 1,
            "endfor" => loops = loops.saturating_sub(1),
            word if !TAGS.contains(&word) => {
                return Some(format!("uses {{% {word} %}}: there are {}", TAGS.join(", ")));
            }
            _ => (),
        }
        if loops > LOOPS_MAX {
            return Some(format!("has more than {LOOPS_MAX} loops within one another"));
        }
    }
    None
}

/// Where the next tag begins. It is looked for once, so that each part of a text is gone through once.
fn next_tag(text: &str) -> Option<usize> {
    let pairs = text.as_bytes().windows(2);
    pairs.enumerate().find_map(|(at, pair)| matches!(pair, b"{{" | b"{%" | b"{#").then_some(at))
}

/// The code of a tag up to its end, which does not count within quotes; and what comes after.
fn tag_of<'a>(text: &'a str, end: &str) -> (&'a str, &'a str) {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => (),
            None if c == '"' || c == '\'' => quote = Some(c),
            None if text.get(at..).is_some_and(|rest| rest.starts_with(end)) => {
                return (text.get(..at).unwrap_or_default(), text.get(at + end.len()..).unwrap_or_default());
            }
            None => (),
        }
    }
    (text, "")
}

/// An operator outside quotes that makes one text of two.
fn joins(code: &str) -> Option<char> {
    let (mut quote, mut escaped) = (None, false);
    for c in code.chars() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => (),
            None if c == '"' || c == '\'' => quote = Some(c),
            None if "~+*".contains(c) => return Some(c),
            None => (),
        }
    }
    None
}

/// A text that ends with an error where it becomes too long.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_MAX {
            return Err(std::io::Error::other("too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_filled_in() {
        let variables =
            json!({ "name": "Ann <b>", "total": "19.90", "items": [{ "n": 1 }, { "n": 2 }], "note": null });
        for (text, filled) in [
            ("Hello {{ name }}!", "Hello Ann <b>!"),
            ("{{ name|escape|upper }}", "ANN &LT;B&GT;"),
            ("{% for item in items %}{{ item.n }},{% endfor %}", "1,2,"),
            ("{% if total == '19.90' %}yes{% else %}no{% endif %}", "yes"),
            ("{{ missing|default('-') }}{% if missing is defined %}x{% endif %}", "-"),
            ("{# a ~ b #}{{ 'a ~ }} b' }}{% raw %}{{ ~ }}{% endraw %}", "a ~ }} b{{ ~ }}"),
            ("no variables", "no variables"),
            ("1 + 1 ~ 2", "1 + 1 ~ 2"),
        ] {
            assert_eq!(render("body", text, &variables).unwrap(), filled, "{text}");
            assert_eq!(fault_of(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let variables = json!({ "user": { "name": "Ann" } });
        for (text, name) in [
            ("{{ name }}", "variables.name"),
            ("{{ user.name }} {{ user.email }}", "variables.user.email"),
            ("{% for item in items %}{{ item }}{% endfor %}", "variables.items"),
        ] {
            assert_eq!(render("body", text, &variables).unwrap_err().field, name, "{text}");
        }
        assert_eq!(render("subject", "{{ x }}", &Tree::Null).unwrap_err().field, "variables.x");
    }

    #[test]
    fn no_text_takes_more_than_it_may() {
        let variables = json!({ "x": "0123456789".repeat(100), "l": vec![0; 1_000] });
        let nested = |body: &str, loops: usize| {
            format!("{}{body}{}", "{% for i in l %}".repeat(loops), "{% endfor %}".repeat(loops))
        };
        for text in [
            "{% set y = x ~ x %}".to_owned(),
            "{{ x + x }}".to_owned(),
            "{{ 'a' * 100000000 }}".to_owned(),
            "{% macro m() %}{% endmacro %}".to_owned(),
            "{% include 'x' %}".to_owned(),
            "{{ range(100000) }}".to_owned(),
            nested("", 3),
            nested("", 4),
            nested("{{ x }}", 1),
            "{{ ".to_owned(),
            "{% if x %}".to_owned(),
            "{{ x.__class__ }}".to_owned(),
        ] {
            let started = std::time::Instant::now();
            assert!(render("body", &text, &variables).is_err(), "{text}");
            assert!(started.elapsed() < std::time::Duration::from_secs(2), "{text}");
        }
        let (large, many) = ("x".repeat(200_000), vec![0; 1_000]);
        let variables = json!({ "x": large, "l": many });
        let looped = |inside: &str| format!("{{% for i in l %}}{inside}{{% endfor %}}");
        for (text, why) in [
            (looped("{{ x|upper|length }}"), "bytes of text"),
            (looped(&"{% if x|lower == x %}{% endif %}".repeat(10)), "bytes of text"),
            (looped(&"{% if x == x %}{% endif %}".repeat(10)), "too many steps"),
            ("{{ x".to_owned() + &"|escape|upper".repeat(200) + "|length }}", "bytes of text"),
        ] {
            let fault = render("body", &text, &variables).unwrap_err();
            assert!(fault.message.contains(why), "{fault:?}");
        }
        assert_eq!(render("body", "{{ x|upper|length }}", &variables).unwrap(), "200000");
        let larger = json!({ "x": "x".repeat(400_000) });
        assert_eq!(render("body", "{{ x|length }}", &larger).unwrap_err().field, "variables");
        let deep = json!({ "l": vec![json!([0, 0]); 10_000] });
        assert_eq!(
            render("body", "", &deep).unwrap_err().field,
            "variables",
            "values count, not only their text"
        );
        // each part of a text is gone through once
        assert_eq!(fault_of(&"{{ 1 }}".repeat(9_000)), None);
        assert!(fault_of("{{ 1 ").is_some() && fault_of("{% set a = 1 %}").is_some());
    }
}
