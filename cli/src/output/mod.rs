//! Answers as tables for people, or as JSON or YAML for programs.

mod columns;
mod hosts;
mod record;
mod table;

use std::borrow::Cow;
use std::io::Write as _;

use anyhow::Result;
use clap::ArgMatches;
use serde_json::Value;

use crate::document::Operation;

#[derive(Clone, Copy, PartialEq)]
enum Format {
    Table,
    Json,
    Yaml,
}

/// How to show what a command answers.
pub struct Output {
    format: Format,
    columns: Vec<String>,
    noun: String,
    /// What may be a column, whether it is there or absent.
    known: Vec<String>,
}

impl Output {
    pub fn of(matches: &ArgMatches, operation: &Operation) -> Self {
        let noun = operation.named.nouns.last().map(String::as_str).unwrap_or_default();
        // What a verb answers may be a table of its own.
        let whole = format!("{noun} {}", operation.named.verb);
        let output = Self::new(matches, if columns::are_chosen(&whole) { &whole } else { noun });
        Self { known: operation.answers.clone(), ..output }
    }

    pub fn new(matches: &ArgMatches, noun: &str) -> Self {
        let format = match matches.get_one::<String>("output").map(String::as_str) {
            Some("json") => Format::Json,
            Some("yaml") => Format::Yaml,
            _ => Format::Table,
        };
        let columns = matches.get_many::<String>("columns").into_iter().flatten().cloned().collect();
        Self { format, columns, noun: noun.to_owned(), known: Vec::new() }
    }

    pub fn list(&self, rows: &[Value]) -> Result<()> {
        match self.format {
            Format::Table if rows.is_empty() => {
                if !self.known.is_empty() {
                    columns::check(&self.columns, &self.known, rows)?;
                }
                eprintln!("There are none.");
                Ok(())
            }
            Format::Table => {
                let columns = if self.columns.is_empty() {
                    columns::of(&self.noun, rows)
                } else {
                    columns::check(&self.columns, &self.known, rows)?;
                    self.columns.clone()
                };
                match self.noun.as_str() {
                    hosts::NOUN => print(&table::render(&columns, &hosts::shown(rows))),
                    _ => print(&table::render(&columns, rows)),
                }
            }
            Format::Json => print_json(rows),
            Format::Yaml => print(&serde_yaml_ng::to_string(rows)?),
        }
    }

    pub fn record(&self, answer: &Value) -> Result<()> {
        match self.format {
            Format::Json => print_json(answer),
            Format::Yaml => print(&serde_yaml_ng::to_string(answer)?),
            Format::Table if answer.is_null() => {
                eprintln!("Done.");
                Ok(())
            }
            Format::Table => match answer.as_array().or(answer["items"].as_array()) {
                Some(rows) => self.list(rows),
                None if !self.columns.is_empty() => self.list(std::slice::from_ref(answer)),
                None => print(&record::render(answer)?),
            },
        }
    }

    /// A resource that was made or changed: its line of the list. `get` shows all of it.
    pub fn changed(&self, answer: &Value) -> Result<()> {
        match self.format {
            Format::Table if !answer.is_null() => self.list(std::slice::from_ref(answer)),
            _ => self.record(answer),
        }
    }

    /// A host that is emptied: its instances; for programs the host, too.
    pub fn evacuations(&self, answer: &Value) -> Result<()> {
        match (self.format, answer["evacuations"].as_array()) {
            (Format::Table, Some(rows)) => self.list(rows),
            _ => self.record(answer),
        }
    }

    /// What a dry run answers: the plan before the resource.
    pub fn plan(&self, answer: &Value) -> Result<()> {
        if self.format == Format::Table {
            print(&record::render_plan(&answer["plan"]))?;
        }
        // Of what would only be gone there is nothing to show, and nothing is done.
        if !(self.format == Format::Table && answer.is_null()) {
            self.record(answer)?;
        }
        eprintln!("Nothing was changed.");
        Ok(())
    }
}

/// A value in a line of text: texts without quotation marks, resources by their names.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
        Value::Object(object) => match object.get("name") {
            Some(name) => plain(name),
            None => object
                .iter()
                .map(|(key, value)| format!("{key}={}", plain(value)))
                .collect::<Vec<_>>()
                .join(","),
        },
        other => other.to_string(),
    }
}

/// Text of others, so that a terminal obeys none of it.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let is_order = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\t');
    if !text.contains(is_order) {
        return Cow::Borrowed(text);
    }
    let show = |letter: char| match letter {
        '\r' => String::new(),
        letter if is_order(letter) => letter.escape_default().to_string(),
        letter => letter.to_string(),
    };
    Cow::Owned(text.chars().map(show).collect())
}

fn print_json(value: &(impl serde::Serialize + ?Sized)) -> Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    write_out(&(text + "\n"))
}

fn print(text: &str) -> Result<()> {
    write_out(&harmless(text))
}

/// Whoever reads may stop to: `cumulo instance list | head`.
fn write_out(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_that_others_have_written() {
        assert_eq!(harmless("web \u{1b}[2J\u{9b}1m\r\n"), "web \\u{1b}[2J\\u{9b}1m\n");
        assert_eq!(harmless("web ä\n"), "web ä\n");
    }
}
