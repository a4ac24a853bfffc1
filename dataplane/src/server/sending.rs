//! Answers of a connection of HTTP/2 on their way, and whether the client takes them. Each has a window of
//! its own, which a client may keep closed while the connection itself moves: no write waits then, so nothing
//! else would end it.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// The most bytes that are handed over at once: so much of an answer waits outside its body for the client's
/// window, at most.
const PART_BYTES_MAX: usize = 16 << 10;

/// The answers of a connection that their client has not taken: those that have more, and since when they
/// were not asked for it.
#[derive(Debug, Default)]
pub struct Untaken {
    since: Mutex<HashMap<u64, Instant>>,
    next: AtomicU64,
}

/// The body of an answer. `K` is kept until its end.
pub struct Sending<K> {
    body: Body,
    /// What was taken from the body and not handed over.
    rest: Bytes,
    id: u64,
    untaken: Arc<Untaken>,
    _kept: K,
}

impl Untaken {
    /// Returns once an answer was not asked for more for so long.
    pub async fn for_too_long(&self, most: Duration) {
        loop {
            let oldest = self.since.lock().values().min().copied();
            let now = Instant::now();
            let due = oldest.unwrap_or(now) + most;
            if oldest.is_some() && now >= due {
                return;
            }
            sleep_until(due).await;
        }
    }

    fn note(&self, id: u64) {
        self.since.lock().insert(id, Instant::now());
    }

    fn forget(&self, id: u64) {
        self.since.lock().remove(&id);
    }
}

impl<K> Sending<K> {
    /// The answer's body, watched.
    pub fn new(body: Body, untaken: &Arc<Untaken>, kept: K) -> Self {
        let id = untaken.next.fetch_add(1, Ordering::Relaxed);
        if !body.is_end_stream() {
            untaken.note(id);
        }
        Self { body, rest: Bytes::new(), id, untaken: untaken.clone(), _kept: kept }
    }
}

impl<K: Unpin> Sending<K> {
    fn part(&mut self) -> Frame<Bytes> {
        let length = self.rest.len().min(PART_BYTES_MAX);
        let part = self.rest.split_to(length);
        if self.is_end_stream() {
            self.untaken.forget(self.id);
        } else {
            self.untaken.note(self.id);
        }
        Frame::data(part)
    }
}

impl<K: Unpin> HttpBody for Sending<K> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if !this.rest.is_empty() {
            return Poll::Ready(Some(Ok(this.part())));
        }
        match Pin::new(&mut this.body).poll_frame(context) {
            // whoever asks has room for it
            Poll::Pending => {
                this.untaken.forget(this.id);
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    this.rest = data;
                    Poll::Ready(Some(Ok(this.part())))
                }
                Err(trailers) => Poll::Ready(Some(Ok(trailers))),
            },
            Poll::Ready(ended) => {
                this.untaken.forget(this.id);
                Poll::Ready(ended)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (of_body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower() + rest);
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

impl<K> Drop for Sending<K> {
    fn drop(&mut self) {
        self.untaken.forget(self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_that_is_not_asked_for_more_is_noticed_and_one_that_has_no_more_is_not() {
        let (untaken, most) = (Arc::new(Untaken::default()), Duration::from_millis(200));
        let mut large = Sending::new(Body::from(vec![7; 40_000]), &untaken, ());
        assert_eq!(large.size_hint().exact(), Some(40_000));
        let first = large.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(
            (first.len(), large.size_hint().exact()),
            (PART_BYTES_MAX, Some(40_000 - PART_BYTES_MAX as u64))
        );
        let asked = Instant::now();
        untaken.for_too_long(most).await;
        assert!(asked.elapsed() >= most.mul_f64(0.9), "{:?}", asked.elapsed());
        assert_eq!(large.collect().await.unwrap().to_bytes().len(), 40_000 - PART_BYTES_MAX);

        let waiting = Body::from_stream(futures::stream::pending::<Result<Bytes, axum::Error>>());
        let mut waiting = Sending::new(waiting, &untaken, ());
        assert!(waiting.frame().now_or_never().is_none(), "it has nothing yet");
        let none = tokio::time::timeout(3 * most, untaken.for_too_long(most)).await;
        assert!(none.is_err(), "nobody is to blame");
    }
}
