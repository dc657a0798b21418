//! Tokens that need no memory: when they end, and a proof that this process gave them to that port.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::PortId;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

const EXPIRY_BYTES: usize = 8;

/// Makes and knows tokens. Those of an earlier process are not known: a guest asks for another.
pub(super) struct Tokens {
    key: [u8; 32],
}

impl Default for Tokens {
    fn default() -> Self {
        Self { key: rand::random() }
    }
}

impl Tokens {
    pub(super) fn make(&self, port: PortId, until: OffsetDateTime) -> String {
        let expiry = until.unix_timestamp().to_be_bytes();
        URL_SAFE_NO_PAD.encode([expiry.as_slice(), &self.proof(port, expiry)].concat())
    }

    pub(super) fn is_valid(&self, token: &[u8], port: PortId, now: OffsetDateTime) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(token) else { return false };
        let Some((expiry, proof)) = bytes.split_first_chunk::<EXPIRY_BYTES>() else { return false };
        let expected = self.proof(port, *expiry);
        // Every byte is looked at, so that the time it takes tells nothing.
        let differing = expected.iter().zip(proof).fold(0, |all, (a, b)| all | (a ^ b));
        proof.len() == expected.len() && differing == 0 && now.unix_timestamp() < i64::from_be_bytes(*expiry)
    }

    /// Two hashes under the key, so that none can be extended to that of another message.
    fn proof(&self, port: PortId, expiry: [u8; EXPIRY_BYTES]) -> [u8; 32] {
        let inner = Sha256::new().chain_update(self.key).chain_update(port.as_uuid()).chain_update(expiry);
        Sha256::new().chain_update(self.key).chain_update(inner.finalize()).finalize().into()
    }
}
