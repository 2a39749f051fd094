//! `tls-server-end-point` of RFC 5929: the hash of the server's certificate, made with the hash of its signature.

use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::signature_algorithm::SignatureAlgorithm;

/// What SCRAM-SHA-256-PLUS binds a login to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndPoint(Box<[u8]>);

enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl EndPoint {
    /// None if the certificate's signature has no single hash (Ed25519, …): RFC 5929 leaves the binding undefined
    /// there, so PLUS must be neither offered nor taken.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let digest: Box<[u8]> = match signature_hash(certificate)? {
            Hash::Sha256 => Sha256::digest(certificate)[..].into(),
            Hash::Sha384 => Sha384::digest(certificate)[..].into(),
            Hash::Sha512 => Sha512::digest(certificate)[..].into(),
        };
        Some(EndPoint(digest))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn signature_hash(certificate: &[u8]) -> Option<Hash> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let algorithm = &certificate.signature_algorithm;
    if let Ok(SignatureAlgorithm::RSASSA_PSS(params)) = SignatureAlgorithm::try_from(algorithm) {
        return hash_of_oid(&params.hash_algorithm_oid().to_id_string());
    }
    hash_of_oid(&algorithm.algorithm.to_id_string())
}

/// Signature algorithms and, for PSS, plain hashes. MD5 and SHA-1 count as SHA-256 (RFC 5929, section 4.1).
fn hash_of_oid(oid: &str) -> Option<Hash> {
    match oid {
        // MD5 and SHA-1 with RSA, DSA, ECDSA; SHA-1.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.10040.4.3"
        | "1.2.840.10045.4.1"
        | "1.3.14.3.2.26" => Some(Hash::Sha256),
        // SHA-256 with RSA, ECDSA, DSA; SHA-256.
        "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.3.2"
        | "2.16.840.1.101.3.4.3.2"
        | "2.16.840.1.101.3.4.2.1" => Some(Hash::Sha256),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" | "2.16.840.1.101.3.4.2.2" => {
            Some(Hash::Sha384)
        }
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" | "2.16.840.1.101.3.4.2.3" => {
            Some(Hash::Sha512)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    fn end_point(algorithm: &'static SignatureAlgorithm) -> Option<EndPoint> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        EndPoint::of(params.self_signed(&key).unwrap().der())
    }

    #[test]
    fn the_signatures_hash_decides_and_ed25519_has_none() {
        let len = |e: Option<EndPoint>| e.map(|e| e.as_bytes().len());
        assert_eq!(len(end_point(&rcgen::PKCS_ECDSA_P256_SHA256)), Some(32));
        assert_eq!(len(end_point(&rcgen::PKCS_ECDSA_P384_SHA384)), Some(48));
        assert_eq!(len(end_point(&rcgen::PKCS_ED25519)), None);
    }

    #[test]
    fn garbage_is_no_certificate() {
        assert_eq!(EndPoint::of(b"").map(|_| ()), None);
        assert_eq!(EndPoint::of(&[0x30; 99]).map(|_| ()), None);
    }
}
