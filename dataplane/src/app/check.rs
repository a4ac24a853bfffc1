//! `check`: what is wrong with a folder of manifests, or will be, without a cluster.

use std::{io::IsTerminal, process::ExitCode};

use crds::{
    fault::Fault,
    manifest::{self, Checked},
};
use serde_json::json;

use crate::args::{Check, Output};

/// Prints every fault and warning; exit code 1 when there are faults.
pub fn run(check: &Check) -> ExitCode {
    let checked =
        manifest::read(&check.manifests).map(|files| manifest::check(&files, check.service.as_deref()));
    let (result, warnings) = match checked {
        Ok(Checked { settings, warnings, .. }) => (settings, warnings),
        Err(faults) => (Err(faults), Vec::new()),
    };
    match (&result, check.output) {
        (result, Output::Json) => {
            println!("{}", as_json(result.as_ref().err().map_or(&[], Vec::as_slice), &warnings))
        }
        (Ok(settings), Output::Text) => {
            print_faults(&warnings, "warning");
            let pools = settings.pools.len();
            println!(
                "{}: service {} with {pools} pools, no faults",
                check.manifests.display(),
                settings.service
            );
        }
        (Err(faults), Output::Text) => print_faults(faults, "fault"),
    }
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn as_json(faults: &[Fault], warnings: &[Fault]) -> serde_json::Value {
    let one = |Fault { resource, path, message, place }: &Fault| json!({ "resource": resource, "path": path, "message": message, "place": place });
    let all = |faults: &[Fault]| faults.iter().map(one).collect::<Vec<_>>();
    json!({ "ok": faults.is_empty(), "faults": all(faults), "warnings": all(warnings) })
}

fn print_faults(faults: &[Fault], noun: &str) {
    if faults.is_empty() {
        return;
    }
    let (red, bold, plain) =
        if std::io::stdout().is_terminal() { ("\x1b[31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
    for Fault { resource, path, message, place } in faults {
        let place = place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
        println!("{bold}{resource}{plain} {red}{path}{plain}: {message}{place}");
    }
    println!("{} {noun}{}", faults.len(), if faults.len() == 1 { "" } else { "s" });
}
