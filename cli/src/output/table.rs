//! Tables of resources.

use serde_json::Value;

use super::{harmless, plain};

/// Columns are as wide as their widest cell, two spaces apart; numbers stand to the right.
pub fn render(columns: &[String], rows: &[Value]) -> String {
    let head = columns.iter().map(|column| title(column)).collect();
    let cells = rows.iter().map(|row| columns.iter().map(|column| cell(row, column)).collect());
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(cells).collect();
    let widths: Vec<_> = (0..columns.len())
        .map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or_default())
        .collect();
    let is_number: Vec<_> =
        columns.iter().map(|column| rows.iter().all(|row| is_numeric(&values(row, column)))).collect();
    let mut text = String::new();
    for line in &lines {
        let mut out = String::new();
        for (at, cell) in line.iter().enumerate() {
            let space = " ".repeat(widths[at] - cell.chars().count());
            if is_number[at] {
                out += &format!("{space}{cell}  ");
            } else {
                out += &format!("{cell}{space}  ");
            }
        }
        text += out.trim_end();
        text.push('\n');
    }
    text
}

fn title(column: &str) -> String {
    let words: Vec<_> = column.split('.').collect();
    let shown = match words.as_slice() {
        [.., before, "name" | "code"] => *before,
        [.., last] => last,
        [] => column,
    };
    shown.trim_end_matches("_at").replace('_', " ").to_uppercase()
}

fn cell(row: &Value, column: &str) -> String {
    let texts = values(row, column).into_iter().map(|value| share(value).unwrap_or_else(|| plain(value)));
    let texts: Vec<_> = texts.filter(|text| !text.is_empty()).collect();
    let text = texts.join(" ");
    let is_time =
        column.ends_with("_at") || matches!(column, "at" | "since" | "from" | "to" | "accepted_until");
    let text = if is_time { when(&text) } else { text };
    // One line for each row, whatever others have written.
    harmless(&text.replace(['\n', '\t'], " ")).into_owned()
}

/// What is given away of what there is, as `5/64`.
fn share(value: &Value) -> Option<String> {
    let (reserved, total) = (value.get("reserved")?.as_i64()?, value.get("total")?.as_i64()?);
    Some(format!("{reserved}/{total}"))
}

/// RFC 3339 to the second; in UTC, as the API says it.
fn when(text: &str) -> String {
    match (text.get(..10), text.get(11..19)) {
        (Some(day), Some(time)) if text.ends_with('Z') => format!("{day} {time}Z"),
        _ => text.to_owned(),
    }
}

/// What a path leads to; through a list it leads to several.
fn values<'a>(row: &'a Value, column: &str) -> Vec<&'a Value> {
    column.split('.').fold(vec![row], |at, name| {
        let items = at.into_iter().flat_map(|value| match value {
            Value::Array(items) => items.iter().collect(),
            other => vec![other],
        });
        // What has no name goes by its id.
        let named = |value: &'a Value| value.get(name).filter(|it| !it.is_null() || name != "name");
        let by_id = |value: &'a Value| value.get("id").filter(|_| name == "name");
        items.filter_map(|value| named(value).or_else(|| by_id(value))).collect()
    })
}

fn is_numeric(values: &[&Value]) -> bool {
    values.iter().all(|value| value.is_number() || value.is_null()) && !values.is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_shown_to_the_second_whatever_they_are_called() {
        let rows = [
            json!({"since": "2026-01-02T03:04:05.678901Z", "at": "2026-01-02T03:04:05.6Z", "from": "image"}),
        ];
        let columns = ["since", "at", "from"].map(str::to_owned);
        insta::assert_snapshot!(render(&columns, &rows), @r"
        SINCE                 AT                    FROM
        2026-01-02 03:04:05Z  2026-01-02 03:04:05Z  image
        ");
    }

    #[test]
    fn what_has_no_name_goes_by_its_id() {
        let rows = [
            json!({"about": {"kind": "instance", "name": "web-1", "id": "01a2"}}),
            json!({"about": {"kind": "instance", "name": null, "id": "01a3"}}),
            json!({"about": {"kind": "instance", "id": "01a4"}}),
        ];
        insta::assert_snapshot!(render(&["about.name".to_owned()], &rows), @r"
        ABOUT
        web-1
        01a3
        01a4
        ");
    }

    #[test]
    fn a_table_is_aligned_and_one_line_for_each_row() {
        let rows = [
            json!({"name": "web-1", "state": "running", "size_gib": 8, "nics": [{"addresses": [{"address": "10.0.0.2"}]}],
                   "created_at": "2026-01-02T03:04:05.678Z"}),
            json!({"name": "a\nb\u{1b}[0m", "state": "stopped", "size_gib": 128, "nics": [], "created_at": null}),
        ];
        let columns =
            ["name", "state", "size_gib", "nics.addresses.address", "created_at"].map(str::to_owned);
        insta::assert_snapshot!(render(&columns, &rows), @r"
        NAME          STATE    SIZE GIB  ADDRESS   CREATED
        web-1         running         8  10.0.0.2  2026-01-02 03:04:05Z
        a b\u{1b}[0m  stopped       128
        ");
    }
}
