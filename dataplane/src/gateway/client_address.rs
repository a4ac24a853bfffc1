//! Whose request it is: the peer of the connection, or, where that is a declared proxy, whom the proxies
//! name.

use std::net::{IpAddr, SocketAddr};

use crds::{network::Network, settings::Settings};
use http::{HeaderMap, HeaderName};

/// What proxies add the address of their own peer to.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies that settings declare.
pub fn trusted(settings: &Settings) -> Vec<Network> {
    let declared = settings.gateway.iter().flat_map(|gateway| &gateway.trusted_proxies);
    // what is no network is a fault of the settings, which are not taken then
    declared.filter_map(|network| network.parse().ok()).collect()
}

/// The address of the client. Each proxy adds its own peer at the end, so the last one that is not itself a
/// trusted proxy is the client's: what comes before it was said by the client, and counts for nothing.
pub fn client_of(headers: &HeaderMap, peer: IpAddr, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    let told = headers.get_all(FORWARDED_FOR).iter().rev();
    let mut told = told.flat_map(|value| value.to_str().unwrap_or_default().rsplit(','));
    while is_trusted(client) {
        match told.next().map(|address| address_of(address.trim())) {
            Some(Some(before)) => client = before.to_canonical(),
            // what a trusted proxy says is not an address, or it says nothing: it is the last that is known
            Some(None) | None => break,
        }
    }
    client
}

/// The address that a proxy tells; some write the port, too.
fn address_of(told: &str) -> Option<IpAddr> {
    let bare = || told.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    told.parse().ok().or_else(|| Some(told.parse::<SocketAddr>().ok()?.ip())).or_else(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_declared_proxies_are_believed() {
        let trusted: Vec<Network> =
            ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap()).to_vec();
        for (peer, told, client) in [
            ("203.0.113.9", &["192.0.2.1"][..], "203.0.113.9"),
            ("10.0.0.1", &["192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["198.51.100.1, 192.0.2.1, 10.0.0.2"], "192.0.2.1"),
            ("10.0.0.1", &["198.51.100.1, 192.0.2.1", "10.0.0.2"], "192.0.2.1"),
            ("::ffff:10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["192.0.2.1, nobody"], "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.1:4711"], "192.0.2.1"),
            ("10.0.0.1", &["[2001:db8::1]:80"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
        ] {
            let mut headers = HeaderMap::new();
            for value in told {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            let found = client_of(&headers, peer.parse().unwrap(), &trusted);
            assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{peer} {told:?}");
            assert_eq!(
                client_of(&headers, peer.parse().unwrap(), &[]),
                peer.parse::<IpAddr>().unwrap().to_canonical()
            );
        }
    }
}
