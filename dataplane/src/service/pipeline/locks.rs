//! Lets the workers of this process change a product one after the other. Each change is guarded by the
//! version that it was made from, so those that came at the same time would only make each other read again,
//! and wait at random before that.

use std::hash::{BuildHasher, RandomState};

use tokio::sync::{Mutex, MutexGuard};

use model::key::Key;

/// Products that share a turn by chance only wait a little longer.
const COUNT: usize = 256;

/// The locks of all products.
pub struct KeyLocks {
    locks: Box<[Mutex<()>]>,
    hasher: RandomState,
}

impl KeyLocks {
    /// Waits for the turn at a product, in the order of asking. Nobody holds two.
    pub async fn at(&self, product: &Key) -> MutexGuard<'_, ()> {
        self.locks[self.place_of(product)].lock().await
    }

    pub(super) fn place_of(&self, product: &Key) -> usize {
        self.hasher.hash_one(product) as usize % COUNT
    }
}

impl Default for KeyLocks {
    fn default() -> Self {
        Self { locks: (0..COUNT).map(|_| Mutex::default()).collect(), hasher: RandomState::default() }
    }
}
