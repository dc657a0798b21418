//! Which cloud, as whom, in which project: contexts, in a folder that only its owner reads.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Client, Credential, Error, Result, SessionFile};

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

impl Contexts {
    /// `CUMULO_CONFIG_DIR`, or `cumulo` where the user's configuration is.
    pub fn folder() -> Result<PathBuf> {
        if let Some(folder) = std::env::var_os("CUMULO_CONFIG_DIR") {
            return Ok(folder.into());
        }
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".config"));
        let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
        let unset = || Error::NoPlace("neither CUMULO_CONFIG_DIR nor HOME is set".to_owned());
        Ok(base.ok_or_else(unset)?.join("cumulo"))
    }

    fn file() -> Result<PathBuf> {
        Ok(Self::folder()?.join("contexts.toml"))
    }

    pub fn load() -> Result<Self> {
        let path = Self::file()?;
        match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|error| Error::NoPlace(format!("{} is broken: {error}", path.display()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(cause) => Err(Error::File { path: path.display().to_string(), cause }),
        }
    }

    pub fn save(&self) -> Result<()> {
        let path = Self::file()?;
        let save = || {
            let folder = Self::folder().map_err(std::io::Error::other)?;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            let mut file = tempfile::NamedTempFile::new_in(&folder)?;
            let text = toml::to_string(self).map_err(std::io::Error::other)?;
            std::io::Write::write_all(&mut file, text.as_bytes())?;
            file.persist(&path)?;
            Ok(())
        };
        save().map_err(|cause| Error::File { path: path.display().to_string(), cause })
    }

    /// The context of this name, or the current one.
    pub fn chosen(&self, name: Option<&str>) -> Option<(String, &Context)> {
        let name = name.or(self.current.as_deref())?;
        Some((name.to_owned(), self.contexts.get(name)?))
    }

    /// How the context is called that is asked for, whether it is there or not.
    pub fn name(&self, name: Option<&str>) -> String {
        name.or(self.current.as_deref()).unwrap_or(FIRST).to_owned()
    }

    /// Where the sign-in of a context is kept.
    pub fn session(context: &str) -> Result<SessionFile> {
        let is_good = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        if context.is_empty() || !context.chars().all(is_good) || context.starts_with('.') {
            let why = format!("'{context}' cannot be the name of a context: letters, digits, -, _ and . can");
            return Err(Error::NoPlace(why));
        }
        Ok(SessionFile::new(Self::folder()?.join(format!("session-{context}.json"))))
    }
}

/// What somebody says about the place; what they do not say is in the context.
#[derive(Default)]
pub struct Given {
    pub context: Option<String>,
    pub url: Option<String>,
    pub api_key: Option<String>,
    pub project: Option<String>,
}

/// A cloud to talk to, and the project to work in.
pub struct Place {
    pub client: Client,
    pub project: Option<String>,
}

impl Place {
    /// What was given goes before the environment (`CUMULO_URL`, `CUMULO_API_KEY`), and that before the context. A
    /// sign-in is only ever shown to the cloud that it is of.
    pub fn find(given: Given) -> Result<Self> {
        let contexts = Contexts::load()?;
        let chosen = contexts.chosen(given.context.as_deref());
        if let Some(name) = &given.context
            && chosen.is_none()
        {
            return Err(Error::NoPlace(format!("there is no context '{name}': see `cumulo context list`")));
        }
        let env = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let wanted = given.url.or_else(|| env("CUMULO_URL")).map(|url| url.trim_end_matches('/').to_owned());
        let chosen = chosen.filter(|(_, context)| wanted.as_ref().is_none_or(|url| *url == context.url));
        let url = wanted.or_else(|| chosen.as_ref().map(|(_, context)| context.url.clone()));
        let which =
            "which cloud? Sign in with `cumulo login --url http://…`, or set CUMULO_URL and CUMULO_API_KEY";
        let url = url.ok_or_else(|| Error::NoPlace(which.to_owned()))?;
        let credential = match (given.api_key.or_else(|| env("CUMULO_API_KEY")), &chosen) {
            (Some(key), _) => Some(Credential::ApiKey(key)),
            (None, Some((name, _))) => Some(Credential::Session(Contexts::session(name)?)),
            (None, None) => None,
        };
        let project = given.project.or_else(|| chosen.and_then(|(_, context)| context.project.clone()));
        Ok(Self { client: Client::new(&url, credential)?, project })
    }
}
