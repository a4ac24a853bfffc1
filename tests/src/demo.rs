//! The demo: what it runs against, and how it tells what it does. The steps are in [`steps`].

pub mod changes;
pub mod faults;
pub mod load;
pub mod plugin;
pub mod steps;
pub mod traffic;

use std::{cell::Cell, io::IsTerminal, time::Instant};

use serde_json::Value;

use crate::{client::Api, kubectl::Kubectl};

/// What the steps run against.
pub struct Demo {
    /// The namespace of the shop.
    pub kubectl: Kubectl,
    /// The shop's API, through its Service.
    pub api: Api,
    steps: Cell<u32>,
    start: Instant,
}

impl Demo {
    /// The shop that runs in a namespace.
    ///
    /// # Panics
    /// There is none.
    pub fn new(namespace: &str) -> Self {
        let kubectl = Kubectl::new(namespace);
        let service = kubectl.json(&["service", "shop"]);
        let Some(address) = service["spec"]["clusterIP"].as_str() else {
            panic!("there is no Service shop in {namespace}")
        };
        let api = Api::at(&format!("http://{address}"));
        Self { kubectl, api, steps: Cell::new(0), start: Instant::now() }
    }

    /// Says what the next step shows.
    pub fn step(&self, what: &str) {
        self.steps.set(self.steps.get() + 1);
        let (blue, plain) = colours("\x1b[1;34m");
        println!("\n{blue}{:>2}. {what}{plain}", self.steps.get());
    }

    /// Shows what came out.
    pub fn show(&self, text: &str) {
        for line in text.trim_end().lines() {
            println!("    {line}");
        }
    }

    /// Says that something holds.
    pub fn holds(&self, what: &str) {
        let (green, plain) = colours("\x1b[32m");
        println!("    {green}✔{plain} {what}");
    }

    /// The last word.
    pub fn finish(&self) {
        let (green, plain) = colours("\x1b[1;32m");
        println!(
            "\n{green}All {} steps hold, in {} s.{plain}",
            self.steps.get(),
            self.start.elapsed().as_secs()
        );
    }

    /// The service as the cluster has it.
    pub fn service(&self) -> Value {
        self.kubectl.json(&["fws", "shop"])
    }

    /// A condition of an object: its status, reason and message.
    pub fn condition(object: &Value, kind: &str) -> (String, String, String) {
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default();
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    /// The data plane's pods that are not on their way out.
    pub fn pods(&self) -> Vec<Value> {
        let selector = "app.kubernetes.io/instance=shop,app.kubernetes.io/component=dataplane";
        let pods = self.kubectl.items(&["pods", "-l", selector]);
        pods.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect()
    }
}

fn colours(code: &'static str) -> (&'static str, &'static str) {
    if std::io::stdout().is_terminal() { (code, "\x1b[0m") } else { ("", "") }
}
