//! `docs/errors.md` and the codes of [`ErrorCode`] are the same.

use crate::http::ErrorCode;

const PAGE: &str = include_str!("../../../../docs/errors.md");

/// The rows of the page's first table: code, status, when, and what to do.
fn rows() -> Vec<[&'static str; 4]> {
    let section = PAGE.split("\n## ").next().unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    cells
        .map(|line| {
            let row: Vec<_> = line.split(" | ").map(str::trim).collect();
            row.try_into().unwrap_or_else(|row| panic!("not four cells: {row:?}"))
        })
        .collect()
}

#[test]
fn every_code_is_in_the_page_and_every_code_of_the_page_exists() {
    let mut documented: Vec<_> = rows()
        .iter()
        .map(|[code, status, ..]| format!("{} {status}", code.strip_suffix('`').unwrap()))
        .collect();
    let mut known: Vec<_> =
        ErrorCode::ALL.iter().map(|code| format!("{} {}", code.as_str(), code.status().as_u16())).collect();
    documented.sort();
    known.sort();
    let lacking: Vec<_> = known.iter().filter(|code| !documented.contains(code)).collect();
    let invented: Vec<_> = documented.iter().filter(|code| !known.contains(code)).collect();
    assert!(lacking.is_empty(), "docs/errors.md says nothing of {lacking:?}");
    assert!(invented.is_empty(), "docs/errors.md has what api/src/http/problem.rs has not: {invented:?}");
    assert_eq!(documented.len(), known.len(), "docs/errors.md has a code twice");
}

#[test]
fn every_code_comes_with_what_to_do() {
    for [code, _, when, then] in rows() {
        assert!(!when.is_empty() && !then.is_empty(), "docs/errors.md: `{code}: when, and then what?");
    }
}
