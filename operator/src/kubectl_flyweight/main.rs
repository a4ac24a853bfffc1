//! `kubectl flyweight`: what a platform team asks about its services, and the few things that it does to
//! them.

mod act;
mod args;
mod check;
mod cluster;
mod complete;
mod diff;
mod done;
mod explain;
#[cfg(test)]
mod fixture;
mod letters;
mod manifests;
mod paint;
mod status;
mod token;
mod top;
mod tree;

use std::{io::Write, process::ExitCode};

use anyhow::Context;
use clap::Parser;

use crate::{
    args::{Args, Command},
    cluster::Cluster,
};

/// What a command prints, and whether all is well.
struct Answer {
    text: String,
    well: bool,
}

impl Answer {
    fn well(text: String) -> Self {
        Self { text, well: true }
    }
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(answer) => {
            let printed = std::io::stdout().write_all(answer.text.as_bytes());
            if answer.well && printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("kubectl flyweight: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(args: Args) -> anyhow::Result<Answer> {
    let Args { target, output, command } = args;
    // What needs no cluster comes first.
    let command = match command {
        Command::Check(check) => return check::run(&check, output),
        Command::Completion { shell } => return complete::script(shell).map(Answer::well),
        command => command,
    };
    let cluster = Cluster::connect(&target).await.context("no cluster: see --context and KUBECONFIG")?;
    let text = match command {
        Command::Status { service } => status::run(&cluster, service.as_deref(), output).await?,
        Command::Diff(diff) => return diff::run(&cluster, &diff, output).await,
        Command::Explain { pool } => explain::run(&cluster, &pool, output).await?,
        Command::Top { service } => top::run(&cluster, service.as_deref(), output).await?,
        Command::DeadLetters(letters) => letters::run(&cluster, &letters, output).await?,
        Command::Pause { service } => act::pause(&cluster, &service).await?.show(output),
        Command::Resume { service } => act::resume(&cluster, &service).await?.show(output),
        Command::Restart { service } => act::restart(&cluster, &service).await?.show(output),
        Command::Drain(drain) => act::drain(&cluster, &drain).await?.show(output),
        Command::Complete { words } => complete::candidates(&cluster, &words).await,
        Command::Check(_) | Command::Completion { .. } => String::new(),
    };
    Ok(Answer::well(text))
}
