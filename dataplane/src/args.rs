//! The command line.

use std::{
    net::{AddrParseError, IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use clap::{Args as Group, Parser, Subcommand, ValueEnum};
use crds::units::Span;

use crate::telemetry::LogFormat;

/// Serves flyweight pools over REST and WebSocket from a multi-tier cache.
#[derive(Debug, Parser)]
#[command(name = "flyweight-dataplane", version, about, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the pools of one FlyweightService.
    Serve(Serve),
    /// Send requests to the pods that serve their pools.
    Gateway(GatewayArgs),
    /// Check manifests offline: every fault with its path. Exit code 1 when there are any.
    Check(Check),
    /// Ask the process that serves on this machine whether it is ready. Exit code 1 when it is not.
    Health(Probe),
    /// Bring the stores' tables and indexes up to this version, and end.
    Migrate(Serve),
}

/// How to serve.
#[derive(Debug, Group)]
pub struct Serve {
    /// Where the settings come from.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Keep all data in embedded stores in this folder, instead of the declared backends.
    #[arg(long, value_name = "DIR", conflicts_with = "backends", required_unless_present = "backends")]
    pub data_dir: Option<PathBuf>,
    /// The folder with the backends' addresses: <DIR>/<backend>/url, and ca.crt, tls.crt, tls.key where TLS
    /// is used.
    #[arg(long, value_name = "DIR")]
    pub backends: Option<PathBuf>,
    /// The folder with keys: <DIR>/jwt/secret or public.pem, <DIR>/encryption/key, <DIR>/tls/tls.crt and
    /// tls.key.
    #[arg(long, value_name = "DIR")]
    pub security: Option<PathBuf>,
    /// Serve the pools of this replica group only.
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// Where to listen.
    #[command(flatten)]
    pub listen: Listen,
}

/// How to run the gateway.
#[derive(Debug, Group)]
pub struct GatewayArgs {
    /// Where the settings come from.
    #[command(flatten)]
    pub source: SourceArgs,
    /// The DNS name of a group's pods, with {group} for its name.
    #[arg(long, value_name = "NAME", conflicts_with = "upstream", required_unless_present = "upstream")]
    pub upstream_domain: Option<String>,
    /// The port of the pods' API.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub upstream_port: u16,
    /// The folder with the certificate where the API is served over TLS: <DIR>/tls/tls.crt, tls.key and
    /// ca.crt.
    #[arg(long, value_name = "DIR")]
    pub security: Option<PathBuf>,
    /// A pod at a fixed address: GROUP=HOST:PORT. May be given more than once.
    #[arg(long, value_name = "GROUP=ADDR")]
    pub upstream: Vec<Upstream>,
    /// Where to listen.
    #[command(flatten)]
    pub listen: Listen,
}

/// How to check.
#[derive(Debug, Group)]
pub struct Check {
    /// The folder with the manifests.
    #[arg(long, value_name = "DIR")]
    pub manifests: PathBuf,
    /// The FlyweightService, where the folder has more than one.
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// The form of the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Whom to ask.
#[derive(Debug, Group)]
pub struct Probe {
    /// The address that the process listens on; for [::] it is asked on the loopback address.
    #[arg(long, value_name = "ADDR", env = "LISTEN", default_value = "127.0.0.1", value_parser = address)]
    pub bind: IpAddr,
    /// The port of its probes and metrics.
    #[arg(long, value_name = "PORT", env = "ADMIN_PORT", default_value_t = 9090)]
    pub admin_port: u16,
    /// How long it may take to answer.
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    pub timeout: Span,
}

/// Where the settings come from.
#[derive(Clone, Debug, Group)]
pub struct SourceArgs {
    /// A folder with FlyweightPools, CacheTiers and a FlyweightService as YAML.
    #[arg(long, value_name = "DIR", conflicts_with = "config", required_unless_present = "config")]
    pub manifests: Option<PathBuf>,
    /// Resolved settings as JSON, as the operator writes them.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The FlyweightService, where the folder has more than one.
    #[arg(long, value_name = "NAME", requires = "manifests")]
    pub service: Option<String>,
}

/// Where to listen, and how to log and to stop.
#[derive(Clone, Debug, Group)]
pub struct Listen {
    /// The address to listen on; [::] is all of this machine's, of both families.
    #[arg(long, value_name = "ADDR", env = "LISTEN", default_value = "127.0.0.1", value_parser = address)]
    pub bind: IpAddr,
    /// The port of the API; 0 takes a free one.
    #[arg(long, value_name = "PORT", env = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// The port of probes and metrics; 0 takes a free one.
    #[arg(long, value_name = "PORT", env = "ADMIN_PORT", default_value_t = 9090)]
    pub admin_port: u16,
    /// How long to go on serving after SIGTERM, while clients move away.
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub drain_delay: Span,
    /// When to end after SIGTERM, whatever is still under way. A pod is killed after 60s.
    #[arg(long, value_name = "DURATION", default_value = "55s")]
    pub grace_period: Span,
    /// The form of log entries.
    #[arg(long, value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// A pod at a fixed address.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its replica group.
    pub group: String,
    /// Its address.
    pub addr: SocketAddr,
}

/// An address, which may stand in brackets as it does in a URL.
fn address(text: &str) -> Result<IpAddr, AddrParseError> {
    text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text).parse()
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("\"{text}\" is not GROUP=HOST:PORT, as in main=127.0.0.1:8080");
        let (group, addr) = text.split_once('=').ok_or_else(fault)?;
        Ok(Self { group: group.to_owned(), addr: addr.parse().map_err(|_| fault())? })
    }
}

impl SourceArgs {
    /// The source that the arguments name: clap sees to it that there is exactly one.
    pub fn source(&self) -> crate::config::Source {
        match (&self.config, &self.manifests) {
            (Some(file), _) => crate::config::Source::File(file.clone()),
            (None, dir) => crate::config::Source::Manifests {
                dir: dir.clone().unwrap_or_default(),
                service: self.service.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(more: &[&str]) -> IpAddr {
        let args = ["flyweight-dataplane", "serve", "--manifests", "m", "--data-dir", "d"];
        let Command::Serve(serve) = Args::parse_from(args.iter().chain(more)).command else { unreachable!() };
        serve.listen.bind
    }

    #[test]
    fn nobody_else_is_served_unless_that_is_said() {
        assert!(bind(&[]).is_loopback());
        for all in ["[::]", "::"] {
            assert_eq!(bind(&["--bind", all]), IpAddr::from([0_u16; 8]));
        }
        assert_eq!(bind(&["--bind", "0.0.0.0"]), IpAddr::from([0_u8; 4]));
    }
}
