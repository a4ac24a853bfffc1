//! Headers of one hop (RFC 9110, section 7.6.1): none of them passes the gateway, in either direction.

use std::net::SocketAddr;

use crds::network::Network;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header, request::Parts};

use super::client_address::{FORWARDED_FOR, client_of};

/// Those that are of one hop whether `Connection` names them or not.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Settings of HTTP/2 that come with `Upgrade: h2c` (RFC 7540, section 3.2.1; RFC 9113 has withdrawn it).
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

const FORWARDED: [HeaderName; 2] = [header::FORWARDED, HeaderName::from_static("x-real-ip")];

/// Removes what concerns this hop only, with all that `Connection` names.
pub fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> =
            tokens(headers, &header::CONNECTION).filter_map(|name| name.parse().ok()).collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Makes the head of a client's request one that a pod may be sent. What a client says of earlier hops goes,
/// unless it is a declared proxy.
pub fn prepare(parts: &mut Parts, peer: SocketAddr, trusted: &[Network]) {
    let client = client_of(&parts.headers, peer.ip(), trusted);
    let websocket = asks_for_websocket(parts);
    strip(&mut parts.headers);
    parts.headers.remove(HTTP2_SETTINGS);
    for name in FORWARDED {
        parts.headers.remove(name);
    }
    if let Ok(address) = HeaderValue::from_str(&client.to_string()) {
        parts.headers.insert(FORWARDED_FOR, address);
    }
    if websocket {
        offer_websocket(&mut parts.headers);
    }
}

/// Whether the head, of a request or an answer, changes the connection to a WebSocket.
pub fn offers_websocket(headers: &HeaderMap) -> bool {
    tokens(headers, &header::UPGRADE).any(|protocol| protocol.eq_ignore_ascii_case("websocket"))
}

/// Says that the connection becomes a WebSocket.
pub fn offer_websocket(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// A WebSocket's handshake (RFC 6455, section 4.1). Any other protocol that is offered is declined by going
/// on without it (RFC 9110, section 7.8).
fn asks_for_websocket(parts: &Parts) -> bool {
    parts.method == Method::GET
        // before HTTP/1.1 nothing could be upgraded
        && parts.version >= Version::HTTP_11
        && offers_websocket(&parts.headers)
        && tokens(&parts.headers, &header::CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"))
}

/// The members of all lists under this name.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lists = headers.get_all(name).into_iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(method: Method, sent: &[(&str, &str)]) -> Vec<String> {
        let builder = sent.iter().fold(http::Request::builder().method(method), |builder, (name, value)| {
            builder.header(*name, *value)
        });
        let (mut parts, ()) = builder.body(()).unwrap().into_parts();
        prepare(&mut parts, ([192, 0, 2, 7], 9).into(), &[]);
        let shown =
            |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
        let mut lines: Vec<String> = parts.headers.iter().map(shown).collect();
        lines.sort();
        lines
    }

    #[test]
    fn what_is_of_one_hop_stays_there() {
        let sent = [
            ("connection", "close, X-Debug"),
            ("x-debug", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("x-forwarded-for", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("accept", "*/*"),
        ];
        assert_eq!(prepared(Method::POST, &sent), ["accept: */*", "x-forwarded-for: 192.0.2.7"]);
    }

    #[test]
    fn only_a_websocket_is_agreed_to() {
        let plain = ["x-forwarded-for: 192.0.2.7"];
        let h2c =
            [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAEAAEAA")];
        assert_eq!(prepared(Method::POST, &h2c), plain);
        assert_eq!(prepared(Method::GET, &h2c), plain);
        let websocket = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("x-forwarded-for", "10.0.0.1"),
        ];
        assert_eq!(prepared(Method::POST, &websocket), plain);
        let agreed = ["connection: upgrade", "upgrade: websocket", plain[0]];
        assert_eq!(prepared(Method::GET, &websocket), agreed);
        assert_eq!(prepared(Method::GET, &[("upgrade", "websocket")]), plain, "Connection does not name it");
    }
}
