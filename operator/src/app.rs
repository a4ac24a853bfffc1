//! The composition root: the only place that knows every part of the running operator.

use std::{
    convert::Infallible,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ::crds::definitions::{Definition, definitions};
use anyhow::Context;
use futures::{FutureExt, future::join_all};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::{client::legacy::Client as HttpClient, rt::TokioExecutor};
use kube::Config;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    admin::{self, Readiness},
    args::{Crds, Output, Probe, Run},
    budget::Budget,
    connection,
    controller::{self, Shared},
    events::Events,
    lease::{Elector, Leadership},
    metrics::Metrics,
    telemetry,
    writer::Writer,
};

const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Prints the definitions of the three kinds.
///
/// # Errors
/// When they cannot be serialised or standard output is closed.
pub fn print_crds(crds: &Crds) -> anyhow::Result<()> {
    let definitions = definitions()?;
    let text = match crds.output {
        Output::Json => {
            let items: Vec<_> = definitions.into_iter().map(|definition| definition.object).collect();
            serde_json::to_string_pretty(&json!({ "apiVersion": "v1", "kind": "List", "items": items }))?
                + "\n"
        }
        Output::Yaml => {
            let documents: Result<Vec<String>, _> = definitions.iter().map(Definition::yaml).collect();
            documents?.into_iter().map(|document| format!("---\n{document}")).collect()
        }
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot print")
}

/// Asks once, within [`PROBE_TIMEOUT`].
///
/// # Errors
/// When there is no answer, or another than 200.
pub fn probe(probe: Probe) -> anyhow::Result<()> {
    let client = HttpClient::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let ask = async {
        let answer = tokio::time::timeout(PROBE_TIMEOUT, client.get(probe.url.clone())).await;
        answer.context("no answer in time")?.context("no answer")
    };
    let status = tokio::runtime::Runtime::new()?.block_on(ask)?.status();
    anyhow::ensure!(status == http::StatusCode::OK, "{} answers {status}", probe.url);
    Ok(())
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot begin: no cluster configured, the admin port in use.
pub fn run(run: Run) -> anyhow::Result<()> {
    telemetry::start(run.log_format, &run.log_level).context("--log-level")?;
    tokio::runtime::Runtime::new()?.block_on(operate(run))
}

async fn operate(run: Run) -> anyhow::Result<()> {
    let config = Config::infer().await.context("no cluster: set KUBECONFIG or run in a pod")?;
    let metrics = Metrics::new()?;
    let budget = Budget::new(run.api_requests_per_second, run.api_burst, metrics.clone());
    let (term, leadership) = Leadership::new();
    let client = connection::for_work(&config, &budget, leadership.clone())?;
    let readiness = Readiness::default();
    let listener =
        admin::bind(run.admin_port).await.with_context(|| format!("admin port {}", run.admin_port))?;
    let identity =
        run.identity.clone().unwrap_or_else(|| format!("flyweight-operator-{:08x}", rand::random::<u32>()));
    let writer = Writer::new(leadership, metrics.clone());
    let lease_namespace =
        run.lease_namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let duration = Duration::from_secs(run.lease_seconds.into());
    let mut elector = Elector::new(
        connection::for_the_lease(&config)?,
        &lease_namespace,
        &run.lease_name,
        &identity,
        duration,
        term,
    );
    let shared = Shared {
        events: Arc::new(Events::new(client.clone(), &identity, writer.clone())),
        client,
        writer,
        metrics: metrics.clone(),
        concurrency: run.concurrency,
    };
    tracing::info!(identity, version = env!("CARGO_PKG_VERSION"), namespaces = ?run.namespaces, "starting");
    let work = lead(&mut elector, &shared, &run.namespaces, &readiness);
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        never = work => match never {},
        served = admin::serve(listener, readiness.clone(), metrics) => served.context("admin port")?,
        _ = terminated.recv() => (),
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    // The work has ended with the select, so nothing is written after the release.
    tracing::info!("stopping");
    elector.release().await;
    Ok(())
}

/// Works while it holds the lease, and stands by while it does not.
async fn lead(
    elector: &mut Elector,
    shared: &Shared,
    namespaces: &[String],
    readiness: &Readiness,
) -> Infallible {
    loop {
        // A replica that stands by is ready: it can take over.
        elector.acquire(|reached| readiness.set(reached)).await;
        tracing::info!("holds the lease");
        shared.metrics.leads(true);
        let scopes: Vec<Option<String>> = match namespaces {
            [] => vec![None],
            some => some.iter().cloned().map(Some).collect(),
        };
        readiness.set(false);
        let unready = AtomicUsize::new(scopes.len());
        let ready = || {
            if unready.fetch_sub(1, Ordering::Relaxed) == 1 {
                readiness.set(true);
            }
        };
        let controllers =
            join_all(scopes.into_iter().map(|scope| controller::run(shared.clone(), scope, ready)));
        tokio::select! {
            () = elector.keep() => (),
            () = controllers.map(drop) => tracing::error!("the controllers ended by themselves"),
        }
        shared.metrics.leads(false);
        tracing::warn!("lost the lease: stands by");
    }
}
