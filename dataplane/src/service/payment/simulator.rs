//! A stand-in for a payment provider, which misbehaves as it is told. It charges nobody.

use std::collections::{HashSet, VecDeque};

use async_trait::async_trait;
use crds::service::payments::Simulator as Wishes;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::{Charge, Charged, PaymentProvider};
use crate::service::failure::Failure;
use model::key::Key;

/// Charges that it remembers.
const REMEMBERED: usize = 10_000;

/// The stand-in. Whether a payment is declined depends on its key alone, so that every call of one says the
/// same.
pub struct Simulator {
    wishes: Wishes,
    books: Mutex<Books>,
}

/// What was charged last.
#[derive(Default)]
struct Books {
    charged: HashSet<Key>,
    order: VecDeque<Key>,
}

impl Simulator {
    /// One that does as it is told.
    pub fn new(wishes: Wishes) -> Self {
        Self { wishes, books: Mutex::default() }
    }
}

impl Books {
    /// Charges under a key; false where that was done before.
    fn charge(&mut self, key: &Key) -> bool {
        let first = self.charged.insert(key.clone());
        if first {
            self.order.push_back(key.clone());
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.charged.remove(&oldest);
            }
        }
        first
    }
}

#[async_trait]
impl PaymentProvider for Simulator {
    fn name(&self) -> &'static str {
        "simulator"
    }

    async fn charge(&self, charge: &Charge) -> Result<Charged, Failure> {
        let Wishes { decline_percent, timeout_percent, failure_percent, duplicate_percent, latency } =
            &self.wishes;
        tokio::time::sleep(latency.0).await;
        if chance(*failure_percent) {
            return Err(Failure::retryable("the simulated provider fails"));
        }
        if xxh3_64(charge.key.as_str().as_bytes()) % 100 < u64::from(*decline_percent) {
            return Ok(Charged::Declined { reason: "the simulated card is declined".to_owned() });
        }
        let first = self.books.lock().charge(&charge.key);
        if chance(*timeout_percent) {
            std::future::pending::<()>().await;
        }
        // charged, but nobody knows: the same charge is delivered again, under the same key
        if first && chance(*duplicate_percent) {
            return Err(Failure::retryable("the simulated provider charged, and its answer was lost"));
        }
        Ok(Charged::Approved { transaction: format!("sim-{}", charge.key) })
    }

    async fn reverse(&self, _charge: &Charge) -> Result<(), Failure> {
        tokio::time::sleep(self.wishes.latency.0).await;
        match chance(self.wishes.failure_percent) {
            true => Err(Failure::retryable("the simulated provider fails")),
            false => Ok(()),
        }
    }
}

fn chance(percent: u32) -> bool {
    rand::random_range(0..100) < percent
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn charge(n: usize) -> Charge {
        let key = super::super::derived_key(&n.to_string());
        let (user, currency, trace) = ("u".to_owned(), "EUR".to_owned(), String::new());
        let (payment, mark) = (key.clone(), String::new());
        Charge { order: key.clone(), key, payment, mark, user, amount: 1.into(), currency, trace }
    }

    #[tokio::test]
    async fn it_does_as_it_is_told() {
        let of = Simulator::new;
        let always = of(Wishes::default());
        let approved = always.charge(&charge(1)).await.unwrap();
        assert_eq!(always.charge(&charge(1)).await.unwrap(), approved, "a repetition says the same");

        let picky = of(Wishes { decline_percent: 30, ..Wishes::default() });
        let mut declined = 0;
        for n in 0..1_000 {
            let outcome = picky.charge(&charge(n)).await.unwrap();
            assert_eq!(picky.charge(&charge(n)).await.unwrap(), outcome);
            declined += usize::from(matches!(outcome, Charged::Declined { .. }));
        }
        assert!((200..400).contains(&declined), "{declined} of 1000 were declined");

        let broken = of(Wishes { failure_percent: 100, ..Wishes::default() });
        assert!(broken.charge(&charge(1)).await.is_err() && broken.reverse(&charge(1)).await.is_err());
        let silent = of(Wishes { timeout_percent: 100, ..Wishes::default() });
        assert!(tokio::time::timeout(Duration::from_millis(5), silent.charge(&charge(1))).await.is_err());
    }

    #[tokio::test]
    async fn a_charge_whose_answer_was_lost_is_known_when_it_comes_again() {
        let forgetful = Simulator::new(Wishes { duplicate_percent: 100, ..Wishes::default() });
        assert!(forgetful.charge(&charge(0)).await.is_err());
        let approved = Charged::Approved { transaction: format!("sim-{}", charge(0).key) };
        assert_eq!(forgetful.charge(&charge(0)).await.unwrap(), approved);
        assert_eq!(forgetful.books.lock().charged.len(), 1, "delivered twice, charged once");
        for n in 1..=REMEMBERED {
            assert!(forgetful.charge(&charge(n)).await.is_err());
        }
        let books = forgetful.books.lock();
        assert_eq!(
            (books.charged.len(), books.order.len()),
            (REMEMBERED, REMEMBERED),
            "it does not grow for ever"
        );
    }
}
