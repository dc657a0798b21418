//! Which cloud, as whom, in which project: contexts, in a folder that only its owner reads.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::ArgMatches;
use client::{Client, Credential, SessionFile};
use serde::{Deserialize, Serialize};

/// Unless it is called otherwise.
const FIRST: &str = "default";

#[derive(Default, Serialize, Deserialize)]
pub struct Contexts {
    pub current: Option<String>,
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Context {
    pub url: String,
    pub username: Option<String>,
    pub project: Option<String>,
}

/// `CUMULO_CONFIG_DIR`, or `cumulo` where the user's configuration is.
pub fn folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("CUMULO_CONFIG_DIR") {
        return Ok(folder.into());
    }
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".config"));
    let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
    Ok(base.context("neither CUMULO_CONFIG_DIR nor HOME is set")?.join("cumulo"))
}

impl Contexts {
    pub fn load() -> Result<Self> {
        let path = folder()?.join("contexts.toml");
        match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("{} is broken", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    pub fn save(&self) -> Result<()> {
        let folder = folder()?;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let mut file = tempfile::NamedTempFile::new_in(&folder)?;
        std::io::Write::write_all(&mut file, toml::to_string(self)?.as_bytes())?;
        file.persist(folder.join("contexts.toml"))?;
        Ok(())
    }

    /// The context that the command line or the configuration names.
    pub fn chosen(&self, matches: &ArgMatches) -> Option<(String, &Context)> {
        let name = matches.get_one::<String>("context").or(self.current.as_ref())?;
        Some((name.clone(), self.contexts.get(name)?))
    }

    pub fn name(&self, matches: &ArgMatches) -> String {
        let given = matches.get_one::<String>("context").or(self.current.as_ref());
        given.cloned().unwrap_or_else(|| FIRST.to_owned())
    }
}

pub fn session_file(context: &str) -> Result<SessionFile> {
    if context.is_empty()
        || !context.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
        || context.starts_with('.')
    {
        bail!("'{context}' cannot be the name of a context: letters, digits, -, _ and . can");
    }
    Ok(SessionFile::new(folder()?.join(format!("session-{context}.json"))))
}

/// A cloud to talk to, and the project to work in.
pub struct Place {
    pub client: Client,
    project: Option<String>,
}

impl Place {
    /// From the command line, the environment and the context, in this order. A sign-in is only ever shown to the cloud
    /// that it is of.
    pub fn find(matches: &ArgMatches) -> Result<Self> {
        let contexts = Contexts::load()?;
        let chosen = contexts.chosen(matches);
        if let Some(name) = matches.get_one::<String>("context")
            && chosen.is_none()
        {
            bail!("there is no context '{name}': see `cumulo context list`");
        }
        let wanted = std::env::var("CUMULO_URL").ok().map(|url| url.trim_end_matches('/').to_owned());
        let chosen = chosen.filter(|(_, context)| wanted.as_ref().is_none_or(|url| *url == context.url));
        let key = std::env::var("CUMULO_API_KEY").ok().filter(|key| !key.is_empty());
        let url = wanted.or_else(|| chosen.as_ref().map(|(_, context)| context.url.clone()));
        let Some(url) = url else {
            bail!(
                "which cloud? Sign in with `cumulo login --url http://…`, or set CUMULO_URL and CUMULO_API_KEY"
            )
        };
        let credential = match (key, &chosen) {
            (Some(key), _) => Some(Credential::ApiKey(key)),
            (None, Some((name, _))) => Some(Credential::Session(session_file(name)?)),
            (None, None) => None,
        };
        let project = matches.get_one::<String>("project").cloned();
        let project = project.or_else(|| chosen.and_then(|(_, context)| context.project.clone()));
        Ok(Self { client: Client::new(&url, credential)?, project })
    }

    pub fn project(&self) -> Result<&str> {
        self.project
            .as_deref()
            .context("which project? Give --project, or choose one with `cumulo context project NAME`")
    }
}
