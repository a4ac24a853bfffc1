//! The command line: every flag can also be an environment variable.

use clap::{Parser, Subcommand, ValueEnum};

/// Runs the data plane that `FlyweightService` resources ask for.
#[derive(Debug, Parser)]
#[command(name = "flyweight-operator", version, arg_required_else_help = true)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reconciles until it is told to stop.
    Run(Run),
    /// Prints the custom resource definitions, ready for `kubectl apply -f -`.
    Crds(Crds),
    /// Asks an address once: exit code 0 if the answer is 200. For `helm test`.
    Probe(Probe),
}

/// How to reconcile.
#[derive(Clone, Debug, clap::Args)]
pub struct Run {
    /// A namespace to work in; may be repeated. None means all namespaces.
    #[arg(long = "namespace", env = "FLYWEIGHT_NAMESPACES", value_delimiter = ',', value_name = "NAMESPACE")]
    pub namespaces: Vec<String>,
    /// The port for /livez, /readyz and /metrics.
    #[arg(long, env = "ADMIN_PORT", default_value_t = 9090)]
    pub admin_port: u16,
    /// The Lease that decides which replica works.
    #[arg(long, env = "FLYWEIGHT_LEASE_NAME", default_value = "flyweight-operator")]
    pub lease_name: String,
    /// The namespace of the Lease; left out, the operator's own.
    #[arg(long, env = "POD_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// The name of this replica in the Lease and in events; left out, a random one.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    /// After how many seconds without a sign of life another replica takes over.
    #[arg(long, env = "FLYWEIGHT_LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(10..=300))]
    pub lease_seconds: u16,
    /// How many services are reconciled at once.
    #[arg(long, env = "FLYWEIGHT_CONCURRENCY", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// How many requests a second the API server gets, on average; those for the Lease are not among them.
    #[arg(long, env = "FLYWEIGHT_API_REQUESTS_PER_SECOND", default_value_t = 400, value_parser = clap::value_parser!(u16).range(10..=10_000))]
    pub api_requests_per_second: u16,
    /// How many requests it may get at once, after a rest.
    #[arg(long, env = "FLYWEIGHT_API_BURST", default_value_t = 800, value_parser = clap::value_parser!(u16).range(10..=20_000))]
    pub api_burst: u16,
    /// How log entries look; left out, text on a terminal and JSON elsewhere.
    #[arg(long, env = "LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
    /// The least severe entry that is logged, as in `info` or `info,kube=debug`.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

/// Whom to ask.
#[derive(Clone, Debug, clap::Args)]
pub struct Probe {
    /// Such as `http://flyweight-metrics:9090/readyz`.
    pub url: http::Uri,
}

/// How the definitions are printed.
#[derive(Clone, Debug, clap::Args)]
pub struct Crds {
    /// The format.
    #[arg(short, long, value_enum, default_value_t = Output::Yaml)]
    pub output: Output,
}

/// How log entries look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Readable lines.
    Text,
}

/// A format of data on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A stream of YAML documents.
    Yaml,
    /// One JSON `List`.
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn namespaces_may_be_repeated_or_listed() {
        let args = Args::try_parse_from(["op", "run", "--namespace", "a", "--namespace", "b,c"]).unwrap();
        let Command::Run(run) = args.command else { panic!("run") };
        assert_eq!(run.namespaces, ["a", "b", "c"]);
    }

    #[test]
    fn wrong_use_ends_with_2() {
        for wrong in [
            &["op", "walk"][..],
            &["op", "run", "--lease-seconds", "1"],
            &["op", "run", "--admin-port", "x"],
            &["op", "run", "--api-burst", "1"],
        ] {
            assert_eq!(Args::try_parse_from(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }
}
