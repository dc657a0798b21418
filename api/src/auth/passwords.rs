//! Passwords: Argon2id with 19 MiB, two passes and one lane (OWASP's first choice), a few at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use rand::Rng;
use tokio::sync::{Semaphore, oneshot};

use crate::http::{ApiError, FieldError};

/// What it costs to hash a new password.
pub(super) struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// OWASP's first choice.
    pub(super) const FULL: Self = Self { memory_kib: 19_456, passes: 2, lanes: 1 };
    /// For tests, each of which makes users and takes no longer for it. One looks at the hash of `FULL` itself.
    const SCANT: Self = Self { memory_kib: 64, passes: 1, lanes: 1 };
    const USUAL: Self = if cfg!(test) { Self::SCANT } else { Self::FULL };
}

const MIN_PASSWORD_CHARS: usize = 12;
/// A longer one is nobody's.
const MAX_PASSWORD_BYTES: usize = 1024;

/// What a hash is computed in. A thread makes its own once and never gives it back: an allocator that is asked for so
/// much again and again keeps several times as much.
type Memory = Vec<Block>;

type Work = Box<dyn FnOnce(&mut Memory) + Send>;

/// Hashes and checks passwords on threads of their own, one for each processor, with 19 MiB each.
#[derive(Clone)]
pub struct Passwords {
    permits: Arc<Semaphore>,
    threads: mpsc::Sender<Work>,
    /// Checked when the user does not exist, so that both cases take as long.
    decoy: Arc<str>,
}

impl Passwords {
    /// # Errors
    /// When the hash parameters are refused; a defect.
    pub fn new() -> Result<Self, ApiError> {
        let count = thread::available_parallelism().map_or(1, usize::from).max(2);
        let decoy = hash_now(&generate(), &Cost::USUAL, &mut Memory::new())?;
        let threads = start_threads(count).map_err(ApiError::internal)?;
        Ok(Self { permits: Arc::new(Semaphore::new(count)), threads, decoy: decoy.into() })
    }

    pub async fn hash(&self, password: String) -> Result<String, ApiError> {
        self.run(move |memory| hash_now(&password, &Cost::USUAL, memory)).await
    }

    /// Whether the password is the one behind the stored hash; without a hash it never is, as slowly.
    pub async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, ApiError> {
        let known = stored.is_some() && password.len() <= MAX_PASSWORD_BYTES;
        let stored = stored.unwrap_or_else(|| self.decoy.to_string());
        self.run(move |memory| Ok(known & matches(&password, &stored, memory)?)).await
    }

    /// Leaves no hash to anybody until this is dropped.
    #[cfg(test)]
    pub(crate) async fn occupy(&self) -> tokio::sync::OwnedSemaphorePermit {
        let all = u32::try_from(self.permits.available_permits()).unwrap();
        Arc::clone(&self.permits).acquire_many_owned(all).await.unwrap()
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Memory) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let _permit = self.permits.acquire().await.map_err(ApiError::internal)?;
        let (answer, answered) = oneshot::channel();
        // Who has gone needs no answer.
        let work = Box::new(move |memory: &mut Memory| drop(answer.send(work(memory))));
        self.threads.send(work).map_err(|_| ApiError::internal("no thread hashes passwords"))?;
        answered.await.map_err(ApiError::internal)?
    }
}

/// They end with the last sender.
fn start_threads(count: usize) -> std::io::Result<mpsc::Sender<Work>> {
    let (sender, receiver) = mpsc::channel::<Work>();
    let receiver = Arc::new(Mutex::new(receiver));
    for _ in 0..count {
        let receiver = Arc::clone(&receiver);
        let next = move || receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        thread::Builder::new().name("passwords".to_owned()).spawn(move || {
            let mut memory = Memory::new();
            while let Ok(work) = next() {
                if catch_unwind(AssertUnwindSafe(|| work(&mut memory))).is_err() {
                    tracing::error!("hashing a password panicked");
                }
            }
        })?;
    }
    Ok(sender)
}

/// The rule for new passwords: at least 12 characters, at most 1024 bytes, and not the user's name. Length is
/// what counts (NIST SP 800-63B); demands for digits and signs only make passwords predictable.
///
/// # Errors
/// `validation_failed` at this field.
pub(crate) fn check_new(pointer: &str, password: &str, user_name: &str) -> Result<(), ApiError> {
    let (code, message) = if password.chars().count() < MIN_PASSWORD_CHARS {
        ("too_short", format!("at least {MIN_PASSWORD_CHARS} characters"))
    } else if password.len() > MAX_PASSWORD_BYTES {
        ("too_long", format!("at most {MAX_PASSWORD_BYTES} bytes"))
    } else if password.eq_ignore_ascii_case(user_name) {
        ("invalid", "not the user's name".to_owned())
    } else {
        return Ok(());
    };
    Err(ApiError::invalid(vec![FieldError::new(pointer, code, message)]))
}

pub(super) fn hash_now(password: &str, cost: &Cost, memory: &mut Memory) -> Result<String, ApiError> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, None).map_err(defect)?;
    let salt = Salt::generate();
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params).map_err(defect)?,
        salt: Some(salt),
        hash: Some(derive(
            &Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            password,
            &salt,
            memory,
        )?),
    };
    Ok(hash.to_string())
}

/// With the parameters that the hash was made with.
fn matches(password: &str, stored: &str, memory: &mut Memory) -> Result<bool, ApiError> {
    let stored = PasswordHash::new(stored).map_err(defect)?;
    let (Some(version), Some(salt), Some(hash)) = (stored.version, stored.salt, stored.hash) else {
        return Err(defect("a stored hash lacks its version, its salt or itself"));
    };
    let algorithm = Algorithm::try_from(stored.algorithm.as_str()).map_err(defect)?;
    let version = Version::try_from(version).map_err(defect)?;
    let params = Params::try_from(&stored).map_err(defect)?;
    // Compared in constant time.
    Ok(derive(&Argon2::new(algorithm, version, params), password, &salt, memory)? == hash)
}

fn derive(argon2: &Argon2<'_>, password: &str, salt: &Salt, memory: &mut Memory) -> Result<Output, ApiError> {
    memory.resize(argon2.params().block_count(), Block::default());
    let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
    argon2.hash_password_into_with_memory(password.as_bytes(), salt, &mut output, memory).map_err(defect)?;
    Output::new(&output).map_err(defect)
}

fn defect(error: impl std::fmt::Display) -> ApiError {
    ApiError::internal(error.to_string())
}

/// A random password of 120 bits, easy to copy: no letter that looks like a digit.
pub(super) fn generate() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; 24];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}
