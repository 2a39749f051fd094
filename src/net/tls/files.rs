//! Certificates and keys from files, with errors that name the file and the key in the configuration.

use std::{fmt, fs::File, io::BufReader, path::Path};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// A TLS section that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsError {
    /// The key at fault, as in the file: `tls.client.cert`.
    pub key: String,
    pub reason: String,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
    }
}

impl std::error::Error for TlsError {}

impl TlsError {
    pub(super) fn new(section: &str, key: &str, reason: impl ToString) -> Self {
        TlsError {
            key: format!("{section}.{key}"),
            reason: reason.to_string(),
        }
    }

    fn file(section: &str, key: &str, path: &Path, reason: impl fmt::Display) -> Self {
        TlsError::new(section, key, format!("{}: {reason}", path.display()))
    }
}

/// The certificates of a PEM file, at least one.
pub(super) fn certificates(
    section: &str,
    key: &str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |reason: String| TlsError::file(section, key, path, reason);
    let file = File::open(path).map_err(|e| fail(e.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(BufReader::new(file)).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => {
            Err(fail("no certificate in this PEM file".into()))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(fail(error.to_string())),
    }
}

pub(super) fn private_key(section: &str, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| TlsError::file(section, "key", path, e))
}

/// The trust anchors of a `ca` file.
pub(super) fn roots(
    section: &str,
    path: &Path,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TlsError> {
    let certificates = certificates(section, "ca", path)?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots
            .add(certificate.clone())
            .map_err(|e| TlsError::file(section, "ca", path, e))?;
    }
    Ok((roots, certificates))
}
