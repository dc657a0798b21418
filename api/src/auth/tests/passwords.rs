//! What is stored of a password, also by releases before this one.

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};

use crate::auth::passwords::{Cost, Passwords, hash_now};

const PASSWORD: &str = "correct horse battery staple";

async fn verify(passwords: &Passwords, password: &str, stored: &str) -> bool {
    passwords.verify(password.to_owned(), Some(stored.to_owned())).await.unwrap()
}

#[tokio::test]
async fn a_hash_is_checked_with_the_parameters_that_it_names() {
    let passwords = Passwords::new().unwrap();
    // Of all memory sizes in turn, so that each thread's memory grows and shrinks.
    for (memory_kib, passes) in [(19_456, 2), (64, 3), (4_096, 1), (19_456, 2), (64, 1)] {
        let params = Params::new(memory_kib, passes, 1, None).unwrap();
        let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let stored = hasher.hash_password(PASSWORD.as_bytes()).unwrap().to_string();
        assert!(verify(&passwords, PASSWORD, &stored).await, "{stored}");
        assert!(!verify(&passwords, "correct horse", &stored).await, "{stored}");
    }
}

#[tokio::test]
async fn a_new_hash_names_the_parameters_and_is_salted() {
    let passwords = Passwords::new().unwrap();
    let [one, other] = [(); 2].map(|()| hash_now(PASSWORD, &Cost::FULL, &mut Vec::new()).unwrap());
    assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
    assert_ne!(one, other);
    assert!(verify(&passwords, PASSWORD, &one).await && verify(&passwords, PASSWORD, &other).await);
}

#[tokio::test]
async fn what_is_no_hash_is_a_defect_and_not_a_wrong_password() {
    let passwords = Passwords::new().unwrap();
    for stored in ["", "secret", "$argon2id$v=19$m=19456,t=2,p=1"] {
        assert!(passwords.verify(PASSWORD.to_owned(), Some(stored.to_owned())).await.is_err(), "{stored}");
    }
}
