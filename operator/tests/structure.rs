//! The directions within the operator, which the compiler does not hold: no file needs another in a circle,
//! the model needs nobody, and the steps see no cluster.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// A module by its path from the crate's root on.
type Module = Vec<String>;

/// Which modules each module uses. A child's use of its parent is none: they are one module.
type Uses = BTreeMap<Module, BTreeSet<Module>>;

/// What is pure: from what was observed to what is to be done and said.
const STEPS: [&str; 6] = ["children", "drift", "model", "rollout", "status", "validate"];

fn sources() -> BTreeMap<Module, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = BTreeMap::new();
    read(&root, &mut Vec::new(), &mut sources);
    assert!(sources.len() > 60, "the sources are found");
    sources
}

/// The sources below a folder, without comments, and without those of the plugin and of tests.
fn read(folder: &Path, at: &mut Module, sources: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if ["kubectl_flyweight", "tests", "fixture", "main"].contains(&name.as_str()) {
            continue;
        }
        at.push(name);
        if path.is_dir() {
            read(&path, at, sources);
        } else {
            let source = fs::read_to_string(&path).unwrap();
            let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            sources.insert(at.clone(), code.collect::<Vec<_>>().join("\n"));
        }
        at.pop();
    }
}

fn all_uses(sources: &BTreeMap<Module, String>) -> Uses {
    let owner = |path: &[String]| {
        (1..=path.len()).rev().map(|end| path[..end].to_vec()).find(|one| sources.contains_key(one))
    };
    let of = |(module, source): (&Module, &String)| {
        let used = paths(source).into_iter().filter_map(|path| owner(&absolute(module, &path)));
        (module.clone(), used.filter(|used| !module.starts_with(used)).collect())
    };
    sources.iter().map(of).collect()
}

/// The path from the root on.
fn absolute(module: &[String], path: &[String]) -> Module {
    let up = path.iter().take_while(|part| *part == "super").count();
    let base = if up == 0 { &[][..] } else { &module[..module.len().saturating_sub(up)] };
    let down = path.iter().filter(|part| !["crate", "super", "self"].contains(&part.as_str()));
    base.iter().chain(down).cloned().collect()
}

/// The paths that the code names from `crate` or `super` on, each branch of a `use` on its own.
fn paths(code: &str) -> Vec<Module> {
    let is_within = |before: char| before == ':' || before == '_' || before.is_alphanumeric();
    let mut found = Vec::new();
    for root in ["crate::", "super::"] {
        for (at, _) in code.match_indices(root).filter(|(at, _)| !code[..*at].ends_with(is_within)) {
            branches(&mut &code[at..], &[], &mut found);
        }
    }
    found
}

fn branches(code: &mut &str, before: &[String], found: &mut Vec<Module>) {
    let mut path = before.to_vec();
    loop {
        *code = code.trim_start();
        if let Some(rest) = code.strip_prefix('{') {
            *code = rest.trim_start();
            while !code.starts_with('}') {
                branches(code, &path, found);
                *code = code.trim_start().trim_start_matches(',').trim_start();
            }
            *code = &code[1..];
            return;
        }
        let is_word = |one: char| one == '_' || one == '*' || one.is_alphanumeric();
        let end = code.find(|one| !is_word(one)).unwrap_or(code.len());
        assert!(end > 0, "a path ends at {:?}", code.lines().next());
        path.push(code[..end].to_owned());
        *code = &code[end..];
        match code.strip_prefix("::") {
            Some(rest) if !rest.starts_with('<') => *code = rest,
            _ => break,
        }
    }
    found.push(path);
}

/// What is left when modules are taken away, again and again, that use none of those that are left: nothing,
/// unless some use one another in a circle.
fn in_circles(mut uses: Uses) -> BTreeSet<Module> {
    loop {
        let left: BTreeSet<Module> = uses.keys().cloned().collect();
        uses.retain(|_, used| used.iter().any(|one| left.contains(one)));
        if uses.len() == left.len() {
            return left;
        }
    }
}

#[test]
fn no_file_needs_another_in_a_circle() {
    assert_eq!(in_circles(all_uses(&sources())), BTreeSet::new());
}

#[test]
fn the_model_needs_nobody_and_the_steps_see_no_cluster() {
    let sources = sources();
    for (module, used) in all_uses(&sources) {
        let may: &[&str] = match module[0].as_str() {
            "model" => &["model"],
            step if STEPS.contains(&step) => &STEPS,
            _ => continue,
        };
        let wrong: Vec<_> = used.iter().filter(|one| !may.contains(&one[0].as_str())).collect();
        assert!(wrong.is_empty(), "{} uses {wrong:?}", module.join("::"));
        let asks = ["Api<", "Client"].into_iter().find(|word| sources[&module].contains(word));
        assert_eq!(asks, None, "{} asks the API server", module.join("::"));
    }
}

#[test]
fn what_would_be_wrong_is_found() {
    let module = |path: &str| -> Module { path.split("::").map(str::to_owned).collect() };
    let sources = [
        ("a", "use crate::{\n    b::{self, c::X},\n};"),
        ("b", "fn f() { crate::d::g::<u8>(); }"),
        ("b::c", "use super::Y;\nuse super::super::d;"),
        ("d", "mod e;"),
        ("d::e", "use super::Z;"),
    ];
    let sources = sources.map(|(path, source)| (module(path), source.to_owned()));
    let mut uses = all_uses(&sources.into());
    assert_eq!(uses[&module("a")], [module("b"), module("b::c")].into());
    assert_eq!((&uses[&module("b")], &uses[&module("b::c")]), (&[module("d")].into(), &[module("d")].into()));
    assert_eq!(uses[&module("d::e")], BTreeSet::new(), "a child may use its parent");
    assert_eq!(in_circles(uses.clone()), BTreeSet::new());
    uses.get_mut(&module("d")).unwrap().insert(module("a"));
    assert_eq!(in_circles(uses), ["a", "b", "b::c", "d"].map(module).into());
}
