//! Reads certificate requests (PKCS#10), which come from strangers with a join token.

use protocol::Sha256;
use rcgen::{
    CertificateSigningRequestParams, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKey, PublicKeyData as _,
};
use sha2::Digest as _;

use super::PkiError;

/// A request with a P-256 key takes about 500 bytes.
const MAX_PEM_BYTES: usize = 8 * 1024;

/// Tells the key of a request from others.
pub fn key_digest(csr_pem: &str) -> Result<Sha256, PkiError> {
    Ok(Sha256::from_bytes(sha2::Sha256::digest(public_key(csr_pem)?.der_bytes()).into()))
}

/// The public key of a request whose signature proves that the sender holds the private key.
pub(super) fn public_key(csr_pem: &str) -> Result<PublicKey, PkiError> {
    if csr_pem.len() > MAX_PEM_BYTES {
        return Err(PkiError::Request("it is larger than 8 KiB"));
    }
    let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(|error| {
        PkiError::Request(match error {
            rcgen::Error::InvalidCertificationRequestSignature => "its signature does not verify",
            rcgen::Error::UnsupportedSignatureAlgorithm => "its signature algorithm is not supported",
            rcgen::Error::UnsupportedExtension => "it asks for an extension that is not supported",
            _ => "it is not a PEM encoded PKCS#10 request",
        })
    })?;
    let key = request.public_key;
    let algorithm = key.algorithm();
    // The signature algorithm does not name the curve, hence the length: an uncompressed P-256 point.
    let known = (*algorithm == PKCS_ECDSA_P256_SHA256 && key.der_bytes().len() == 65)
        || (*algorithm == PKCS_ED25519 && key.der_bytes().len() == 32);
    if known { Ok(key) } else { Err(PkiError::Request("its key is neither ECDSA P-256 nor Ed25519")) }
}
