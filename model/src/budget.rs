//! Bytes that requests and answers under way hold, within one bound for the process.
//!
//! Each counts what it holds while it grows, and gives it back when it ends. What would pass the bound is
//! refused before it is read.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;

/// The bytes of answers where nobody declared a limit of memory.
const ANSWERS_DEFAULT: u64 = 256 << 20;

/// The budgets of a process. Bodies have their own: who sends them slowly keeps no answer from others.
#[derive(Clone, Debug)]
pub struct Budgets {
    /// Of answers, and of what is read for them.
    pub answers: Arc<Budget>,
    /// Of the bodies of requests.
    pub bodies: Arc<Budget>,
}

/// The bound, and what is held of it.
#[derive(Debug)]
pub struct Budget {
    capacity: AtomicU64,
    used: AtomicU64,
    peak: AtomicU64,
}

/// What one request holds. It is given back when this is dropped.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    bytes: AtomicU64,
}

/// How much a read may hold. By default as much as it takes, for reads that the process itself makes.
#[derive(Clone, Debug, Default)]
pub struct Allowance(Option<Arc<Held>>);

impl Default for Budgets {
    fn default() -> Self {
        Self { answers: Budget::new(ANSWERS_DEFAULT), bodies: Budget::new(ANSWERS_DEFAULT / 2) }
    }
}

impl Budgets {
    /// Sets the bounds: so many bytes for answers, and half as many for bodies.
    pub fn set(&self, answers: u64) {
        self.answers.set_capacity(answers);
        self.bodies.set_capacity(answers / 2);
    }
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(capacity: u64) -> Arc<Self> {
        Arc::new(Self {
            capacity: AtomicU64::new(capacity),
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        })
    }

    /// Sets the bound. What is held already stays.
    pub fn set_capacity(&self, bytes: u64) {
        self.capacity.store(bytes, Ordering::Relaxed);
    }

    /// The bound, in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// The bytes that are held.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The most bytes that were held at once.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// A share that holds nothing yet.
    pub fn share(self: &Arc<Self>) -> Held {
        Held { budget: self.clone(), bytes: AtomicU64::new(0) }
    }

    fn take(&self, bytes: u64) -> bool {
        let capacity = self.capacity();
        let sum = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= capacity);
        let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, sum);
        if let Ok(before) = taken {
            self.peak.fetch_max(before + bytes, Ordering::Relaxed);
        }
        taken.is_ok()
    }
}

impl Held {
    /// Holds so many bytes more. Says whether there is room for them; if not, nothing changes.
    pub fn grow(&self, bytes: u64) -> bool {
        let taken = self.budget.take(bytes);
        if taken {
            self.bytes.fetch_add(bytes, Ordering::AcqRel);
        }
        taken
    }

    /// The bytes that it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Holds as much again, for the text that is made of what was read while that is still there. Says
    /// whether there is room for it; if not, nothing changes.
    pub fn double(&self) -> bool {
        self.grow(self.bytes())
    }

    /// Holds at most so many bytes from now on, and gives the rest back.
    pub fn shrink_to(&self, bytes: u64) {
        let before = self.bytes.fetch_min(bytes, Ordering::AcqRel);
        self.budget.used.fetch_sub(before.saturating_sub(bytes), Ordering::AcqRel);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(*self.bytes.get_mut(), Ordering::AcqRel);
    }
}

impl Allowance {
    /// As much as a budget has.
    pub fn of(held: &Arc<Held>) -> Self {
        Self(Some(held.clone()))
    }

    /// Takes so many bytes more. Says whether there is room for them.
    pub fn take(&self, bytes: usize) -> bool {
        self.0.as_ref().is_none_or(|held| held.grow(bytes as u64))
    }
}

// who asks makes no difference to what is asked for
impl PartialEq for Allowance {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Allowance {}

/// An answer's bytes, which are held until the last of them is sent.
struct Sent {
    bytes: Bytes,
    _held: Arc<Held>,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The same bytes, which count as held until they are sent.
pub fn until_sent(bytes: Bytes, held: Arc<Held>) -> Bytes {
    held.shrink_to(bytes.len() as u64);
    Bytes::from_owner(Sent { bytes, _held: held })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_stays_within_the_bound_and_is_given_back() {
        let budget = Budget::new(100);
        let (one, other) = (budget.share(), budget.share());
        assert!(one.grow(60) && other.grow(40));
        assert!(!other.grow(1), "there is no room for more");
        one.shrink_to(10);
        assert!(other.grow(50));
        assert_eq!((budget.used(), budget.peak()), (100, 100));
        drop(other);
        assert_eq!(budget.used(), 10);
        budget.set_capacity(5);
        assert!(!one.grow(1));
        drop(one);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_is_made_of_what_was_read_counts_too() {
        let budget = Budget::new(100);
        let held = budget.share();
        assert!(held.grow(30) && held.double());
        assert_eq!((held.bytes(), budget.used()), (60, 60));
        assert!(!held.double());
        assert_eq!((held.bytes(), budget.used()), (60, 60), "nothing changes without room");
    }

    #[test]
    fn an_answer_counts_until_its_last_part_is_sent() {
        let budget = Budget::new(100);
        let held = Arc::new(budget.share());
        assert!(held.grow(80));
        let mut bytes = until_sent(Bytes::from_static(b"0123456789"), held);
        assert_eq!(budget.used(), 10);
        let last = bytes.split_off(9);
        drop(bytes);
        assert_eq!(budget.used(), 10, "a part is still to be sent");
        drop(last);
        assert_eq!(budget.used(), 0);
    }
}
