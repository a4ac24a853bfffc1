//! How a MongoDB is reached, and what is asked of it with every write and read.

use std::{path::PathBuf, time::Duration};

use model::passage::Plaintext;
use mongodb::{
    Client,
    options::{
        Acknowledgment, AuthMechanism, ClientOptions, ReadConcern, ServerAddress, Tls, TlsOptions,
        WriteConcern,
    },
};

use super::{CALL_TIME, NAME, pair::Pair};
use crate::StoreError;
use model::passage::{Passage, Sends};

/// How long a call waits for a server that can be reached.
const SELECTION_TIME: Duration = Duration::from_secs(2);

/// How to reach a MongoDB server.
#[derive(Clone, Debug)]
pub struct MongoOptions {
    /// `mongodb://…` or `mongodb+srv://…`.
    pub url: String,
    /// The database.
    pub database: String,
    /// The file of the certificate authority; TLS is then required.
    pub ca: Option<PathBuf>,
    /// The file of the client's certificate.
    pub cert: Option<PathBuf>,
    /// The file of the client's key.
    pub key: Option<PathBuf>,
    /// The most connections to each server.
    pub max_connections: u32,
    /// Whose certificates are trusted, and whether the password may be readable on the way.
    pub passage: Passage,
}

impl MongoOptions {
    /// A server without TLS files, at most 20 connections.
    pub fn new(url: impl Into<String>, database: impl Into<String>) -> Self {
        let passage = Passage::new(NAME, Plaintext::Refused);
        Self {
            url: url.into(),
            database: database.into(),
            ca: None,
            cert: None,
            key: None,
            max_connections: 20,
            passage,
        }
    }

    /// What the driver is told.
    pub(super) async fn client_options(&self) -> Result<ClientOptions, StoreError> {
        // the driver's own error can show the password
        let parsed = ClientOptions::parse(&self.url).await;
        let mut options = parsed.map_err(|_| {
            StoreError::Unsupported("the URL of MongoDB is not one, or its host is not known".to_owned())
        })?;
        options.server_selection_timeout = Some(SELECTION_TIME);
        options.connect_timeout = Some(SELECTION_TIME);
        options.max_pool_size = Some(self.max_connections);
        options.app_name.get_or_insert_with(|| "flyweight".to_owned());
        // an answered write is in the journal of most members
        options.write_concern = Some(
            WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(CALL_TIME).build(),
        );
        // and what is read stays true when the primary changes: nothing is cached or published that could be
        // taken back
        options.read_concern = Some(ReadConcern::majority());
        Ok(options)
    }

    /// A client with these options.
    pub(super) fn client(&self, mut options: ClientOptions) -> Result<Client, StoreError> {
        let wrong =
            |error: std::io::Error| StoreError::Unsupported(format!("the TLS files of MongoDB: {error}"));
        let pair =
            self.cert.as_ref().map(|cert| Pair::of(cert, self.key.as_deref())).transpose().map_err(wrong)?;
        let system = self.passage.system().map(Pair::holding).transpose().map_err(wrong)?;
        if self.ca.is_some() || pair.is_some() || system.is_some() {
            let mut tls = TlsOptions::default();
            tls.ca_file_path = system.as_ref().map(Pair::path).or_else(|| self.ca.clone());
            tls.cert_key_file_path = pair.as_ref().map(Pair::path);
            options.tls = Some(Tls::Enabled(tls));
        }
        let over_tls = matches!(options.tls, Some(Tls::Enabled(_)));
        let hosts = options.hosts.iter().map(|host| match host {
            ServerAddress::Tcp { host, .. } => host.as_str(),
            // a path, or what only a later version of the driver knows
            _ => "/",
        });
        let sends =
            options.credential.as_ref().map_or(Sends::Nothing, |credential| match credential.mechanism {
                Some(AuthMechanism::Plain) => Sends::Password,
                _ => Sends::Proof,
            });
        self.passage.admit(sends, over_tls, hosts).map_err(StoreError::Unsupported)?;
        Client::with_options(options).map_err(|error| match error.kind.as_ref() {
            mongodb::error::ErrorKind::InvalidTlsConfig { message, .. } => {
                StoreError::Unsupported(message.clone())
            }
            _ => StoreError::Unsupported("the options of MongoDB do not go together".to_owned()),
        })
    }
}
