//! Against an identity provider of this process, which counts what it is asked.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::{Json, Router, extract::State, routing::get};
use jsonwebtoken::{EncodingKey, encode};
use parking_lot::Mutex as Locked;
use serde_json::json;

use super::*;
use crate::security::jwt::TokenVerifier;

/// A key pair of Ed25519, by its seed, with the document of its public half.
struct Pair {
    id: &'static str,
    private: EncodingKey,
    public: Value,
}

/// PKCS #8 of an Ed25519 seed (RFC 8410): a fixed head, then the seed.
const HEAD: [u8; 16] = [48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32];

fn pair(id: &'static str, seed: u8) -> Pair {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let der: Vec<u8> = HEAD.into_iter().chain([seed; 32]).collect();
    let public = ed25519_public(&[seed; 32]);
    Pair {
        id,
        private: EncodingKey::from_ed_der(&der),
        public: json!({
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": id,
            "x": URL_SAFE_NO_PAD.encode(public),
        }),
    }
}

fn ed25519_public(seed: &[u8; 32]) -> Vec<u8> {
    use rustls::crypto::ring::sign::any_eddsa_type;
    let der: Vec<u8> = HEAD.into_iter().chain(*seed).collect();
    let key = any_eddsa_type(&rustls::pki_types::PrivatePkcs8KeyDer::from(der)).unwrap();
    let info = key.public_key().unwrap();
    info.as_ref()[info.as_ref().len() - 32..].to_vec()
}

#[derive(Default)]
struct Provider {
    keys: Locked<Vec<Value>>,
    asked: AtomicUsize,
    is_away: AtomicBool,
}

/// The provider's address.
async fn serve(provider: Arc<Provider>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/realms/shop", listener.local_addr().unwrap());
    let issuer = address.clone();
    let configuration = move || {
        let document = json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/keys") });
        std::future::ready(Json(document))
    };
    let keys = |State(provider): State<Arc<Provider>>| async move {
        provider.asked.fetch_add(1, Ordering::SeqCst);
        let status = match provider.is_away.load(Ordering::SeqCst) {
            true => http::StatusCode::SERVICE_UNAVAILABLE,
            false => http::StatusCode::OK,
        };
        (status, Json(json!({ "keys": *provider.keys.lock() })))
    };
    let routes = Router::new()
        .route("/realms/shop/.well-known/openid-configuration", get(configuration))
        .route("/realms/shop/keys", get(keys))
        .with_state(provider);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

fn verifier(issuer: &str) -> TokenVerifier {
    _ = rustls::crypto::ring::default_provider().install_default();
    let settings: TokenIssuer = serde_json::from_value(json!({
        "issuer": issuer, "audiences": ["shop"], "rolesClaim": "/realm_access/roles", "scopeClaim": "/scope",
    }))
    .unwrap();
    let mut verifier = TokenVerifier::without_keys();
    verifier.trust(&[settings]).unwrap();
    verifier
}

fn token(pair: &Pair, claims: &Value) -> String {
    let header = Header { kid: Some(pair.id.to_owned()), ..Header::new(Algorithm::EdDSA) };
    encode(&header, claims, &pair.private).unwrap()
}

fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

/// As Keycloak writes them.
fn claims(issuer: &str) -> Value {
    json!({
        "iss": issuer, "sub": "ann", "aud": ["account", "shop"], "exp": now() + 300, "iat": now(),
        "realm_access": { "roles": ["catalog-admin", "sales"] }, "scope": "openid email",
    })
}

#[tokio::test]
async fn a_token_of_the_issuer_gives_its_subject_roles_and_scopes() {
    let (provider, pair) = (Arc::new(Provider::default()), pair("k1", 1));
    provider.keys.lock().push(pair.public.clone());
    let issuer = serve(provider.clone()).await;
    let verifier = verifier(&issuer);
    let caller = verifier.verify(&token(&pair, &claims(&issuer)), now()).await.unwrap();
    assert_eq!(caller.subject, "ann");
    assert_eq!(caller.roles, ["catalog-admin", "sales", "openid", "email"]);
    let changed = |change: fn(&mut Value)| {
        let mut claims = claims(&issuer);
        change(&mut claims);
        token(&pair, &claims)
    };
    for (why, bad) in [
        ("aud", changed(|claims| claims["aud"] = json!("another"))),
        ("aud", changed(|claims| _ = claims.as_object_mut().unwrap().remove("aud"))),
        ("expired", changed(|claims| claims["exp"] = json!(now() - 3_600))),
        ("not yet", changed(|claims| claims["nbf"] = json!(now() + 3_600))),
        ("iss", changed(|claims| claims["iss"] = json!("https://elsewhere.example"))),
        ("subject", changed(|claims| claims["sub"] = json!(""))),
    ] {
        let error = verifier.verify(&bad, now()).await.unwrap_err();
        assert!(error.to_string().contains(why), "{why}: {error}");
        assert!(!error.is_unavailable);
    }
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1, "keys that are known are not asked for again");
}

/// RFC 8725, section 2.1: the public key taken for a shared secret, and no signature at all.
#[tokio::test]
async fn the_token_does_not_choose_its_algorithm() {
    let (provider, own) = (Arc::new(Provider::default()), pair("k1", 1));
    provider.keys.lock().push(own.public.clone());
    let issuer = serve(provider).await;
    let verifier = verifier(&issuer);
    let header = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::HS256) };
    let secret = EncodingKey::from_secret(own.public["x"].as_str().unwrap().as_bytes());
    let forged = encode(&header, &claims(&issuer), &secret).unwrap();
    assert!(verifier.verify(&forged, now()).await.is_err());
    let good = token(&own, &claims(&issuer));
    let unsigned = format!("{}.", good.rsplit_once('.').unwrap().0);
    assert!(verifier.verify(&unsigned, now()).await.is_err());
    let other = pair("k1", 9);
    assert!(
        verifier.verify(&token(&other, &claims(&issuer)), now()).await.is_err(),
        "another's key of that name"
    );
}

#[tokio::test]
async fn unknown_keys_are_asked_for_once_in_a_while_and_keys_that_left_are_refused() {
    let provider = Arc::new(Provider::default());
    let (first, second) = (pair("k1", 1), pair("k2", 2));
    provider.keys.lock().push(first.public.clone());
    let issuer = serve(provider.clone()).await;
    let verifier = verifier(&issuer);
    let good = token(&first, &claims(&issuer));
    let caller = verifier.verify(&good, now()).await.unwrap();
    let unknown: Vec<String> = (0..100)
        .map(|number| {
            let header = Header { kid: Some(format!("x{number}")), ..Header::new(Algorithm::EdDSA) };
            encode(&header, &claims(&issuer), &second.private).unwrap()
        })
        .collect();
    for token in &unknown {
        assert!(verifier.verify(token, now()).await.is_err());
    }
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1, "a hundred names of keys cost nobody a request");
    *provider.keys.lock() = vec![second.public.clone()];
    let issuer_of = verifier.issuers()[0].clone();
    *issuer_of.asked.lock().await = None;
    assert!(
        verifier.verify(&token(&second, &claims(&issuer)), now()).await.is_ok(),
        "the new key is fetched"
    );
    assert!(verifier.verify(&good, now()).await.is_err(), "also the token that was remembered");
    assert!(caller.validity.ends_s() <= now(), "whom it let in is told");
}

#[tokio::test]
async fn while_the_issuer_is_away_known_keys_are_good_and_nobody_else_is_blamed() {
    let (provider, pair) = (Arc::new(Provider::default()), pair("k1", 1));
    provider.keys.lock().push(pair.public.clone());
    provider.is_away.store(true, Ordering::SeqCst);
    let issuer = serve(provider.clone()).await;
    let verifier = verifier(&issuer);
    let good = token(&pair, &claims(&issuer));
    assert!(verifier.verify(&good, now()).await.unwrap_err().is_unavailable, "nobody can tell");
    provider.is_away.store(false, Ordering::SeqCst);
    let issuer_of = verifier.issuers()[0].clone();
    *issuer_of.asked.lock().await = None;
    assert!(verifier.verify(&good, now()).await.is_ok());
    provider.is_away.store(true, Ordering::SeqCst);
    *issuer_of.asked.lock().await = None;
    issuer_of.renew(now()).await;
    let later = now() + KEPT_S - 60;
    let mut lasting = claims(&issuer);
    lasting["exp"] = json!(now() + 10 * KEPT_S);
    let lasting = token(&pair, &lasting);
    assert!(verifier.verify(&lasting, later).await.is_ok(), "its keys are kept for a day");
    let error = verifier.verify(&lasting, now() + KEPT_S + 60).await.unwrap_err();
    assert!(error.is_unavailable, "and no longer");
}
