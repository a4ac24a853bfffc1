//! A small HTTP/1.1 client that keeps its connection, so that the load costs little beside what it measures.

use std::{io::Write, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The type of a body of lines of JSON.
pub const LINES: &str = "application/x-ndjson";

/// One connection, one request after the other.
pub struct Connection {
    stream: TcpStream,
    out: Vec<u8>,
    input: Vec<u8>,
}

/// The most bytes of a head.
const HEAD_MAX: usize = 16 << 10;

impl Connection {
    /// Connects.
    pub async fn open(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, out: Vec::new(), input: Vec::new() })
    }

    /// Posts a body and reads the whole answer; gives its status.
    pub async fn post(&mut self, path: &str, kind: &str, body: &[u8]) -> Result<u16> {
        self.out.clear();
        write!(
            self.out,
            "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )?;
        self.out.extend_from_slice(body);
        self.stream.write_all(&self.out).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<u16> {
        self.input.clear();
        let head = loop {
            let end = self.input.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            if let Some(end) = end {
                break end + 4;
            }
            ensure!(self.input.len() < HEAD_MAX, "an answer without an end of its head");
            ensure!(self.stream.read_buf(&mut self.input).await? > 0, "the connection was closed");
        };
        let text = std::str::from_utf8(&self.input[..head])?;
        let status = text.split(' ').nth(1).context("an answer without a status")?.parse()?;
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
        });
        let length = length.transpose()?.unwrap_or(0);
        while self.input.len() < head + length {
            ensure!(self.stream.read_buf(&mut self.input).await? > 0, "the connection was closed");
        }
        Ok(status)
    }
}
