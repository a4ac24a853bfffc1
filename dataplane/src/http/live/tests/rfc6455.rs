//! Frames as RFC 6455 allows and forbids them, byte by byte.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

/// A client that does only what it is told here.
async fn raw(service: &Service) -> TcpStream {
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    let request = "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    stream
}

/// The opcode and payload of the next frame.
async fn raw_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let read = async {
        let opcode = stream.read_u8().await.unwrap() & 0x0f;
        let length = match stream.read_u8().await.unwrap() {
            126 => stream.read_u16().await.unwrap().into(),
            127 => stream.read_u64().await.unwrap() as usize,
            length => length.into(),
        };
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        (opcode, payload)
    };
    tokio::time::timeout(WAIT, read).await.expect("a frame in time")
}

#[tokio::test]
async fn a_client_that_does_not_answer_pings_is_closed() {
    let service = start(LiveOptions { ping_interval: Span::from_millis(50), ..options() }).await;
    let mut polite = service.connect("topics=product").await;
    let mut silent = raw(&service).await;
    let mut pings = 0;
    let reason = loop {
        match raw_frame(&mut silent).await {
            (9, _) => pings += 1,
            (1, _) => {}
            (8, reason) => break reason,
            other => panic!("{other:?}"),
        }
        // the polite one answers by reading
        _ = tokio::time::timeout(Duration::from_millis(1), polite.next()).await;
    };
    assert_eq!((pings, &reason[..2]), (2, &1008_u16.to_be_bytes()[..]));
    for _ in 0..6 {
        assert!(matches!(
            tokio::time::timeout(WAIT, polite.next()).await.unwrap().unwrap().unwrap(),
            Message::Ping(_)
        ));
    }
}

/// A frame as a client sends it, masked with zeros: what it says is in the clear.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ ..126 => bytes.push(0x80 | length as u8),
        length @ ..0x1_0000 => {
            bytes.push(0xfe);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0xff);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The next frame of this opcode, whatever comes before.
async fn raw_frame_of(stream: &mut TcpStream, opcode: u8) -> Vec<u8> {
    loop {
        match raw_frame(stream).await {
            (found, payload) if found == opcode => return payload,
            _ => continue,
        }
    }
}

#[tokio::test]
async fn faulty_frames_are_told_apart() {
    let service = start(options()).await;
    let half = vec![b'x'; handshake::MESSAGE_BYTES_MAX / 2 + 1];
    let cases: [(&str, Vec<u8>, u16); 11] = [
        ("text that is no UTF-8", client_frame(FIN | TEXT, &[0xff, 0xff]), 1007),
        (
            "a character that a fragment begins and none ends",
            [client_frame(TEXT, &[0xc3]), client_frame(FIN, b"x")].concat(),
            1007,
        ),
        ("an opcode that there is not", client_frame(FIN | 3, b""), 1002),
        ("a frame without a mask", vec![FIN | TEXT, 1, b'x'], 1002),
        ("a reserved bit", client_frame(FIN | 0x40 | TEXT, b"x"), 1002),
        ("a continuation of nothing", client_frame(FIN | CONTINUATION, b"x"), 1002),
        (
            "a message within a message",
            [client_frame(TEXT, b"a"), client_frame(FIN | TEXT, b"b")].concat(),
            1002,
        ),
        ("a ping in fragments", client_frame(PING, b"x"), 1002),
        ("a ping that is too long", client_frame(FIN | PING, &[b'x'; 126]), 1002),
        (
            "fragments that are too large together",
            [client_frame(TEXT, &half), client_frame(FIN, &half)].concat(),
            1009,
        ),
        (
            "a length that nobody can send",
            [&[FIN | TEXT, 0xff][..], &(1_u64 << 62).to_be_bytes(), &[0; 4]].concat(),
            1009,
        ),
    ];
    for (name, bytes, code) in cases {
        let mut stream = raw(&service).await;
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(raw_frame_of(&mut stream, CLOSE).await[..2], code.to_be_bytes(), "{name}");
    }
}

#[tokio::test]
async fn frames_that_are_as_they_should_be_keep_the_connection() {
    let service = start(options()).await;
    let mut stream = raw(&service).await;
    // a ping between the fragments of a message, one of which is empty
    let parts = [
        client_frame(TEXT, &[b'h', 0xc3]),
        client_frame(FIN | PING, b"are you there?"),
        client_frame(CONTINUATION, b""),
        client_frame(FIN | CONTINUATION, &[0xa9]),
    ];
    stream.write_all(&parts.concat()).await.unwrap();
    assert_eq!(raw_frame_of(&mut stream, PONG).await, b"are you there?");
    loop {
        let told: Value = serde_json::from_slice(&raw_frame_of(&mut stream, TEXT).await).unwrap();
        match told["type"].as_str() {
            Some("health_check") => continue,
            kind => break assert_eq!(kind, Some("error"), "the feed takes no messages: {told}"),
        }
    }
    let published = event("a", 1);
    service.publish(std::slice::from_ref(&published)).await;
    let seen = loop {
        let seen: Value = serde_json::from_slice(&raw_frame_of(&mut stream, TEXT).await).unwrap();
        if seen["type"] != "health_check" {
            break seen;
        }
    };
    assert_eq!(seen["id"], published.id.to_string());
    // a close is answered with the same code
    stream.write_all(&client_frame(FIN | CLOSE, &1000_u16.to_be_bytes())).await.unwrap();
    assert_eq!(raw_frame_of(&mut stream, CLOSE).await[..2], 1000_u16.to_be_bytes());
    until("it is gone", async || service.live.figures().connections == 0).await;
}
