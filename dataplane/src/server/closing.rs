//! The end of a connection (RFC 9112, section 9.6): first this side says that no more will come, then it
//! reads on until the client has seen that. A connection that is closed on unread bytes is reset, and its
//! last answer is lost, such as that to a head which is too large.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::lingering::{DISCARD_DEADLINE, DISCARDED_MAX};

/// How long the client may be silent after this side's end, until it is taken for one that has seen it.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// A stream that ends in two steps.
pub struct Closing<I> {
    io: I,
    silence_max: Duration,
    deadline: Duration,
    ending: Option<Ending>,
}

struct Ending {
    left: usize,
    silence_max: Duration,
    deadline: Instant,
    silent: Pin<Box<Sleep>>,
}

impl<I> Closing<I> {
    /// A stream, open.
    pub fn new(io: I) -> Self {
        Self::within(io, SILENCE_MAX, DISCARD_DEADLINE)
    }

    /// The stream, as far as it has not ended.
    pub fn into_inner(self) -> I {
        self.io
    }

    fn within(io: I, silence_max: Duration, deadline: Duration) -> Self {
        Self { io, silence_max, deadline, ending: None }
    }
}

impl Ending {
    fn begin(silence_max: Duration, deadline: Duration) -> Self {
        let now = Instant::now();
        let silent = Box::pin(sleep_until(now + silence_max));
        Self { left: DISCARDED_MAX, silence_max, deadline: now + deadline, silent }
    }

    /// Reads and throws away, until there is no more or it has been enough.
    fn poll<I: AsyncRead + Unpin>(&mut self, io: &mut I, context: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 4096];
        while self.left > 0 {
            let mut read = ReadBuf::new(&mut scratch);
            match Pin::new(&mut *io).poll_read(context, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    self.left = self.left.saturating_sub(read.filled().len());
                    self.silent.as_mut().reset(self.deadline.min(Instant::now() + self.silence_max));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.silent.as_mut().poll(context),
            }
        }
        Poll::Ready(())
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Closing<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Closing<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ending.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(context))?;
        }
        let ending = this.ending.get_or_insert_with(|| Ending::begin(this.silence_max, this.deadline));
        ending.poll(&mut this.io, context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_still_sent_is_read_until_the_client_has_seen_the_end() {
        let (mut client, server) = duplex(1 << 10);
        let mut server = Closing::new(server);
        let ended = tokio::spawn(async move {
            server.write_all(b"no").await.unwrap();
            server.shutdown().await.unwrap();
        });
        client.write_all(&[b'x'; 64 << 10]).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"no");
        drop(client);
        ended.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_is_silent_or_never_stops_is_left_alone() {
        let (silence_max, deadline) = (Duration::from_millis(100), Duration::from_millis(500));
        for never_stops in [false, true] {
            let (mut client, server) = duplex(1 << 10);
            let mut server = Closing::within(server, silence_max, deadline);
            let sends = async {
                while never_stops && client.write_all(b"more").await.is_ok() {
                    tokio::time::sleep(silence_max / 4).await;
                }
                std::future::pending::<()>().await;
            };
            let begun = Instant::now();
            tokio::select! { () = sends => (), ended = server.shutdown() => ended.unwrap() }
            let least = if never_stops { deadline } else { silence_max };
            assert!(begun.elapsed() >= least, "{never_stops}: {:?}", begun.elapsed());
        }
    }
}
