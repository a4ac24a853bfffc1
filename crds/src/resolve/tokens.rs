//! Whose tokens are good: issuers that can be told apart, and keys that nobody can put in their place.

use super::{Report, is_address};
use crate::service::{security::Security, tokens::TokenIssuer};

/// Checks what a service says of tokens.
pub(super) fn check(security: &Security, report: &mut Report<'_>) {
    let Some(jwt) = &security.jwt else { return };
    let path = "spec.security.jwt";
    report.ensure(
        jwt.secret_ref.is_some() || !jwt.issuers.is_empty(),
        path,
        "name issuers, secretRef or both",
    );
    report.unique("spec.security.jwt.issuers", "issuer", jwt.issuers.iter().map(|one| one.issuer.as_str()));
    for (index, TokenIssuer { issuer, audiences, jwks_uri, roles_claim, scope_claim, .. }) in
        jwt.issuers.iter().enumerate()
    {
        let at = format!("{path}.issuers[{index}]");
        report.ensure(!audiences.is_empty(), format!("{at}.audiences"), "name at least one");
        for (field, url) in [("issuer", Some(issuer)), ("jwksUri", jwks_uri.as_ref())] {
            let fault = url.and_then(|url| unsafe_address(url));
            if let Some(fault) = fault {
                report.add(format!("{at}.{field}"), fault);
            }
        }
        for (field, pointer) in [("rolesClaim", Some(roles_claim)), ("scopeClaim", scope_claim.as_ref())] {
            let is_pointer = pointer.is_none_or(|pointer| pointer.starts_with('/') && pointer.len() > 1);
            report.ensure(
                is_pointer,
                format!("{at}.{field}"),
                "must be a JSON pointer, such as /realm_access/roles",
            );
        }
    }
}

/// Why keys from this address could be anybody's; none where they could not.
fn unsafe_address(url: &str) -> Option<&'static str> {
    if !is_address(url) {
        return Some("must start with https://");
    }
    let rest = url.strip_prefix("http://")?;
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let is_near = ["localhost", "127.0.0.1", "[::1]"].contains(&host)
        || host.ends_with(".svc")
        || host.ends_with(".svc.cluster.local");
    (!is_near).then_some(
        "must start with https://: who is on the way could give out keys of his own (http:// is taken of \
         localhost and of the cluster's own .svc names)",
    )
}
