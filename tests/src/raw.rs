//! HTTP as bytes: requests that no client would send, and their answers as they come.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(8);
/// How long the end of a connection may take.
const END: Duration = Duration::from_secs(3);

/// An answer, taken apart.
#[derive(Clone, Debug, Default)]
pub struct RawAnswer {
    /// The status.
    pub status: u16,
    /// Its fields, with names in small letters.
    pub fields: Vec<(String, String)>,
    /// Its body, without its framing.
    pub body: Vec<u8>,
}

/// A connection without a client's manners.
pub struct Raw {
    stream: TcpStream,
    /// What was read and not yet taken.
    read: Vec<u8>,
    ended: bool,
}

impl RawAnswer {
    /// All values of a field; none where it is not there.
    pub fn field(&self, name: &str) -> Option<String> {
        let values: Vec<&str> =
            self.fields.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    fn of_head(head: &str) -> Self {
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
        let field = |line: &str| {
            line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        };
        Self { status, fields: lines.filter_map(field).collect(), body: Vec::new() }
    }

    /// How its body ends, if it has one.
    fn length(&self, of_head_request: bool) -> Length {
        if of_head_request || self.status < 200 || matches!(self.status, 204 | 304) {
            return Length::Known(0);
        }
        match (self.field("transfer-encoding"), self.field("content-length")) {
            (Some(_), _) => Length::Chunked,
            (None, Some(length)) => Length::Known(length.parse().unwrap_or(0)),
            (None, None) => Length::UntilEnd,
        }
    }
}

enum Length {
    Known(usize),
    Chunked,
    UntilEnd,
}

impl Raw {
    /// Connects to `http://host:port`.
    ///
    /// # Panics
    /// Nobody listens there.
    pub async fn open(base: &str) -> Self {
        let stream = TcpStream::connect(base.trim_start_matches("http://")).await;
        Self {
            stream: stream.unwrap_or_else(|error| panic!("{base}: {error}")),
            read: Vec::new(),
            ended: false,
        }
    }

    /// Sends bytes, as a client does that reads nothing before it has sent all. Where they are refused
    /// midway, that is the answer's to say.
    pub async fn send(&mut self, bytes: &[u8]) {
        _ = timeout(ANSWER, self.stream.write_all(bytes)).await;
    }

    /// The next answer; none where the connection ended or stays silent.
    pub async fn answer(&mut self, to_head: bool) -> Option<RawAnswer> {
        timeout(ANSWER, self.read_answer(to_head)).await.ok()?
    }

    /// Whether the other side ends the connection, and sends no more before it does.
    pub async fn ends(&mut self) -> bool {
        self.read.is_empty() && (self.ended || !timeout(END, self.more()).await.unwrap_or(true))
    }

    async fn read_answer(&mut self, to_head: bool) -> Option<RawAnswer> {
        let head = self.until(b"\r\n\r\n").await?;
        let mut answer = RawAnswer::of_head(&String::from_utf8_lossy(&head));
        match answer.length(to_head) {
            Length::Known(length) => answer.body = self.exactly(length).await?,
            Length::UntilEnd => {
                while self.more().await {}
                answer.body = std::mem::take(&mut self.read);
            }
            Length::Chunked => loop {
                let size = self.until(b"\r\n").await?;
                let size = usize::from_str_radix(std::str::from_utf8(&size).ok()?.trim(), 16).ok()?;
                answer.body.extend(self.exactly(size).await?);
                self.until(b"\r\n").await?;
                if size == 0 {
                    break;
                }
            },
        }
        Some(answer)
    }

    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                let rest = self.read.split_off(at + end.len());
                return Some(std::mem::replace(&mut self.read, rest));
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.read.len() < length {
            if !self.more().await {
                return None;
            }
        }
        let rest = self.read.split_off(length);
        Some(std::mem::replace(&mut self.read, rest))
    }

    async fn more(&mut self) -> bool {
        let mut part = [0; 16 << 10];
        match self.stream.read(&mut part).await {
            Ok(0) | Err(_) => {
                self.ended = true;
                false
            }
            Ok(length) => {
                self.read.extend_from_slice(&part[..length]);
                true
            }
        }
    }
}
