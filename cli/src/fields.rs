//! Values that are written as words of a command line.

use std::path::Path;

use serde_json::{Map, Value};

/// A property of a body, or a parameter of a query.
#[derive(Debug, Clone)]
pub struct Field {
    /// As in the API, like `size_gib`.
    pub name: String,
    pub help: String,
    pub required: bool,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub enum Kind {
    Flag,
    Integer,
    /// A number, or a text that is none.
    Scalar,
    /// With the values that it may have; any, if there are none.
    Text(Vec<String>),
    /// Never a word of the command line, where other users of the machine could read it.
    Secret,
    /// One value for each time that the flag is given.
    List(Box<Kind>),
    /// `key=value` for each time that the flag is given.
    Map,
    /// `name=value,name=value`, or JSON.
    Object(Vec<Field>),
    Json,
}

const TAKEN: [&str; 12] = [
    "cloud",
    "columns",
    "context",
    "dry-run",
    "file",
    "from-file",
    "help",
    "limit",
    "output",
    "project",
    "unset",
    "wait",
];

/// A part of the command line that is wrong: a flag, or a word called by its name.
#[derive(Debug, thiserror::Error)]
#[error("{part}: {reason}")]
pub struct Invalid {
    part: String,
    reason: String,
}

impl Invalid {
    pub fn new(part: &str, reason: impl Into<String>) -> Self {
        Self { part: part.to_owned(), reason: reason.into() }
    }
}

impl Field {
    /// Without `--`. What means something to every command has another name as a field.
    pub fn flag(&self) -> String {
        let name = crate::names::kebab(&self.name);
        if TAKEN.contains(&name.as_str()) { format!("with-{name}") } else { name }
    }

    /// What stands for the value in a help text.
    pub fn placeholder(&self) -> String {
        self.kind.placeholder()
    }

    /// What a value is made of, if it is an object.
    pub fn keys(&self) -> Vec<&str> {
        let mut kind = &self.kind;
        while let Kind::List(item) = kind {
            kind = item;
        }
        let Kind::Object(fields) = kind else { return Vec::new() };
        let (required, others): (Vec<_>, Vec<_>) = fields.iter().partition(|field| field.required);
        required.into_iter().chain(others).map(|field| field.name.as_str()).collect()
    }

    /// The value of all the words that were given.
    pub fn value(&self, words: &[String]) -> Result<Value, Invalid> {
        self.kind.values(words).map_err(|reason| Invalid::new(&format!("--{}", self.flag()), reason))
    }
}

impl Kind {
    fn placeholder(&self) -> String {
        match self {
            Self::Flag => "true|false".to_owned(),
            Self::Integer => "N".to_owned(),
            Self::Scalar => "TEXT|N".to_owned(),
            Self::Text(choices) if choices.is_empty() => "TEXT".to_owned(),
            Self::Secret => "@FILE".to_owned(),
            Self::Text(choices) => choices.join("|"),
            Self::List(item) => item.placeholder(),
            Self::Map => "KEY=VALUE".to_owned(),
            Self::Object(fields) if fields.is_empty() => "JSON".to_owned(),
            Self::Object(_) => "KEY=VALUE,…".to_owned(),
            Self::Json => "JSON".to_owned(),
        }
    }

    fn values(&self, words: &[String]) -> Result<Value, String> {
        match (self, words) {
            // The whole list at once, and the only way to write an empty one.
            (Self::List(_), [whole]) if whole.starts_with('[') => json(whole),
            (Self::List(item), words) => words.iter().map(|word| item.value(word)).collect(),
            (Self::Map, words) => {
                words.iter().map(|word| label(word)).collect::<Result<Map<_, _>, _>>().map(Value::Object)
            }
            (kind, words) => kind.value(words.last().map(String::as_str).unwrap_or_default()),
        }
    }

    fn value(&self, word: &str) -> Result<Value, String> {
        match self {
            Self::Flag => {
                word.parse().map(Value::Bool).map_err(|_| format!("'{word}' is neither true nor false"))
            }
            // As the API's own descriptions say it.
            Self::Integer | Self::Object(_) if word == "null" => Ok(Value::Null),
            Self::Integer => {
                word.parse::<i64>().map(Value::from).map_err(|_| format!("'{word}' is not a whole number"))
            }
            Self::Scalar => Ok(word.parse::<i64>().map_or_else(|_| Value::from(word), Value::from)),
            Self::Text(choices) => {
                let text = text(word)?;
                if !choices.is_empty() && !choices.contains(&text) {
                    return Err(format!("'{text}' is none of {}", choices.join(", ")));
                }
                Ok(Value::String(text))
            }
            Self::Secret if word.starts_with('@') && !word.starts_with("@@") => {
                text(word).map(|secret| Value::String(secret.trim_end_matches('\n').to_owned()))
            }
            Self::Secret => Err(
                "others could read it here: give @FILE, @- for the standard input, or nothing to be asked"
                    .to_owned(),
            ),
            Self::Object(fields) => object(fields, word),
            Self::List(item) => match word.strip_prefix('[') {
                Some(_) => json(word),
                None => word.split('+').map(|one| item.value(one)).collect(),
            },
            Self::Map | Self::Json => json(&text(word)?),
        }
    }
}

/// The word, or with `@` the content of the file that it names; `@-` is the standard input. `@@` begins with one `@`.
pub fn text(word: &str) -> Result<String, String> {
    match word.strip_prefix('@') {
        None => Ok(word.to_owned()),
        Some(rest) if rest.starts_with('@') => Ok(rest.to_owned()),
        Some("-") => {
            std::io::read_to_string(std::io::stdin()).map_err(|error| format!("standard input: {error}"))
        }
        Some(path) => std::fs::read_to_string(Path::new(path)).map_err(|error| format!("{path}: {error}")),
    }
}

/// `key=value`; `key-` takes a label away.
fn label(word: &str) -> Result<(String, Value), String> {
    if let Some((key, value)) = word.split_once('=') {
        return Ok((key.to_owned(), Value::String(value.to_owned())));
    }
    match word.strip_suffix('-') {
        Some(key) => Ok((key.to_owned(), Value::Null)),
        None => Err(format!("'{word}' is not KEY=VALUE, nor KEY- to take it away")),
    }
}

fn object(fields: &[Field], word: &str) -> Result<Value, String> {
    if word.starts_with(['{', '@']) {
        return json(&text(word)?);
    }
    let mut object = Map::new();
    for part in word.split(',') {
        let (name, value) = part.split_once('=').ok_or_else(|| format!("'{part}' is not NAME=VALUE"))?;
        let field = fields.iter().find(|field| field.name == name).ok_or_else(|| {
            let names: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
            format!("'{name}' is none of {}", names.join(", "))
        })?;
        object
            .insert(name.to_owned(), field.kind.value(value).map_err(|reason| format!("{name}: {reason}"))?);
    }
    Ok(Value::Object(object))
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn field(operation: &str, name: &str) -> &'static Field {
        let operation = crate::document::operations().iter().find(|one| one.id == operation).unwrap();
        operation.body.iter().flatten().find(|field| field.name == name).unwrap()
    }

    fn value(operation: &str, name: &str, words: &[&str]) -> Result<Value, String> {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        field(operation, name).value(&words).map_err(|error| error.to_string())
    }

    #[test]
    fn words_become_values_of_the_type_that_the_api_wants() {
        for (operation, name, words, expected) in [
            ("create_instance", "root_disk_gib", &["20"][..], json!(20)),
            ("create_instance", "labels", &["tier=web", "n=1"], json!({"tier": "web", "n": "1"})),
            ("update_instance", "labels", &["tier-"], json!({"tier": null})),
            ("create_instance", "networks", &["[]"], json!([])),
            (
                "create_instance",
                "networks",
                &["network=shop,security_groups=web+ssh", "port=db"],
                json!([{"network": "shop", "security_groups": ["web", "ssh"]}, {"port": "db"}]),
            ),
            ("create_volume", "source", &["image=debian-12"], json!({"image": "debian-12"})),
            ("create_volume", "source", &[r#"{"snapshot":"s"}"#], json!({"snapshot": "s"})),
            ("create_volume", "delete_protection", &["true"], json!(true)),
            ("create_instance", "user_data", &["@@home"], json!("@home")),
            ("add_security_group_rule", "direction", &["ingress"], json!("ingress")),
            ("add_security_group_rule", "protocol", &["tcp"], json!("tcp")),
            ("add_security_group_rule", "protocol", &["47"], json!(47)),
        ] {
            assert_eq!(value(operation, name, words), Ok(expected), "{operation} {name}");
        }
    }

    #[test]
    fn what_is_no_value_says_why() {
        for (operation, name, word, reason) in [
            ("create_instance", "root_disk_gib", "big", "--root-disk-gib: 'big' is not a whole number"),
            (
                "create_instance",
                "labels",
                "tier",
                "--labels: 'tier' is not KEY=VALUE, nor KEY- to take it away",
            ),
            ("create_volume", "source", "images=x", "--source: 'images' is none of image, snapshot, volume"),
            ("add_security_group_rule", "direction", "in", "--direction: 'in' is none of ingress, egress"),
            (
                "create_instance",
                "user_data",
                "@/nowhere",
                "--user-data: /nowhere: No such file or directory (os error 2)",
            ),
        ] {
            assert_eq!(value(operation, name, &[word]), Err(reason.to_owned()));
        }
    }
}
