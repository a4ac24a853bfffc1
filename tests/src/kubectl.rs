//! Calls `kubectl` against the cluster of `KUBECONFIG`.

use std::{path::Path, process::Command};

use serde_json::Value;

/// One namespace of a cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    namespace: String,
}

impl Kubectl {
    /// A namespace of the cluster that `KUBECONFIG` names.
    pub fn new(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned() }
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Calls kubectl and returns what it printed.
    ///
    /// # Errors
    /// What it printed to standard error, when it failed.
    pub fn call(&self, args: &[&str]) -> Result<String, String> {
        self.call_with_input(args, None)
    }

    /// Applies a manifest.
    ///
    /// # Errors
    /// What the API server says against it.
    pub fn apply(&self, manifest: &str) -> Result<String, String> {
        self.call_with_input(&["apply", "-f", "-"], Some(manifest))
    }

    /// Reads an object, or a list of objects, as JSON; null where there is none.
    pub fn json(&self, args: &[&str]) -> Value {
        let all: Vec<&str> =
            ["get"].iter().chain(args).chain(&["-o", "json", "--ignore-not-found"]).copied().collect();
        self.call(&all).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null)
    }

    /// The items of a list.
    pub fn items(&self, args: &[&str]) -> Vec<Value> {
        self.json(args)["items"].as_array().cloned().unwrap_or_default()
    }

    /// Calls `kubectl flyweight`, built with this program: what it prints, and whether it says that all is
    /// well.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn flyweight(&self, args: &[&str], env: &[(&str, &str)]) -> (String, bool) {
        let exe = std::env::current_exe().unwrap_or_default();
        let program = exe.parent().unwrap_or(Path::new(".")).join("kubectl-flyweight");
        let mut command = Command::new(&program);
        command.args(["--namespace", &self.namespace]).args(args).envs(env.iter().copied());
        let output = command.output().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout) + &text(&output.stderr), output.status.success())
    }

    fn call_with_input(&self, args: &[&str], input: Option<&str>) -> Result<String, String> {
        use std::{io::Write, process::Stdio};
        let mut child = Command::new("kubectl")
            .args(["--namespace", &self.namespace])
            .args(args)
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("kubectl cannot be started: {error}"))?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(input.as_bytes()).map_err(|error| error.to_string())?;
        }
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }
}
