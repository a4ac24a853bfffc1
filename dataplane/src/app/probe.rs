//! `health`: asks a process on this machine whether it is ready, for the health check of a container.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;

use crate::args::Probe;

/// The most of an answer that is read, in bytes.
const ANSWER_MAX: u64 = 64 << 10;

/// Prints what the process says of itself. Exit code 0 where it is ready, 1 where it is not.
///
/// # Errors
/// Nobody answers in time.
pub fn run(args: &Probe) -> anyhow::Result<ExitCode> {
    let address = SocketAddr::new(reached_at(args.bind), args.admin_port);
    let answer = ask(address, args.timeout.0).with_context(|| format!("nobody answers at {address}"))?;
    let (ready, told) = judge(&answer);
    println!("{told}");
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The address of this machine at which a process answers that listens so.
fn reached_at(bind: IpAddr) -> IpAddr {
    // a listener for all addresses takes both families
    if bind.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { bind }
}

fn ask(address: SocketAddr, within: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, within)?;
    stream.set_read_timeout(Some(within))?;
    stream.set_write_timeout(Some(within))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Whether an answer says that the process is ready, and the first line of its body.
fn judge(answer: &str) -> (bool, &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let is_http = words.next().is_some_and(|version| version.starts_with("HTTP/"));
    let ready = is_http && words.next() == Some("200");
    let told = body.lines().next().filter(|line| !line.is_empty());
    (ready, told.unwrap_or(if ready { "ready" } else { "not ready" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_one_line_and_a_verdict() {
        let of = |status: &str, body: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 9\r\n\r\n{body}");
        assert_eq!(judge(&of("200 OK", "ready\n")), (true, "ready"));
        let away = of("503 Service Unavailable", "mysql is not prepared\nand more\n");
        assert_eq!(judge(&away), (false, "mysql is not prepared"));
        assert_eq!(judge(&of("503 Service Unavailable", "")), (false, "not ready"));
        for other in ["", "SSH-2.0-OpenSSH 200", "HTTP/1.1", "HTTP/1.1 2000 OK\r\n\r\n"] {
            assert!(!judge(other).0, "{other}");
        }
    }

    #[test]
    fn a_process_is_asked_where_it_listens() {
        for (bind, reached) in
            [("::", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "::1"), ("192.0.2.1", "192.0.2.1")]
        {
            assert_eq!(reached_at(bind.parse().unwrap()), reached.parse::<IpAddr>().unwrap(), "{bind}");
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut one = [0];
                stream.read_exact(&mut one).unwrap();
                asked.extend(one);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nready\n").unwrap();
            String::from_utf8(asked).unwrap()
        });
        assert_eq!(judge(&ask(address, Duration::from_secs(10)).unwrap()), (true, "ready"));
        assert!(server.join().unwrap().starts_with("GET /readyz HTTP/1.1\r\nhost: localhost\r\n"));
        // the listener is gone
        assert!(ask(address, Duration::from_secs(10)).is_err());
    }
}
