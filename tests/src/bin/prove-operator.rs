//! Proves the operator on a control plane without nodes. `tests/operator.sh` brings it up.

use harness::operator::{
    Proof, api::Api, certificates, crash, drift, faults, fields, lease, lost, migrations, plugin, rights,
    scale, scenario::Stage, steady, transitions,
};

const USAGE: &str = "usage: prove-operator [--soak] [--seed NUMBER] [plugin|certificates|migrations|rights|drift|crash|faults|fields|transitions|lease|steady|lost|scale]...";
const CI: [&str; 11] = [
    "plugin",
    "certificates",
    "migrations",
    "rights",
    "drift",
    "crash",
    "faults",
    "fields",
    "transitions",
    "lease",
    "steady",
];
const SOAK: [&str; 2] = ["lost", "scale"];

#[tokio::main]
async fn main() {
    let (mut seed, mut soak, mut parts) = (rand::random::<u32>().into(), false, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--soak" => soak = true,
            "--seed" => {
                seed = args.next().and_then(|number| number.parse().ok()).unwrap_or_else(|| wrong_use())
            }
            part if CI.contains(&part) || SOAK.contains(&part) => parts.push(part.to_owned()),
            _ => wrong_use(),
        }
    }
    if parts.is_empty() {
        let long = soak.then_some(SOAK).into_iter().flatten();
        parts = CI.into_iter().chain(long).map(str::to_owned).collect();
    }
    println!("seed {seed}");
    let proof = Proof { api: Api::connect().await, seed, soak };
    let has = |part: &str| parts.iter().any(|one| one == part);
    if has("plugin") {
        plugin::run(&proof).await;
    }
    // Each of two waits for controllers, or for the Lease, most of the time.
    tokio::join!(
        part(has("certificates"), certificates::run(&proof)),
        part(has("migrations"), migrations::run(&proof))
    );
    if has("rights") {
        rights::run(&proof).await;
    }
    if has("drift") {
        drift::run(&proof).await;
    }
    if has("fields") {
        fields::run(&proof).await;
    }
    tokio::join!(part(has("transitions"), transitions::run(&proof)), part(has("lease"), lease::run(&proof)));
    if has("crash") || has("faults") {
        faults_and_crashes(&proof, has("crash"), has("faults")).await;
    }
    if has("steady") {
        steady::run(&proof).await;
    }
    if has("lost") {
        lost::run(&proof).await;
    }
    if has("scale") {
        scale::run(&proof).await;
    }
}

/// Runs a part of the proof where it is asked for.
async fn part(is_asked_for: bool, run: impl Future<Output = ()>) {
    if is_asked_for {
        run.await;
    }
}

/// Both compare with a life without faults.
async fn faults_and_crashes(proof: &Proof, crashes: bool, faults: bool) {
    let calm = if crashes {
        crash::run(proof).await
    } else {
        let stage = Stage::new(proof, "calm").await;
        stage.calm().await
    };
    if faults {
        faults::run(proof, &calm).await;
    }
}

fn wrong_use() -> ! {
    eprintln!("{USAGE}");
    std::process::exit(2);
}
