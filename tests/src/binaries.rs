//! Finding the programs that this workspace builds.

use anyhow::{Context, Result, bail, ensure};
use camino::Utf8PathBuf;

/// The path of a built program. `CUMULO_BIN_DIR` names the folder to look in; without it, it is the target
/// folder that this very program runs from.
pub fn find(name: &str) -> Result<Utf8PathBuf> {
    let dir = match std::env::var("CUMULO_BIN_DIR") {
        Ok(dir) => Utf8PathBuf::from(&dir).canonicalize_utf8().with_context(|| format!("find {dir}"))?,
        Err(_) => own_target_folder()?,
    };
    let path = dir.join(name);
    if !path.is_file() {
        bail!("there is no {path}; build it with `cargo build --bins --workspace`");
    }
    Ok(path)
}

/// `target/debug` for both `target/debug/lab` and the test `target/debug/deps/lab-0123`.
fn own_target_folder() -> Result<Utf8PathBuf> {
    let own = Utf8PathBuf::try_from(std::env::current_exe().context("find the running program")?)?;
    let dir = own.parent().context("the running program has no folder")?;
    Ok(if dir.file_name() == Some("deps") { dir.parent().unwrap_or(dir).to_owned() } else { dir.to_owned() })
}

/// Fails where there is no Terraform, with what to do about it.
pub fn terraform() -> Result<()> {
    let output = std::process::Command::new("terraform").args(["version", "-json"]).output();
    let output = output.context(
        "there is no terraform. Put 1.11 or newer into PATH, from https://developer.hashicorp.com/terraform/install",
    )?;
    let version: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let version = version["terraform_version"].as_str().unwrap_or_default();
    let mut numbers = version.split('.').filter_map(|number| number.parse::<u32>().ok());
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    ensure!((major, minor) >= (1, 11), "terraform {version} is too old; take 1.11 or newer");
    Ok(())
}
