//! Attacks on a gateway and its pods as real processes: what broken, greedy and hostile clients do costs
//! nobody else anything. Each test prints its numbers.

mod alive;
mod frozen;
mod memory;
mod never_back;
mod probing;
mod uploads;

use std::{path::Path, time::Duration};

use harness::{client::Api, dataplane::DataPlane, manifests, wait};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use tempfile::TempDir;

/// What signs the tokens of these tests.
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
/// The most memory of a process, as a pod has it: in the environment, and in bytes.
const MEMORY: (&str, u64) = ("512Mi", 512 << 20);
/// Asks for tokens.
const TOKENS: &str = "  security: { jwt: { secretRef: { name: shop-jwt } } }\n";
/// What `/livez` may take, whatever goes on.
const LIVEZ_P99_MAX: Duration = Duration::from_millis(100);

/// A gateway before pods, each of which has records of its own.
struct Shop {
    pods: Vec<DataPlane>,
    gateway: DataPlane,
    _dir: TempDir,
}

impl Shop {
    /// The sample shop, which asks for tokens where there are lines for that in the service's spec.
    async fn open(pods: usize, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [shop, security] = ["shop", "security"].map(|name| dir.path().join(name));
        write(&shop, &security, more);
        let [shop, security] = [shop, security].map(|path| path.display().to_string());
        let bounds = [("MAX_MEMORY_USAGE", MEMORY.0)];
        let pod = |number: usize| {
            let data = dir.path().join(format!("data-{number}")).display().to_string();
            let args = ["serve", "--manifests", &shop, "--data-dir", &data, "--security", &security];
            DataPlane::start_with(&args, &bounds)
        };
        let pods: Vec<DataPlane> = (0..pods).map(pod).collect();
        let upstreams: Vec<String> =
            pods.iter().map(|pod| format!("main={}", pod.url.trim_start_matches("http://"))).collect();
        let mut args = vec!["gateway", "--manifests", &shop];
        args.extend(upstreams.iter().flat_map(|upstream| ["--upstream", upstream]));
        let gateway = DataPlane::start_with(&args, &bounds);
        let opened = Self { pods, gateway, _dir: dir };
        healthy(&opened.gateway, opened.pods.len()).await;
        opened
    }
}

/// Writes the sample shop, whose pools say who writes where it asks for tokens.
fn write(shop: &Path, security: &Path, more: &str) {
    manifests::write_samples_with(shop, more);
    manifests::write_encryption_key(security);
    if more == TOKENS {
        let pools = std::fs::read_to_string(shop.join("pools.yaml")).unwrap();
        let access = |entity: &str| {
            let line = format!("  entity: {entity}\n");
            (line.clone(), format!("{line}  access: {{ read: [\"*\"], write: [clerk] }}\n"))
        };
        let pools =
            ["Product", "NotificationTemplate"].map(access).iter().fold(pools, |text, (line, with)| {
                assert!(text.contains(line), "{line}");
                text.replacen(line, with, 1)
            });
        std::fs::write(shop.join("pools.yaml"), pools).unwrap();
        std::fs::create_dir_all(security.join("jwt")).unwrap();
        std::fs::write(security.join("jwt/secret"), SECRET).unwrap();
    }
}

/// The header of a caller who may write.
fn authorization() -> String {
    // seconds after 1970, in the year 2100
    let claims = json!({ "sub": "clerk", "exp": 4_102_444_800_u64, "roles": ["clerk"] });
    format!(
        "Bearer {}",
        jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET)).unwrap()
    )
}

/// How many pods the gateway holds for healthy.
async fn healthy_pods(gateway: &Api) -> Option<usize> {
    let registry = gateway.get("/api/v1/gateway/registry").await.json();
    Some(registry["services"].as_array()?.iter().filter(|pod| pod["healthy"] == true).count())
}

async fn healthy(gateway: &DataPlane, pods: usize) {
    let api = Api::at(&gateway.url);
    wait::until(&format!("{pods} healthy pods"), Duration::from_secs(15), async || {
        (healthy_pods(&api).await? == pods).then_some(())
    })
    .await;
}

/// Where a process listens, without the scheme.
fn address(url: &str) -> &str {
    url.trim_start_matches("http://")
}
