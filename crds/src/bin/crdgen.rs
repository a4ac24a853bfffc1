//! Writes the custom resource definitions into `crds/generated` and the chart, or checks that they are there
//! unchanged.

use std::{env, fs, io, path::Path, process::ExitCode};

use crds::definitions::{Definition, definitions};

const HELP: &str = "usage: crdgen [--check]

Writes crds/generated/*.yaml and charts/flyweight/files/crds/*.yaml, from the folder of the workspace.
  --check  writes nothing, and fails with the names of the files that differ";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let check = match arguments.as_slice() {
        [] => false,
        ["--check"] => true,
        ["--help" | "-h"] => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(check) {
        Ok(differing) if differing.is_empty() => ExitCode::SUCCESS,
        Ok(differing) => {
            eprintln!("differ from crds/src, run `make generate`: {}", differing.join(", "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("crdgen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes every file, or names those that differ.
fn run(check: bool) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut differing = Vec::new();
    for definition in definitions()? {
        let Definition { plural, .. } = definition;
        for (folder, text) in [
            ("crds/generated", definition.yaml()?),
            ("charts/flyweight/files/crds", definition.chart_yaml()?),
        ] {
            let path = format!("{folder}/{plural}.yaml");
            if !check {
                fs::create_dir_all(folder)?;
                fs::write(&path, text)?;
            } else if !same(Path::new(&path), &text)? {
                differing.push(path);
            }
        }
    }
    Ok(differing)
}

fn same(path: &Path, text: &str) -> io::Result<bool> {
    match fs::read_to_string(path) {
        Ok(found) => Ok(found == text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
