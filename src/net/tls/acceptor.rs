//! TLS towards applications: our certificate, and theirs where the mode asks for it.

use std::{io, sync::Arc};

use rustls::{
    ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{ALPN, EndPoint, TlsError, files, provider};
use crate::{
    config::{AuthMethod, TlsMode, TlsSide},
    net::Stream,
};

/// In which section errors say the key is.
const SECTION: &str = "tls.client";

/// The listeners' TLS context. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor {
    tls: TlsAcceptor,
    end_point: Option<EndPoint>,
}

impl Acceptor {
    /// None when the mode is `disable`, or `allow`/`prefer` without a certificate. A client certificate is demanded by
    /// the verify modes and by `method = "cert"`; both need `ca`.
    ///
    /// # Errors
    /// Names the key and the file.
    pub fn new(side: &TlsSide, method: AuthMethod) -> Result<Option<Self>, TlsError> {
        let fail = |key, reason: &str| TlsError::new(SECTION, key, reason);
        let (cert, key) = match (side.mode, &side.cert, &side.key) {
            (TlsMode::Disable, ..) => return Ok(None),
            (TlsMode::Allow | TlsMode::Prefer, None, None) => return Ok(None),
            (_, Some(cert), Some(key)) => (cert, key),
            (_, None, _) => return Err(fail("cert", "needed for TLS, but not set")),
            (_, _, None) => return Err(fail("key", "needed for TLS, but not set")),
        };
        let chain = files::certificates(SECTION, "cert", cert)?;
        let key = files::private_key(SECTION, key)?;
        let end_point = chain.first().and_then(|c| EndPoint::of(c));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| TlsError::new(SECTION, "mode", e))?
            .with_client_cert_verifier(client_verifier(side, method)?)
            .with_single_cert(chain, key)
            .map_err(|e| TlsError::new(SECTION, "key", e))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Some(Acceptor {
            tls: TlsAcceptor::from(Arc::new(config)),
            end_point,
        }))
    }

    /// The server's side of a handshake. Bound it in time.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<Stream> {
        let tls = self.tls.accept(tcp).await?;
        Ok(Stream::Tls(Box::new(tls.into())))
    }

    /// What clients bind to; None where our certificate allows no PLUS.
    pub fn end_point(&self) -> Option<&EndPoint> {
        self.end_point.as_ref()
    }
}

fn client_verifier(
    side: &TlsSide,
    method: AuthMethod,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let wanted =
        matches!(side.mode, TlsMode::VerifyCa | TlsMode::VerifyFull) || method == AuthMethod::Cert;
    let Some(ca) = &side.ca else {
        if wanted {
            let reason = "needed to verify client certificates, but not set";
            return Err(TlsError::new(SECTION, "ca", reason));
        }
        return Ok(WebPkiClientVerifier::no_client_auth());
    };
    let (roots, _) = files::roots(SECTION, ca)?;
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    // A certificate that nobody demands is still checked if shown, as PostgreSQL does with ssl_ca_file.
    let builder = match wanted {
        true => builder,
        false => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|e| TlsError::new(SECTION, "ca", e))
}

/// The one CN of a certificate's subject. None if there is none, more than one, or not text: an ambiguous name must
/// not log anyone in.
pub fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    names.next().is_none().then_some(name)
}
