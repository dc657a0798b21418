//! What the repository promises about itself: who may depend on whom, under which licences, and how files
//! begin. Works offline, from `cargo metadata` and the sources.
//!
//! Advisories need a database that lives on the network; `deny.toml` is there for `cargo deny check`.

#![expect(clippy::unwrap_used, reason = "a check that cannot read the repository shall fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Each crate of ours, and those of ours that it may use.
const DEPENDENCY_LAW: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("storage", &["protocol"]),
    ("networking", &["protocol"]),
    ("compute-agent", &["protocol", "storage", "networking"]),
    ("policy", &[]),
    ("api", &["protocol", "policy"]),
    ("client", &[]),
    ("cli", &["client"]),
    ("terraform-provider", &["client"]),
    ("tests", &["protocol"]),
    ("benches", &["protocol", "policy", "api", "storage", "networking", "compute-agent", "tests"]),
];

/// Crates that may never be used, and why.
const BANNED: &[(&str, &str)] = &[
    ("openssl", "TLS is rustls with aws-lc-rs"),
    ("native-tls", "TLS is rustls with aws-lc-rs"),
    ("rsa", "open advisory RUSTSEC-2023-0071"),
    ("rustables", "GPL"),
];

/// Crates that only these of ours may use directly, and why.
const RESERVED: &[(&str, &[&str], &str)] = &[
    ("virt", &["compute-agent"], "LGPL-2.1-or-later, and libvirt is the agent's business"),
    ("sqlx", &["api", "benches"], "the agent cannot touch PostgreSQL; its own speed is a floor"),
    ("axum", &["api"], "the agent listens on nothing"),
    ("rtnetlink", &["networking"], "devices are made in one place"),
];

/// Licences that go with Apache-2.0 without further thought.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "0BSD",
    "CC0-1.0",
    "BSL-1.0",
    "Unlicense",
    "CDLA-Permissive-2.0",
    "OpenSSL",
];

/// Licences that need a decision, each with the crates it was made for.
const DECIDED: &[(&str, &[&str])] = &[("LGPL-2.1", &["virt", "virt-sys"])];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        // What only other systems need is not here, nor in what we build.
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn packages(metadata: &Value) -> &[Value] {
    metadata["packages"].as_array().unwrap()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap()
}

/// The packages of the workspace, with the names of what they use outside of tests.
fn ours(metadata: &Value) -> BTreeMap<&str, BTreeSet<&str>> {
    let members = metadata["workspace_members"].as_array().unwrap();
    let names: BTreeSet<&str> = packages(metadata).iter().map(name).collect();
    let used = |package: &'_ Value| -> BTreeSet<&str> {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let real = dependencies.filter(|dependency| dependency["kind"] != "dev");
        real.filter_map(|dependency| names.get(dependency["name"].as_str()?).copied()).collect()
    };
    let ours = packages(metadata).iter().filter(|package| members.contains(&package["id"]));
    ours.map(|package| (name(package), used(package))).collect()
}

#[test]
fn crates_keep_the_dependency_law() {
    let metadata = metadata();
    let ours = ours(&metadata);
    let law: BTreeMap<_, _> = DEPENDENCY_LAW.iter().copied().collect();
    for (package, used) in &ours {
        let allowed = law.get(package).unwrap_or_else(|| panic!("{package} is not in the dependency law"));
        for inner in used.iter().filter(|name| ours.contains_key(**name)) {
            assert!(allowed.contains(inner), "{package} must not use {inner}");
        }
        for (reserved, owners, reason) in RESERVED {
            assert!(
                owners.contains(package) || !used.contains(reserved),
                "{package} must not use {reserved}: {reason}"
            );
        }
    }
    let does_io = ["tokio", "reqwest", "sqlx", "nix"];
    assert!(does_io.iter().all(|name| !ours["protocol"].contains(name)), "protocol does no I/O");
}

#[test]
fn every_dependency_has_an_accepted_licence() {
    let metadata = metadata();
    for package in packages(&metadata) {
        let name = name(package);
        if let Some((_, reason)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            panic!("{name} is banned: {reason}");
        }
        let licence = package["license"].as_str().unwrap_or_else(|| panic!("{name} names no licence"));
        assert!(accepted(name, licence), "{name} has the licence {licence}: decide, and write it down");
    }
}

/// Whether one alternative of an SPDX expression consists of accepted licences alone. Parentheses only ever
/// group alternatives here, so they can be dropped as long as every `AND` part is looked at.
fn accepted(package: &str, expression: &str) -> bool {
    let ok = |licence: &str| {
        let licence = licence.trim_matches(['(', ')', ' ']);
        let decided = DECIDED.iter().any(|(id, packages)| *id == licence && packages.contains(&package));
        decided || LICENCES.contains(&licence)
    };
    let conjunctions = expression.split(" AND ");
    conjunctions.into_iter().all(|part| part.replace('/', " OR ").split(" OR ").any(ok))
}

#[test]
fn licence_expressions_are_judged_part_by_part() {
    assert!(accepted("x", "MIT OR GPL-3.0"));
    assert!(accepted("x", "(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(accepted("virt", "LGPL-2.1"));
    assert!(!accepted("x", "LGPL-2.1"));
    assert!(!accepted("x", "MIT AND GPL-3.0"));
}

#[test]
fn every_source_file_tells_its_story_and_leaves_no_loose_ends() {
    let mut wrong = Vec::new();
    for file in sources() {
        let text = std::fs::read_to_string(&file).unwrap();
        let short = file.strip_prefix(root()).unwrap().display().to_string();
        if !text.starts_with("//!") && !short.contains("tests") {
            wrong.push(format!("{short}: begins without a module comment"));
        }
        let loose = ["TO", "FIX"].map(|stem| format!("{stem}{}", if stem == "TO" { "DO" } else { "ME" }));
        if loose.iter().any(|mark| text.contains(mark.as_str())) {
            wrong.push(format!("{short}: has a loose end"));
        }
        // A waiver says why and vanishes when it is no longer needed, so it is an `expect`. Clippy's own lint
        // for this stumbles over the code that sqlx's macros write.
        if text.lines().any(|line| line.trim_start().starts_with(concat!("#[al", "low("))) {
            wrong.push(format!("{short}: waives a lint without `expect`"));
        }
        if text.lines().count() > 700 {
            wrong.push(format!("{short}: over 700 lines; which room is missing?"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every Rust file that git tracks.
fn sources() -> Vec<PathBuf> {
    let output = Command::new("git").args(["ls-files", "*.rs"]).current_dir(root()).output().unwrap();
    let list = String::from_utf8(output.stdout).unwrap();
    let files: Vec<_> = list.lines().map(|line| root().join(line)).filter(|path| path.exists()).collect();
    assert!(files.len() > 50, "git knows only {} sources", files.len());
    files
}
