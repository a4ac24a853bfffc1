//! Declared stores: MySQL and MongoDB.

#![cfg_attr(
    not(all(feature = "mysql", feature = "mongodb", feature = "redis", feature = "kafka")),
    allow(dead_code, reason = "what is left out uses it")
)]

use std::sync::Arc;

#[cfg(not(all(feature = "mysql", feature = "mongodb")))]
use super::left_out;
use anyhow::bail;
use crds::{settings::BackendKind, units::Span};
use model::seal::Sealer;
use store::{RecordStore, confined::ConfinedStore, guarded::GuardedStore, rotating::RotatingStore};

use super::files::Files;
use crate::app::rotation::{Folder, Mounted};

/// Connections to each server of a MongoDB.
#[cfg(feature = "mongodb")]
const MONGODB_CONNECTIONS_MAX: u32 = 50;

/// What a declared store is made of.
pub struct DeclaredStore {
    /// Its address and accounts.
    pub files: Files,
    /// Which kind it is.
    pub kind: BackendKind,
    /// Seals encrypted fields.
    pub sealer: Arc<dyn Sealer>,
    /// How long a request waits for a connection to MySQL.
    pub connection_timeout: Span,
}

impl DeclaredStore {
    /// A store by what its Secret holds now.
    async fn open(&self) -> anyhow::Result<Arc<dyn RecordStore>> {
        match &self.kind {
            #[cfg(feature = "mongodb")]
            BackendKind::Mongodb { database } => self.mongodb(database).await,
            #[cfg(not(feature = "mongodb"))]
            BackendKind::Mongodb { .. } => left_out("mongodb"),
            #[cfg(feature = "mysql")]
            BackendKind::Mysql { max_connections } => self.mysql(*max_connections),
            #[cfg(not(feature = "mysql"))]
            BackendKind::Mysql { .. } => left_out("mysql"),
            BackendKind::Redis {} | BackendKind::Kafka { .. } => bail!("not a store"),
        }
    }

    #[cfg(feature = "mongodb")]
    async fn mongodb(&self, database: &str) -> anyhow::Result<Arc<dyn RecordStore>> {
        use store::mongo::{MongoStore, options::MongoOptions};

        let Self { files, sealer, .. } = self;
        let options = MongoOptions {
            url: files.url()?,
            database: database.to_owned(),
            ca: files.path("ca.crt"),
            cert: files.path("tls.crt"),
            key: files.path("tls.key"),
            max_connections: MONGODB_CONNECTIONS_MAX,
            passage: files.passage.clone(),
        };
        Ok(Arc::new(MongoStore::connect(options, sealer.clone()).await?))
    }

    #[cfg(feature = "mysql")]
    fn mysql(&self, max_connections: u32) -> anyhow::Result<Arc<dyn RecordStore>> {
        use store::sql::{SqlStore, mysql::MysqlOptions};

        let Self { files, sealer, connection_timeout, .. } = self;
        let defaults = MysqlOptions::new(files.url()?);
        let options = MysqlOptions {
            ca: files.path("ca.crt"),
            cert: files.path("tls.crt"),
            key: files.path("tls.key"),
            max_connections,
            passage: files.passage.clone(),
            acquire_timeout: connection_timeout.0,
            ..defaults
        };
        Ok(Arc::new(SqlStore::mysql(options, sealer.clone())?))
    }
}

/// A store that follows its Secret.
///
/// # Errors
/// An address or file that cannot be read.
pub async fn declared_store(
    declared: DeclaredStore,
    folder: Folder,
) -> anyhow::Result<(Arc<ConfinedStore>, Mounted)> {
    let store = Arc::new(RotatingStore::new(declared.open().await?));
    let confined = Arc::new(ConfinedStore::new(Arc::new(GuardedStore::new(store.clone()))));
    let (declared, rotating, away) = (Arc::new(declared), store, confined.away().clone());
    let mounted = folder.taken_by(move || {
        let (declared, store, away) = (declared.clone(), rotating.clone(), away.clone());
        async move {
            let next = declared.open().await.map_err(|error| format!("{error:#}"))?;
            store.rotate(next).await.map_err(|error| error.to_string())?;
            // a pool may have what it lacked, or lack what it had
            away.suspect();
            Ok(())
        }
    });
    Ok((confined, mounted))
}
