//! Whom the gateway takes for a pod over TLS: whoever shows the certificate of the service's Secret, or
//! another for the same name by the same authority.
//!
//! Pods are called by their addresses, which no certificate names: the name that counts is the one that the
//! service's own certificate has.

use std::{path::Path, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring::default_provider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use webpki::EndEntityCert;

use crate::security::tls::{TlsError, certificates};

/// Checks pods' certificates.
#[derive(Debug)]
pub struct Trust {
    known: ArcSwap<Known>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug, Default)]
struct Known {
    /// The service's own certificate, and the one before: pods do not take a new one over at the same moment.
    own: Vec<CertificateDer<'static>>,
    /// What other certificates are checked by, and for which name.
    authority: Option<(Arc<WebPkiServerVerifier>, ServerName<'static>)>,
}

impl Trust {
    /// Trusts nobody.
    pub fn nobody() -> Arc<Self> {
        Arc::new(Self { known: ArcSwap::default(), provider: Arc::new(default_provider()) })
    }

    /// Trusts by what is in the folder now: the certificate of `tls.crt` itself, and what is signed by
    /// `ca.crt` or by those that follow in `tls.crt`.
    ///
    /// # Errors
    /// A file cannot be used: nothing changes then.
    pub fn reload(&self, dir: &Path) -> Result<(), TlsError> {
        let (mut chain, ca) = (certificates(&dir.join("tls.crt"))?, dir.join("ca.crt"));
        let mut authorities = chain.split_off(1);
        if ca.exists() {
            authorities.extend(certificates(&ca)?);
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities);
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone()).build();
        let former = self.known.load();
        chain.extend(former.own.first().filter(|former| !chain.contains(former)).cloned());
        // without an authority or a name there is nothing to check by but the certificate itself
        let authority = verifier.ok().zip(name_of(&chain[0]));
        self.known.store(Arc::new(Known { own: chain, authority }));
        Ok(())
    }

    /// What clients of pods connect by.
    ///
    /// # Errors
    /// The library speaks no version of TLS.
    pub fn client(self: &Arc<Self>) -> Result<ClientConfig, Error> {
        let config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?;
        Ok(config.dangerous().with_custom_certificate_verifier(self.clone()).with_no_client_auth())
    }
}

/// The first name of a certificate.
fn name_of(certificate: &CertificateDer<'_>) -> Option<ServerName<'static>> {
    let parsed = EndEntityCert::try_from(certificate).ok()?;
    // any name will do for one with a star
    let name = parsed.valid_dns_names().next()?.replace('*', "flyweight");
    ServerName::try_from(name).ok()
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _address: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let known = self.known.load();
        if known.own.iter().any(|own| own == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        match &known.authority {
            Some((authority, name)) => {
                authority.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
            }
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
