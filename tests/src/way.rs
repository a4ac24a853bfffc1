//! A way to MySQL that is cut at COMMIT: the server has committed, or was never asked to, and whoever asked
//! cannot know.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// How a client of MySQL asks to commit.
const COMMIT: &[u8] = b"\x03COMMIT";

/// A way to a server.
pub struct Way {
    /// The server's address over this way.
    pub url: String,
    cuts: Arc<Cuts>,
}

#[derive(Default)]
struct Cuts {
    due: AtomicUsize,
    done: AtomicUsize,
}

impl Way {
    /// Opens a way to the server at `mysql://user:password@host:port/database`. What passes is not encrypted.
    ///
    /// # Panics
    /// It is no such address, or there is no free port.
    pub async fn to(url: &str) -> Self {
        let parts = url.split_once('@').and_then(|(account, rest)| Some((account, rest.split_once('/')?)));
        let Some((account, (server, database))) = parts else { panic!("not an address of a server: {url}") };
        let listener =
            TcpListener::bind("127.0.0.1:0").await.unwrap_or_else(|error| panic!("no port: {error}"));
        let port = listener.local_addr().map(|addr| addr.port()).unwrap_or_default();
        let (server, cuts) = (server.to_owned(), Arc::<Cuts>::default());
        let shared = cuts.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, cuts) = (server.clone(), shared.clone());
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    _ = carry(client, server, &cuts).await;
                });
            }
        });
        Self { url: format!("{account}@127.0.0.1:{port}/{database}?ssl-mode=DISABLED"), cuts }
    }

    /// Cuts the connections that ask for the next `count` commits: by turns after the server has committed,
    /// and before it hears of it.
    pub fn cut(&self, count: usize) {
        self.cuts.due.fetch_add(count, Ordering::SeqCst);
    }

    /// Cuts no more.
    pub fn spare(&self) {
        self.cuts.due.store(0, Ordering::SeqCst);
    }

    /// How many were cut so far.
    pub fn cuts(&self) -> usize {
        self.cuts.done.load(Ordering::SeqCst)
    }
}

impl Cuts {
    /// Whether this commit is to be cut; then which one it is.
    fn take(&self) -> Option<usize> {
        self.due.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |due| due.checked_sub(1)).ok()?;
        Some(self.done.fetch_add(1, Ordering::SeqCst))
    }
}

/// Carries both directions until one ends, or a commit is cut.
async fn carry(mut client: TcpStream, mut server: TcpStream, cuts: &Cuts) -> std::io::Result<()> {
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            len = client.read(&mut asked) => {
                let bytes = &asked[..len?];
                if bytes.is_empty() {
                    return Ok(());
                }
                let is_commit = bytes.windows(COMMIT.len()).any(|part| part == COMMIT);
                let cut = if is_commit { cuts.take() } else { None };
                if cut.is_some_and(|cut| cut % 2 == 1) {
                    return Ok(());
                }
                server.write_all(bytes).await?;
                if cut.is_some() {
                    // once it answers it has committed
                    return server.read(&mut answered).await.map(drop);
                }
            }
            len = server.read(&mut answered) => {
                let len = len?;
                if len == 0 {
                    return Ok(());
                }
                client.write_all(&answered[..len]).await?;
            }
        }
    }
}
