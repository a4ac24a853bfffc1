//! `check`: what is wrong with a folder of manifests, without a cluster.

use std::{io::IsTerminal, process::ExitCode};

use crds::resolve::Fault;
use serde_json::json;

use crate::args::{Check, Output};

/// Prints every fault; exit code 1 when there are any.
pub fn run(check: &Check) -> ExitCode {
    let result = crds::manifest::load(&check.manifests, check.service.as_deref());
    match (&result, check.output) {
        (result, Output::Json) => println!("{}", as_json(result.as_ref().err().map_or(&[], Vec::as_slice))),
        (Ok(settings), Output::Text) => {
            let pools = settings.pools.len();
            println!("{}: service {} with {pools} pools, no faults", check.manifests.display(), settings.service);
        }
        (Err(faults), Output::Text) => print_faults(faults),
    }
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn as_json(faults: &[Fault]) -> serde_json::Value {
    let faults: Vec<_> = faults
        .iter()
        .map(|Fault { resource, path, message, place }| {
            json!({ "resource": resource, "path": path, "message": message, "place": place })
        })
        .collect();
    json!({ "ok": faults.is_empty(), "faults": faults })
}

fn print_faults(faults: &[Fault]) {
    let (red, bold, plain) =
        if std::io::stdout().is_terminal() { ("\x1b[31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
    for Fault { resource, path, message, place } in faults {
        let place = place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
        println!("{bold}{resource}{plain} {red}{path}{plain}: {message}{place}");
    }
    println!("{} {}", faults.len(), if faults.len() == 1 { "fault" } else { "faults" });
}
