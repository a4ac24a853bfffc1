//! `make bench`: what the engine and the memory tier cost, as tables, beside what others cost in the same
//! run.
//!
//! Parts, all unless some are named: `memory`, `growth`, `policies`, `serving`, `overload`, `messaging`.

mod client;
mod memory;
mod messaging;
mod models;
mod overload;
mod plot;
mod policies;
mod products;
mod servers;
mod serving;
mod shelves;

use std::{env, path::Path};

use anyhow::{Result, bail, ensure};
use mimalloc::MiMalloc;

// What is measured in this process, its peers too, has the allocator of the data plane.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const PARTS: &str = "memory growth policies serving overload messaging";

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [flag, shelf, entities] = args.as_slice()
        && flag == "--row"
    {
        return memory::measure(shelf, entities.parse()?);
    }
    if let [flag, plan] = args.as_slice()
        && flag == "--load"
    {
        return overload::load(plan);
    }
    let wanted = if args.is_empty() { PARTS.to_owned() } else { args.join(" ") };
    let mut failed = Vec::new();
    for part in wanted.split_whitespace() {
        let done = match part {
            "memory" => memory::compare(),
            "growth" => memory::growth(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/growth.svg")),
            "policies" => policies::compare(),
            "serving" => serving::compare(),
            "overload" => overload::compare(),
            "messaging" => messaging::compare(),
            other => bail!("no part {other}: there are {PARTS}"),
        };
        // an aim that is missed does not keep the other parts from being measured
        if let Err(error) = done {
            eprintln!("{part}: {error:#}");
            failed.push(part);
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}
