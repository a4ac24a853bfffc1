//! Mounted Secrets that change: what they hold is taken over while the process runs, or the former content
//! stays in use and that is said.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::sync::watch;
use tracing::{info, warn};
use xxhash_rust::xxh3::Xxh3;

use model::value::Timestamp;
use runtime::supervisor;

/// How often the folders are looked at.
const POLL: Duration = Duration::from_secs(1);

/// The longest wait before content that could not be taken is tried again.
const RETRY_MAX: Duration = Duration::from_secs(15);

/// The longest that taking content over may last.
const TAKE_MAX: Duration = Duration::from_secs(70);

/// What becomes of each Secret, by its folder: `backends/mysql`, `security/jwt`.
pub type Secrets = watch::Receiver<BTreeMap<String, SecretState>>;

/// What became of one Secret.
#[derive(Clone, Debug, Default)]
pub struct SecretState {
    /// How often its content was replaced since the process began.
    pub rotations: u64,
    /// When last; none while the content is that of the start.
    pub rotated_at: Option<String>,
    /// Why the content that is mounted is not in use, but the former one; none when it is.
    pub problem: Option<String>,
}

/// A folder with a Secret, as it was when what it holds was read.
pub struct Folder {
    name: String,
    path: PathBuf,
    content: Option<u128>,
}

/// A Secret, and what takes its content over.
pub struct Mounted {
    folder: Folder,
    take: Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
}

impl Folder {
    /// The folder of this name below the folder of its kind. To be called before what it holds is read.
    pub fn of(kind: &'static str, root: &Path, name: &str) -> Self {
        let path = root.join(name);
        Self { name: format!("{kind}/{name}"), content: content(&path), path }
    }

    /// From now on changed content is given to `take`. Its error is said to operators, so it holds no secret.
    pub fn taken_by<F>(self, take: impl Fn() -> F + Send + Sync + 'static) -> Mounted
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        Mounted { folder: self, take: Box::new(move || Box::pin(take())) }
    }
}

/// Follows all Secrets until the process ends.
pub fn follow(all: Vec<Mounted>) -> Secrets {
    let states = all.iter().map(|mounted| (mounted.folder.name.clone(), SecretState::default())).collect();
    let (sender, receiver) = watch::channel(states);
    let sender = Arc::new(sender);
    for mounted in all {
        supervisor::SECRETS.spawn(mounted.follow(sender.clone()));
    }
    receiver
}

impl Mounted {
    async fn follow(mut self, states: Arc<watch::Sender<BTreeMap<String, SecretState>>>) {
        let name = self.folder.name.clone();
        let say = |change: &dyn Fn(&mut SecretState)| {
            states.send_modify(|states| change(states.entry(name.clone()).or_default()));
        };
        let (mut pause, mut said) = (POLL, None);
        loop {
            tokio::time::sleep(pause).await;
            let path = self.folder.path.clone();
            let Ok(Some(found)) = tokio::task::spawn_blocking(move || content(&path)).await else { continue };
            if self.folder.content == Some(found) {
                if said.take().is_some() {
                    say(&|state| state.problem = None);
                    info!(secret = name, "the Secret holds again what is in use");
                }
                pause = POLL;
                continue;
            }
            let taken = tokio::time::timeout(TAKE_MAX, (self.take)()).await;
            match taken
                .unwrap_or_else(|_| Err(format!("it was not taken over within {} s", TAKE_MAX.as_secs())))
            {
                Ok(()) => {
                    (self.folder.content, pause, said) = (Some(found), POLL, None);
                    say(&|state| {
                        state.rotations += 1;
                        state.rotated_at = Some(Timestamp::now().to_string());
                        state.problem = None;
                    });
                    info!(secret = name, "a changed Secret is in use");
                }
                Err(why) => {
                    pause = (pause * 2).min(RETRY_MAX);
                    if said.as_ref() != Some(&(found, why.clone())) {
                        warn!(
                            secret = name,
                            why, "a changed Secret cannot be used; the former content goes on"
                        );
                        say(&|state| state.problem = Some(why.clone()));
                        said = Some((found, why));
                    }
                }
            }
        }
    }
}

/// Identifies the files of a folder, within this process only: it is never shown, for a password could be
/// guessed by it. None where it cannot be read.
fn content(path: &Path) -> Option<u128> {
    // what the kubelet keeps beside the files begins with two dots
    let entries = fs::read_dir(path).ok()?.flatten();
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".."))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    let mut hash = Xxh3::new();
    for file in files {
        let bytes = fs::read(&file).ok()?;
        hash.update(file.as_os_str().as_encoded_bytes());
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(&bytes);
    }
    Some(hash.digest128())
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// A folder with one file, and a part that takes whatever is not `wrong`.
    struct Rig {
        dir: tempfile::TempDir,
        taken: Arc<Mutex<Vec<String>>>,
        secrets: Secrets,
    }

    impl Rig {
        fn start(first: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("a/url");
            fs::create_dir(dir.path().join("a")).unwrap();
            fs::write(&file, first).unwrap();
            let taken = Arc::new(Mutex::new(Vec::new()));
            let into = taken.clone();
            let mounted = Folder::of("backends", dir.path(), "a").taken_by(move || {
                let (file, into) = (file.clone(), into.clone());
                async move {
                    match fs::read_to_string(&file).unwrap() {
                        text if text == "wrong" => Err("it does not answer".to_owned()),
                        text => {
                            into.lock().push(text);
                            Ok(())
                        }
                    }
                }
            });
            Self { dir, taken, secrets: follow(vec![mounted]) }
        }

        fn write(&self, text: &str) {
            fs::write(self.dir.path().join("a/url"), text).unwrap();
        }

        async fn until(&mut self, holds: impl Fn(&SecretState) -> bool) -> SecretState {
            let wait = self.secrets.wait_for(|all| holds(&all["backends/a"]));
            tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap().unwrap()["backends/a"].clone()
        }
    }

    #[tokio::test]
    async fn changed_content_is_taken_once_and_what_cannot_be_used_is_said_and_tried_again() {
        let mut rig = Rig::start("one");
        rig.write("wrong");
        let state = rig.until(|state| state.problem.is_some()).await;
        assert_eq!((state.problem.as_deref(), state.rotations), (Some("it does not answer"), 0));
        rig.write("one");
        rig.until(|state| state.problem.is_none()).await;
        assert!(rig.taken.lock().is_empty(), "the former content was in use all the while");
        rig.write("two");
        let state = rig.until(|state| state.rotations == 1).await;
        assert!(state.rotated_at.is_some() && state.problem.is_none());
        rig.write("three");
        rig.until(|state| state.rotations == 2).await;
        assert_eq!(*rig.taken.lock(), ["two", "three"]);
    }

    #[test]
    fn what_the_kubelet_keeps_beside_the_files_is_not_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let now = || content(dir.path());
        fs::write(dir.path().join("url"), "a").unwrap();
        let before = now();
        fs::create_dir(dir.path().join("..2026_01_01")).unwrap();
        assert_eq!(now(), before);
        fs::write(dir.path().join("ca.crt"), "").unwrap();
        assert_ne!(now(), before);
        assert_eq!(content(&dir.path().join("none")), None);
    }
}
