//! Suites over the data plane as users run it: a process, its ports, and embedded or real stores behind it.

#![expect(clippy::unwrap_used, reason = "a suite ends where it fails")]

mod attacks;
mod away;
mod bad_input;
mod browser;
mod check;
mod concurrency;
mod contract;
mod described;
mod down;
mod durability;
mod edge;
mod encrypted_backends;
mod examples;
mod failpoints;
mod faults;
mod feed;
mod full_disk;
mod gateway;
mod group;
mod histories;
mod http_rules;
mod ingest;
mod injection;
mod live;
mod observability;
mod openapi;
mod order;
mod orders;
mod outage;
mod owners;
mod rotation;
mod stage;
mod staleness;
mod startup;
mod tls;
mod typed;
mod upgrade;
mod without_kafka;
mod write_behind;
