//! A document in a space of fixed size that is written in place: `<SHA-256 of the JSON> <its length>\n<JSON>`.
//!
//! Writing in place takes no room on a full disk. Whoever reads half of an old and half of a new one finds that the digest
//! is wrong.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// The bytes of a document, at most `space` of them.
pub(super) fn seal<T: Serialize>(value: &T, space: usize) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(value)?;
    let mut bytes = format!("{} {}\n", hex::encode(Sha256::digest(&json)), json.len()).into_bytes();
    bytes.extend(json);
    if bytes.len() > space {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "there is too much to write down"));
    }
    Ok(bytes)
}

/// The document at the beginning of these bytes, if a whole one is there.
pub(super) fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let end = bytes.iter().take(96).position(|byte| *byte == b'\n')?;
    let (digest, length) = std::str::from_utf8(&bytes[..end]).ok()?.split_once(' ')?;
    let json = bytes[end + 1..].get(..length.parse().ok()?)?;
    (hex::encode(Sha256::digest(json)) == digest).then(|| serde_json::from_slice(json).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_document_is_none() {
        let sealed = seal(&"a document", 200).unwrap();
        let mut space = vec![b' '; 200];
        space[..sealed.len()].copy_from_slice(&sealed);
        assert_eq!(unseal::<String>(&space).as_deref(), Some("a document"));
        for at in 0..sealed.len() {
            let mut torn = space.clone();
            torn[at] ^= 1;
            assert_eq!(unseal::<String>(&torn), None, "byte {at}");
            assert_eq!(unseal::<String>(&space[..at]), None, "{at} bytes");
        }
        assert!(seal(&"x".repeat(200), 200).is_err());
        assert_eq!(unseal::<String>(b""), None);
        assert_eq!(unseal::<String>(&[0; 4096]), None);
    }
}
