//! The command line of the plugin.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Shows and operates the services of Flyweight.
#[derive(Debug, Parser)]
#[command(name = "kubectl-flyweight", bin_name = "kubectl flyweight", version, arg_required_else_help = true)]
pub struct Args {
    /// Which cluster, which namespace.
    #[command(flatten)]
    pub target: Target,
    /// For people, or for programs.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which cluster, which namespace.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// The namespace; left out, that of the context.
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// The context of the kubeconfig; left out, the current one.
    #[arg(long, global = true)]
    pub context: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a service with its conditions, groups, pods, pools and tiers, as a tree.
    Status {
        /// The service; left out, all of the namespace.
        service: Option<String>,
    },
    /// Check manifests without a cluster: every fault with its file and line. Exit code 1 when there are any.
    Check(Check),
    /// Show what manifests would change, and whether pods go on running, are replaced, or refuse it.
    Diff(Diff),
    /// Say what a pool shares, what that saves, and why.
    Explain {
        /// The pool.
        pool: String,
    },
    /// Show the pods of a service with their figures, as they say themselves.
    Top {
        /// The service; left out, all of the namespace.
        service: Option<String>,
    },
    /// List the messages that could not be handled, hand one in again, or drop one.
    DeadLetters(DeadLetters),
    /// Stop all changes to the children of a service.
    Pause {
        /// The service.
        service: String,
    },
    /// Allow changes again, and bring a drained service back.
    Resume {
        /// The service.
        service: String,
    },
    /// Replace the pods of a service, one by one.
    Restart {
        /// The service.
        service: String,
    },
    /// Take one pod away, or all of a service, after they have finished what they began.
    Drain(Drain),
    /// Print the completion for a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
    /// Print what may come next; kubectl calls it through `kubectl_complete-flyweight`.
    #[command(name = "__complete", hide = true)]
    Complete {
        /// The words so far, the last one unfinished.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// What to check.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// A folder of manifests, one file, or - for what comes in.
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub path: PathBuf,
    /// The service, where the manifests have several.
    #[arg(long)]
    pub service: Option<String>,
}

/// What to compare with the cluster.
#[derive(Debug, clap::Args)]
pub struct Diff {
    /// A folder of manifests, one file, or - for what comes in.
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub path: PathBuf,
}

/// What to do about dead letters.
#[derive(Debug, clap::Args)]
pub struct DeadLetters {
    /// The service.
    pub service: String,
    /// Hand this one in again.
    #[arg(long, value_name = "ID", conflicts_with = "delete")]
    pub replay: Option<String>,
    /// Drop this one for good.
    #[arg(long, value_name = "ID")]
    pub delete: Option<String>,
    /// A file with the token that the service's API asks for, `-` for standard input. Left out, it is what
    /// `FLYWEIGHT_TOKEN` holds.
    #[arg(long, value_name = "PATH", env = "FLYWEIGHT_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

/// What to take away.
#[derive(Debug, clap::Args)]
pub struct Drain {
    /// The service.
    pub service: String,
    /// One pod of it, which is replaced elsewhere; left out, all pods, until `resume`.
    pub pod: Option<String>,
    /// How long to wait for the end.
    #[arg(long, default_value = "2m", value_parser = seconds)]
    pub timeout: crds::units::Span,
}

/// For people, or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

fn seconds(text: &str) -> Result<crds::units::Span, String> {
    text.parse()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
        let args =
            Args::try_parse_from(["x", "drain", "shop", "shop-main-1", "-n", "web", "-o", "json"]).unwrap();
        assert_eq!((args.target.namespace.as_deref(), args.output), (Some("web"), Output::Json));
        let Command::Drain(drain) = args.command else { panic!("drain") };
        assert_eq!((drain.pod.as_deref(), drain.timeout.to_string()), (Some("shop-main-1"), "2m".to_owned()));
    }

    #[test]
    fn wrong_use_ends_with_2() {
        for wrong in [
            &["x", "walk"][..],
            &["x", "check"],
            &["x", "dead-letters", "a", "--replay", "1", "--delete", "2"],
        ] {
            assert_eq!(Args::try_parse_from(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }
}
