//! Joins streams of lines of JSON, each in the order of its entries' times, into one such stream.

use axum::{
    body::{Body, BodyDataStream, Bytes},
    response::Response,
};
use bytes::{Buf, BytesMut};
use futures::{StreamExt, stream};
use http::header;
use serde_json::Value;

use super::merge::place;

/// The longest line: an entry of the audit has a record before and after.
const LINE_BYTES_MAX: usize = 64 << 20;

/// One of the streams, with its next line.
struct Source {
    body: BodyDataStream,
    read: BytesMut,
    ended: bool,
    next: Option<(String, String, Bytes)>,
}

/// The answers as one, with the head of the first.
pub fn merged(answers: Vec<Response>) -> Response {
    let mut head = None;
    let mut sources = Vec::new();
    for answer in answers {
        let (parts, body) = answer.into_parts();
        head.get_or_insert(parts);
        sources.push(Source {
            body: body.into_data_stream(),
            read: BytesMut::new(),
            ended: false,
            next: None,
        });
    }
    let last: Option<String> = None;
    let lines = stream::try_unfold((sources, last), |(mut sources, mut last)| async move {
        loop {
            for source in &mut sources {
                source.look().await?;
            }
            sources.retain(|source| source.next.is_some());
            let key = |source: &&mut Source| source.next.as_ref().map(|(at, id, _)| (at.clone(), id.clone()));
            let Some((_, id, line)) =
                sources.iter_mut().min_by_key(key).and_then(|source| source.next.take())
            else {
                return Ok::<_, std::io::Error>(None);
            };
            // several groups may have the same entry
            if last.as_ref() != Some(&id) {
                last = Some(id);
                return Ok(Some((line, (sources, last))));
            }
        }
    });
    let mut response = Response::new(Body::from_stream(lines));
    if let Some(mut head) = head {
        head.headers.remove(header::CONTENT_LENGTH);
        (*response.status_mut(), *response.headers_mut()) = (head.status, head.headers);
    }
    response
}

impl Source {
    /// Reads the next line where it has not been read; at the end there is none.
    async fn look(&mut self) -> std::io::Result<()> {
        while self.next.is_none() {
            if let Some(length) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(length + 1).freeze();
                let entry: Value = serde_json::from_slice(&line)?;
                let (at, id) = place(&entry);
                self.next = Some((at.to_owned(), id.to_owned(), line));
                return Ok(());
            }
            if self.ended || self.read.remaining() > LINE_BYTES_MAX {
                return if self.read.is_empty() {
                    Ok(())
                } else {
                    Err(std::io::ErrorKind::InvalidData.into())
                };
            }
            match self.body.next().await {
                Some(chunk) => self.read.extend_from_slice(&chunk.map_err(std::io::Error::other)?),
                None => self.ended = true,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    /// Lines of entries with these numbers, cut in chunks anywhere.
    fn answer(numbers: &[u32], chunk: usize) -> Response {
        let text: String = numbers.iter().map(|n| format!("{{\"at\":\"t{n}\",\"id\":\"i{n}\"}}\n")).collect();
        let chunks: Vec<_> = text
            .as_bytes()
            .chunks(chunk)
            .map(|chunk| Ok::<_, std::io::Error>(Bytes::copy_from_slice(chunk)))
            .collect();
        Response::new(Body::from_stream(stream::iter(chunks)))
    }

    #[tokio::test]
    async fn lines_come_in_order_and_once() {
        let joined = merged(vec![answer(&[1, 4, 5, 9], 7), answer(&[], 1), answer(&[2, 3, 5, 6], 100)]);
        let text = to_bytes(joined.into_body(), 1 << 20).await.unwrap();
        let ids: Vec<Value> = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice::<Value>(line).unwrap()["id"].take())
            .collect();
        assert_eq!(ids, ["i1", "i2", "i3", "i4", "i5", "i6", "i9"]);
    }

    #[tokio::test]
    async fn a_stream_that_breaks_off_breaks_the_whole() {
        let broken = Response::new(Body::from("{\"at\":\"t1\",\"id\":\"i1\"}\n{\"at\""));
        assert!(to_bytes(merged(vec![answer(&[2], 9), broken]).into_body(), 1 << 20).await.is_err());
    }
}
