//! What each part was told about durability, and where an acknowledged write can be lost all the same.

use serde::Serialize;

/// A setting by which a part commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its name, as the part's own manual has it.
    pub name: String,
    /// Its value.
    pub value: String,
    /// What of an acknowledged write can be lost with it; none where nothing can.
    pub risk: Option<&'static str>,
}

/// How a Kafka topic is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topic {
    /// The fewest brokers that have each partition.
    pub replicas: usize,
    /// The brokers of the cluster.
    pub brokers: usize,
    /// How many replicas must have a record before it is acknowledged; none where the broker does not say.
    pub min_in_sync: Option<usize>,
    /// Whether a replica that lacks acknowledged records may lead; none where the broker does not say.
    pub unclean: Option<bool>,
}

impl Setting {
    /// A setting; `risk` where a write can be lost with it.
    pub fn new(name: impl Into<String>, value: impl Into<String>, risk: Option<&'static str>) -> Self {
        Self { name: name.into(), value: value.into(), risk }
    }

    /// The setting and its risk, for people; none where there is none.
    pub fn warning(&self) -> Option<String> {
        self.risk.map(|risk| format!("{} = {}: {risk}", self.name, self.value))
    }
}

/// An SQLite file by its pragmas.
pub fn sqlite(synchronous: i64, journal: &str) -> Vec<Setting> {
    const POWER: &str = "a loss of power can lose acknowledged writes";
    let level = match synchronous {
        0 => "OFF",
        1 => "NORMAL",
        2 => "FULL",
        _ => "EXTRA",
    };
    let kept = ["wal", "delete", "truncate", "persist"].contains(&journal);
    vec![
        Setting::new("synchronous", level, (synchronous < 2).then_some(POWER)),
        Setting::new("journal_mode", journal, (!kept).then_some(POWER)),
    ]
}

/// A MySQL or MariaDB server. Without a binary log `sync_binlog` says nothing.
pub fn mysql(flush: i64, log_bin: bool, sync_binlog: i64) -> Vec<Setting> {
    let flushes = match flush {
        0 => Some("a crash of the server can lose the acknowledged writes of a second"),
        // written, not synced
        2 => Some("a loss of power can lose the acknowledged writes of a second"),
        // 3 is MariaDB's: as safe as 1
        _ => None,
    };
    let mut settings = vec![Setting::new("innodb_flush_log_at_trx_commit", flush.to_string(), flushes)];
    settings.push(Setting::new("log_bin", if log_bin { "ON" } else { "OFF" }, None));
    if log_bin {
        let risk = "a loss of power can lose acknowledged writes of the binary log, and with it of replicas that take over";
        settings.push(Setting::new(
            "sync_binlog",
            sync_binlog.to_string(),
            (sync_binlog != 1).then_some(risk),
        ));
    }
    settings
}

/// MongoDB by what is asked of it with every write and read.
pub fn mongodb(majority: bool, journal: bool, reads_majority: bool, deployment: String) -> Vec<Setting> {
    let told =
        |holds: bool, value: &str| if holds { value.to_owned() } else { "the server's default".to_owned() };
    let lost = |holds: bool, risk| (!holds).then_some(risk);
    vec![
        Setting::new(
            "writeConcern.w",
            told(majority, "majority"),
            lost(majority, "another primary can take an acknowledged write back"),
        ),
        Setting::new(
            "writeConcern.j",
            told(journal, "true"),
            lost(journal, "a loss of power can lose acknowledged writes"),
        ),
        Setting::new(
            "readConcern",
            told(reads_majority, "majority"),
            lost(reads_majority, "what is read can be taken back by another primary"),
        ),
        Setting::new("deployment", deployment, None),
    ]
}

/// A topic of Kafka, and what the producer asks for.
pub fn kafka(name: &str, acks: &str, topic: &Topic) -> Vec<Setting> {
    let Topic { replicas, brokers, min_in_sync, unclean } = topic;
    let of = |setting: &str| format!("{setting} ({name})");
    let alone = "an acknowledged event is on one broker alone, and is lost with its disk";
    let told = |value: Option<String>| value.unwrap_or_else(|| "not told".to_owned());
    vec![
        Setting::new(
            "acks",
            acks,
            (acks != "all").then_some("an event is acknowledged before all brokers have it"),
        ),
        Setting::new(
            of("replication.factor"),
            replicas.to_string(),
            (*replicas < 2 && *brokers > 1).then_some(alone),
        ),
        Setting::new(
            of("min.insync.replicas"),
            told(min_in_sync.map(|min| min.to_string())),
            (*replicas > 1 && *min_in_sync == Some(1)).then_some(
                "while others lag, an acknowledged event is on one broker alone, and is lost with it",
            ),
        ),
        Setting::new(
            of("unclean.leader.election.enable"),
            told(unclean.map(|unclean| unclean.to_string())),
            (*replicas > 1 && *unclean == Some(true))
                .then_some("a broker that lacks acknowledged events may take over, and they are lost"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(settings: &[Setting]) -> Vec<&str> {
        settings
            .iter()
            .filter(|setting| setting.risk.is_some())
            .map(|setting| setting.name.as_str())
            .collect()
    }

    #[test]
    fn what_can_lose_an_acknowledged_write_is_warned_of() {
        assert!(warnings(&sqlite(2, "wal")).is_empty());
        assert_eq!(warnings(&sqlite(1, "memory")), ["synchronous", "journal_mode"]);
        assert!(warnings(&mysql(1, true, 1)).is_empty() && warnings(&mysql(3, true, 1)).is_empty());
        assert!(warnings(&mysql(1, false, 0)).is_empty(), "there is no binary log");
        assert_eq!(warnings(&mysql(2, true, 0)), ["innodb_flush_log_at_trx_commit", "sync_binlog"]);
        assert_eq!(warnings(&mysql(0, true, 100)), ["innodb_flush_log_at_trx_commit", "sync_binlog"]);
        let topic = |replicas, brokers, min| Topic {
            replicas,
            brokers,
            min_in_sync: Some(min),
            unclean: Some(false),
        };
        assert!(warnings(&kafka("t", "all", &topic(3, 3, 2))).is_empty());
        assert!(warnings(&kafka("t", "all", &topic(1, 1, 1))).is_empty(), "there is no other broker");
        assert_eq!(warnings(&kafka("t", "all", &topic(1, 3, 1))), ["replication.factor (t)"]);
        assert_eq!(warnings(&kafka("t", "1", &topic(3, 3, 1))), ["acks", "min.insync.replicas (t)"]);
        let unclean = Topic { unclean: Some(true), ..topic(3, 3, 2) };
        assert_eq!(warnings(&kafka("t", "all", &unclean)), ["unclean.leader.election.enable (t)"]);
        let setting = &mysql(2, false, 1)[0];
        assert_eq!(
            setting.warning().unwrap(),
            "innodb_flush_log_at_trx_commit = 2: a loss of power can lose the acknowledged writes of a second"
        );
    }
}
