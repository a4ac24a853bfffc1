//! Shows the whole system on a running cluster, step by step, each step checked. `tests/demo.sh` brings the cluster up.

use harness::demo::{Demo, steps};

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, option, namespace] = &args[..] else {
        eprintln!("usage: demo --namespace NAMESPACE");
        std::process::exit(2);
    };
    if option != "--namespace" {
        eprintln!("usage: demo --namespace NAMESPACE");
        std::process::exit(2);
    }
    let demo = Demo::new(namespace);
    steps::all(&demo).await;
    demo.finish();
}
