//! Completion: a script for a shell, and candidates for kubectl's own completion.
//!
//! kubectl asks a program called `kubectl_complete-flyweight` on the path; two lines make one: `#!/bin/sh`
//! and `exec kubectl-flyweight __complete "$@"`.

use clap::CommandFactory;
use clap_complete::{Shell, generate};
use kube::ResourceExt;

use crate::{args::Args, cluster::Cluster};

/// Tells kubectl not to offer files.
const NO_FILES: &str = ":4\n";

/// The completion of a shell for `kubectl-flyweight`.
///
/// # Errors
/// When it is not text, which the tests rule out.
pub fn script(shell: Shell) -> anyhow::Result<String> {
    let mut text = Vec::new();
    generate(shell, &mut Args::command(), "kubectl-flyweight", &mut text);
    Ok(String::from_utf8(text)?)
}

/// What may stand in the place of the last word.
pub async fn candidates(cluster: &Cluster, words: &[String]) -> String {
    let names = match words {
        [] | [_] => commands(),
        [command, _] if command == "explain" => {
            cluster.pools().await.unwrap_or_default().iter().map(ResourceExt::name_any).collect()
        }
        [_, _] => {
            cluster.services(None).await.unwrap_or_default().iter().map(ResourceExt::name_any).collect()
        }
        [command, service, _] if command == "drain" => {
            cluster.pods(service).await.unwrap_or_default().iter().map(ResourceExt::name_any).collect()
        }
        _ => Vec::new(),
    };
    listed(names, words.last().map(String::as_str).unwrap_or_default())
}

fn commands() -> Vec<String> {
    let all = Args::command();
    all.get_subcommands().filter(|one| !one.is_hide_set()).map(|one| one.get_name().to_owned()).collect()
}

fn listed(names: Vec<String>, begin: &str) -> String {
    let fitting = names.into_iter().filter(|name| name.starts_with(begin)).map(|name| name + "\n");
    fitting.chain([NO_FILES.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_a_script_with_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell).unwrap();
            assert!(commands().iter().all(|command| script.contains(command.as_str())), "{shell}");
        }
    }

    #[test]
    fn kubectl_gets_the_fitting_words() {
        assert_eq!(listed(commands(), "re"), "resume\nrestart\n:4\n");
        assert!(!commands().contains(&"__complete".to_owned()));
    }
}
