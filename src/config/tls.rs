//! Whether certificate files can be used, as far as can be told without a connection.

use std::path::Path;

use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};

/// Which file of a pair is at fault, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Cert(String),
    Key(String),
    /// Both are fine, but not each other's.
    Mismatch,
}

/// Reads a certificate chain and its private key, and sees that they belong together.
pub(super) fn pair(cert: &Path, key: &Path) -> Result<(), Trouble> {
    let chain = certificates(cert).map_err(Trouble::Cert)?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| Trouble::Key(why(&error, "private key")))?;
    match CertifiedKey::from_der(chain, key, &ring::default_provider()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err(Trouble::Mismatch)
        }
        // The key's kind gives no public key to compare.
        Err(rustls::Error::InconsistentKeys(_)) => Ok(()),
        Err(error @ rustls::Error::InvalidCertificate(_)) => Err(Trouble::Cert(error.to_string())),
        Err(error) => Err(Trouble::Key(error.to_string())),
    }
}

/// Reads the certificates of authorities; at least one.
pub(super) fn authorities(path: &Path) -> Result<(), String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| why(&error, "certificate"))?
        .collect();
    let found = found.map_err(|error| why(&error, "certificate"))?;
    match found.is_empty() {
        true => Err("it holds no certificate".to_owned()),
        false => Ok(found),
    }
}

/// In words that cannot hold a byte of the file.
fn why(error: &pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => format!("it holds no {wanted}"),
        _ => "it is not valid PEM".to_owned(),
    }
}
