//! `make -s env`: what curl needs, as shell lines.

use anyhow::{Context, Result};

use super::demo;
use super::record::Record;
use super::settings::Settings;
use super::steps::{API, read_credentials};

pub fn env() -> Result<()> {
    let settings = Settings::from_env()?;
    let record = Record::open(&settings.state).ok().filter(|record| record.running(API).is_some());
    let url = record.as_ref().and_then(Record::url).context("no cloud runs here; `make up` starts one")?;
    let credentials = read_credentials(&settings.credentials())?;
    let lines = [
        ("CUMULO_URL", url),
        ("CUMULO_USERNAME", &credentials.username),
        ("CUMULO_PASSWORD", &credentials.password),
        ("CUMULO_PROJECT", demo::PROJECT),
    ];
    for (name, value) in lines {
        say!("export {name}={}", quoted(value));
    }
    Ok(())
}

/// One word for any POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in ["plain", "two words", "it's $HOME `date` \"x\" \\", ""] {
            let script = format!("printf %s {}", quoted(text));
            let said = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), text);
        }
    }
}
