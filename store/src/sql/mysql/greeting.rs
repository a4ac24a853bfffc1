//! What a server says before anything is sent to it. The driver refuses `mysql_clear_password` where a server
//! asks for it later, but not where the greeting itself does: then it sends the password as it is, also
//! without TLS. So the greeting is looked at first, with a connection of its own, and again after one was
//! lost. Who can change what is on the way could show two faces; that is why other hosts are not spoken to
//! without TLS unless somebody allows it.

use std::{io, time::Duration};

use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::{TcpStream, UnixStream},
    time::timeout,
};

/// The plugin whose answer is the password itself.
const CLEARTEXT: &str = "mysql_clear_password";
/// The bit of a server that offers TLS.
const OFFERS_TLS: u16 = 0x0800;
/// The most bytes of a greeting.
const BYTES_MAX: usize = 4 << 10;
/// How long a server may take to greet.
const TIME: Duration = Duration::from_secs(1);

/// What is in a greeting.
#[derive(Debug, PartialEq, Eq)]
struct Greeting {
    offers_tls: bool,
    plugin: String,
}

/// Whether the server would be sent the password as it is, without TLS; none where it does not greet: the
/// driver meets that, too, and tells why.
pub async fn asks_for_cleartext(options: &MySqlConnectOptions) -> Option<bool> {
    let Greeting { offers_tls, plugin } = timeout(TIME, greet(options)).await.ok()?.ok()??;
    let over_tls = match options.get_ssl_mode() {
        MySqlSslMode::Disabled => false,
        MySqlSslMode::Preferred => offers_tls,
        MySqlSslMode::Required | MySqlSslMode::VerifyCa | MySqlSslMode::VerifyIdentity => true,
    };
    Some(plugin == CLEARTEXT && !over_tls)
}

async fn greet(options: &MySqlConnectOptions) -> io::Result<Option<Greeting>> {
    match options.get_socket() {
        Some(path) => read(UnixStream::connect(path).await?).await,
        None => {
            let host = options.get_host().trim_start_matches('[').trim_end_matches(']');
            read(TcpStream::connect((host, options.get_port())).await?).await
        }
    }
}

async fn read(mut server: impl AsyncRead + Unpin) -> io::Result<Option<Greeting>> {
    let mut head = [0; 4];
    server.read_exact(&mut head).await?;
    let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
    let mut packet = vec![0; length.min(BYTES_MAX)];
    server.read_exact(&mut packet).await?;
    Ok(parse(&packet))
}

/// The greeting of version 10 of the protocol, which is that of all servers since 3.21; none where it is
/// none, such as an error.
fn parse(packet: &[u8]) -> Option<Greeting> {
    let packet = packet.strip_prefix(&[10])?;
    let version = packet.iter().position(|byte| *byte == 0)?;
    // after the version: the connection's number, eight bytes to sign, a zero
    let rest = packet.get(version + 1 + 4 + 8 + 1..)?;
    let capabilities = u16::from_le_bytes([*rest.first()?, *rest.get(1)?]);
    // after the capabilities: character set, status, more capabilities, how many bytes to sign there are, ten
    // unused ones
    let signed = usize::from(*rest.get(7)?);
    let more = signed.saturating_sub(8).max(13);
    let name = rest.get(18 + more..).unwrap_or_default();
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let plugin = String::from_utf8_lossy(name).into_owned();
    Some(Greeting { offers_tls: capabilities & OFFERS_TLS != 0, plugin })
}

#[cfg(test)]
pub mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    /// A greeting as servers send it.
    fn greeting(capabilities: u16, plugin: &str) -> Vec<u8> {
        let mut packet = vec![10];
        packet.extend(b"9.7.0\0\x01\0\0\0saltsalt\0");
        packet.extend(capabilities.to_le_bytes());
        packet.extend([45, 2, 0, 0xff, 0xdf, 21]);
        packet.extend([0; 10]);
        packet.extend(b"moresaltmore\0");
        packet.extend(plugin.as_bytes());
        packet.push(0);
        let mut framed = vec![u8::try_from(packet.len()).unwrap(), 0, 0, 0];
        framed.extend(packet);
        framed
    }

    /// A server that greets so and takes down what it is sent.
    pub async fn server(
        capabilities: u16,
        plugin: &str,
    ) -> (u16, tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        let greeting = greeting(capabilities, plugin);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (greeting, tell) = (greeting.clone(), tell.clone());
                tokio::spawn(async move {
                    _ = client.write_all(&greeting).await;
                    let mut sent = vec![0; 1024];
                    if let Ok(length @ 1..) = client.read(&mut sent).await {
                        sent.truncate(length);
                        _ = tell.send(sent);
                    }
                });
            }
        });
        (port, told)
    }

    #[test]
    fn a_greeting_says_its_plugin_and_whether_there_is_tls() {
        let packet = |capabilities, plugin: &str| parse(&greeting(capabilities, plugin)[4..]).unwrap();
        assert_eq!(packet(0xf7ff, CLEARTEXT), Greeting { offers_tls: false, plugin: CLEARTEXT.to_owned() });
        assert!(packet(0xffff, "caching_sha2_password").offers_tls);
        for cut in 0..40 {
            _ = parse(&greeting(0xffff, CLEARTEXT)[4..4 + cut]);
        }
        assert_eq!(parse(b"\xff\x10\x04Too many connections"), None);
    }
}
