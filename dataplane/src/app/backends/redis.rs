//! Shared caches in Redis.

use std::{fs, sync::Arc, time::Duration};

use engine::clock::Clock;
use shared_tier::{RedisCache, RedisConfig};

use super::files::Files;
use crate::app::rotation::{Folder, Mounted};

/// How long a call of Redis may take before it counts as a miss.
const REDIS_DEADLINE: Duration = Duration::from_millis(50);

/// A Redis that follows its Secret.
///
/// # Errors
/// An address or file that cannot be read.
pub fn redis(files: Files, folder: Folder, clock: &Clock) -> anyhow::Result<(Arc<RedisCache>, Mounted)> {
    let cache = Arc::new(
        RedisCache::new(config(&files).map_err(anyhow::Error::msg)?, clock.clone())
            .map_err(anyhow::Error::msg)?,
    );
    let (files, rotating) = (Arc::new(files), cache.clone());
    let mounted = folder.taken_by(move || {
        let (files, cache) = (files.clone(), rotating.clone());
        async move { cache.rotate(config(&files)?).await }
    });
    Ok((cache, mounted))
}

fn config(files: &Files) -> Result<RedisConfig, String> {
    let read = |name: &str| {
        files.path(name).map(|path| fs::read(&path).map_err(|error| format!("{name}: {error}"))).transpose()
    };
    let client_pem = match (read("tls.crt")?, read("tls.key")?) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        _ => None,
    };
    let url = files.url().map_err(|error| format!("{error:#}"))?;
    let passage = files.passage.clone();
    Ok(RedisConfig { url, ca_pem: read("ca.crt")?, client_pem, deadline: REDIS_DEADLINE, passage })
}
