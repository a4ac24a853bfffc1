//! Tells HTTP/2 with prior knowledge from HTTP/1.1 by the first bytes of a connection (RFC 9113, section
//! 3.4).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What a client of HTTP/2 sends first. No request of HTTP/1.1 begins so.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection, some of whose bytes have been read already.
pub struct Begun<I> {
    read: BytesMut,
    stream: I,
}

/// Whether the client speaks HTTP/2, and the connection as it was before it was looked at. Waits for as many
/// bytes as that takes.
///
/// # Errors
/// The connection broke.
pub async fn look<I: AsyncRead + Unpin>(mut stream: I) -> io::Result<(bool, Begun<I>)> {
    let mut read = BytesMut::with_capacity(PREFACE.len());
    loop {
        if read.starts_with(PREFACE) {
            return Ok((true, Begun { read, stream }));
        }
        if !PREFACE.starts_with(&read) || stream.read_buf(&mut read).await? == 0 {
            return Ok((false, Begun { read, stream }));
        }
    }
}

impl<I> Begun<I> {
    /// The same over another stream.
    pub fn map<O>(self, change: impl FnOnce(I) -> O) -> Begun<O> {
        Begun { read: self.read, stream: change(self.stream) }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Begun<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let length = self.read.len().min(into.remaining());
        into.put_slice(self.read.get(..length).unwrap_or_default());
        self.read.advance(length);
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // with what is there already, as if nobody had looked: how much comes at once decides what a parser
        // says of a broken head
        match Pin::new(&mut self.stream).poll_read(context, into) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Begun<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn the_preface_is_told_from_all_else_and_nothing_is_lost() {
        for (sent, is_http2) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore"[..], true),
            (b"PRI * HTTP/1.1\r\n\r\n", false),
            (b"PROPFIND / HTTP/1.1\r\n", false),
            (b"GET / HTTP/1.1\r\n", false),
            (b"PRI", false),
            (b"", false),
        ] {
            for step in [1, 5, 100] {
                let (mut ours, theirs) = duplex(4096);
                let writing = tokio::spawn(async move {
                    for part in sent.chunks(step) {
                        ours.write_all(part).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                });
                let (found, mut stream) = look(theirs).await.unwrap();
                assert_eq!(found, is_http2, "{sent:?}");
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                assert_eq!(all, sent);
                writing.await.unwrap();
            }
        }
    }
}
