//! Rebuilds the crate when a migration is added: `sqlx::migrate!` embeds the folder, and the compiler
//! does not see files that were not there before. And lists the files of the web console to embed, if it has been
//! built.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const BUILT: &str = "../web-ui/built";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=../migrations");
    println!("cargo::rerun-if-changed={BUILT}");
    let root = fs::canonicalize(BUILT)?;
    let mut list = String::from("&[\n");
    for path in files(&root)? {
        let name = path.strip_prefix(&root).map_err(io::Error::other)?;
        let gzip = with_suffix(&path, ".gz");
        let gzip = if gzip.exists() { format!("Some(include_bytes!({gzip:?}))") } else { "None".to_owned() };
        let line = format!("    File {{ name: {name:?}, plain: include_bytes!({path:?}), gzip: {gzip} }},");
        writeln!(list, "{line}").map_err(io::Error::other)?;
    }
    list.push(']');
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?;
    fs::write(Path::new(&out).join("console_files.rs"), list)
}

/// What is served, in the order of the names: neither hidden files nor what only stands beside others.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if !name.starts_with('.') && !name.ends_with(".gz") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
