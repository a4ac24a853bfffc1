//! Turns Nagle's algorithm off for connections to MySQL. The driver does not, since its version 0.9.0
//! (transact-rs/sqlx#4335): whatever it sends in more than one piece, as it does with each statement of more
//! than 16 KiB over TLS, waits for an acknowledgement that the server's kernel delays by 40 ms.
//!
//! To be deleted with the version of the driver that does so again.

use std::{ffi::c_int, fs};

/// What the process has open.
const OPEN: &str = "/proc/self/fd";

/// Turns it off for all TCP connections of this process: the driver does not tell which is its own, and no
/// other needs it. Takes up to a microsecond for each open file.
pub fn everywhere() {
    // not there on other systems, which are for development only: statements are slower then
    let Ok(open) = fs::read_dir(OPEN) else { return };
    for descriptor in open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        turn_off(descriptor);
    }
}

/// Does nothing to what is no TCP connection.
#[expect(unsafe_code, reason = "the driver gives no safe way to its socket")]
fn turn_off(descriptor: c_int) {
    let on: c_int = 1;
    // SAFETY: the kernel reads as many bytes as a `c_int` has from a pointer to a live `c_int`, and keeps
    // none of them. The descriptor is a number that the kernel checks: one that was closed since it was
    // listed is refused, and so is what is no TCP socket; a TCP socket that took the number meanwhile is
    // another one of this process. The option changes when bytes are sent, and nothing else of a socket: not
    // which, not their order, not who owns it.
    unsafe {
        libc::setsockopt(
            descriptor,
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            (&raw const on).cast(),
            size_of::<c_int>() as libc::socklen_t,
        );
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_send_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nodelay(false).unwrap();
        everywhere();
        assert!(client.nodelay().unwrap());
    }
}
