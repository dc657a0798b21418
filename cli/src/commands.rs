//! The tree of commands: one for each operation, and those that are more than one call.

use std::collections::BTreeMap;

use clap::builder::StyledStr;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};
use clap_complete::ArgValueCompleter;

use crate::document::Operation;
use crate::fields::{Field, Kind};
use crate::{complete, handmade};

/// Operations that have a command of their own making, that the program does by itself, or that only browsers have a use for.
pub const HANDMADE: [&str; 18] = [
    "login",
    "logout",
    "refresh",
    "redeem_password_code",
    "upload_image",
    "create_image_upload",
    "get_image_upload",
    "delete_image_upload",
    "append_to_image_upload",
    "finish_image_upload",
    "stream_events",
    "stream_cloud_events",
    "list_events",
    "list_cloud_events",
    "begin_browser_session",
    "prolong_browser_session",
    "end_browser_session",
    "open_console",
];

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused for a reason that none of these says, or a fault of this program
  2  the command line is wrong, or a value that it holds
  3  not found
  4  not signed in, or denied
  5  in conflict with what is there, or beyond a quota
  6  no answer from the cloud, or it is busy
  7  accepted, and then failed or cancelled; of a drain that is waited for: something is still there

`name` and id are the same to every command. `@FILE` stands for what a file holds, `@-` for the standard input.";

/// Operations by what they are called. There are two where the whole cloud has one and each project has one.
pub type Tree<'a> = BTreeMap<Vec<&'a str>, Vec<&'a Operation>>;

pub fn tree(operations: &[Operation]) -> Tree<'_> {
    let mut tree = Tree::new();
    for operation in operations.iter().filter(|one| !HANDMADE.contains(&one.id.as_str())) {
        let named = operation.named.nouns.iter().map(String::as_str).chain([operation.named.verb.as_str()]);
        tree.entry(named.collect()).or_default().push(operation);
    }
    tree
}

pub fn command(tree: &Tree<'_>) -> Command {
    let mut root = Command::new("cumulo")
        .about("The command line of Cumulo, a private cloud on your own machines")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .after_help(EXIT_CODES)
        .args(global());
    for (path, operations) in tree {
        root = insert(root, path, &|verb| verb_command(verb, operations));
    }
    handmade::add(root)
}

/// Puts a command where its words say.
pub fn insert(parent: Command, path: &[&str], make: &dyn Fn(&str) -> Command) -> Command {
    match path {
        [] => parent,
        [verb] => parent.subcommand(make(verb)),
        [noun, rest @ ..] => {
            let noun = (*noun).to_owned();
            if parent.find_subcommand(&noun).is_some() {
                return parent.mut_subcommand(noun, |command| insert(command, rest, make));
            }
            let about = match noun.as_str() {
                "me" => "Commands about yourself".to_owned(),
                "capacity" => "What there is room for".to_owned(),
                "drift" => "What differs on hosts from what is wanted of them".to_owned(),
                "service" => "The service itself: its version and health".to_owned(),
                noun => format!("Commands about each {}", noun.replace('-', " ")),
            };
            let command = Command::new(noun)
                .about(about)
                .subcommand_required(true)
                .arg_required_else_help(true)
                .disable_help_subcommand(true);
            parent.subcommand(insert(command, rest, make))
        }
    }
}

pub fn global() -> [Arg; 4] {
    [
        Arg::new("context")
            .long("context")
            .env("CUMULO_CONTEXT")
            .value_name("NAME")
            .help("Another cloud or user than the current one"),
        Arg::new("project")
            .long("project")
            .short('p')
            .env("CUMULO_PROJECT")
            .value_name("PROJECT")
            .add(ArgValueCompleter::new(|word: &std::ffi::OsStr| complete::names("project", word)))
            .help("Another project than that of the context"),
        Arg::new("output")
            .long("output")
            .short('o')
            .value_parser(["table", "json", "yaml"])
            .default_value("table")
            .help("For people or for programs"),
        Arg::new("columns")
            .long("columns")
            .value_name("A,B,…")
            .value_delimiter(',')
            .help("Other columns of the table, like name,image.name"),
    ]
    .map(|arg| arg.global(true).help_heading("Everywhere"))
}

fn verb_command(verb: &str, operations: &[&Operation]) -> Command {
    // That of a project says more about itself.
    let operation = operations.iter().find(|one| one.is_in_project()).unwrap_or(&operations[0]);
    let (first, rest) = operation.summary.split_once(". ").unwrap_or((&operation.summary, ""));
    let mut command = Command::new(verb.to_owned()).about(first.trim_end_matches('.').to_owned());
    if !rest.is_empty() {
        command = command.after_help(rest.to_owned());
    }
    for parameter in &operation.parameters {
        let noun = parameter.clone();
        let complete = move |word: &std::ffi::OsStr| complete::names(&noun, word);
        let arg = Arg::new(format!("at:{parameter}")).value_name(parameter.to_uppercase()).required(true);
        let arg = arg.help(if parameter.ends_with("id") { "Id" } else { "Name or id" });
        command = command.arg(arg.add(ArgValueCompleter::new(complete)));
    }
    for field in operation.body.iter().flatten() {
        command = command.arg(field_arg(field, operation.method == client::Method::POST));
    }
    if operation.body.is_some() {
        command = command.args(body_args(operation));
    }
    for field in asked(operations) {
        command = command.arg(flag(field, format!("query:{}", field.name)));
    }
    if operation.is_list {
        let limit = Arg::new("limit").long("limit").value_name("N").value_parser(clap::value_parser!(usize));
        command = command.arg(limit.help("At most so many; all unless given"));
    }
    if operation.takes("dry_run") {
        let dry_run = Arg::new("dry_run").long("dry-run").action(ArgAction::SetTrue);
        command = command.arg(dry_run.help("Check everything and change nothing; show what would be"));
    }
    if operation.takes("wait") && operation.method != client::Method::GET {
        let wait = Arg::new("wait").long("wait").action(ArgAction::SetTrue);
        command = command.arg(wait.help("Come back when the work has ended, and show its steps"));
    }
    if operations.len() > 1 {
        let cloud = Arg::new("cloud").long("cloud").action(ArgAction::SetTrue);
        command = command.arg(cloud.help("Of the whole cloud instead of a project"));
    }
    let file = Arg::new("file").long("file").value_name("FILE").value_hint(clap::ValueHint::FilePath);
    if operation.method == client::Method::GET && !operation.is_list {
        command = command.arg(file.help("Write the answer into this file"));
    }
    command
}

/// What may be asked of one of these operations, each once. A project has a flag everywhere.
fn asked<'a>(operations: &[&'a Operation]) -> Vec<&'a Field> {
    let mut fields: Vec<&Field> = Vec::new();
    for field in operations.iter().flat_map(|operation| &operation.query) {
        let has_its_own = matches!(field.name.as_str(), "wait" | "dry_run" | "limit" | "cursor" | "project");
        if !has_its_own && fields.iter().all(|known| known.name != field.name) {
            fields.push(field);
        }
    }
    fields
}

/// The name of what is made stands behind the verb; everything else is a flag.
fn field_arg(field: &Field, makes: bool) -> Arg {
    let id = format!("field:{}", field.name);
    if makes && field.name == "name" && field.required {
        return Arg::new(id).value_name("NAME").help(help(field)).required_unless_present("from_file");
    }
    flag(field, id)
}

fn flag(field: &Field, id: String) -> Arg {
    let mut arg = Arg::new(id).long(field.flag()).value_name(field.placeholder()).help(help(field));
    arg = match &field.kind {
        Kind::Flag => arg.num_args(0..=1).default_missing_value("true").require_equals(true),
        Kind::List(_) | Kind::Map => arg.action(ArgAction::Append),
        _ => arg,
    };
    // Also without the words that everybody leaves out.
    arg = match field.name.as_str() {
        "instance_type" => arg.visible_alias("type"),
        "label_selector" => arg.visible_alias("selector").short('l'),
        "labels" => arg.visible_alias("label"),
        _ => arg,
    };
    let noun = field.name.clone();
    match &field.kind {
        Kind::Text(choices) if !choices.is_empty() => arg.add(ArgValueCompleter::new({
            let choices = choices.clone();
            move |word: &std::ffi::OsStr| complete::among(&choices, word)
        })),
        Kind::Text(_) | Kind::List(_) => {
            arg.add(ArgValueCompleter::new(move |word: &std::ffi::OsStr| complete::names(&noun, word)))
        }
        _ => arg,
    }
}

fn help(field: &Field) -> StyledStr {
    let must = if field.required { "  [required]" } else { "" };
    let keys = match field.keys().as_slice() {
        [] => String::new(),
        keys => format!("  [keys: {}]", keys.join(", ")),
    };
    format!("{}{must}{keys}", field.help).trim_start().to_owned().into()
}

fn body_args(operation: &Operation) -> Vec<Arg> {
    let from =
        Arg::new("from_file").long("from-file").value_name("FILE").value_hint(clap::ValueHint::FilePath);
    let mut args = vec![from.help("The body as JSON; flags change it. - is the standard input")];
    if operation.method == client::Method::PATCH {
        let unset = Arg::new("unset").long("unset").value_name("FIELD").action(ArgAction::Append);
        args.push(unset.help("Take a value away, like --unset description"));
    }
    args
}

/// What was given. A command that needs another word shows its help.
pub fn parse(root: &Command) -> ArgMatches {
    root.clone().try_get_matches().unwrap_or_else(|error| {
        if error.kind() == ErrorKind::MissingSubcommand {
            let words = std::env::args_os().chain(["--help".into()]);
            return root.clone().get_matches_from(words);
        }
        error.exit()
    })
}

/// The command that lists what another one is about.
pub fn list_of(tree: &Tree<'_>, path: &[&str]) -> Option<String> {
    let nouns = match path {
        ["explain", noun] => &[*noun][..],
        ["context", noun @ "project"] => &[*noun][..],
        [nouns @ .., _] => nouns,
        [] => return None,
    };
    let list = [nouns, &["list"]].concat();
    tree.contains_key(&list).then(|| format!("cumulo {}", list.join(" ")))
}

/// The words of the command that was given, and what belongs to the last of them.
pub fn chosen(matches: &ArgMatches) -> (Vec<&str>, &ArgMatches) {
    let (mut path, mut at) = (Vec::new(), matches);
    while let Some((name, inner)) = at.subcommand() {
        path.push(name);
        at = inner;
    }
    (path, at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::operations;

    #[test]
    fn each_operation_has_a_command() {
        let operations = operations();
        let tree = tree(operations);
        let root = command(&tree);
        root.clone().debug_assert();
        for operation in operations {
            if HANDMADE.contains(&operation.id.as_str()) {
                continue;
            }
            let mut words = operation.named.nouns.iter().chain([&operation.named.verb]);
            let found = words.try_fold(&root, |at, word| at.find_subcommand(word));
            assert!(found.is_some(), "{} has no command", operation.id);
        }
        for id in HANDMADE {
            assert!(operations.iter().any(|operation| operation.id == id), "{id} is no operation any more");
        }
    }

    #[test]
    fn what_is_shown_once_is_shown_whole() {
        let operations = operations();
        let answers_resource =
            |id: &str| operations.iter().find(|one| one.id == id).unwrap().answers_resource;
        for id in ["create_instance", "stop_instance", "update_volume", "restore_snapshot"] {
            assert!(answers_resource(id), "{id} fills the screen");
        }
        for id in [
            "create_key_pair",
            "create_api_key",
            "create_host_join_token",
            "readmit_host",
            "create_console",
            "get_volume",
        ] {
            assert!(!answers_resource(id), "{id} hides what is never shown again");
        }
    }

    #[test]
    fn a_name_means_one_operation_or_that_of_the_cloud_and_that_of_a_project() {
        let operations = operations();
        for (path, operations) in tree(operations) {
            let in_project = operations.iter().filter(|operation| operation.is_in_project()).count();
            assert!(in_project <= 1 && operations.len() - in_project <= 1, "{path:?} means several");
        }
    }

    #[test]
    fn help_is_calm() {
        let operations = operations();
        let root = command(&tree(operations));
        let help = |words: &[&str]| {
            let mut found =
                words.iter().fold(root.clone(), |at, word| at.find_subcommand(word).unwrap().clone());
            found = found.bin_name(format!("cumulo {}", words.join(" "))).term_width(100);
            found.render_help().to_string()
        };
        insta::assert_snapshot!(help(&["volume"]));
        insta::assert_snapshot!(help(&["security-group", "rule", "add"]));
    }
}
