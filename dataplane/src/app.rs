//! The only place that knows every part: builds them from the settings, joins them, and takes them down
//! again.

mod admin;
mod backends;
mod check;
mod feed;
mod figures;
mod hot;
mod ingest;
mod load;
mod memory;
mod monitor;
mod orders;
mod overview;
mod owner;
mod pools;
mod probe;
#[cfg(feature = "redis")]
mod rates;
mod relays;
mod rotation;
mod secrets;
mod serve;
mod tiers;
mod upkeep;
mod warm_up;
mod world;

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::net::{TcpListener, TcpSocket};

use crate::{
    args::{Args, Command, GatewayArgs, Listen},
    gateway::{
        client::UpstreamClient,
        discovery::Discovery,
        server::{GatewayOptions, run as run_gateway},
        trust::Trust,
    },
    telemetry,
};
use model::budget::Budgets;
use runtime::{shutdown::Shutdown, supervisor};

/// How many tasks a thread takes from its own queue before one that another thread woke. Requests that come
/// fill its own queue; those whose writes the store has done are woken from the store's thread, and under
/// overload must not stand behind all that are about to be refused.
const TURNS_BETWEEN_OTHERS: u32 = 8;

/// How long clients of servers may take to say that they leave.
const LEAVE: Duration = Duration::from_secs(3);

/// Connections that wait to be taken: where thousands come at once, a shorter queue makes some wait for a
/// second until they are sent again. The kernel may allow fewer.
const BACKLOG: u32 = 4_096;

/// Does what the command line says. Exit code 0, or 1 when it failed; wrong use ends in 2 before this is
/// called.
///
/// # Errors
/// Whatever kept it from being done, for a person to read.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .global_queue_interval(TURNS_BETWEEN_OTHERS)
        .build()
        .context("no threads")?;
    let done = match args.command {
        Command::Check(check) => Ok(check::run(&check)),
        Command::Health(asked) => probe::run(&asked),
        Command::Serve(serve) => runtime.block_on(serve::run(serve)).map(|()| ExitCode::SUCCESS),
        Command::Migrate(serve) => runtime.block_on(serve::migrate(serve)).map(|()| ExitCode::SUCCESS),
        Command::Gateway(gateway) => runtime.block_on(gateway_main(gateway)).map(|()| ExitCode::SUCCESS),
    };
    // a client that is dropped may wait for its server, for as long as that is away
    runtime.shutdown_timeout(LEAVE);
    match supervisor::ended_by() {
        Some(task) => bail!("the background task {task} panicked"),
        None => done,
    }
}

async fn gateway_main(args: GatewayArgs) -> anyhow::Result<()> {
    let source = args.source.source();
    let loaded = source.load()?;
    telemetry::start(args.listen.log_format, loaded.settings.observability.log_level);
    let shutdown = Shutdown::on_signal(args.listen.drain_delay.0, args.listen.grace_period.0)
        .context("signals cannot be handled")?;
    let discovery = match args.upstream_domain {
        Some(domain) => Discovery::Dns { domain, port: args.upstream_port },
        None => Discovery::Fixed(
            args.upstream.into_iter().map(|upstream| (upstream.group, upstream.addr)).collect(),
        ),
    };
    let trust = Trust::nobody();
    let identity = secrets::identity(args.security.as_deref(), &loaded.settings.security, Some(&trust))?;
    let tls = identity.as_ref().map(|(identity, _)| identity.acceptor()).transpose()?;
    let client = UpstreamClient::new(trust.client()?, tls.is_some());
    let _secrets = rotation::follow(identity.into_iter().map(|(_, own)| own).collect());
    let (listener, admin) = listen(&args.listen)?;
    let (settings, budgets) = (source.watch(loaded), Budgets::default());
    let held = (settings.clone(), budgets.clone());
    supervisor::MEMORY.spawn(move || memory::watch_held(held.0.clone(), held.1.clone()));
    run_gateway(GatewayOptions { listener, admin, settings, discovery, tls, client, budgets, shutdown })
        .await;
    Ok(())
}

/// Opens the ports of the API and of the admin.
fn listen(args: &Listen) -> anyhow::Result<(TcpListener, TcpListener)> {
    let open = |port: u16, option: &str| {
        listener(SocketAddr::new(args.bind, port)).with_context(|| {
            format!("port {port} cannot be opened (is another program using it? choose one with {option})")
        })
    };
    Ok((open(args.port, "--port or PORT")?, open(args.admin_port, "--admin-port or ADMIN_PORT")?))
}

fn listener(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    // all addresses, of a kernel without IPv6
    if socket.is_err() && address.ip().is_unspecified() && address.is_ipv6() {
        return listener(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()));
    }
    let socket = socket?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
