//! The reference in `docs/terraform/`, written from the schemas: `UPDATE_GOLDEN=1 cargo nextest run -p terraform-provider docs`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use crate::resource::{CATALOGUE, RESOURCES};
use crate::schema::{Attribute, Mode, Type};
use crate::{configuration, data, import, openapi};

/// Every page, by its file.
fn pages() -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    let mut index = format!(
        "# Reference of the Terraform provider\n\n{}\n\nHow to begin is in [the guide](../terraform.md).\n\n## Provider\n\n{}",
        configuration::ABOUT,
        table(&configuration::attributes(), "")
    );
    index += "\n## Resources\n\nEach is a data source, too.\n\n| | |\n|---|---|\n";
    for one in RESOURCES.iter() {
        let name = one.entry.name;
        let _ = writeln!(index, "| [cumulo_{name}]({name}.md) | {} |", one.entry.about);
        let (given, shown): (Vec<_>, Vec<_>) =
            one.attributes.iter().cloned().partition(|one| one.mode != Mode::Computed);
        let mut page =
            format!("# cumulo_{name}\n\n{}\n\n## Configured\n\n{}", one.entry.about, table(&given, ""));
        if !shown.is_empty() {
            let _ = write!(page, "\n## Shown\n\n{}", table(&shown, ""));
        }
        let _ = write!(
            page,
            "\n## Import\n\n```sh\nterraform import cumulo_{name}.NAME {}\n```\n",
            import::form(one)
        );
        let given: Vec<_> =
            data::attributes(one).into_iter().filter(|one| one.mode != Mode::Computed).collect();
        let given: Vec<_> = given.iter().map(|one| format!("`{}`", one.name)).collect();
        let _ = write!(page, "\n## Data source\n\nFound by {}; it shows the rest.\n", given.join(", "));
        pages.insert(format!("{name}.md"), page);
    }
    index += "\n## Data sources alone\n\nAn operator makes these. They are found by `name` or `id`.\n";
    for one in CATALOGUE.iter() {
        let _ = write!(
            index,
            "\n### cumulo_{}\n\n{}\n\n{}",
            one.name,
            one.about,
            table(&data::catalogue(one), "")
        );
    }
    pages.insert("README.md".to_owned(), index);
    pages
}

fn table(attributes: &[Attribute], within: &str) -> String {
    let mut text = String::new();
    if within.is_empty() {
        text += "| attribute | type | |\n|---|---|---|\n";
    }
    for one in attributes {
        let name = format!("{within}{}", one.name);
        let _ = writeln!(text, "| `{name}` | {} | {} |", ty(&one.ty), words(one).replace('|', "\\|"));
        let inner = match &one.ty {
            Type::Object(inner) => Some((inner, format!("{name}."))),
            Type::List(item) => match &**item {
                Type::Object(inner) => Some((inner, format!("{name}[]."))),
                _ => None,
            },
            _ => None,
        };
        if let Some((inner, within)) = inner {
            text += &table(inner, &within);
        }
    }
    text
}

fn words(one: &Attribute) -> String {
    let schema = openapi::resolve(one.schema);
    let mut words = Vec::new();
    match one.mode {
        Mode::Required => words.push("**Required.**".to_owned()),
        Mode::OptionalComputed if one.default.is_none() && one.name != "project" => {
            words.push("Left out, it is as the cloud says.".to_owned());
        }
        _ => {}
    }
    words.push(one.help.clone());
    if let Some(choices) = schema["enum"].as_array() {
        let choices: Vec<_> = choices.iter().filter_map(|one| Some(format!("`{}`", one.as_str()?))).collect();
        words.push(format!("One of {}.", choices.join(", ")));
    }
    for (is, word) in [
        (one.replaces, "Another value makes another resource."),
        (one.sensitive && !one.write_only, "Secret; it is in the state."),
        (one.write_only, "Write-only: Terraform keeps it nowhere."),
    ] {
        if is {
            words.push(word.to_owned());
        }
    }
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

fn ty(ty: &Type) -> String {
    match ty {
        Type::Text | Type::Scalar => "text".to_owned(),
        Type::Json => "JSON".to_owned(),
        Type::Bool => "`true` or `false`".to_owned(),
        Type::Number => "number".to_owned(),
        Type::List(item) if matches!(**item, Type::Object(_)) => "list of objects".to_owned(),
        Type::List(item) => format!("list of {}", self::ty(item)),
        Type::Set(item) => format!("set of {}", self::ty(item)),
        Type::Map(item) => format!("map of {}", self::ty(item)),
        Type::Object(_) => "object".to_owned(),
    }
}

#[test]
fn docs_are_those_of_the_schemas() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/terraform");
    let pages = pages();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let _none = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        for (name, page) in &pages {
            std::fs::write(folder.join(name), page).unwrap();
        }
    }
    for (name, page) in &pages {
        let there = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(
            there == *page,
            "docs/terraform/{name} is not what the schema says: run the test with UPDATE_GOLDEN=1"
        );
    }
    assert_eq!(
        std::fs::read_dir(&folder).unwrap().count(),
        pages.len(),
        "docs/terraform has a page too many"
    );
}

/// What they are, they are called.
const SPEAKS: [&str; 2] = ["name", "description"];

#[test]
fn every_attribute_says_what_it_is() {
    let silent = |one: &&Attribute| {
        one.help.is_empty() && one.mode != Mode::Computed && !SPEAKS.contains(&one.name.as_str())
    };
    for one in RESOURCES.iter() {
        let silent: Vec<_> = one.attributes.iter().filter(silent).map(|one| &one.name).collect();
        assert!(silent.is_empty(), "cumulo_{}: {silent:?} has no description", one.entry.name);
    }
}
