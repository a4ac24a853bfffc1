//! The order pipeline, the ingestion of events and the live feed.

use serde::{Deserialize, Serialize};

use super::payments::{Notifications, Payments};
use crate::units::Span;

/// The order pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Pipeline {
    /// Workers per stage. Hot.
    #[serde(default)]
    pub workers: StageWorkers,
    /// How failed steps are tried again. Hot.
    #[serde(default)]
    pub retry: Retry,
    /// When a failing dependency is left alone for a while. Hot.
    #[serde(default)]
    pub breaker: Breaker,
    /// Who charges. Hot, but for the Secret.
    #[serde(default)]
    pub payments: Payments,
    /// How customers are told. Hot.
    #[serde(default)]
    pub notifications: Notifications,
}

/// Workers per stage of the order pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct StageWorkers {
    /// Takes orders and holds stock. Hot.
    #[serde(default = "three")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 256)))]
    pub orders: u32,
    /// Charges. Hot.
    #[serde(default = "two")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 256)))]
    pub payments: u32,
    /// Commits or releases holds. Hot.
    #[serde(default = "two")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 256)))]
    pub inventory: u32,
    /// Tells the customer. Hot.
    #[serde(default = "one")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 256)))]
    pub notifications: u32,
}

/// How failed steps are tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Retry {
    /// Attempts in all, the first included. Hot.
    #[serde(default = "three")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 100)))]
    pub max_attempts: u32,
    /// The wait before the second attempt; it doubles with each. Hot.
    #[serde(default = "default_initial_delay")]
    pub initial_delay: Span,
    /// The longest wait between two attempts. Hot.
    #[serde(default = "default_max_delay")]
    pub max_delay: Span,
}

/// When a failing dependency is left alone for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Breaker {
    /// Failures in a row that open the breaker. Hot.
    #[serde(default = "five")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 1000)))]
    pub threshold: u32,
    /// How long it stays open before one call is let through. Hot.
    #[serde(default = "default_breaker_timeout")]
    pub timeout: Span,
}

/// The ingestion of events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Ingest {
    /// Events that may wait, in the log and not in memory; beyond it the answer is 503. Hot.
    #[serde(default = "default_ingest_queue")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 1_000_000)))]
    pub queue_size: u32,
    /// Workers that apply batches. Hot.
    #[serde(default = "three")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 256)))]
    pub workers: u32,
    /// Events that make a batch full, so that it is applied at once. Where more wait already a batch takes up
    /// to 16 times as many (and no more than 16,000): of each product only the newest event is applied. Hot.
    #[serde(default = "thousand")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 100_000)))]
    pub batch_size: u32,
    /// The longest that an event waits for its batch to fill. Hot.
    #[serde(default = "default_flush_interval")]
    pub batch_flush_interval: Span,
    /// What becomes of an event whose product is not there. Hot.
    #[serde(default)]
    pub unknown_products: UnknownProducts,
}

/// What becomes of an event whose product is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum UnknownProducts {
    /// It makes the product: its key is its name. One that was deleted after the event stays so.
    #[default]
    Create,
    /// It is refused: 404, naming `product_id`.
    Reject,
}

/// The live feed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct WebSocket {
    /// Clients that one pod takes. Hot.
    #[serde(default = "default_ws_connections")]
    #[cfg_attr(feature = "kube", schemars(range(min = 0, max = 1_000_000)))]
    pub max_connections: u32,
    /// Events that may wait for one slow client before it is told to start over. Hot.
    #[serde(default = "thousand")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 1_000_000)))]
    pub queue_size: u32,
    /// How often a silent client is pinged. Hot.
    #[serde(default = "default_ping_interval")]
    pub ping_interval: Span,
}

impl Default for StageWorkers {
    fn default() -> Self {
        Self { orders: 3, payments: 2, inventory: 2, notifications: 1 }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_attempts: 3, initial_delay: default_initial_delay(), max_delay: default_max_delay() }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self { threshold: 5, timeout: default_breaker_timeout() }
    }
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            queue_size: default_ingest_queue(),
            workers: 3,
            batch_size: 1000,
            batch_flush_interval: default_flush_interval(),
            unknown_products: UnknownProducts::default(),
        }
    }
}

impl Default for WebSocket {
    fn default() -> Self {
        Self {
            max_connections: default_ws_connections(),
            queue_size: thousand(),
            ping_interval: default_ping_interval(),
        }
    }
}

fn default_initial_delay() -> Span {
    Span::from_millis(100)
}

fn default_max_delay() -> Span {
    Span::from_secs(30)
}

fn default_breaker_timeout() -> Span {
    Span::from_secs(60)
}

fn default_flush_interval() -> Span {
    Span::from_secs(1)
}

fn default_ws_connections() -> u32 {
    10_000
}

fn default_ping_interval() -> Span {
    Span::from_secs(20)
}

fn one() -> u32 {
    1
}

fn two() -> u32 {
    2
}

fn three() -> u32 {
    3
}

fn five() -> u32 {
    5
}

fn default_ingest_queue() -> u32 {
    50_000
}

fn thousand() -> u32 {
    1000
}
