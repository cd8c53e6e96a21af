//! Encryption to the database, verified as far as `DATABASE_URL` asks and no further.
//!
//! `prefer` and `require` verify nobody, like libpq: Dokku's PostgreSQL signs its own certificate. The handshake's
//! signature is checked even so: without it SCRAM's channel binding would bind to nothing.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whose certificate is accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Everybody's: against listeners, not against an impostor.
    Anybody,
    /// One that an authority in `file` (PEM) has signed, for the host's `name` if that is asked for.
    Root {
        /// The authorities' certificates.
        file: PathBuf,
        /// Whether the certificate must name the host.
        name: bool,
    },
}

/// The TLS client that trusts so.
///
/// # Errors
/// When the file with the authorities holds none that can be read; naming it.
pub(crate) fn config(trust: &Trust) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let (chain, name) = match trust {
        Trust::Anybody => (None, false),
        Trust::Root { file, name } => (Some(authorities(file, provider.clone())?), *name),
    };
    let verifier = Verifier { provider: provider.clone(), chain, name };
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| e.to_string())?.dangerous();
    Ok(builder.with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

fn authorities(file: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
    let unusable = |why: &dyn std::fmt::Display| format!("sslrootcert={}: {why}", file.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| unusable(&e))? {
        roots.add(certificate.map_err(|e| unusable(&e))?).map_err(|e| unusable(&e))?;
    }
    // Refuses an empty store, so a file without certificates is an error too.
    WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().map_err(|e| unusable(&e))
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    chain: Option<Arc<WebPkiServerVerifier>>,
    name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last: whoever gets here with it has passed everything else.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

impl Verifier {
    fn algorithms(&self) -> crypto::WebPkiSupportedAlgorithms {
        self.provider.signature_verification_algorithms
    }
}
