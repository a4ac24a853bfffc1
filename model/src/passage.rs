//! How backends are reached: whose certificates are trusted, and whether a password may be readable on the
//! way.
//!
//! AUTH of Redis, SASL PLAIN and MongoDB's PLAIN are the password itself, which others read where the
//! connection has no TLS. What is a proof of it elsewhere is not, but can be asked for by whoever is between:
//! `allowPlaintext: false` refuses that, too. Hosts are judged as they are written in the address. Those that
//! a server names afterwards (members of a replica set or a cluster, brokers) are not: the kind of connection
//! is the same for all.

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Deserialize, Serialize};

/// What becomes of a password that would be sent without TLS to a host that is not this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Plaintext {
    /// It is sent, with a warning. Settings that say nothing mean this: those of a service that ran before
    /// there was a choice stay as they are.
    #[default]
    Warned,
    /// It is sent: the author says so.
    Allowed,
    /// What proves a password is sent (SCRAM, the plugins of MySQL), and a password itself is refused: its
    /// author says nothing.
    ProofOnly,
    /// The connection is refused before anything is sent.
    Refused,
}

impl Plaintext {
    /// Whether it is what settings mean that say nothing.
    pub fn is_warned(&self) -> bool {
        *self == Self::Warned
    }
}

/// How the servers of one backend are reached. Clones share what became of it.
#[derive(Clone)]
pub struct Passage {
    backend: Arc<str>,
    plaintext: Plaintext,
    system: Option<Arc<[u8]>>,
    exposed: Arc<AtomicBool>,
}

/// What a connection sends to sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sends {
    /// Nothing that is a secret.
    Nothing,
    /// What proves a password, and is not the password: SCRAM, the plugins of MySQL but for
    /// `mysql_clear_password`.
    Proof,
    /// The password itself: AUTH of Redis, PLAIN.
    Password,
}

impl Passage {
    /// To a backend of this name.
    pub fn new(backend: &str, plaintext: Plaintext) -> Self {
        Self { backend: backend.into(), plaintext, system: None, exposed: Arc::default() }
    }

    /// The same, which trusts these authorities (PEM) where the backend names none.
    pub fn trusting(self, pem: &[u8]) -> Self {
        Self { system: Some(pem.into()), ..self }
    }

    /// The system's authorities, as PEM, where they are the ones to trust.
    pub fn system(&self) -> Option<&[u8]> {
        self.system.as_deref()
    }

    /// Whether a connection may be made: with what signs in, without TLS, to these hosts as the address has
    /// them.
    ///
    /// # Errors
    /// It may not: the sentence names the backend and says what to do. It has no part of the address.
    pub fn admit<'a>(
        &self,
        sends: Sends,
        over_tls: bool,
        hosts: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), String> {
        let others_read = !over_tls && !hosts.into_iter().all(is_local);
        match (self.plaintext, sends) {
            (Plaintext::Refused, Sends::Password | Sends::Proof)
            | (Plaintext::ProofOnly, Sends::Password)
                if others_read =>
            {
                Err(self.refusal())
            }
            (Plaintext::Warned, Sends::Password) if others_read => {
                self.expose();
                Ok(())
            }
            _ => {
                self.exposed.store(false, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// What becomes of a password without TLS.
    pub fn plaintext(&self) -> Plaintext {
        self.plaintext
    }

    /// Whether the password goes out readable, which the author did not allow.
    pub fn is_exposed(&self) -> bool {
        self.exposed.load(Ordering::Relaxed)
    }

    /// Notes that it does. It is logged once.
    pub fn expose(&self) {
        if !self.exposed.swap(true, Ordering::Relaxed) {
            let backend = &*self.backend;
            tracing::warn!(
                backend,
                "its password is sent to another host without TLS, where others can read it: the next release refuses this. Use TLS (tls: {{ authorities: \
                 System }}, ca.crt in its Secret), or say allowPlaintext: true"
            );
        }
    }

    /// Why no connection is made.
    pub fn refusal(&self) -> String {
        format!(
            "backend {}: its password would be sent to another host without TLS, where others can read it, so nothing is sent. Use TLS (tls: {{ authorities: \
             System }}, ca.crt in its Secret, or an address that asks for it), or say allowPlaintext: true",
            self.backend
        )
    }
}

impl fmt::Debug for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passage")
            .field("backend", &self.backend)
            .field("plaintext", &self.plaintext)
            .finish_non_exhaustive()
    }
}

/// Whether a host is this one: by its name or address, or by the path of a Unix socket. Nothing is asked of a
/// name server.
pub fn is_local(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => {
            let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost") || name.starts_with('/')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_known_by_what_is_written() {
        for host in [
            "localhost",
            "LOCALHOST.",
            "db.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "[::1]",
            "::ffff:127.0.0.1",
            "/run/db",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in
            ["0.0.0.0", "10.0.0.1", "::", "db", "localhost.example.test", "127.0.0.1.example.test", ""]
        {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn a_readable_password_is_sent_only_where_that_is_allowed() {
        let passage = |plaintext| Passage::new("main", plaintext);
        let refused = passage(Plaintext::Refused);
        let told = refused.admit(Sends::Password, false, ["localhost", "db.example.test"]).unwrap_err();
        assert!(
            told.contains("backend main")
                && told.contains("allowPlaintext: true")
                && !told.contains("db.example"),
            "{told}"
        );
        for (sends, over_tls, host) in [
            (Sends::Nothing, false, "db"),
            (Sends::Password, true, "db"),
            (Sends::Password, false, "localhost"),
        ] {
            refused.admit(sends, over_tls, [host]).unwrap();
        }
        assert!(refused.admit(Sends::Proof, false, ["db"]).is_err());
        let unsaid = passage(Plaintext::ProofOnly);
        unsaid.admit(Sends::Proof, false, ["db"]).unwrap();
        assert!(unsaid.admit(Sends::Password, false, ["db"]).is_err());
        let allowed = passage(Plaintext::Allowed);
        allowed.admit(Sends::Password, false, ["db"]).unwrap();
        assert!(!allowed.is_exposed(), "its author knows");
        let warned = passage(Plaintext::Warned);
        warned.admit(Sends::Proof, false, ["db"]).unwrap();
        assert!(!warned.is_exposed(), "the next release goes on with it");
        warned.clone().admit(Sends::Password, false, ["db"]).unwrap();
        assert!(warned.is_exposed());
        warned.admit(Sends::Password, true, ["db"]).unwrap();
        assert!(!warned.is_exposed(), "another address took its place");
    }
}
