//! The API over TLS, by the gateway and by the pods: the certificate is renewed under traffic, and plain HTTP
//! is not spoken.

use std::{fs, path::Path, process::Command, time::Duration};

use harness::{client::Api, dataplane::DataPlane, manifests, wait};
use reqwest::Method;
use serde_json::json;

/// How long a process may take to go over to another certificate.
const TAKEN_WITHIN: Duration = Duration::from_secs(15);

const SERVICE: &str = "  security: { tls: { secretRef: { name: shop-tls } } }\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_is_served_over_tls_and_the_certificate_is_renewed_without_a_failed_request() {
    let dir = tempfile::tempdir().unwrap();
    let (made, mounted) = (dir.path().join("made"), dir.path().join("security/tls"));
    let made_all = ["one", "two"].iter().all(|name| authority(&made, name));
    if !made_all {
        harness::skipped("TLS", "openssl is not there to make certificates");
        return;
    }
    let both: Vec<u8> =
        ["one", "two"].iter().flat_map(|name| fs::read(made.join(name).join("ca.pem")).unwrap()).collect();
    fs::create_dir_all(&mounted).unwrap();
    fs::write(mounted.join("ca.crt"), &both).unwrap();
    mount(&made.join("one"), &mounted);

    manifests::write_encryption_key(&dir.path().join("security"));
    let shop = dir.path().join("manifests");
    manifests::write_samples_with(&shop, SERVICE);
    let (shop, security) = (shop.display().to_string(), dir.path().join("security").display().to_string());
    let data = dir.path().join("data").display().to_string();
    let pod =
        DataPlane::start(&["serve", "--manifests", &shop, "--data-dir", &data, "--security", &security]);
    let upstream = format!("main={}", pod.url.trim_start_matches("http://"));
    let gateway = DataPlane::start(&[
        "gateway",
        "--manifests",
        &shop,
        "--upstream",
        &upstream,
        "--security",
        &security,
    ]);

    let https = |process: &DataPlane| process.url.replace("http://127.0.0.1", "https://localhost");
    let api = Api::over_tls(&https(&gateway), &both);
    wait::until("the gateway to find the pod over TLS", Duration::from_secs(15), async || {
        (api.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(Api::at(&pod.admin).get("/readyz").await.status, 200, "probes need no certificate");
    let plain = Api::at(&gateway.url).call(Method::GET, "/readyz", &[], None).await;
    assert!(plain.is_err(), "plain HTTP was answered: {plain:?}");

    // Whoever knows only the second authority sees when its certificate is shown.
    let second = fs::read(made.join("two/ca.pem")).unwrap();
    let sees = async |process: &DataPlane| {
        let other = Api::over_tls(&https(process), &second);
        other.call(Method::GET, "/readyz", &[], None).await.is_ok_and(|answer| answer.status == 200)
    };
    assert!(!sees(&pod).await && !sees(&gateway).await);
    mount(&made.join("two"), &mounted);
    let mut requests = 0;
    wait::until("both to show the new certificate", TAKEN_WITHIN, async || {
        // each by a connection of its own, to the pod as to the gateway
        requests += 1;
        let created = Api::over_tls(&https(&gateway), &both)
            .post("/api/v1/products", &json!({ "name": "Lamp", "price": 1 }))
            .await;
        assert_eq!(created.status, 201, "{}", created.text);
        (sees(&pod).await && sees(&gateway).await).then_some(())
    })
    .await;
    wait::until("the rotation to be counted", TAKEN_WITHIN, async || {
        let metrics = Api::at(&pod.admin).get("/metrics").await.text;
        metrics.contains("flyweight_secret_rotations_total{secret=\"security/tls\"} 1").then_some(())
    })
    .await;

    fs::write(mounted.join("tls.key"), "no key").unwrap();
    wait::until("the problem to be said", TAKEN_WITHIN, async || {
        let status = Api::at(&pod.admin).get("/status").await.json();
        status["secrets"].as_array()?.iter().find(|secret| secret["problem"].is_string()).map(drop)
    })
    .await;
    assert!(sees(&pod).await && sees(&gateway).await, "the former certificate goes on");
    eprintln!("{requests} writes on new connections while the certificate was renewed, 0 failed");
}

/// Puts a certificate where the kubelet would.
fn mount(from: &Path, to: &Path) {
    for name in ["tls.key", "tls.crt"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

/// Makes an authority, and a certificate for localhost that it signed.
pub fn authority(folder: &Path, name: &str) -> bool {
    let dir = folder.join(name);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("san"), "subjectAltName=DNS:localhost\n").unwrap();
    let openssl = |arguments: &str| {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(&dir).output();
        output.is_ok_and(|output| output.status.success())
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -days 2 -subj /CN={name} -keyout ca.key -out ca.pem"))
        && openssl(&format!("req {key} -subj /CN=localhost -keyout tls.key -out request.pem"))
        && openssl(
            "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out tls.crt",
        )
}
