//! Places of connections. One address may hold as many as are still free, so that no one, however many it
//! opens, leaves none for others.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

/// Connections that one listener takes at once, where the process may open as many files.
const CONNECTIONS_MAX: usize = 20_000;
/// Files that are left for other things: stores, logs, the admin port.
const FILES_LEFT: usize = 256;

/// Connections that were refused since the start because their addresses had too many, over all listeners.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// The places of one listener.
pub struct Places {
    most: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place, until it is dropped.
pub struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    /// As many as one listener has.
    pub fn of_listener() -> Arc<Self> {
        Self::new(CONNECTIONS_MAX.min(files_max().saturating_sub(FILES_LEFT).max(1)))
    }

    fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, held: Mutex::default() })
    }

    /// How many there are.
    pub fn most(&self) -> usize {
        self.most
    }

    /// A place for a connection from an address, unless that has as many as are free.
    pub fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let address = network_of(peer);
        let mut held = self.held.lock();
        let free = self.most.saturating_sub(held.all);
        let own = held.by_address.get(&address).copied().unwrap_or_default();
        if own >= free {
            REFUSED.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        held.all += 1;
        held.by_address.insert(address, own + 1);
        drop(held);
        Some(Place { places: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held.lock();
        held.all = held.all.saturating_sub(1);
        let own = held.by_address.get(&self.address).copied().unwrap_or_default();
        if own > 1 {
            held.by_address.insert(self.address, own - 1);
        } else {
            held.by_address.remove(&self.address);
        }
    }
}

/// Connections that were refused since the start because their addresses had too many.
pub fn refused() -> u64 {
    REFUSED.load(Ordering::Relaxed)
}

/// Who is behind an address: one host of IPv4, a network of 64 bits of IPv6, which is what one customer is
/// given.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

/// The files that this process may have open.
fn files_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_leaves_none_for_others() {
        let (places, address) = (Places::new(100), |last: u8| IpAddr::from([10, 0, 0, last]));
        let take = |last: u8| std::iter::from_fn(|| places.enter(address(last))).collect::<Vec<_>>();
        let (first, second, third) = (take(1), take(2), take(3));
        assert_eq!(
            (first.len(), second.len(), third.len()),
            (50, 25, 13),
            "each has what the others left, by half"
        );
        assert!(places.enter(address(4)).is_some(), "there is room for whoever comes next");
        let refused_before = refused();
        assert!(places.enter(address(1)).is_none() && refused() > refused_before);
        drop(first);
        assert!(places.enter(address(1)).is_some());
        drop((second, third));
        let held = places.held.lock();
        assert_eq!((held.all, held.by_address.len()), (0, 0));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let of = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"), "one of IPv4 that came by IPv6");
        assert!(files_max() > FILES_LEFT);
    }
}
