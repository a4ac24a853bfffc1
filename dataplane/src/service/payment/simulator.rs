//! A stand-in for a payment provider, which misbehaves as it is told. It charges nobody.

use async_trait::async_trait;
use crds::service::payments::Simulator as Wishes;
use xxhash_rust::xxh3::xxh3_64;

use super::{Charge, Charged, PaymentProvider};
use crate::service::failure::Failure;

/// The stand-in. Whether a payment is declined depends on its key alone, so that every call of one says the same.
pub struct Simulator(pub Wishes);

#[async_trait]
impl PaymentProvider for Simulator {
    fn name(&self) -> &'static str {
        "simulator"
    }

    async fn charge(&self, charge: &Charge) -> Result<Charged, Failure> {
        let Wishes { decline_percent, timeout_percent, failure_percent, duplicate_percent, latency } = &self.0;
        tokio::time::sleep(latency.0).await;
        if chance(*failure_percent) {
            return Err(Failure::retryable("the simulated provider fails"));
        }
        if chance(*timeout_percent) {
            std::future::pending::<()>().await;
        }
        if xxh3_64(charge.key.as_str().as_bytes()) % 100 < u64::from(*decline_percent) {
            return Ok(Charged::Declined { reason: "the simulated card is declined".to_owned() });
        }
        if chance(*duplicate_percent) {
            tracing::debug!(payment = %charge.key, "the simulated provider has seen this charge before");
        }
        Ok(Charged::Approved { transaction: format!("sim-{}", charge.key) })
    }

    async fn reverse(&self, _charge: &Charge) -> Result<(), Failure> {
        tokio::time::sleep(self.0.latency.0).await;
        match chance(self.0.failure_percent) {
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
        Charge { order: key.clone(), key, user, amount: 1.into(), currency, trace }
    }

    #[tokio::test]
    async fn it_does_as_it_is_told() {
        let of = |wishes| Simulator(wishes);
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
}
