//! Bounds how long the head of a request may take once it has begun (RFC 9110, section 15.5.9): who sends one
//! byte after another holds a place, and says nothing. The library of HTTP counts from the moment when it
//! begins to wait, and cannot tell silence from half a head.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep as HyperSleep, Timer};
use hyper_util::rt::TokioTimer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep_until},
};

/// The body of the answer to half a head.
const PROBLEM: &str = r#"{"type":"urn:flyweight:problem:slow","title":"The request did not arrive in time","status":408,"detail":"the head of the request was not whole in time: send it at once"}"#;

/// How long a connection may wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For its first byte.
    pub first_max: Duration,
    /// For the rest of a head, once its first byte is there.
    pub head_max: Duration,
    /// For the next request.
    pub silence_max: Duration,
}

/// A stream of requests. It ends, with 408 where somebody can read it, once a head takes too long.
pub struct Heads<I> {
    stream: I,
    patience: Patience,
    turns: Turns,
    /// The turn in which it was read last.
    turn: u32,
    /// When the head that is awaited has to be whole; none while nothing of it is there.
    due: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// An answer waits to be taken: another cannot be told.
    is_held_up: bool,
    refusal: Option<Refusal>,
}

/// Whose turn it is on a connection, told by who reads the requests: even, the client's, that is to send a
/// head; odd, the server's, that is to answer it.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<AtomicU32>);

/// A timer for [`hyper`], which sets it whenever it begins to wait for a head.
pub struct HeadTimer(Turns);

/// What is left to say before the end.
struct Refusal {
    answer: Vec<u8>,
    sent: usize,
}

impl Turns {
    /// A head is whole.
    pub fn head_is_whole(&self) {
        self.0.fetch_or(1, Ordering::AcqRel);
    }

    fn head_is_awaited(&self) {
        let next = |turn: u32| (turn % 2 == 1).then(|| turn.wrapping_add(1));
        _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    /// The timer that tells of the client's turns.
    pub fn timer(&self) -> HeadTimer {
        HeadTimer(self.clone())
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn HyperSleep>> {
        self.0.head_is_awaited();
        TokioTimer::new().sleep(duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn HyperSleep>> {
        self.0.head_is_awaited();
        TokioTimer::new().sleep_until(deadline)
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn HyperSleep>>, deadline: Instant) {
        self.0.head_is_awaited();
        TokioTimer::new().reset(sleep, deadline);
    }

    fn now(&self) -> Instant {
        TokioTimer::new().now()
    }
}

impl Refusal {
    fn new(says: bool) -> Self {
        let length = PROBLEM.len();
        let answer = format!(
            "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n{PROBLEM}"
        );
        Self { answer: if says { answer.into_bytes() } else { Vec::new() }, sent: 0 }
    }

    /// Says it, and that no more will come.
    fn poll<I: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut I,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self.answer.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut *stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        Pin::new(stream).poll_shutdown(context)
    }
}

impl<I> Heads<I> {
    /// A stream that is open from now on, the client's turn first.
    pub fn new(stream: I, patience: Patience) -> Self {
        Self {
            stream,
            patience,
            turns: Turns::default(),
            turn: 0,
            due: None,
            timer: None,
            is_held_up: false,
            refusal: None,
        }
    }

    /// Whose turn it is, to be told.
    pub fn turns(&self) -> Turns {
        self.turns.clone()
    }

    /// The stream, which nobody watches any more.
    pub fn into_inner(self) -> I {
        self.stream
    }

    /// Notes the turn, and returns whether it is the client's.
    fn is_awaited(&mut self) -> bool {
        let turn = self.turns.0.load(Ordering::Acquire);
        if turn != self.turn {
            self.turn = turn;
            self.due = None;
            self.timer = None;
        }
        turn.is_multiple_of(2)
    }

    /// Whether the time of what is awaited is over.
    fn poll_overdue(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let first = self.turn == 0 && self.due.is_none();
        if self.timer.is_none() {
            let due = self.due.or_else(|| first.then(|| Instant::now() + self.patience.first_max));
            self.timer = due.map(|due| Box::pin(sleep_until(due.into())));
        }
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(context))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Heads<I> {
    fn poll_refuse(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let says = self.due.is_some() && !self.is_held_up;
        let refusal = self.refusal.get_or_insert_with(|| Refusal::new(says));
        // whether the client takes it changes nothing
        _ = ready!(refusal.poll(&mut self.stream, context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the head of a request was not whole in time",
        )))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Heads<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.refusal.is_some() {
            return this.poll_refuse(context);
        }
        if !this.is_awaited() {
            return Pin::new(&mut this.stream).poll_read(context, into);
        }
        if this.due.is_some_and(|due| due <= Instant::now()) {
            return this.poll_refuse(context);
        }
        let before = into.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, into);
        if polled.is_pending() {
            ready!(this.poll_overdue(context));
            return this.poll_refuse(context);
        }
        if this.due.is_none() && into.filled().len() > before {
            this.due = Some(Instant::now() + this.patience.head_max);
            this.timer = None;
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Heads<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.is_held_up = polled.is_pending();
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.is_held_up = polled.is_pending();
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
