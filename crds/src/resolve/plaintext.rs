//! Passwords that others can read: in the spec, by everybody who reads the resource, or on the way to a
//! backend.

use super::Named;
use crate::fault::Fault;
use crate::service::{ServiceSpec, backends::Backend};

/// Addresses in the spec that hold an account with its password, which belongs into a Secret: faults of a
/// service that is new, and warnings where it ran before that was one.
pub fn in_spec(service: &Named<ServiceSpec>) -> Vec<Fault> {
    let pipeline = &service.spec.pipeline;
    let provider = pipeline.payments.http.as_ref().map(|http| http.url.as_str());
    let addresses = [
        ("spec.pipeline.payments.http.url", provider, "spec.pipeline.payments.http.secretRef"),
        (
            "spec.pipeline.notifications.webhookUrl",
            pipeline.notifications.webhook_url.as_deref(),
            "spec.pipeline.notifications.secretRef",
        ),
    ];
    let held = addresses.into_iter().filter(|(_, url, _)| url.is_some_and(has_account));
    held.map(|(path, _, secret)| {
        let message =
            format!("holds an account, which everybody sees who reads the resource: put it under the key `url` of the Secret of {secret}");
        fault(service, path.to_owned(), message)
    })
    .collect()
}

/// Backends of which nothing is said of how their passwords travel: what is refused, and from when on.
pub fn unsaid(service: &Named<ServiceSpec>) -> Vec<Fault> {
    let backends = service.spec.backends.iter().enumerate();
    let unsaid = backends.filter_map(|(index, backend)| {
        let kind = unsaid_kind(backend)?;
        let message = "is left out: where the protocol sends the password itself (AUTH of Redis, PLAIN of Kafka and MongoDB), and the Secret has neither \
                       `ca.crt` nor an address that asks for TLS, a host other than this one is not connected to; a service that ran before this release \
                       goes on, and is refused by the next. Say tls: { authorities: System }, or true or false here";
        Some(fault(service, format!("spec.backends[{index}].{kind}.allowPlaintext"), message.to_owned()))
    });
    unsaid.collect()
}

/// Whether an address has a user, with or without a password: `https://user:password@host`.
pub fn has_account(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default().contains('@')
}

/// The kind of a backend of which neither is said.
fn unsaid_kind(backend: &Backend) -> Option<&'static str> {
    // MySQL is never given a password itself
    let Backend { name: _, mysql: _, mongodb, redis, kafka } = backend;
    let said = [
        ("mongodb", mongodb.as_ref().map(|one| (one.tls, one.allow_plaintext))),
        ("redis", redis.as_ref().map(|one| (one.tls, one.allow_plaintext))),
        ("kafka", kafka.as_ref().map(|one| (one.tls, one.allow_plaintext))),
    ];
    said.into_iter().find_map(|(kind, said)| (said? == (None, None)).then_some(kind))
}

fn fault(service: &Named<ServiceSpec>, path: String, message: String) -> Fault {
    Fault { resource: format!("FlyweightService/{}", service.name), path, message, place: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_what_stands_before_the_host() {
        for url in ["https://user:password@pay.example.test/v1", "http://token@pay.example.test"] {
            assert!(has_account(url), "{url}");
        }
        for url in ["https://pay.example.test/v1/@x", "https://pay.example.test?of=a@b", "pay.example.test"] {
            assert!(!has_account(url), "{url}");
        }
    }
}
