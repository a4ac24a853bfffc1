//! The gateway: finds the data plane's pods, watches their health, and sends each request to one that serves
//! its pool.

pub mod balance;
pub mod client;
mod client_address;
pub mod discovery;
pub mod health;
pub mod proxy;
pub mod registry;
pub mod server;
pub mod trust;

mod errand;
mod forward;
mod groups;
mod hops;
mod lines;
mod merge;
mod patience;
mod route;
mod send;
mod upload;
