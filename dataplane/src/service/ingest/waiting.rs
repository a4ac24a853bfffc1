//! Dead letters of events whose product was not there: each is replayed by itself once the product is. The
//! clock of the products is set here too.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{NO_PRODUCT, letters::STAGE};
use crate::service::{dead_letters::DeadLetters, error::ServiceError, records::Records};
use model::{
    actor,
    key::Key,
    record::{Lookup, Record},
};

/// How often products are looked for that letters wait for.
const EVERY: Duration = Duration::from_secs(2);
/// Letters that are read at once, and how often in one look.
const LETTERS: u32 = 200;
const PAGES_MAX: u32 = 10;

/// The letters that wait for products.
pub struct Waiting {
    letters: Arc<DeadLetters>,
    products: Arc<Records>,
}

impl Waiting {
    /// The letters that wait for these products.
    pub fn new(letters: Arc<DeadLetters>, products: Arc<Records>) -> Self {
        Self { letters, products }
    }

    /// Looks again and again until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut after = None;
        _ = self.products.set_clock().await;
        loop {
            let wait = EVERY.mul_f64(rand::random_range(0.5..1.5));
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
            // counts, sales and holds of all processes are stamped by one clock
            if let Err(error) = self.products.set_clock().await {
                tracing::debug!(%error, "the clock of the products' store could not be asked");
            }
            after = match self.look(after.take()).await {
                Ok(next) => next,
                Err(error) => {
                    tracing::debug!(%error, "dead letters that wait for products could not be looked at");
                    None
                }
            };
        }
    }

    /// Replays the letters whose products are there by now. Says where the next look goes on; nowhere at the
    /// end.
    ///
    /// # Errors
    /// What the stores say.
    pub async fn look(&self, mut after: Option<Key>) -> Result<Option<Key>, ServiceError> {
        for _ in 0..PAGES_MAX {
            let (letters, next) = self.letters.of_stage(STAGE, after, LETTERS).await?;
            let waiting: Vec<(Key, &Record)> =
                letters.iter().filter_map(|letter| self.waits_for(letter)).collect();
            let keys: Vec<Key> = waiting.iter().map(|(product, _)| product.clone()).collect();
            if !keys.is_empty() {
                for ((product, letter), found) in waiting.iter().zip(self.products.look_up_all(&keys).await?)
                {
                    if matches!(found, Lookup::Found(_)) {
                        self.replay(product, letter).await;
                    }
                }
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        Ok(after)
    }

    /// The product that a letter waits for, if it waits for one.
    fn waits_for<'a>(&self, letter: &'a Record) -> Option<(Key, &'a Record)> {
        let waits = self.letters.text(letter, "error").starts_with(NO_PRODUCT);
        let product = self.letters.text(letter, "subject").parse().ok()?;
        waits.then_some((product, letter))
    }

    async fn replay(&self, product: &Key, letter: &Record) {
        match self.letters.replay(&letter.key, actor::INGEST).await {
            Ok(()) => tracing::info!(%product, "an event that waited for its product is applied"),
            // another replica was faster
            Err(ServiceError::NotFound) => (),
            Err(error) => tracing::debug!(%product, %error, "an event still waits for its product"),
        }
    }
}
