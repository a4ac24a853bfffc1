//! How backends are reached: with the system's authorities, and never with a password that others can read,
//! unless somebody allows it.

use std::{fs, path::Path, time::Duration};

use harness::{
    client::Api,
    dataplane::DataPlane,
    manifests,
    server::{Kind, Server},
    skipped, wait,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tls::authority;

/// A shop of users; `{…}` stands for what is said of its backends.
const SHOP: &str = r"
apiVersion: flyweight.dev/v1alpha1
kind: CacheTier
metadata: { name: shared }
spec: { redis: { backendRef: { name: redis } }, ttl: 60s, write: WriteThrough }
---
apiVersion: flyweight.dev/v1alpha1
kind: FlyweightPool
metadata: { name: users }
spec: { entity: User, tierRefs: [ { name: shared } ] }
---
apiVersion: flyweight.dev/v1alpha1
kind: FlyweightService
metadata: { name: shop }
spec:
  image: flyweight/dataplane:0.1.0
  poolRefs: [ { name: users } ]
  replicaGroups: [ { name: main, replicas: 1 } ]
  backends:
    - { name: mysql, mysql: { secretRef: { name: a }{…} } }
    - { name: redis, redis: { secretRef: { name: b }{…} } }
    - { name: kafka, kafka: { secretRef: { name: c }{…} } }
";

/// Where a shop's files are.
struct Shop(TempDir);

impl Shop {
    fn new(of_mysql: &str, of_redis: &str, of_kafka: &str, urls: &[(&str, String)]) -> Self {
        let shop = Self(tempfile::tempdir().unwrap());
        let text = [of_mysql, of_redis, of_kafka]
            .iter()
            .fold(SHOP.to_owned(), |text, said| text.replacen("{…}", said, 1));
        fs::create_dir(shop.0.path().join("manifests")).unwrap();
        fs::write(shop.0.path().join("manifests/shop.yaml"), text).unwrap();
        manifests::write_backends(&shop.0.path().join("backends"), urls);
        shop
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn serve(&self, environment: &[(&str, &str)]) -> Result<DataPlane, String> {
        let args = ["serve", "--manifests", &self.path("manifests"), "--backends", &self.path("backends")];
        DataPlane::try_start(&args, environment)
    }

    /// By settings of the operator, as they were before anything could be said of passwords.
    fn serve_as_before(&self) -> Result<DataPlane, String> {
        let settings = crds::manifest::load(&self.0.path().join("manifests"), None).unwrap();
        let mut settings = serde_json::to_value(settings).unwrap();
        for backend in settings["backends"].as_array_mut().unwrap() {
            backend.as_object_mut().unwrap().remove("plaintext");
        }
        for prefix in ["/pools/0/tiers/0/kind/keyPrefix", "/backends/2/kind/topicPrefix"] {
            *settings.pointer_mut(prefix).unwrap() = json!("shop.");
        }
        fs::write(self.0.path().join("settings.json"), settings.to_string()).unwrap();
        DataPlane::try_start(
            &["serve", "--config", &self.path("settings.json"), "--backends", &self.path("backends")],
            &[],
        )
    }
}

fn missing(test: &str) -> bool {
    for kind in [Kind::Mysql, Kind::Redis, Kind::Kafka] {
        if let Err(why) = kind.available() {
            skipped(test, &why);
            return true;
        }
    }
    false
}

async fn backends(data_plane: &DataPlane) -> Value {
    let status = Api::at(&data_plane.admin).get("/status").await.json();
    let told = |one: &Value| (one["name"].as_str().unwrap().to_owned(), one.clone());
    status["backends"].as_array().unwrap().iter().map(told).collect::<serde_json::Map<_, _>>().into()
}

async fn write(data_plane: &DataPlane) {
    let user = json!({ "id": "ann", "email": "ann@example.test", "name": "Ann" });
    let written = Api::at(&data_plane.url).post("/api/v1/users", &user).await;
    assert!([201, 409].contains(&written.status), "{}", written.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_the_systems_authorities_signed_are_believed_and_no_others() {
    if missing("TLS with the system's authorities") {
        return;
    }
    let made = tempfile::tempdir().unwrap();
    if !["known", "unknown"].iter().all(|name| authority(made.path(), name)) {
        return skipped("TLS with the system's authorities", "openssl is not there to make certificates");
    }
    let [own, others] = ["known", "unknown"].map(|name| made.path().join(name));
    let (certificate, key) = (own.join("tls.crt"), own.join("tls.key"));
    let tls = format!("--ssl-cert={} --ssl-key={}", certificate.display(), key.display());
    // for as long as the test runs
    let tls: &'static [(&str, &str)] =
        Box::leak(Box::new([("MYSQL_OPTS", &*Box::leak(tls.into_boxed_str()))]));
    let mysql = Server::start_with(Kind::Mysql, tls);
    let kafka = Server::start_with(Kind::Kafka, &[("KAFKA_SECURE", "yes")]);
    let redis = Server::start(Kind::Redis);
    let by_name = mysql.url().replace("127.0.0.1", "localhost");
    let shop = |url: String| {
        let system = ", tls: { authorities: System }";
        let shop = Shop::new(
            system,
            "",
            system,
            &[("mysql", url), ("redis", redis.url()), ("kafka", String::new())],
        );
        let secret = shop.0.path().join("backends/kafka");
        manifests::copy_secret(&kafka.secret(), &secret);
        // of what the Secret trusts nothing is left
        fs::remove_file(secret.join("ca.crt")).unwrap();
        fs::copy(others.join("ca.pem"), shop.0.path().join("backends/mysql/ca.crt")).unwrap();
        shop
    };
    let pem = |path: &Path| fs::read(path).unwrap();
    let (trusted, strange) = (made.path().join("trusted.pem"), others.join("ca.pem"));
    fs::write(&trusted, [pem(&own.join("ca.pem")), pem(&kafka.secret().join("ca.crt"))].concat()).unwrap();
    let at = |path: &Path| path.display().to_string();

    let data_plane = shop(by_name.clone()).serve(&[("SSL_CERT_FILE", &at(&trusted))]).unwrap();
    write(&data_plane).await;
    let told = wait::until("both are reached", Duration::from_secs(30), async || {
        let told = backends(&data_plane).await;
        ["mysql", "kafka"].iter().all(|name| told[name]["reachable"] == true).then_some(told)
    });
    let told = told.await;
    for name in ["mysql", "kafka"] {
        assert_eq!(told[name]["plaintextPassword"], false, "{told}");
    }
    drop(data_plane);
    let Err(printed) = shop(by_name).serve(&[("SSL_CERT_FILE", &at(&strange))]) else {
        panic!("a server whose certificate nobody known signed was believed");
    };
    assert!(printed.contains("certificate") && !printed.contains("shop-secret"), "{printed}");
    let by_address = mysql.url();
    let Err(printed) = shop(by_address).serve(&[("SSL_CERT_FILE", &at(&trusted))]) else {
        panic!("the name in a certificate was not looked at");
    };
    assert!(printed.contains("certificate"), "{printed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_goes_to_another_host_without_tls_only_where_that_is_allowed() {
    if missing("passwords without TLS") {
        return;
    }
    let mysql = Server::start_with(Kind::Mysql, &[("MYSQL_OPTS", "--tls-version=")]);
    let redis = Server::start_with(Kind::Redis, &[("REDIS_PASSWORD", "hunter2")]);
    let kafka = Server::start(Kind::Kafka);
    // an address of this host that is not known as one: it has no name that all have
    let away = |url: String| url.replace("127.0.0.1", "0");
    let urls = || {
        [
            ("mysql", away(mysql.url())),
            ("redis", away(redis.url()).replace("redis://", "redis://:hunter2@")),
            ("kafka", kafka.url()),
        ]
    };
    let allowed = ", allowPlaintext: true";

    let refused = Shop::new("", "", "", &urls());
    let Err(printed) = refused.serve(&[]) else { panic!("the password of Redis was sent") };
    assert!(printed.contains("backend redis") && printed.contains("allowPlaintext: true"), "{printed}");
    assert!(!printed.contains("hunter2") && !printed.contains("shop-secret"), "{printed}");

    let data_plane = refused.serve_as_before().unwrap();
    write(&data_plane).await;
    let told = backends(&data_plane).await;
    let exposed =
        |told: &Value| ["mysql", "redis", "kafka"].map(|name| told[name]["plaintextPassword"] == true);
    assert_eq!(exposed(&told), [false, true, false], "{told}");
    drop(data_plane);

    let data_plane = Shop::new(allowed, allowed, "", &urls()).serve(&[]).unwrap();
    write(&data_plane).await;
    let told = backends(&data_plane).await;
    assert_eq!(exposed(&told), [false; 3], "its author knows: {told}");
    assert_eq!(told["redis"]["reachable"], true, "{told}");
}
