//! The program `flyweight-dataplane`: parses the command line and calls the library.

use std::process::ExitCode;

use clap::Parser;
use dataplane::{app, args::Args};
use mimalloc::MiMalloc;

// Requests make many short allocations, some of them ended on another thread. In a profile of overload the C
// library's allocator took a fifth of all time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    // Clients of HTTPS take the process's provider of cryptography; nothing has installed one before.
    _ = rustls::crypto::ring::default_provider().install_default();
    match app::run(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
