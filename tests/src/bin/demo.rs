//! Shows the whole system on a running cluster, step by step, each step checked. `tests/demo.sh` brings the
//! cluster up.

use harness::demo::{Demo, faults, steps, traffic};

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (namespace, part) = match args[..] {
        ["--namespace", namespace] => (namespace, ""),
        ["--namespace", namespace, part @ ("--traffic" | "--faults")] => (namespace, part),
        _ => {
            eprintln!("usage: demo --namespace NAMESPACE [--traffic | --faults]");
            std::process::exit(2);
        }
    };
    let demo = Demo::new(namespace);
    match part {
        "--traffic" => traffic::run(&demo).await,
        "--faults" => faults::are_named(&demo).await,
        _ => steps::all(&demo).await,
    }
    demo.finish();
}
