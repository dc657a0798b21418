//! Rebuilds the crate when a migration is added: `sqlx::migrate!` embeds the folder, and the compiler
//! does not see files that were not there before.

fn main() {
    println!("cargo::rerun-if-changed=../migrations");
}
