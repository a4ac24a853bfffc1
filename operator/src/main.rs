//! The operator of Flyweight: makes a running data plane of `FlyweightService`, `FlyweightPool` and
//! `CacheTier` resources.

mod admin;
mod api;
mod app;
mod apply;
mod args;
mod budget;
mod caches;
mod children;
mod connection;
mod context;
mod controller;
mod deletion;
mod drift;
mod events;
#[cfg(test)]
mod fixture;
mod lease;
mod memory;
mod metrics;
mod model;
mod observe;
mod pace;
mod poller;
mod publish;
mod reconcile;
mod rollout;
mod status;
mod telemetry;
mod updates;
mod validate;
mod wake;
mod watches;
mod writer;

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

use crate::args::{Args, Command};

// Lists of thousands of objects are many short allocations. In a profile of a thousand services the C
// library's allocator took a quarter of all time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Run(run) => app::run(run),
        Command::Crds(crds) => app::print_crds(&crds),
        Command::Probe(probe) => app::probe(probe),
    };
    outcome.map_or_else(
        |error| {
            eprintln!("flyweight-operator: {error:#}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
