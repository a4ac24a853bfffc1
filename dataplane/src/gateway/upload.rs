//! The body of a client's request on its way to a pod: kept where it is small, so that it can be sent again,
//! and watched where it is not.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};

use model::budget::{Budget, until_sent};

/// Bodies up to so many bytes are kept.
pub const KEPT_BYTES_MAX: usize = 1 << 20;

/// The bytes of a body that need no room of their own: most have no more.
const SMALL: usize = 4 << 10;

/// How long the kept part of a body may take to arrive.
const ARRIVAL_MAX: Duration = Duration::from_secs(30);

/// What a client sends.
pub enum Upload {
    /// All of it, which can be sent again.
    Whole(Bytes),
    /// More than is kept: it can be sent once.
    Streamed(Streamed),
}

/// Why a body did not arrive. None of it is a pod's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadFault {
    /// It is not framed as HTTP asks, or broke off before its end.
    Broken,
    /// It came too slowly.
    Slow,
    /// The bodies that are kept hold as much memory as they may.
    NoMemory,
}

/// A body that is passed on as it comes.
pub struct Streamed {
    begun: Option<Bytes>,
    rest: Body,
    progress: Arc<Progress>,
}

/// What became of a streamed body.
#[derive(Debug, Default)]
pub struct Progress {
    ended: AtomicBool,
    broken: AtomicBool,
}

impl Progress {
    /// Whether all of it was sent.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether the client broke it off.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }
}

impl Upload {
    /// Takes a body, up to its end or to what is kept. What is kept counts in a budget for as long as it may
    /// be sent.
    ///
    /// # Errors
    /// It did not arrive, or there is no room for it.
    pub async fn take(body: Body, budget: &Arc<Budget>) -> Result<Self, UploadFault> {
        if body.is_end_stream() {
            return Ok(Self::Whole(Bytes::new()));
        }
        Self::take_within(body, budget, ARRIVAL_MAX).await
    }

    async fn take_within(
        body: Body,
        budget: &Arc<Budget>,
        arrival_max: Duration,
    ) -> Result<Self, UploadFault> {
        match tokio::time::timeout(arrival_max, Self::read(body, budget)).await {
            Ok(read) => read,
            Err(_) => Err(UploadFault::Slow),
        }
    }

    async fn read(mut body: Body, budget: &Arc<Budget>) -> Result<Self, UploadFault> {
        let (mut begun, held) = (BytesMut::new(), budget.share());
        while begun.len() <= KEPT_BYTES_MAX {
            match body.frame().await {
                None if begun.len() <= SMALL => return Ok(Self::Whole(begun.freeze())),
                None => return Ok(Self::Whole(until_sent(begun.freeze(), Arc::new(held)))),
                Some(Err(_)) => return Err(UploadFault::Broken),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if begun.len() + data.len() > SMALL && !held.grow(data.len() as u64) {
                        return Err(UploadFault::NoMemory);
                    }
                    begun.extend_from_slice(&data);
                }
            }
        }
        let begun = Some(until_sent(begun.freeze(), Arc::new(held)));
        Ok(Self::Streamed(Streamed { begun, rest: body, progress: Arc::default() }))
    }
}

impl Streamed {
    /// What becomes of it.
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(begun) = self.begun.take() {
            return Poll::Ready(Some(Ok(Frame::data(begun))));
        }
        let polled = Pin::new(&mut self.rest).poll_frame(context);
        match &polled {
            Poll::Ready(None) => self.progress.ended.store(true, Ordering::Release),
            Poll::Ready(Some(Err(_))) => self.progress.broken.store(true, Ordering::Release),
            Poll::Ready(Some(Ok(_))) if self.rest.is_end_stream() => {
                self.progress.ended.store(true, Ordering::Release)
            }
            Poll::Ready(Some(Ok(_))) | Poll::Pending => (),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.begun.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let begun = self.begun.as_ref().map_or(0, |begun| begun.len() as u64);
        let (rest, mut all) = (self.rest.size_hint(), SizeHint::new());
        all.set_lower(rest.lower() + begun);
        if let Some(upper) = rest.upper() {
            all.set_upper(upper + begun);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;
    use model::budget::Budgets;

    fn body(chunks: Vec<Result<Vec<u8>, &'static str>>) -> Body {
        Body::from_stream(stream::iter(chunks.into_iter().map(|chunk| chunk.map_err(std::io::Error::other))))
    }

    async fn take(body: Body) -> Result<Upload, UploadFault> {
        Upload::take(body, &Budgets::default().bodies).await
    }

    #[tokio::test]
    async fn a_small_body_is_kept_and_a_large_one_passes_through() {
        let Ok(Upload::Whole(bytes)) = take(body(vec![Ok(b"ab".to_vec()), Ok(b"c".to_vec())])).await else {
            panic!("not kept");
        };
        assert_eq!(bytes, "abc");
        let large = vec![Ok(vec![b'x'; KEPT_BYTES_MAX]), Ok(vec![b'y'; 3])];
        let Ok(Upload::Streamed(streamed)) = take(body(large)).await else { panic!("kept") };
        let progress = streamed.progress();
        assert!(!progress.has_ended());
        let all = streamed.collect().await.unwrap().to_bytes();
        assert_eq!((all.len(), &all[KEPT_BYTES_MAX..]), (KEPT_BYTES_MAX + 3, &b"yyy"[..]));
        assert!(progress.has_ended() && !progress.is_broken());
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_the_client_s_fault() {
        let small = take(body(vec![Ok(b"ab".to_vec()), Err("gone")])).await;
        assert!(matches!(small, Err(UploadFault::Broken)));
        let large = vec![Ok(vec![b'x'; KEPT_BYTES_MAX + 1]), Err("gone")];
        let Ok(Upload::Streamed(streamed)) = take(body(large)).await else { panic!("kept") };
        let progress = streamed.progress();
        assert!(streamed.collect().await.is_err());
        assert!(progress.is_broken() && !progress.has_ended());
    }

    #[tokio::test]
    async fn a_body_that_never_comes_is_given_up() {
        let silent = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert!(matches!(
            Upload::take_within(silent, &Budgets::default().bodies, Duration::from_millis(1)).await,
            Err(UploadFault::Slow)
        ));
    }

    #[tokio::test]
    async fn what_is_kept_counts_until_it_can_no_longer_be_sent_and_no_more_is_kept_than_may_be() {
        let budget = Budget::new(3 * KEPT_BYTES_MAX as u64);
        let part = || vec![Ok(vec![b'x'; KEPT_BYTES_MAX / 2]), Ok(vec![b'y'; KEPT_BYTES_MAX / 2])];
        let Ok(Upload::Whole(whole)) = Upload::take(body(part()), &budget).await else { panic!("not kept") };
        let sent_again = whole.clone();
        drop(whole);
        assert_eq!(budget.used(), KEPT_BYTES_MAX as u64, "it may be sent again");
        let long = body([part(), part()].concat());
        let Ok(Upload::Streamed(streamed)) = Upload::take(long, &budget).await else { panic!("kept") };
        let used = budget.used();
        assert!(used > 2 * KEPT_BYTES_MAX as u64, "what was begun counts too: {used}");
        assert!(matches!(Upload::take(body(part()), &budget).await, Err(UploadFault::NoMemory)));
        assert_eq!(budget.used(), used, "what is refused holds nothing");
        let small = Upload::take(body(vec![Ok(vec![b'x'; SMALL])]), &budget).await;
        assert!(matches!(small, Ok(Upload::Whole(bytes)) if bytes.len() == SMALL), "small ones go on");
        assert_eq!(streamed.collect().await.unwrap().to_bytes().len(), 2 * KEPT_BYTES_MAX);
        assert_eq!(budget.used(), KEPT_BYTES_MAX as u64);
        drop(sent_again);
        assert_eq!(budget.used(), 0);
    }
}
