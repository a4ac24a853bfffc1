//! How to reach Kafka: options, the files of its Secret, and what the client library is told.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError,
};

use model::passage::{Passage, Sends};
use runtime::owner::Claim;

/// How the bus uses Kafka.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// What the name of the topic begins with.
    pub topic_prefix: String,
    /// How the connection is secured.
    pub security: KafkaSecurity,
    /// The longest that a publish takes before it fails.
    pub publish_deadline: Duration,
    /// The newest events that are kept in memory for readers who come back.
    pub ring_events: usize,
    /// The bytes that these may take.
    pub ring_bytes: usize,
    /// How often it is checked that the topic still has as many partitions and is still the service's own.
    pub check_interval: Duration,
    /// Whose the topics are; none where nobody else can be meant.
    pub claim: Option<Claim>,
}

/// TLS and the account, as far as they are used.
#[derive(Clone, Debug, Default)]
pub struct KafkaSecurity {
    /// The certificate of the authority that signed the brokers'. Its presence means TLS.
    pub ca: Option<PathBuf>,
    /// The client's certificate and key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The account.
    pub account: Option<Account>,
    /// The authorities of the system, as PEM, where they are the ones to trust. Their presence means TLS, and
    /// `ca` is not used.
    pub system: Option<Vec<u8>>,
}

/// A name and a password for SASL.
#[derive(Clone)]
pub struct Account {
    mechanism: String,
    username: String,
    password: String,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Account(..)")
    }
}

impl KafkaOptions {
    /// The options for brokers and a prefix, without TLS and account.
    pub fn new(brokers: impl Into<String>, topic_prefix: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            topic_prefix: topic_prefix.into(),
            security: KafkaSecurity::default(),
            publish_deadline: Duration::from_secs(5),
            ring_events: 50_000,
            ring_bytes: 64 << 20,
            check_interval: Duration::from_secs(30),
            claim: None,
        }
    }

    /// The same options by this passage.
    ///
    /// # Errors
    /// The password would be readable on the way to a broker.
    pub fn by(mut self, passage: &Passage) -> Result<Self, String> {
        self.security.system = passage.system().map(<[u8]>::to_vec);
        let hosts = self.brokers.split(',').map(|broker| {
            let broker = broker.trim();
            let broker = broker.split_once("://").map_or(broker, |(_, rest)| rest);
            broker.rsplit_once(':').map_or(broker, |(host, _)| host)
        });
        let sends = self.security.account.as_ref().map_or(Sends::Nothing, |account| {
            match account.mechanism.as_str() {
                "PLAIN" => Sends::Password,
                _ => Sends::Proof,
            }
        });
        passage.admit(sends, self.security.is_tls(), hosts)?;
        Ok(self)
    }

    /// The one topic of all changes.
    pub fn topic(&self) -> String {
        format!("{}changes", self.topic_prefix)
    }
}

impl KafkaSecurity {
    /// Reads a mounted Secret: `ca.crt`, `tls.crt` with `tls.key`, `username` with `password`, and
    /// `mechanism` (`SCRAM-SHA-512` where it is left out). Each file may be absent.
    ///
    /// # Errors
    /// A file is there but cannot be read.
    pub fn from_folder(folder: &Path) -> io::Result<Self> {
        let file = |name: &str| Some(folder.join(name)).filter(|path| path.exists());
        let text = |name: &str| -> io::Result<Option<String>> {
            let Some(path) = file(name) else { return Ok(None) };
            Ok(Some(std::fs::read_to_string(path)?.trim_end_matches(['\r', '\n']).to_owned()))
        };
        let account = match (text("username")?, text("password")?) {
            (Some(username), Some(password)) => {
                let mechanism = text("mechanism")?.unwrap_or_else(|| "SCRAM-SHA-512".to_owned());
                Some(Account { mechanism, username, password })
            }
            (None, None) => None,
            _ => {
                return Err(io::Error::new(io::ErrorKind::NotFound, "`username` and `password` go together"));
            }
        };
        Ok(Self { ca: file("ca.crt"), client: file("tls.crt").zip(file("tls.key")), account, system: None })
    }

    fn is_tls(&self) -> bool {
        self.ca.is_some() || self.client.is_some() || self.system.is_some()
    }

    fn protocol(&self) -> &'static str {
        match (self.is_tls(), self.account.is_some()) {
            (false, false) => "plaintext",
            (false, true) => "sasl_plaintext",
            (true, false) => "ssl",
            (true, true) => "sasl_ssl",
        }
    }

    fn apply(&self, config: &mut ClientConfig) {
        let Self { ca, client, account, system } = self;
        config.set("security.protocol", self.protocol());
        if let Some(system) = system {
            config.set("ssl.ca.pem", String::from_utf8_lossy(system));
        } else if let Some(ca) = ca {
            config.set("ssl.ca.location", ca.to_string_lossy());
        }
        if let Some((certificate, key)) = client {
            config.set("ssl.certificate.location", certificate.to_string_lossy());
            config.set("ssl.key.location", key.to_string_lossy());
        }
        if let Some(Account { mechanism, username, password }) = account {
            config
                .set("sasl.mechanisms", mechanism)
                .set("sasl.username", username)
                .set("sasl.password", password);
        }
    }
}

/// What all clients have in common.
pub fn client(options: &KafkaOptions) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options.brokers)
        .set("client.id", "flyweight")
        .set("socket.keepalive.enable", "true")
        // small records go at once, not with the acknowledgement of those before
        .set("socket.nagle.disable", "true")
        .set("socket.timeout.ms", "10000")
        .set("socket.connection.setup.timeout.ms", "5000")
        // a broker that is back is found within a second
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "1000")
        .set_log_level(RDKafkaLogLevel::Warning);
    options.security.apply(&mut config);
    config
}

/// A producer that keeps the order of each partition and writes nothing twice by itself.
pub fn producer(options: &KafkaOptions) -> ClientConfig {
    let mut config = client(options);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "zstd")
        .set("linger.ms", "2")
        .set("partitioner", "murmur2_random")
        // a message that expired while a later one of its key went through would turn the order round: the
        // bus has a deadline of its own, and throws the whole producer away
        .set("message.timeout.ms", "0");
    config
}

/// A consumer that is told its partitions and offsets, and is in no group. The library wants the name of one
/// all the same.
pub fn consumer(options: &KafkaOptions) -> ClientConfig {
    let mut config = client(options);
    config
        .set("group.id", options.topic())
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // an offset that is not there any more is a gap, and must be seen as one
        .set("auto.offset.reset", "error")
        .set("fetch.error.backoff.ms", "100")
        .set("fetch.queue.backoff.ms", "50")
        .set("queued.max.messages.kbytes", "16384");
    config
}

/// Passes on what the client library says as debug output: an outage is reported once, by the bus.
pub struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl ConsumerContext for Quiet {}

#[cfg(test)]
mod tests {
    use model::passage::Plaintext;

    use super::*;
    use ::testing::Folder;

    /// As the library takes it: what it does not know, or would set back, is not there.
    #[test]
    fn a_producer_waits_for_all_brokers_and_repeats_nothing() {
        let native = producer(&KafkaOptions::new("a:1", "shop.")).create_native_config().unwrap();
        let acks = native.get("acks").unwrap();
        assert!(acks == "-1" || acks == "all", "{acks}: all in-sync replicas");
        assert_eq!(native.get("enable.idempotence").unwrap(), "true");
        assert_eq!(producer(&KafkaOptions::new("a:1", "shop.")).get("acks"), Some("all"));
    }

    #[test]
    fn an_account_goes_to_other_hosts_over_tls_alone() {
        let folder = Folder::new();
        for (name, text) in [("username", "shop"), ("password", "hunter2-canary"), ("mechanism", "PLAIN")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let by = |brokers: &str, plaintext| {
            let mut options = KafkaOptions::new(brokers, "shop.");
            options.security = KafkaSecurity::from_folder(folder.path()).unwrap();
            options.by(&Passage::new("main", plaintext))
        };
        let told = by("localhost:9092,PLAINTEXT://kafka:9092", Plaintext::Refused).unwrap_err();
        assert!(told.contains("backend main") && !told.contains("canary"), "{told}");
        by("localhost:9092,127.0.0.1:9093,[::1]:9094", Plaintext::Refused).unwrap();
        assert!(by("kafka:9092", Plaintext::ProofOnly).is_err(), "PLAIN is the password itself");
        assert!(by("kafka:9092", Plaintext::Allowed).is_ok() && by("kafka:9092", Plaintext::Warned).is_ok());
        std::fs::write(folder.path().join("ca.crt"), "").unwrap();
        by("kafka:9092", Plaintext::Refused).unwrap();
    }

    #[test]
    fn the_systems_authorities_win_over_the_secrets() {
        let mut options = KafkaOptions::new("kafka:9092", "shop.");
        options.security.ca = Some("ca.crt".into());
        options.security.system = Some(b"PEM".to_vec());
        let config = client(&options);
        assert_eq!(config.get("security.protocol"), Some("ssl"));
        assert_eq!((config.get("ssl.ca.pem"), config.get("ssl.ca.location")), (Some("PEM"), None));
    }

    #[test]
    fn a_secret_says_how_to_connect() {
        let folder = Folder::new();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let read = || KafkaSecurity::from_folder(folder.path());
        assert_eq!(read().unwrap().protocol(), "plaintext");
        write("username", "shop\n");
        assert!(read().is_err(), "a name without a password");
        write("password", "hunter2-canary\n");
        assert_eq!(read().unwrap().protocol(), "sasl_plaintext");
        write("ca.crt", "");
        let security = read().unwrap();
        assert_eq!(security.protocol(), "sasl_ssl");
        assert!(!format!("{security:?}").contains("canary"));

        let mut options = KafkaOptions::new("a:1,b:2", "shop.");
        options.security = security;
        let config = client(&options);
        assert_eq!(config.get("sasl.password"), Some("hunter2-canary"));
        assert_eq!(config.get("sasl.mechanisms"), Some("SCRAM-SHA-512"));
        assert_eq!(config.get("security.protocol"), Some("sasl_ssl"));
        assert!(!format!("{options:?}").contains("canary"));
    }
}
