//! The declared backends of a service, and what pools and tiers find among them.

use super::{Named, Report, missing};
use crate::{
    service::{ServiceSpec, backends::Backend},
    settings::{BackendKind, BackendSettings, Plaintext, names::BY_OWNER},
};

/// A kind of backend, as pools and tiers ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Mysql,
    Mongodb,
    Redis,
}

/// The backends of one service that are well declared.
pub(super) struct Backends {
    service: String,
    all: Vec<BackendSettings>,
}

impl Backends {
    /// The backends that are well declared; the others are reported.
    pub(super) fn of(service: &Named<ServiceSpec>, report: &mut Report<'_>) -> Self {
        let backends = &service.spec.backends;
        report.unique("spec.backends", "name", backends.iter().map(|backend| backend.name.as_str()));
        let mut all: Vec<BackendSettings> = Vec::with_capacity(backends.len());
        for (index, backend) in backends.iter().enumerate() {
            match settings(backend) {
                Some(one) => all.push(one),
                None => report.add(
                    format!("spec.backends[{index}]"),
                    "name exactly one of mysql, mongodb, redis and kafka",
                ),
            }
        }
        let kafkas = backends.iter().enumerate().filter(|(_, backend)| backend.kafka.is_some());
        for (index, _) in kafkas.skip(1) {
            report.add(format!("spec.backends[{index}].kafka"), "a service has at most one kafka backend");
        }
        Self { service: service.name.clone(), all }
    }

    pub(super) fn into_settings(self) -> Vec<BackendSettings> {
        self.all
    }

    /// The declared backend of that name and kind, or what is wrong.
    pub(super) fn find(&self, name: &str, wanted: Wanted) -> Result<&str, String> {
        match self.all.iter().find(|backend| backend.name == name) {
            Some(backend) if Wanted::of(&backend.kind) == Some(wanted) => Ok(&backend.name),
            Some(backend) => Err(format!(
                "backend \"{name}\" of FlyweightService \"{}\" is {}, not {}",
                self.service,
                label(&backend.kind),
                wanted.label()
            )),
            None => {
                let kind = format!(
                    "{} backend in FlyweightService \"{}\" of the name",
                    wanted.label(),
                    self.service
                );
                Err(missing(&kind, name, self.of_kind(wanted)))
            }
        }
    }

    /// The first declared backend of that kind, or what is wrong.
    pub(super) fn first(&self, wanted: Wanted) -> Result<&str, String> {
        self.of_kind(wanted).next().ok_or_else(|| {
            format!(
                "FlyweightService \"{}\" declares no {} backend, which this pool needs: declare one, or name another store in \
                 spec.source",
                self.service,
                wanted.label()
            )
        })
    }

    fn of_kind(&self, wanted: Wanted) -> impl Iterator<Item = &str> {
        self.all
            .iter()
            .filter(move |b| Wanted::of(&b.kind) == Some(wanted))
            .map(|backend| backend.name.as_str())
    }
}

impl Wanted {
    fn of(kind: &BackendKind) -> Option<Self> {
        match kind {
            BackendKind::Mysql { .. } => Some(Self::Mysql),
            BackendKind::Mongodb { .. } => Some(Self::Mongodb),
            BackendKind::Redis {} => Some(Self::Redis),
            BackendKind::Kafka { .. } => None,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Mysql => "mysql",
            Self::Mongodb => "mongodb",
            Self::Redis => "redis",
        }
    }
}

fn label(kind: &BackendKind) -> &'static str {
    Wanted::of(kind).map_or("kafka", Wanted::label)
}

fn settings(backend: &Backend) -> Option<BackendSettings> {
    let Backend { name, mysql, mongodb, redis, kafka } = backend;
    let (secret, tls, kind) = match (mysql, mongodb, redis, kafka) {
        (Some(mysql), None, None, None) => {
            (&mysql.secret_ref, mysql.tls, BackendKind::Mysql { max_connections: mysql.max_connections })
        }
        (None, Some(mongodb), None, None) => {
            (&mongodb.secret_ref, mongodb.tls, BackendKind::Mongodb { database: mongodb.database.clone() })
        }
        (None, None, Some(redis), None) => (&redis.secret_ref, redis.tls, BackendKind::Redis {}),
        (None, None, None, Some(kafka)) => {
            let topic_prefix = kafka.topic_prefix.clone().unwrap_or_else(|| BY_OWNER.to_owned());
            (&kafka.secret_ref, kafka.tls, BackendKind::Kafka { topic_prefix })
        }
        _ => return None,
    };
    let plaintext = match backend.allow_plaintext() {
        Some(true) => Plaintext::Allowed,
        Some(false) => Plaintext::Refused,
        None => Plaintext::ProofOnly,
    };
    let (name, secret) = (name.clone(), secret.name.clone());
    Some(BackendSettings { name, secret, tls, plaintext, kind })
}
