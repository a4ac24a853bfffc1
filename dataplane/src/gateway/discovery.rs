//! Finds the pods of each group: by the DNS name of the group's headless Service, or from a fixed list.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::lookup_host;
use tracing::debug;

use super::registry::{Registry, Upstream};

/// How often names are looked up.
pub const INTERVAL: Duration = Duration::from_secs(1);

const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the pods of groups are found.
#[derive(Clone, Debug)]
pub enum Discovery {
    /// A DNS name with `{group}` for the group, and the port of the pods' API.
    Dns {
        /// Such as `shop-{group}.default.svc`.
        domain: String,
        /// The port.
        port: u16,
    },
    /// Fixed addresses: group and address.
    Fixed(Vec<(String, SocketAddr)>),
}

impl Discovery {
    /// Brings the registry up to date and returns the pods that are new. A name that does not resolve is a
    /// group without pods; a look-up that fails changes nothing. The groups are the same as long as the
    /// process runs.
    pub async fn refresh(&self, registry: &Registry, groups: &[String]) -> Vec<Arc<Upstream>> {
        let mut new = Vec::new();
        for group in groups {
            match self {
                Self::Dns { domain, port } => {
                    let host = format!("{}:{port}", domain.replace("{group}", group));
                    match tokio::time::timeout(LOOKUP_TIMEOUT, lookup_host(&host)).await {
                        Ok(Ok(addrs)) => new.extend(registry.set_group(group, addrs.collect())),
                        Ok(Err(error)) if says_no_such_name(&error) => {
                            new.extend(registry.set_group(group, Vec::new()));
                        }
                        Ok(Err(error)) => debug!(host, %error, "look-up failed; the known pods stay"),
                        Err(_) => debug!(host, "look-up took too long; the known pods stay"),
                    }
                }
                Self::Fixed(list) => {
                    let addrs =
                        list.iter().filter(|(name, _)| name == group).map(|(_, addr)| *addr).collect();
                    new.extend(registry.set_group(group, addrs));
                }
            }
        }
        new
    }
}

/// The resolver has no error kind for it: glibc says "Name or service not known" or "No address associated
/// with hostname".
fn says_no_such_name(error: &std::io::Error) -> bool {
    let text = error.to_string();
    text.contains("not known") || text.contains("No address")
}
