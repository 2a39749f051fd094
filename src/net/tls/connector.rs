//! TLS towards the nodes: libpq's six modes.
//!
//! `disable` never, `allow` if the server refuses plain text, `prefer` if it can, `require` or nothing (and, as with
//! libpq, verified against `ca` if that is set), `verify-ca` the chain, `verify-full` the chain and the host name.

use std::{io, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::{ALPN, TlsError, files, provider};
use crate::{
    config::{TlsMode, TlsSide},
    net::{Encryption, Stream},
};

/// In which section errors say the key is.
const SECTION: &str = "tls.server";

/// The TLS context for dialling nodes. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    mode: TlsMode,
    tls: TlsConnector,
}

impl Connector {
    /// # Errors
    /// Names the key and the file.
    pub fn new(side: &TlsSide) -> Result<Self, TlsError> {
        let verifier = Arc::new(Verifier::new(side)?);
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| TlsError::new(SECTION, "mode", e))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match (&side.cert, &side.key) {
            (Some(cert), Some(key)) => {
                let chain = files::certificates(SECTION, "cert", cert)?;
                let key = files::private_key(SECTION, key)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|e| TlsError::new(SECTION, "key", e))?
            }
            (None, None) => builder.with_no_client_auth(),
            (Some(_), None) => return Err(TlsError::new(SECTION, "key", "needed with cert")),
            (None, Some(_)) => return Err(TlsError::new(SECTION, "cert", "needed with key")),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Connector {
            mode: side.mode,
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    pub fn mode(&self) -> TlsMode {
        self.mode
    }

    /// What to try, in order. The second is due only if the first was refused; for `prefer` only if it had got as far
    /// as TLS.
    pub fn attempts(&self) -> &'static [Encryption] {
        match self.mode {
            TlsMode::Disable => &[Encryption::Plain],
            TlsMode::Allow => &[Encryption::Plain, Encryption::Require],
            TlsMode::Prefer => &[Encryption::Try, Encryption::Plain],
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => &[Encryption::Require],
        }
    }

    /// The client's side of a handshake. Bound it in time.
    pub async fn handshake(&self, host: &str, tcp: TcpStream) -> io::Result<Stream> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let tls = self.tls.connect(name, tcp).await?;
        Ok(Stream::Tls(Box::new(tls.into())))
    }
}

/// How much of a server's certificate is checked.
#[derive(Debug)]
enum Trust {
    /// Any certificate; still, the server must own its key.
    Any,
    Chain,
    ChainAndName,
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    roots: RootCertStore,
    /// The `ca` file as it is: a self-signed server certificate listed there is trusted itself, though it is marked as
    /// an authority (what `openssl req -x509` makes), which webpki alone refuses.
    anchors: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(side: &TlsSide) -> Result<Self, TlsError> {
        let trust = match (side.mode, &side.ca) {
            (TlsMode::VerifyFull, _) => Trust::ChainAndName,
            (TlsMode::VerifyCa, _) | (TlsMode::Require, Some(_)) => Trust::Chain,
            _ => Trust::Any,
        };
        let (roots, anchors) = match (&trust, &side.ca) {
            (Trust::Any, _) => (RootCertStore::empty(), Vec::new()),
            (_, Some(ca)) => files::roots(SECTION, ca)?,
            (_, None) => (system_roots()?, Vec::new()),
        };
        Ok(Verifier {
            trust,
            roots,
            anchors,
            provider: provider(),
        })
    }

    fn check_chain(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        if self.anchors.iter().any(|a| **a == **certificate) {
            return check_validity(certificate, now);
        }
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(certificate)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )
    }
}

fn check_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let bad = |e: CertificateError| rustls::Error::InvalidCertificate(e);
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| bad(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs())
        .ok()
        .and_then(|secs| ASN1Time::from_timestamp(secs).ok())
        .ok_or(rustls::Error::FailedToGetCurrentTime)?;
    match parsed.validity() {
        v if now < v.not_before => Err(bad(CertificateError::NotValidYet)),
        v if now > v.not_after => Err(bad(CertificateError::Expired)),
        _ => Ok(()),
    }
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let reason = "not set, and the system has no trusted certificates";
        return Err(TlsError::new(SECTION, "ca", reason));
    }
    Ok(roots)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.trust {
            Trust::Any => {}
            Trust::Chain => self.check_chain(certificate, intermediates, now)?,
            Trust::ChainAndName => {
                self.check_chain(certificate, intermediates, now)?;
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
