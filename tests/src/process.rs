//! Child processes that never outlive the tests.

use std::{
    process::{Child, Command},
    sync::{OnceLock, mpsc},
};

type Job = (Command, mpsc::Sender<std::io::Result<Child>>);

/// Starts a command that is killed when this process ends, however it ends.
///
/// The kernel sends the signal when the *thread* that started the child ends, so one thread that lives on
/// starts them all.
///
/// # Errors
/// The command cannot be started.
pub fn spawn(command: &Command) -> std::io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in jobs {
                _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, child) = mpsc::channel();
    spawner.send((bound(command), answer)).map_err(std::io::Error::other)?;
    child.recv().map_err(std::io::Error::other)?
}

/// Sends a signal by its name: `KILL`, `STOP`, `CONT`, `TERM`.
pub fn signal(child: &Child, name: &str) {
    _ = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status();
}

/// Whether a process is frozen, as the kernel says.
pub fn is_frozen(child: &Child) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    // the name before it, in parentheses, may hold anything
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
}

/// The same command through `setpriv`, which asks the kernel for the signal and becomes the command.
fn bound(command: &Command) -> Command {
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        bound.current_dir(dir);
    }
    bound
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped());
    bound
}
