//! Why a part does not answer, in one word and a sentence, for the operator's status. The messages of checks
//! hold no addresses and no secrets. They are those of four drivers: the word is found by what they have in
//! common.

use serde::Serialize;

/// Why a part does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// One of the operator's words for it.
    reason: &'static str,
    /// What it is, and what to do.
    message: String,
}

/// Words of drivers, in small letters, with what they mean; the first that fits counts. Why nothing was sent
/// comes first: it speaks of passwords, and no server has refused one. Our own words say what to do.
const MEANINGS: [(&[&str], &str, &str); 6] = [
    (&["certificate", "without tls", "support tls", "unknownissuer"], "NotTrusted", ""),
    (
        &["error 1045", "sign-in", "wrongpass", "noauth", "authentication", "sasl"],
        "WrongPassword",
        "it does not take the account or its password: see the url of its Secret, in which special characters \
         of the password are percent-encoded",
    ),
    (
        &["error 1049", "unknown database"],
        "DatabaseMissing",
        "it has no database of the name in the url of its Secret: make it, or name another",
    ),
    (&["may not", "error 1044", "noperm", "not authorized", "authorization"], "MissingRight", ""),
    (
        &["lookup", "resolve", "name or service", "no such host", "nodename", "unknown host"],
        "UnknownHost",
        "nobody knows its host: see the url of its Secret",
    ),
    (
        &["refused"],
        "ConnectionRefused",
        "nobody listens at its address: it is down, or the url of its Secret has another port",
    ),
];

impl Problem {
    /// What this message of a failed check means.
    pub fn of(message: &str) -> Self {
        let small = message.to_ascii_lowercase();
        let found = MEANINGS.iter().find(|(words, ..)| words.iter().any(|word| small.contains(word)));
        let (reason, what) = found.map_or(("BackendUnreachable", ""), |(_, reason, what)| (*reason, *what));
        let message = if what.is_empty() { message } else { what };
        Self { reason, message: message.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use model::passage::{Passage, Plaintext};

    use super::*;

    #[test]
    fn what_drivers_say_has_its_word() {
        for (message, reason) in [
            ("the store is unavailable: the database answers with error 1045", "WrongPassword"),
            ("the store is unavailable: MongoDB does not accept the sign-in", "WrongPassword"),
            ("WRONGPASS: invalid username-password pair", "WrongPassword"),
            ("the store is unavailable: the database answers with error 1049", "DatabaseMissing"),
            ("the account may not SELECT here (error 1142)", "MissingRight"),
            ("failed to lookup address information: Name or service not known", "UnknownHost"),
            ("Connection refused (os error 111)", "ConnectionRefused"),
            ("invalid peer certificate: UnknownIssuer", "NotTrusted"),
            ("server does not support TLS", "NotTrusted"),
            (&Passage::new("mysql", Plaintext::Refused).refusal(), "NotTrusted"),
            ("sasl_ssl: SASL authentication error: bad credentials", "WrongPassword"),
            ("no answer within 2 s", "BackendUnreachable"),
        ] {
            let problem = Problem::of(message);
            assert_eq!(problem.reason, reason, "{message}");
            assert!(!problem.message.is_empty());
        }
    }
}
