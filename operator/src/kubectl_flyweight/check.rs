//! `check -f`: what is wrong with manifests, without a cluster.

use crds::{
    fault::Fault,
    manifest::{Checked, check, read},
};
use serde_json::{Value, json};

use crate::{
    Answer,
    args::{Check, Output},
    paint::Paint,
};

/// Every fault and warning with its file and line.
///
/// # Errors
/// None: what cannot be read is a fault, too.
pub fn run(args: &Check, output: Output) -> anyhow::Result<Answer> {
    let checked = read(&args.path).map(|files| check(&files, args.service.as_deref()));
    let (settings, warnings) = match checked {
        Ok(Checked { settings, warnings, .. }) => (settings, warnings),
        Err(faults) => (Err(faults), Vec::new()),
    };
    let faults = settings.as_ref().err().map_or(&[][..], Vec::as_slice);
    let text = match (output, &settings) {
        (Output::Json, _) => {
            let (ok, faults, warnings) = (faults.is_empty(), as_json(faults), as_json(&warnings));
            format!("{:#}\n", json!({ "ok": ok, "faults": faults, "warnings": warnings }))
        }
        (Output::Text, Ok(settings)) => {
            let warned =
                if warnings.is_empty() { String::new() } else { as_text(&warnings, "warning", Paint::new()) };
            format!("{warned}service {}: {} pools, no faults\n", settings.service, settings.pools.len())
        }
        (Output::Text, Err(faults)) => as_text(faults, "fault", Paint::new()),
    };
    Ok(Answer { text, well: faults.is_empty() })
}

/// One line for each fault, or whatever they are called, and their number.
pub fn as_text(faults: &[Fault], noun: &str, paint: Paint) -> String {
    let lines = faults.iter().map(|Fault { resource, path, message, place }| {
        let place = place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
        format!("{}{} {}: {message}\n", paint.bold(&place), resource, paint.bad(path))
    });
    let plural = if faults.len() == 1 { "" } else { "s" };
    lines.chain([format!("{} {noun}{plural}\n", faults.len())]).collect()
}

/// The faults for programs.
pub fn as_json(faults: &[Fault]) -> Value {
    let one = |Fault { resource, path, message, place }: &Fault| json!({ "resource": resource, "path": path, "message": message, "place": place });
    faults.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(output: Output, text: &str) -> Answer {
        let dir = std::env::temp_dir().join(format!("flyweight-check-{:x}", rand::random::<u64>()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("tier.yaml");
        std::fs::write(&path, text).unwrap();
        let answer = run(&Check { path, service: None }, output).unwrap();
        std::fs::remove_dir_all(dir).unwrap();
        answer
    }

    const TWO_FAULTS: &str = "apiVersion: flyweight.dev/v1alpha1\nkind: CacheTier\nmetadata:\n  name: hot\nspec:\n  memory: {}\n  ttl: soon\n  jitter: 99\n";

    #[test]
    fn every_fault_has_its_line() {
        let answer = checked(Output::Text, TWO_FAULTS);
        assert!(!answer.well);
        for part in ["tier.yaml:7: CacheTier/hot spec.ttl", "tier.yaml:8: CacheTier/hot spec.jitter"] {
            assert!(answer.text.contains(part), "{part} in {}", answer.text);
        }
    }

    #[test]
    fn programs_read_the_same() {
        let answer = checked(Output::Json, TWO_FAULTS);
        let value: Value = serde_json::from_str(&answer.text).unwrap();
        assert_eq!(value["ok"], false);
        assert!(value["faults"].as_array().unwrap().len() >= 2, "{value}");
    }
}
