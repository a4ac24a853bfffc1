//! Who charges customers: a provider outside, or the built-in stand-in.

pub mod http;
pub mod simulator;

use async_trait::async_trait;
use rust_decimal::Decimal;
use sha2::{Digest, Sha256};
use uuid::Builder;

use super::failure::Failure;
use model::key::Key;

/// Charges customers. Both calls may be repeated: `Charge::key` names the one charge that they speak of.
#[async_trait]
pub trait PaymentProvider: Send + Sync {
    /// Its name, as payments show it.
    fn name(&self) -> &'static str;

    /// Charges, once for each key.
    async fn charge(&self, charge: &Charge) -> Result<Charged, Failure>;

    /// Gives back what was charged under the key, if anything was, and lets nothing be charged under it
    /// later.
    async fn reverse(&self, charge: &Charge) -> Result<(), Failure>;
}

/// What is to be charged.
#[derive(Clone, Debug, PartialEq)]
pub struct Charge {
    /// Names the charge to the provider.
    pub key: Key,
    /// The key of its payment.
    pub payment: Key,
    /// What its payment says of it, where only the pipeline can write.
    pub mark: String,
    /// The order.
    pub order: Key,
    /// Who pays.
    pub user: String,
    /// How much.
    pub amount: Decimal,
    /// Of which currency.
    pub currency: String,
    /// The trace of the request that placed the order.
    pub trace: String,
}

/// What came of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Charged {
    /// It was made, now or by an earlier call.
    Approved {
        /// The provider's name for it.
        transaction: String,
    },
    /// It was refused.
    Declined {
        /// Why.
        reason: String,
    },
}

/// A key that nobody can foresee: a UUID of version 4.
pub fn random_key() -> Key {
    let uuid = Builder::from_random_bytes(rand::random()).into_uuid();
    uuid.to_string().parse().unwrap_or_else(|_| Key::generate())
}

/// A key that is made of a name, the same each time: a UUID of version 8.
pub fn derived_key(name: &str) -> Key {
    let digest = Sha256::digest(name);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    let uuid = Builder::from_custom_bytes(bytes).into_uuid();
    uuid.to_string().parse().unwrap_or_else(|_| Key::generate())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_keys_are_the_same_each_time() {
        assert_eq!(derived_key("a"), derived_key("a"));
        assert_ne!(derived_key("a"), derived_key("b"));
    }
}
