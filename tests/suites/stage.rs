//! Where a suite plays: the sample shop over embedded stores, or over real servers of its own.

use std::path::{Path, PathBuf};

use harness::{
    client::Api,
    dataplane::DataPlane,
    manifests,
    server::{Kind, Server},
    skipped,
};
use tempfile::TempDir;

/// The servers behind a real stage.
pub struct Servers {
    /// Users, payments, orders.
    pub mysql: Server,
    /// Products, templates, configurations.
    pub mongo: Server,
    /// The shared tier.
    pub redis: Server,
    /// The feed.
    pub kafka: Server,
}

/// What a stage over MySQL alone is called.
const ON_MYSQL: &str = "MySQL alone";

/// A running shop.
pub struct Stage {
    /// What it is over, for messages.
    pub name: &'static str,
    /// The data plane.
    pub data_plane: DataPlane,
    /// Its API.
    pub api: Api,
    /// The servers behind it; none over embedded stores.
    pub servers: Option<Servers>,
    /// Those of a stage that has not all of them: they run as long as it does.
    some: Vec<Server>,
    dir: TempDir,
}

impl Stage {
    /// The sample shop over embedded stores.
    pub fn embedded() -> Self {
        Self::embedded_with(|dir| manifests::write_samples_with(dir, ""))
    }

    /// A shop over embedded stores, by the manifests that are written into a folder.
    pub fn embedded_with(write: impl FnOnce(&Path)) -> Self {
        Self::embedded_of(DataPlane::built(), write)
    }

    /// The same by another program.
    pub fn embedded_of(program: PathBuf, write: impl FnOnce(&Path)) -> Self {
        let dir = tempdir();
        write(&dir.path().join("manifests"));
        let data_plane =
            DataPlane::embedded_of(program, &dir.path().join("manifests"), &dir.path().join("data"));
        Self {
            name: "embedded",
            api: Api::at(&data_plane.url),
            data_plane,
            servers: None,
            some: Vec::new(),
            dir,
        }
    }

    /// Serves the data of an embedded stage by the program that was built, once the one before has ended.
    pub fn embedded_anew(&self) -> DataPlane {
        DataPlane::embedded(&self.dir.path().join("manifests"), &self.dir.path().join("data"))
    }

    /// The sample shop over real servers, or none where they are not installed.
    pub async fn real(test: &str) -> Option<Self> {
        Self::real_with(test, |dir| manifests::write_samples_with(dir, "")).await
    }

    /// The sample shop over real servers, with TLS and an account at Kafka.
    pub async fn real_secured(test: &str) -> Option<Self> {
        Self::start(DataPlane::built(), test, &[("KAFKA_SECURE", "yes")], |dir| {
            manifests::write_samples_with(dir, "")
        })
        .await
    }

    /// A shop over real servers, by the manifests that are written into a folder.
    pub async fn real_with(test: &str, write: impl FnOnce(&Path)) -> Option<Self> {
        Self::real_of(DataPlane::built(), test, write).await
    }

    /// The same by another program; `replica` is by the one that was built.
    pub async fn real_of(program: PathBuf, test: &str, write: impl FnOnce(&Path)) -> Option<Self> {
        Self::start(program, test, &[], write).await
    }

    /// The sample shop over real servers, the data of its MySQL on this disk.
    pub async fn real_on(disk: &Path, test: &str) -> Option<Self> {
        let write = |dir: &Path| manifests::write_samples_with(dir, "");
        Self::start_on(disk, DataPlane::built(), test, &[], write).await
    }

    async fn start(
        program: PathBuf,
        test: &str,
        settings: &'static [(&'static str, &'static str)],
        write: impl FnOnce(&Path),
    ) -> Option<Self> {
        Self::start_on(&std::env::temp_dir(), program, test, settings, write).await
    }

    async fn start_on(
        disk: &Path,
        program: PathBuf,
        test: &str,
        settings: &'static [(&'static str, &'static str)],
        write: impl FnOnce(&Path),
    ) -> Option<Self> {
        for kind in [Kind::Mysql, Kind::Mongo, Kind::Redis, Kind::Kafka] {
            if let Err(why) = kind.available() {
                skipped(test, &why);
                return None;
            }
        }
        let start = |kind| {
            let disk = if kind == Kind::Mysql { disk.to_owned() } else { std::env::temp_dir() };
            std::thread::spawn(move || Server::start_on(&disk, kind, settings))
        };
        let started = [Kind::Mysql, Kind::Mongo, Kind::Redis, Kind::Kafka].map(start);
        let [mysql, mongo, redis, kafka] = started.map(|server| server.join().unwrap());
        let dir = tempdir();
        let (backends, security) = folders(&dir);
        let urls = [
            ("mysql", mysql.url()),
            ("mongodb", mongo.url()),
            ("redis", redis.url()),
            ("kafka", kafka.url()),
        ];
        manifests::write_backends(&backends, &urls);
        if !settings.is_empty() {
            manifests::copy_secret(&kafka.secret(), &backends.join("kafka"));
        }
        manifests::write_encryption_key(&security);
        declare_stores_table(&mysql);
        write(&dir.path().join("manifests"));
        let data_plane = DataPlane::real_of(program, &dir.path().join("manifests"), &backends, &security);
        let servers = Some(Servers { mysql, mongo, redis, kafka });
        let api = Api::at(&data_plane.url);
        Some(Self { name: "real servers", api, data_plane, servers, some: Vec::new(), dir })
    }

    /// A shop over MySQL alone, by the manifests that are written into a folder.
    pub async fn on_mysql(test: &str, write: impl FnOnce(&Path)) -> Option<Self> {
        Self::over(test, ON_MYSQL, &[(Kind::Mysql, "mysql")], write).await
    }

    /// A shop over some servers, MySQL among them, each a backend of this name.
    pub async fn over(
        test: &str,
        name: &'static str,
        kinds: &[(Kind, &str)],
        write: impl FnOnce(&Path),
    ) -> Option<Self> {
        if let Some(why) = kinds.iter().find_map(|(kind, _)| kind.available().err()) {
            skipped(test, &why);
            return None;
        }
        let some: Vec<Server> =
            tokio::task::block_in_place(|| kinds.iter().map(|(kind, _)| Server::start(*kind)).collect());
        let dir = tempdir();
        let (backends, security) = folders(&dir);
        for (server, (kind, backend)) in some.iter().zip(kinds) {
            manifests::write_backends(&backends, &[(backend, server.url())]);
            if *kind == Kind::Mysql {
                declare_stores_table(server);
            }
        }
        manifests::write_encryption_key(&security);
        write(&dir.path().join("manifests"));
        let data_plane = tokio::task::block_in_place(|| {
            DataPlane::real(&dir.path().join("manifests"), &backends, &security)
        });
        Some(Self { name, api: Api::at(&data_plane.url), data_plane, servers: None, some, dir })
    }

    /// Writes what the Secret of a backend holds now, as the kubelet would.
    pub fn rotate(&self, backend: &str, url: &str) {
        manifests::write_backends(&folders(&self.dir).0, &[(backend, url.to_owned())]);
    }

    /// Writes the manifests anew, while they are served.
    pub fn rewrite(&self, write: impl FnOnce(&Path)) {
        write(&self.dir.path().join("manifests"));
    }

    /// Whether products are kept in a store of documents, or in what stands in for one.
    pub fn has_documents(&self) -> bool {
        self.name != ON_MYSQL
    }

    /// Whether replicas have a tier in common, or what stands in for one.
    pub fn has_shared_tier(&self) -> bool {
        self.name != ON_MYSQL
    }

    /// The address of its MySQL.
    pub fn mysql_url(&self) -> String {
        let mysql = self.servers.as_ref().map(|servers| &servers.mysql).or(self.some.first());
        mysql.map(Server::url).unwrap_or_default()
    }

    /// Another replica over the same servers.
    pub fn replica(&self) -> DataPlane {
        let (backends, security) = folders(&self.dir);
        DataPlane::real(&self.dir.path().join("manifests"), &backends, &security)
    }
}

/// Where the addresses of backends and the keys are.
fn folders(dir: &TempDir) -> (PathBuf, PathBuf) {
    (dir.path().join("backends"), dir.path().join("security"))
}

/// The declared table of the samples is the user's own: it exists before the shop starts.
fn declare_stores_table(mysql: &Server) {
    let sql = std::fs::read_to_string(harness::root().join("configs/sql/stores.sql")).unwrap();
    harness::server::run_sql(&mysql.url(), &sql);
}

fn tempdir() -> TempDir {
    tempfile::tempdir().unwrap()
}
