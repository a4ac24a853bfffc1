//! Shows the whole system on a running cluster, step by step, each step checked. `tests/demo.sh` brings the
//! cluster up.

use harness::demo::{Demo, steps, traffic};

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (namespace, busy) = match args[..] {
        ["--namespace", namespace] => (namespace, false),
        ["--namespace", namespace, "--traffic"] => (namespace, true),
        _ => {
            eprintln!("usage: demo --namespace NAMESPACE [--traffic]");
            std::process::exit(2);
        }
    };
    let demo = Demo::new(namespace);
    if busy {
        traffic::run(&demo).await;
    } else {
        steps::all(&demo).await;
    }
    demo.finish();
}
