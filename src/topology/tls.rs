//! TLS of the probes' own connections, from `[tls.server]`.
//!
//! The whole of it is behind [`connector`], so that the servers' connector can take its place.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{self, CryptoProvider},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    config::{TlsMode, TlsSide},
    error::{self, Error, Kind},
};

/// The connector for `side`, and when to use it. `allow` does as `prefer`: probes have no second try in plain text.
///
/// # Errors
/// Names the file that cannot be used.
pub(crate) fn connector(side: &TlsSide) -> error::Result<(SslMode, MakeRustlsConnect)> {
    let mode = match side.mode {
        TlsMode::Disable => SslMode::Disable,
        TlsMode::Allow | TlsMode::Prefer => SslMode::Prefer,
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
    };
    Ok((mode, MakeRustlsConnect::new(client_config(side)?)))
}

fn client_config(side: &TlsSide) -> error::Result<ClientConfig> {
    let provider = Arc::new(crypto::ring::default_provider());
    let verifier = Arc::new(verifier(side, &provider)?);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable("protocol versions", e))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match (&side.cert, &side.key) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(|e| unusable(cert.display(), e)),
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn verifier(side: &TlsSide, provider: &Arc<CryptoProvider>) -> error::Result<Verifier> {
    let trust = match (side.mode, &side.ca) {
        (TlsMode::VerifyFull, _) => Trust::ChainAndName(web_pki(side, provider)?),
        (TlsMode::VerifyCa, _) | (TlsMode::Require, Some(_)) => {
            Trust::Chain(web_pki(side, provider)?)
        }
        _ => Trust::Anyone,
    };
    Ok(Verifier {
        trust,
        provider: provider.clone(),
    })
}

fn web_pki(
    side: &TlsSide,
    provider: &Arc<CryptoProvider>,
) -> error::Result<Arc<WebPkiServerVerifier>> {
    let roots = Arc::new(roots(side.ca.as_deref())?);
    WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|e| unusable("ca", e))
}

/// The roots of `ca`, or the system's without one.
fn roots(ca: Option<&Path>) -> error::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots
                    .add(certificate)
                    .map_err(|e| unusable(path.display(), e))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

fn certificates(path: &Path) -> error::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.map_err(|e| unusable(path.display(), e))
}

fn private_key(path: &Path) -> error::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| unusable(path.display(), e))
}

fn unusable(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Error {
    Error::proxy(Kind::Internal, "a [tls.server] file cannot be used")
        .detail(format!("{what}: {why}"))
}

/// How far a server's certificate is looked at, as libpq's sslmode says.
#[derive(Debug)]
enum Trust {
    /// Encryption only.
    Anyone,
    Chain(Arc<WebPkiServerVerifier>),
    ChainAndName(Arc<WebPkiServerVerifier>),
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.trust {
            Trust::Anyone => Ok(ServerCertVerified::assertion()),
            Trust::ChainAndName(pki) => pki.verify_server_cert(end, chain, name, ocsp, now),
            Trust::Chain(pki) => ignore_name(pki.verify_server_cert(end, chain, name, ocsp, now)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// The name is the last thing that is checked: a wrong one means that all else was right.
fn ignore_name(
    checked: Result<ServerCertVerified, rustls::Error>,
) -> Result<ServerCertVerified, rustls::Error> {
    use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
    match checked {
        Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
            Ok(ServerCertVerified::assertion())
        }
        other => other,
    }
}
