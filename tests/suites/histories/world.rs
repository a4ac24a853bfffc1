//! Two replicas behind the gateway, the servers below them, and what happens to them. Each fault shows that
//! it happened.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use harness::{
    bank::{Bank, Mood},
    client::Api,
    clock,
    dataplane::DataPlane,
    manifests, scale, skipped, wait,
    way::Way,
};
use rand::{Rng, rngs::StdRng, seq::SliceRandom};
use serde_json::json;

use crate::stage::{Servers, Stage};

/// How long something is frozen or away, in milliseconds: by default, and in a soak, where it is longer than
/// any session.
const AWAY_MS: (u64, u64) = (1_200, 14_000);
/// How far clocks are apart, in milliseconds.
const SKEWS_MS: [i64; 6] = [100, -100, 60_000, -3_600_000, 8 * 86_400_000, -8 * 86_400_000];
/// Commits that are cut at a time.
const CUTS: usize = 12;
/// How long a replica may take to be in use again.
const BACK: Duration = Duration::from_secs(30);

/// What happens.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// A replica is killed, and started again.
    KilledPod,
    /// A replica stands still.
    FrozenPod,
    /// A replica is told to stop, and started again.
    RestartedPod,
    /// A replica runs by another clock from now on: one that is a little off, or by much.
    Skewed {
        /// Whether by much.
        is_far: bool,
    },
    /// Redis loses everything.
    FlushedRedis,
    /// Redis is killed, and started again with nothing.
    KilledRedis,
    /// A server stands still.
    FrozenRedis,
    /// A server stands still.
    FrozenMysql,
    /// A server stands still.
    FrozenMongo,
    /// A server stands still.
    FrozenKafka,
    /// MySQL is killed, and started again.
    KilledMysql,
    /// Kafka is killed, and started again.
    KilledKafka,
    /// Connections are cut at COMMIT.
    CutCommits,
}

/// All faults of one round, in a random order. What takes longest is for a soak.
pub fn shuffled(choices: &mut StdRng) -> Vec<Fault> {
    use Fault::*;
    let mut faults = vec![
        KilledPod,
        FrozenPod,
        RestartedPod,
        Skewed { is_far: false },
        Skewed { is_far: true },
        FlushedRedis,
        KilledRedis,
        FrozenMysql,
        FrozenMongo,
        FrozenKafka,
        KilledMysql,
        CutCommits,
    ];
    if scale::is_soak() {
        faults.extend([FrozenRedis, KilledKafka, FlushedRedis, CutCommits]);
    }
    faults.shuffle(choices);
    faults
}

/// A shop of two replicas behind the gateway.
pub struct World {
    /// The servers; its data plane is one of the replicas.
    pub stage: Stage,
    second: DataPlane,
    gateway: DataPlane,
    /// The replicas' way to MySQL.
    pub way: Way,
    /// Who charges.
    pub bank: Bank,
    skewed: u64,
}

impl World {
    /// None where something is not installed.
    pub async fn open(test: &str) -> Option<Self> {
        if let Err(why) = clock::available() {
            skipped(test, &why);
            return None;
        }
        let bank = Bank::open().await;
        bank.set(Mood { fail_percent: 5, ..Mood::default() });
        let pipeline = format!(
            "  pipeline:\n    retry: {{ maxAttempts: 8, initialDelay: 20ms, maxDelay: 500ms }}\n    breaker: {{ threshold: 20, timeout: 500ms }}\n    \
             payments: {{ timeout: 500ms, http: {{ url: \"{0}\" }} }}\n    notifications: {{ webhookUrl: \"{0}/messages\" }}\n",
            bank.url
        );
        let mut stage = Stage::real_with(test, |dir| manifests::write_samples_with(dir, &pipeline)).await?;
        let way = Way::to(&servers(&stage).mysql.url()).await;
        tokio::task::block_in_place(|| {
            stage.data_plane.terminate();
            stage.rotate("mysql", &way.url);
            stage.data_plane.restart();
        });
        let second = stage.replica();
        let upstream = |pod: &DataPlane| format!("main={}", pod.url.trim_start_matches("http://"));
        let samples = manifests::samples().display().to_string();
        let (one, two) = (upstream(&stage.data_plane), upstream(&second));
        let gateway =
            DataPlane::start(&["gateway", "--manifests", &samples, "--upstream", &one, "--upstream", &two]);
        let world = Self { stage, second, gateway, way, bank, skewed: 0 };
        world.is_well().await;
        Some(world)
    }

    /// Where clients connect.
    pub fn url(&self) -> &str {
        &self.gateway.url
    }

    /// The service as clients see it.
    pub fn api(&self) -> Api {
        Api::at(&self.gateway.url)
    }

    /// One of the two replicas.
    pub fn pod(&self, index: usize) -> Api {
        Api::at(&if index == 0 { &self.stage.data_plane } else { &self.second }.url)
    }

    /// The servers.
    pub fn servers(&self) -> &Servers {
        servers(&self.stage)
    }

    /// Waits until both replicas serve.
    pub async fn is_well(&self) {
        wait::until("two healthy replicas", BACK, async || {
            let registry = self.api().get("/api/v1/gateway/registry").await.json();
            let pods = registry["services"].as_array()?;
            (pods.iter().filter(|pod| pod["healthy"] == true).count() == 2).then_some(())
        })
        .await;
    }

    fn replica(&mut self, index: usize) -> &mut DataPlane {
        if index == 0 { &mut self.stage.data_plane } else { &mut self.second }
    }

    /// Lets something happen, and waits until it is over.
    pub async fn suffer(&mut self, fault: Fault, choices: &mut StdRng) {
        let index = choices.random_range(0..2);
        let most = scale::of(AWAY_MS.0 as usize, AWAY_MS.1 as usize) as u64;
        let away = Duration::from_millis(choices.random_range(most / 2..most));
        match fault {
            Fault::KilledPod => tokio::task::block_in_place(|| {
                self.replica(index).kill();
                self.replica(index).restart();
            }),
            Fault::FrozenPod => {
                self.replica(index).freeze();
                tokio::time::sleep(away).await;
                assert!(self.replica(index).is_frozen());
                self.replica(index).thaw();
            }
            Fault::RestartedPod => tokio::task::block_in_place(|| {
                let status = self.replica(index).terminate();
                assert!(status.success(), "{status}");
                self.replica(index).restart();
            }),
            Fault::Skewed { is_far } => {
                let few = if is_far { &SKEWS_MS[2..] } else { &SKEWS_MS[..2] };
                self.skew(index, few[choices.random_range(0..few.len())]).await;
            }
            Fault::FlushedRedis => self.flush_redis().await,
            Fault::KilledRedis | Fault::KilledMysql | Fault::KilledKafka => {
                tokio::task::block_in_place(|| {
                    let servers = self.stage.servers.as_mut().unwrap();
                    let server = match fault {
                        Fault::KilledRedis => &mut servers.redis,
                        Fault::KilledKafka => &mut servers.kafka,
                        _ => &mut servers.mysql,
                    };
                    server.kill();
                    std::thread::sleep(away / 2);
                    server.restart();
                })
            }
            Fault::FrozenRedis | Fault::FrozenMysql | Fault::FrozenMongo | Fault::FrozenKafka => {
                let server = match fault {
                    Fault::FrozenRedis => &self.servers().redis,
                    Fault::FrozenMysql => &self.servers().mysql,
                    Fault::FrozenMongo => &self.servers().mongo,
                    _ => &self.servers().kafka,
                };
                server.freeze();
                tokio::time::sleep(away).await;
                assert!(server.is_frozen());
                server.thaw();
            }
            Fault::CutCommits => {
                let before = self.way.cuts();
                self.way.cut(CUTS);
                wait::until("commits to be cut", BACK, async || {
                    (self.way.cuts() >= before + CUTS).then_some(())
                })
                .await;
            }
        }
        self.is_well().await;
    }

    /// Starts a replica by another clock, and sees that it stamps by it.
    async fn skew(&mut self, index: usize, ms: i64) {
        eprintln!("         replica {index} is {ms} ms ahead");
        let environment = clock::ahead(ms);
        let environment: Vec<(&str, &str)> =
            environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        tokio::task::block_in_place(|| {
            self.replica(index).terminate();
            self.replica(index).restart_with(&environment);
        });
        let pod = self.pod(index);
        wait::until("a time by the other clock", BACK, async || {
            self.skewed += 1;
            let before = now_ms();
            let email = format!("clock-{}@example.com", self.skewed);
            let made = pod.post("/api/v1/users", &json!({ "email": email, "name": "C" })).await;
            let stamped = stamp_ms(made.json()["created_at"].as_str()?);
            let (least, most) = (before + ms, now_ms() + ms);
            let is_told_apart = if ms > 0 { stamped > now_ms() } else { stamped < before };
            (is_told_apart && (least..=most).contains(&stamped)).then_some(())
        })
        .await;
    }

    async fn flush_redis(&self) {
        let address = self.servers().redis.url().trim_start_matches("redis://").to_owned();
        let address = address.split('/').next().unwrap().to_owned();
        wait::until("something in Redis", BACK, async || (redis(&address, "DBSIZE") != ":0").then_some(()))
            .await;
        assert_eq!(redis(&address, "FLUSHALL"), "+OK");
    }
}

fn servers(stage: &Stage) -> &Servers {
    stage.servers.as_ref().unwrap()
}

/// The first line of what Redis answers.
fn redis(address: &str, command: &str) -> String {
    tokio::task::block_in_place(|| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "{command}\r\n").unwrap();
        let mut answer = [0; 64];
        let len = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..len]).lines().next().unwrap_or_default().to_owned()
    })
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn stamp_ms(stamp: &str) -> i64 {
    let stamp: model::value::Timestamp = stamp.parse().unwrap();
    stamp.0
}
