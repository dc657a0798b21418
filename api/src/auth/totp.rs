//! Time-based one-time passwords (RFC 6238), as every authenticator app makes them: SHA-1, six digits, 30
//! seconds. And recovery codes, for whoever has lost the app.

use rand::Rng;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use totp_rs::{Algorithm, Builder, Totp};

use super::passwords;
use crate::http::ApiError;

const ISSUER: &str = "Cumulo";
const DIGITS: u8 = 6;
const STEP_SECONDS: u64 = 30;
/// A code of the step before or after is taken too: clocks differ.
const SKEW_STEPS: u16 = 1;
/// As RFC 4226 recommends.
const SECRET_BYTES: usize = 20;

pub(super) const RECOVERY_CODES: usize = 10;
const RECOVERY_CODE_CHARS: usize = 16;

/// A new secret.
pub(super) fn new_secret() -> [u8; SECRET_BYTES] {
    let mut secret = [0; SECRET_BYTES];
    rand::rng().fill_bytes(&mut secret);
    secret
}

/// A secret as people type it, in base32.
pub(super) fn base32(secret: &[u8], user: &str) -> Result<String, ApiError> {
    Ok(totp(secret, user)?.secret().to_base32())
}

/// A secret as apps scan it, an `otpauth:` URL.
pub(super) fn url(secret: &[u8], user: &str) -> Result<String, ApiError> {
    totp(secret, user)?.to_url().map_err(|error| ApiError::internal(error.to_string()))
}

/// The time step that a code belongs to, if it is right. The caller sees to it that no step serves twice.
pub(super) fn step_of(secret: &[u8], code: &str, now: OffsetDateTime) -> Result<Option<i64>, ApiError> {
    let seconds = u64::try_from(now.unix_timestamp()).map_err(ApiError::internal)?;
    let step = totp(secret, "")?.check(code.trim(), seconds);
    step.map(i64::try_from).transpose().map_err(ApiError::internal)
}

fn totp(secret: &[u8], user: &str) -> Result<Totp, ApiError> {
    Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(DIGITS)
        .with_step_duration(STEP_SECONDS)
        .with_skew(SKEW_STEPS)
        .with_secret(secret.to_vec())
        .with_issuer(Some(ISSUER))
        .with_account_name(user)
        .build()
        .map_err(|error| ApiError::internal(error.to_string()))
}

/// New recovery codes of 80 bits each, which no fast hash gives away.
pub(super) fn new_recovery_codes() -> Vec<String> {
    (0..RECOVERY_CODES)
        .map(|_| {
            let letters: Vec<char> = passwords::generate().chars().take(RECOVERY_CODE_CHARS).collect();
            let groups: Vec<String> = letters.chunks(4).map(|group| group.iter().collect()).collect();
            groups.join("-")
        })
        .collect()
}

/// What is stored of a recovery code. People may type it with or without hyphens, in either case.
pub(super) fn hash_recovery_code(code: &str) -> [u8; 32] {
    let letters: String = code.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    Sha256::digest(letters.to_ascii_lowercase()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(seconds).unwrap()
    }

    /// RFC 6238, appendix B, with the last six of the eight digits.
    #[test]
    fn codes_are_those_of_the_rfc() {
        let secret = b"12345678901234567890";
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            let step = seconds / 30;
            assert_eq!(step_of(secret, code, at(seconds)).unwrap(), Some(step), "{seconds}");
            for near in [seconds - 30, seconds + 30] {
                assert_eq!(step_of(secret, code, at(near)).unwrap(), Some(step), "{near}");
            }
            for far in [seconds + 60, seconds + 600] {
                assert_eq!(step_of(secret, code, at(far)).unwrap(), None, "{far}");
            }
        }
        for wrong in ["", "28708", "2870820", "+87082", "28708a", "２８７０８２", "287 082"] {
            assert_eq!(step_of(secret, wrong, at(59)).unwrap(), None, "{wrong}");
        }
        assert_eq!(step_of(secret, " 287082\n", at(59)).unwrap(), Some(1));
    }

    #[test]
    fn apps_get_what_they_understand() {
        let url = url(b"12345678901234567890", "ada").unwrap();
        assert_eq!(url, "otpauth://totp/Cumulo:ada?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Cumulo");
        assert_eq!(base32(b"12345678901234567890", "ada").unwrap(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    }

    #[test]
    fn recovery_codes_are_read_as_people_type_them() {
        let codes = new_recovery_codes();
        assert_eq!(codes.len(), RECOVERY_CODES);
        let code = &codes[0];
        assert_eq!(code.len(), 19, "{code}");
        assert_ne!(codes[0], codes[1]);
        let typed = format!(" {} ", code.to_uppercase().replace('-', " "));
        assert_eq!(hash_recovery_code(code), hash_recovery_code(&typed));
        assert_ne!(hash_recovery_code(code), hash_recovery_code(&codes[1]));
    }
}
