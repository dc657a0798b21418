//! Reading and making SSH keys. No I/O.

use rcgen::PKCS_ED25519;
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{HashAlg, LineEnding, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use crate::http::ApiError;

/// What NIST SP 800-131A asks for, and what OpenSSH still reads.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=16384;
/// The longest line of a public key.
const MAX_CHARS: usize = 8192;
/// What stands before the 32 bytes of the private key in PKCS #8 (RFC 8410): its two octet strings, at this offset.
const ED25519_OCTETS: ([u8; 4], usize) = ([0x04, 0x22, 0x04, 0x20], 12);

/// A public key that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Public {
    /// As OpenSSH calls it.
    pub algorithm: String,
    /// One line of an authorized_keys file.
    pub line: String,
    /// As `ssh-keygen -l` shows it.
    pub fingerprint: String,
}

/// Reads a line like `ssh-ed25519 AAAA… comment`.
///
/// # Errors
/// Why it is not accepted, for the caller.
pub(super) fn read(line: &str) -> Result<Public, String> {
    let line = line.trim();
    if line.len() > MAX_CHARS || line.chars().any(char::is_control) {
        return Err(format!("one line of at most {MAX_CHARS} characters"));
    }
    let key = PublicKey::from_openssh(line).map_err(|_| {
        "an OpenSSH public key, like `ssh-ed25519 AAAA… comment`: what `ssh-keygen` writes to the file that ends in \
         `.pub`, without options"
            .to_owned()
    })?;
    match key.key_data() {
        KeyData::Ed25519(_) | KeyData::Ecdsa(_) | KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_) => {
        }
        KeyData::Rsa(rsa) => {
            let bits = rsa.n.as_positive_bytes().map_or(0, bits);
            if !RSA_BITS.contains(&bits) {
                return Err(format!(
                    "an RSA key of {bits} bits; RSA keys have from 2048 to 16384, and `ssh-keygen -t ed25519` makes a \
                     better one"
                ));
            }
        }
        _ => {
            return Err(
                "a key of the kind ed25519, ecdsa or rsa; `ssh-keygen -t ed25519` makes one".to_owned()
            );
        }
    }
    public(&key).map_err(|_| "a public key that can be written again".to_owned())
}

fn bits(positive: &[u8]) -> usize {
    let leading = positive.first().map_or(0, |first| first.leading_zeros() as usize);
    positive.len() * 8 - leading
}

fn public(key: &PublicKey) -> Result<Public, ssh_key::Error> {
    Ok(Public {
        algorithm: key.algorithm().as_str().to_owned(),
        line: key.to_openssh()?,
        fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
    })
}

/// Makes an Ed25519 key with this comment: the public half, and the private half as OpenSSH reads it.
///
/// # Errors
/// `internal` when the machine has no randomness.
pub(super) fn generate(comment: &str) -> Result<(Public, Zeroizing<String>), ApiError> {
    let pair = rcgen::KeyPair::generate_for(&PKCS_ED25519).map_err(ApiError::internal)?;
    let der = Zeroizing::new(pair.serialize_der());
    let (octets, offset) = ED25519_OCTETS;
    let private = der.get(offset..).and_then(|rest| rest.strip_prefix(&octets));
    let private = private.and_then(|rest| rest.first_chunk::<32>());
    let public_half = <[u8; 32]>::try_from(pair.public_key_raw());
    let (Some(private), Ok(public_half)) = (private, public_half) else {
        return Err(ApiError::internal("a generated Ed25519 key has another form"));
    };
    let data = KeypairData::Ed25519(Ed25519Keypair {
        public: Ed25519PublicKey(public_half),
        private: Ed25519PrivateKey::from_bytes(private),
    });
    let defect = |error: ssh_key::Error| ApiError::internal(error.to_string());
    let key = PrivateKey::new(data, comment).map_err(defect)?;
    let text = key.to_openssh(LineEnding::LF).map_err(defect)?;
    Ok((public(key.public_key()).map_err(defect)?, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti me@here";

    #[test]
    fn a_line_of_openssh_is_read_and_written_again() {
        let read = read(&format!("{ED25519}\n")).unwrap();
        assert_eq!((read.algorithm.as_str(), read.line.as_str()), ("ssh-ed25519", ED25519));
        assert_eq!(read.fingerprint, "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ");
    }

    #[test]
    fn what_is_not_a_key_or_a_weak_one_is_refused() {
        let of_bits = |bits: usize| {
            let mut modulus = vec![0xff; bits / 8];
            modulus[bits / 8 - 1] = 1;
            let n = ssh_key::Mpint::from_positive_bytes(&modulus).unwrap();
            let e = ssh_key::Mpint::from_positive_bytes(&[1, 0, 1]).unwrap();
            let data = KeyData::Rsa(ssh_key::public::RsaPublicKey { e, n });
            PublicKey::new(data, "").to_openssh().unwrap()
        };
        read(&of_bits(2048)).unwrap();
        assert!(read(&of_bits(1024)).unwrap_err().contains("RSA key of 1024 bits"));
        for wrong in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 AAAA me",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti me",
            &format!("command=\"id\" {ED25519}"),
            &format!("{ED25519}\n{ED25519}"),
            "-----BEGIN OPENSSH PRIVATE KEY-----",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_generated_key_is_one_pair() {
        let (public, private) = generate("laptop").unwrap();
        let again = PrivateKey::from_openssh(private.as_str()).unwrap();
        assert_eq!(again.public_key().to_openssh().unwrap(), public.line);
        assert_eq!(read(&public.line).unwrap(), public);
        // The halves belong together: the public one is made of the private one.
        let seed = again.key_data().ed25519().unwrap().private.to_bytes();
        let pkcs8 =
            [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..], &seed].concat();
        let der = rustls_pki_types::PrivatePkcs8KeyDer::from(pkcs8);
        let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).unwrap();
        assert_eq!(pair.public_key_raw(), again.key_data().ed25519().unwrap().public.0);
    }
}
