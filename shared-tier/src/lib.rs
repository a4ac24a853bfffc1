//! The shared cache in Redis: one server or a cluster, found out by itself. Values are guarded by version in
//! a script.
//!
//! Each key holds `<version>:<loaded at>:@<run>:<value>`; without a value it only keeps older versions out.
//! Every call has one short deadline, connecting included, and goes through a breaker, so a Redis that is
//! down, silent or loading costs a miss.
//!
//! Times in it are by the clock of Redis, which is one for all replicas: this is where they are changed from
//! and to the clock of the process. `run` names the run of Redis that took the entry. What another run took
//! may have been gone back to (a restored file, a failover): its time says nothing.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use model::passage::Plaintext;
use redis::{ErrorKind, RedisError, RedisResult, Script, ServerErrorKind, cmd};

use self::link::{Connection, Epoch, Link};
use engine::{
    clock::Clock,
    shared::{Held, Order, SharedCache, SharedError, SharedStatus},
};
use model::{breaker::Breaker, durability::Setting, key::Version, passage::Passage};

mod link;
pub mod owned;
pub mod rate;
#[cfg(test)]
mod tests;

/// Where a Redis is and how it is spoken to.
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://user:password@host:port/db`, `rediss://` for TLS; several, parted by commas, are nodes of one
    /// cluster.
    pub url: String,
    /// The certificates that its own must be signed by, as PEM; none: the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// The client's certificate and key, as PEM, where the server asks for them.
    pub client_pem: Option<(Vec<u8>, Vec<u8>)>,
    /// How long a call may take before it counts as a miss.
    pub deadline: Duration,
    /// Whose certificates are trusted, and whether the password may be readable on the way.
    pub passage: Passage,
}

/// A Redis, shared by all pools that name it.
pub struct RedisCache {
    link: ArcSwap<Link>,
    breaker: Breaker,
    deadline: Duration,
    guard: Script,
}

/// The failures in a row that open the breaker: five at the default deadline are a quarter of a second.
const BREAKER_THRESHOLD: u32 = 5;
/// How long a failing Redis is left alone.
const BREAKER_OPEN: Duration = Duration::from_millis(500);

/// Takes a value, or only a version, unless a newer one is there. Versions are compared as numbers, exact up
/// to 2^53.
const GUARD: &str = r"
local version, loaded, run = string.match(redis.call('GETRANGE', KEYS[1], 0, 79), '^(%d+):(%d+):@?(%x*)')
if version then
  local new = tonumber(ARGV[1])
  version = tonumber(version)
  if version > new then return 0 end
  if version == new then
    if ARGV[4] == '' then return 0 end
    if run == ARGV[5] and tonumber(loaded) > tonumber(ARGV[2]) then return 0 end
  end
end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2] .. ':@' .. ARGV[5] .. ':' .. ARGV[4], 'PX', ARGV[3])
return 1
";

/// Gives what is kept and takes it out. Not GETDEL: servers before 6.2 have none.
const TAKE: &str =
    "local held = redis.call('GET', KEYS[1]) if held then redis.call('DEL', KEYS[1]) end return held";

/// What the key of a lease ends in: no record's key can.
const LEASE: &str = "\0lease";
const RELEASE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// Writes a mark unless somebody wrote another since it was read.
const LEAVE: &str = r"
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
";

impl RedisConfig {
    /// The address alone, with a deadline of 50 ms.
    pub fn new(url: impl Into<String>) -> Self {
        let (deadline, passage) = (Duration::from_millis(50), Passage::new("redis", Plaintext::Refused));
        Self { url: url.into(), ca_pem: None, client_pem: None, deadline, passage }
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl RedisCache {
    /// A cache in the Redis of this address. It is connected at the first call, and again whenever it was
    /// lost.
    ///
    /// # Errors
    /// The address or a certificate cannot be read; the message tells no secret.
    pub fn new(config: RedisConfig, clock: Clock) -> Result<Self, String> {
        Ok(Self {
            deadline: config.deadline,
            link: ArcSwap::new(Link::new(config, clock)?),
            breaker: Breaker::new(BREAKER_THRESHOLD, BREAKER_OPEN),
            guard: Script::new(GUARD),
        })
    }

    /// Goes over to another address, account or certificate, once it answers there; calls that are under way
    /// end where they began.
    ///
    /// # Errors
    /// It cannot be reached, or refuses the account: the present one stays. The message tells no secret.
    pub async fn rotate(&self, config: RedisConfig) -> Result<(), String> {
        let next = self.link.load().successor(config)?;
        let failed = |error: RedisError| failed(&error).to_string();
        let (mut connection, _) = next.get().await.map_err(failed)?;
        connection.query::<()>(&cmd("PING")).await.map_err(failed)?;
        self.link.store(next);
        Ok(())
    }

    /// What is written under the key of a mark.
    ///
    /// # Errors
    /// As for any call.
    pub async fn mark(&self, key: &str) -> Result<Option<String>, SharedError> {
        let mut get = cmd("GET");
        get.arg(key);
        self.call(|mut connection, _| async move { connection.query(&get).await }).await
    }

    /// Writes a mark where `found` is there still; says whether it was.
    ///
    /// # Errors
    /// As for any call.
    pub async fn leave_mark(
        &self,
        key: &str,
        found: Option<&str>,
        mark: &str,
        keep_ms: u64,
    ) -> Result<bool, SharedError> {
        let mut eval = cmd("EVAL");
        eval.arg(LEAVE).arg(1).arg(key).arg(found.unwrap_or_default()).arg(mark).arg(keep_ms);
        self.call(|mut connection, _| async move { connection.query(&eval).await }).await
    }

    /// One call through the breaker, within the deadline.
    async fn call<T, F>(&self, op: impl FnOnce(Connection, Arc<Link>) -> F) -> Result<T, SharedError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let permit = self.breaker.try_acquire().ok_or(SharedError::BreakerOpen)?;
        let (link, mut used) = (self.link.load_full(), None);
        let outcome = tokio::time::timeout(self.deadline, async {
            let (connection, generation) = link.get().await?;
            used = Some(generation);
            op(connection, link.clone()).await
        })
        .await;
        match outcome {
            Ok(Ok(answer)) => {
                permit.success();
                Ok(answer)
            }
            Ok(Err(error)) if is_answer(&error) => {
                permit.success();
                Err(failed(&error))
            }
            Ok(Err(error)) => {
                permit.failure();
                link.give_up(used);
                Err(failed(&error))
            }
            Err(_) => {
                // a connection that stays silent is not mended by waiting: the other end may be gone without
                // a word
                if permit.failure() {
                    link.give_up(used);
                }
                Err(SharedError::TimedOut)
            }
        }
    }

    async fn tell_one(&self, mut connection: Connection, order: &Order, epoch: &Epoch) -> RedisResult<()> {
        let command = |name: &str, script: &str| {
            let mut command = cmd(name);
            command.arg(script).arg(1).arg(&order.key);
            command.arg(order.version.0).arg(epoch.to_server(order.loaded_at_ms)).arg(order.keep_ms.max(1));
            command.arg(order.value.as_deref().unwrap_or_default()).arg(&*epoch.run);
            command
        };
        match connection.query(&command("EVALSHA", self.guard.get_hash())).await {
            // forgotten by a restart or SCRIPT FLUSH, or a node that never had it: EVAL brings it along
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                connection.query(&command("EVAL", GUARD)).await
            }
            answer => answer,
        }
    }
}

#[async_trait]
impl SharedCache for RedisCache {
    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Held>>, SharedError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        // a cluster's connection splits it by slot
        let mut get = cmd("MGET");
        get.arg(keys);
        let read = self.call(|mut connection, link| async move {
            let values: Vec<Option<Bytes>> = connection.query(&get).await?;
            // as it is known after the answer: what came from a run before is not taken for one of now
            Ok((values, link.epoch()))
        });
        let (values, epoch) = read.await?;
        Ok(values.into_iter().map(|value| held(&value?, &epoch)).collect())
    }

    async fn tell(&self, orders: &[Order]) -> Vec<Result<(), SharedError>> {
        let told = self.call(|connection, link| async move {
            let epoch = link.epoch();
            // sent at once: the connection writes them back to back
            let answers =
                join_all(orders.iter().map(|order| self.tell_one(connection.clone(), order, &epoch))).await;
            match answers.iter().find_map(|answer| answer.as_ref().err().filter(|error| !is_answer(error))) {
                Some(error) => Err(error.clone()),
                None => Ok(answers),
            }
        });
        match told.await {
            Ok(answers) => answers.into_iter().map(|answer| answer.map_err(|error| failed(&error))).collect(),
            Err(error) => vec![Err(error); orders.len()],
        }
    }

    async fn take(&self, key: &str) -> Result<Option<Held>, SharedError> {
        let mut eval = cmd("EVAL");
        eval.arg(TAKE).arg(1).arg(key);
        let taken = self.call(|mut connection, link| async move {
            let value: Option<Bytes> = connection.query(&eval).await?;
            Ok(value.and_then(|value| held(&value, &link.epoch())))
        });
        taken.await
    }

    async fn lease(&self, keys: &[String], owner: &str, keep_ms: u64) -> Result<Vec<bool>, SharedError> {
        let take = |key: &String, mut connection: Connection| {
            let mut set = cmd("SET");
            set.arg(format!("{key}{LEASE}")).arg(owner).arg("NX").arg("PX").arg(keep_ms.max(1));
            async move { connection.query::<Option<String>>(&set).await }
        };
        self.call(|connection, _| try_join_all(keys.iter().map(move |key| take(key, connection.clone()))))
            .await
            .map(|taken| taken.iter().map(Option::is_some).collect())
    }

    async fn release(&self, keys: &[String], owner: &str) {
        let give = |key: &String, mut connection: Connection| {
            let mut eval = cmd("EVAL");
            eval.arg(RELEASE).arg(1).arg(format!("{key}{LEASE}")).arg(owner);
            async move { connection.query::<i64>(&eval).await }
        };
        // what fails here ends by itself
        _ = self
            .call(|connection, _| try_join_all(keys.iter().map(move |key| give(key, connection.clone()))))
            .await;
    }

    fn trusted_since_ms(&self) -> u64 {
        self.link.load().trusted_since_ms()
    }

    fn status(&self) -> SharedStatus {
        SharedStatus { breaker: self.breaker.state(), breaker_opened: self.breaker.opened() }
    }

    async fn settings(&self) -> Result<Vec<Setting>, SharedError> {
        let mut info = cmd("INFO");
        info.arg("persistence");
        let text =
            self.call(|mut connection, _| async move { connection.query::<String>(&info).await }).await?;
        let value = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let aof = value("aof_enabled").map(|on| if on == "1" { "yes" } else { "no" });
        // what is kept there can be loaded again: no write is lost with it
        Ok(aof.map(|aof| Setting::new("appendonly", aof, None)).into_iter().collect())
    }

    /// Counts for the breaker like any call.
    async fn ping(&self) -> Result<(), SharedError> {
        self.call(|mut connection, _| async move { connection.query::<()>(&cmd("PING")).await }).await
    }
}

/// Whether an error is the answer of a Redis that works, to one command.
fn is_answer(error: &RedisError) -> bool {
    use ServerErrorKind as S;
    match error.kind() {
        ErrorKind::Server(
            S::BusyLoading | S::ClusterDown | S::MasterDown | S::ReadOnly | S::TryAgain | S::Moved,
        ) => false,
        ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::UnexpectedReturnType => true,
        _ => false,
    }
}

fn failed(error: &RedisError) -> SharedError {
    // the kind and code only: an error's detail can repeat arguments
    SharedError::Failed(error.code().map_or_else(|| error.category().to_owned(), str::to_owned))
}

/// Reads `<version>:<loaded at>:@<run>:<value>`; nothing where the value is empty or it is none of ours. What
/// another run of the server took, or a version of this program that named none, was loaded before every time
/// that is asked for.
fn held(kept: &Bytes, epoch: &Epoch) -> Option<Held> {
    let mut parts = kept.splitn(3, |byte| *byte == b':');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<u64>().ok();
    let (version, loaded_at_ms) = (Version(number()?), number()?);
    let rest = parts.next()?;
    let (run, value) = match rest.strip_prefix(b"@") {
        Some(named) => named.split_at_checked(named.iter().position(|byte| *byte == b':')?)?,
        None => (&b""[..], rest),
    };
    let value = Some(value.strip_prefix(b":").unwrap_or(value)).filter(|value| !value.is_empty())?;
    let loaded_at_ms = if run == epoch.run.as_bytes() { epoch.to_process(loaded_at_ms) } else { 0 };
    Some(Held { version, loaded_at_ms, value: kept.slice_ref(value) })
}
