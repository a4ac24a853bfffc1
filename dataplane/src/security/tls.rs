//! TLS of the API: the certificate of a mounted Secret, which may be renewed while connections are made.

use std::{fs, path::Path, sync::Arc};

use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring::default_provider},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

/// Characters of base64 in a line of PEM.
const PEM_LINE: usize = 64;

/// The name of HTTP/2 where a client says over TLS what it speaks (RFC 7301).
pub const HTTP2: &[u8] = b"h2";

/// The certificate with its key. New connections are shown the one of the moment; those that are open keep
/// theirs.
#[derive(Debug)]
pub struct Identity {
    current: ArcSwap<CertifiedKey>,
    provider: Arc<CryptoProvider>,
}

/// The files cannot be used. No message holds a part of a key.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {message}")]
pub struct TlsError {
    /// The file or folder.
    pub path: String,
    /// Why, and what to do.
    pub message: String,
}

impl Identity {
    /// Reads `tls.crt` and `tls.key` from a folder, as PEM.
    ///
    /// # Errors
    /// One is missing, cannot be read, or they do not belong together.
    pub fn from_dir(dir: &Path) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(default_provider());
        let current = ArcSwap::from_pointee(certified_key(dir, &provider)?);
        Ok(Arc::new(Self { current, provider }))
    }

    /// Takes what is in the folder now.
    ///
    /// # Errors
    /// As for [`Self::from_dir`]; nothing changes then.
    pub fn reload(&self, dir: &Path) -> Result<(), TlsError> {
        self.current.store(Arc::new(certified_key(dir, &self.provider)?));
        Ok(())
    }

    /// Takes connections under this identity.
    ///
    /// # Errors
    /// The library speaks no version of TLS.
    pub fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// The certificates of a file, as PEM.
///
/// # Errors
/// It cannot be read or holds none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(fault(path, "holds no certificate in PEM")),
    }
}

/// The authorities that the system trusts now, as PEM: those of the files and folders that OpenSSL knows,
/// `SSL_CERT_FILE` and `SSL_CERT_DIR`.
///
/// # Errors
/// The system has none.
pub fn system_authorities() -> Result<Vec<u8>, &'static str> {
    let found = rustls_native_certs::load_native_certs().certs;
    let mut usable = RootCertStore::empty();
    let pem: String = found
        .iter()
        .filter(|certificate| usable.add((*certificate).clone()).is_ok())
        .map(|certificate| pem_of(certificate))
        .collect();
    if pem.is_empty() {
        return Err(
            "tls.authorities is System, and this system has no authorities: install its package ca-certificates, or name a file in SSL_CERT_FILE",
        );
    }
    Ok(pem.into_bytes())
}

fn pem_of(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let lines: Vec<&str> =
        (0..text.len()).step_by(PEM_LINE).map(|at| &text[at..text.len().min(at + PEM_LINE)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn certified_key(dir: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let path = dir.join("tls.key");
    let chain = certificates(&dir.join("tls.crt"))?;
    let key = PrivateKeyDer::from_pem_slice(&read(&path)?)
        .map_err(|_| fault(&path, "holds no private key in PEM"))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|_| {
        fault(dir, "tls.crt and tls.key do not belong together, or are of a kind that is not supported")
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| fault(path, error.to_string()))
}

fn fault(path: &Path, message: impl Into<String>) -> TlsError {
    TlsError { path: path.display().to_string(), message: message.into() }
}
