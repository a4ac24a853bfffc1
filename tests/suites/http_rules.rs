//! HTTP rule by rule: each row of `tests/http/rules.md` is sent, as it stands there, to a pod and through a
//! gateway.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use harness::{
    client::Api,
    dataplane::DataPlane,
    manifests,
    raw::{Raw, RawAnswer},
    wait,
};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use reqwest::Method;
use serde_json::json;

use crate::stage::Stage;

const RULES: &str = include_str!("../http/rules.md");
/// The least number of rules.
const RULES_MIN: usize = 150;
const ORIGINS: &str = "  security: { cors: { allowOrigins: [\"https://app.example.com\"] } }\n";
const TOKENS: &str = "  security: { jwt: { secretRef: { name: shop-jwt } } }\n";
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const PROBE: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// A row of the table.
struct Rule {
    section: String,
    what: String,
    request: String,
    answer: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rule_holds_at_a_pod_and_through_a_gateway() {
    let rules = rules();
    assert!(rules.len() >= RULES_MIN, "{}", rules.len());
    let origins = |dir: &Path| manifests::write_samples_with(dir, ORIGINS);
    let (pod, behind) = (Stage::embedded_with(origins), Stage::embedded_with(origins));
    let upstream = format!("main={}", behind.data_plane.url.trim_start_matches("http://"));
    let samples = manifests::samples().display().to_string();
    let gateway = DataPlane::start(&["gateway", "--manifests", &samples, "--upstream", &upstream]);
    let through = Api::at(&gateway.url);
    wait::until("the gateway to find the pod", Duration::from_secs(15), async || {
        (through.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    let mut broken = Vec::new();
    for (door, url) in [("pod", &pod.data_plane.url), ("gateway", &gateway.url)] {
        records(&Api::at(url)).await;
        for rule in rules.iter().filter(|rule| !rule.of_tokens() && (door == "pod" || !rule.has("at pods"))) {
            broken.extend(rule.check(door, url).await.err());
        }
    }
    assert!(broken.is_empty(), "{} rules are broken:\n{}", broken.len(), broken.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rule_of_tokens_holds() {
    let dir = tempfile::tempdir().unwrap();
    let [shop, data, security] = ["shop", "data", "security"].map(|name| dir.path().join(name));
    manifests::write_samples_with(&shop, TOKENS);
    let pools = std::fs::read_to_string(shop.join("pools.yaml")).unwrap();
    let access = "  entity: Product\n  access: { read: [\"*\"], write: [clerk] }\n";
    std::fs::write(shop.join("pools.yaml"), pools.replacen("  entity: Product\n", access, 1)).unwrap();
    std::fs::create_dir_all(security.join("jwt")).unwrap();
    std::fs::write(security.join("jwt/secret"), SECRET).unwrap();
    manifests::write_encryption_key(&security);
    let [shop, data, security] = [shop, data, security].map(|path| path.display().to_string());
    let pod =
        DataPlane::start(&["serve", "--manifests", &shop, "--data-dir", &data, "--security", &security]);
    let mut broken = Vec::new();
    for rule in rules().iter().filter(|rule| rule.of_tokens()) {
        broken.extend(rule.check("pod with tokens", &pod.url).await.err());
    }
    assert!(broken.is_empty(), "{} rules are broken:\n{}", broken.len(), broken.join("\n"));
}

/// The rows of the table; what is left out has its reason.
fn rules() -> Vec<Rule> {
    let (rules, left_out) = RULES.split_once("\n## Left out\n").unwrap();
    let rows = |text: &'static str| {
        let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
        rows.filter(|row| !row.starts_with("section |")).map(|row| row.split(" | ").collect::<Vec<_>>())
    };
    for row in rows(left_out) {
        assert!(matches!(row.as_slice(), [_, _, why] if why.len() > 10), "{row:?}");
    }
    let rule = |row: Vec<&str>| {
        let [section, what, request, answer] = row.as_slice() else { panic!("not a rule: {row:?}") };
        let request = request.trim_matches('`').to_owned();
        let answer = answer.split("; ").map(str::to_owned).collect();
        Rule { section: (*section).to_owned(), what: (*what).to_owned(), request, answer }
    };
    rows(rules).map(rule).collect()
}

/// What the rows speak of.
async fn records(api: &Api) {
    let big = "b".repeat(20_000);
    for product in [
        json!({ "id": "lamp1", "name": "Lamp", "price": 1 }),
        json!({ "id": "big1", "name": "Big", "price": 1, "description": big }),
    ] {
        assert_eq!(api.post("/api/v1/products", &product).await.status, 201);
    }
    for key in 1..10 {
        let path = format!("/api/v1/configurations/c{key}");
        assert_eq!(api.send(Method::PUT, &path, &[], &json!({ "value": 1 })).await.status, 201);
    }
}

impl Rule {
    fn has(&self, word: &str) -> bool {
        self.answer.iter().any(|part| part == word)
    }

    fn of_tokens(&self) -> bool {
        self.has("with tokens") || self.request.contains("{t ")
    }

    /// Sends the request, and compares.
    async fn check(&self, door: &str, url: &str) -> Result<(), String> {
        let Self { section, what, request, .. } = self;
        self.judge(url).await.map_err(|why| format!("{door}: {section}: {what}: {why}: {request}"))
    }

    async fn judge(&self, url: &str) -> Result<(), String> {
        let mut raw = Raw::open(url).await;
        let to_head = self.request.starts_with("HEAD");
        let mut answers = Vec::new();
        let mut parts = self.request.split("{100}");
        raw.send(&expanded(parts.next().unwrap_or_default())).await;
        for part in parts {
            answers.push(raw.answer(to_head).await.ok_or("no interim answer")?);
            raw.send(&expanded(part)).await;
        }
        let wanted = self.answer.iter().find_map(|part| part.strip_suffix(" answers")?.parse().ok());
        while answers.len() < wanted.unwrap_or(1) {
            answers.push(raw.answer(to_head).await.ok_or("no answer")?);
        }
        // of several requests the first is looked at, of several answers to one the last
        let looked_at = if self.request.contains("{100}") { answers.last() } else { answers.first() };
        let answer = looked_at.ok_or("no answer")?;
        for part in &self.answer {
            self.compare(part, answer).map_err(|why| format!("{part}: {why}, {:?}", answer.fields))?;
        }
        if self.has("closes") && !raw.ends().await {
            return Err("the connection stays".to_owned());
        }
        if self.has("stays") {
            raw.send(PROBE).await;
            let next = raw.answer(false).await.map(|answer| answer.status);
            return if next == Some(200) {
                Ok(())
            } else {
                Err(format!("what follows is answered by {next:?}"))
            };
        }
        Ok(())
    }

    /// Compares one part of what the answer must be.
    fn compare(&self, part: &str, answer: &RawAnswer) -> Result<(), String> {
        let body = String::from_utf8_lossy(&answer.body);
        if part.as_bytes()[0].is_ascii_digit() && !part.ends_with(" answers") {
            let sound = part.split(", ").any(|status| status.parse() == Ok(answer.status));
            return if sound { Ok(()) } else { Err(format!("{} {body:.200}", answer.status)) };
        }
        let sound = match part.split_once(':') {
            _ if ["closes", "stays", "at pods", "with tokens"].contains(&part)
                || part.ends_with(" answers") =>
            {
                true
            }
            _ if part == "empty" => answer.body.is_empty(),
            _ if part.starts_with('+') => body.contains(&part[1..]),
            _ if part.starts_with('!') => answer.field(&part[1..]).is_none(),
            Some((name, value)) => answer.field(name).is_some_and(|field| field.contains(value.trim())),
            None => return Err("is no part of an answer".to_owned()),
        };
        if sound { Ok(()) } else { Err(format!("not so: {} {body:.200}", answer.status)) }
    }
}

/// A request's bytes.
fn expanded(text: &str) -> Vec<u8> {
    let text =
        filled(text).replace("\\n", "\r\n").replace("\\l", "\n").replace("\\r", "\r").replace("\\0", "\0");
    text.into_bytes()
}

/// A request with what stands for more filled in.
fn filled(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let inner = &after[..end_of(after)];
        let (word, argument) = inner.split_once(' ').unwrap_or((inner, ""));
        let filled = match (word, argument) {
            ("h", "") => Some("Host: localhost\\n".to_owned()),
            ("j", "") => Some("Content-Type: application/json\\n".to_owned()),
            ("w", "") => Some("Connection: Upgrade\\nUpgrade: websocket\\n".to_owned()),
            ("x", count) => Some("x".repeat(count.parse().unwrap())),
            ("f", count) => {
                Some((0..count.parse().unwrap()).map(|field: u32| format!("X{field}: 1\\n")).collect())
            }
            ("b", body) => {
                let body = filled(body);
                Some(format!("Content-Length: {}\\n\\n{body}", body.len()))
            }
            ("t", parts) => Some(token(parts)),
            (word, "") => {
                word.strip_prefix('+').map(|seconds| (now() + seconds.parse::<i64>().unwrap()).to_string())
            }
            _ => None,
        };
        match filled {
            Some(filled) => {
                out.push_str(&filled);
                rest = &after[inner.len() + 1..];
            }
            None => {
                out.push('{');
                rest = after;
            }
        }
    }
    out + rest
}

/// Where the brace that was opened before is closed.
fn end_of(text: &str) -> usize {
    let mut depth = 1;
    let closes = |(at, byte): (usize, u8)| {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => (),
        }
        (depth == 0).then_some(at)
    };
    text.bytes().enumerate().find_map(closes).unwrap_or(text.len())
}

/// A token with a header and claims as they stand, signed by the key that the pod knows.
fn token(parts: &str) -> String {
    let (header, claims) = parts.split_once(' ').unwrap();
    let said = [header, &filled(claims)].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let algorithm = if header.contains("HS384") { Algorithm::HS384 } else { Algorithm::HS256 };
    let signature = match header.contains("none") {
        true => String::new(),
        false => crypto::sign(said.as_bytes(), &EncodingKey::from_secret(SECRET), algorithm).unwrap(),
    };
    format!("{said}.{signature}")
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}
