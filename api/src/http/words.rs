//! What our parsers say, in plain words. Serde and the parsers below it speak of Rust's types and of bytes; users
//! of the API know neither.

use std::borrow::Cow;

const TIME: &str = "a time as in RFC 3339, like 2026-06-01T12:00:00Z, is expected";
const ID: &str = "an id, which is a UUID, is expected";
const ADDRESS: &str =
    "an IP address like 10.0.1.4 or, where a block is meant, one like 10.0.1.0/24 is expected";
const WHOLE_NUMBER: &str = "a whole number is expected";

/// A value that its type refuses. `message` is that of an error of serde, without a position; what our own types
/// say is plain already and stays.
pub(super) fn plain(message: &str) -> Cow<'_, str> {
    let wrong_value = strip(message, &["invalid type: ", "invalid value: ", "invalid length "]);
    if let Some((found, wanted)) = wrong_value.and_then(|rest| rest.rsplit_once(", expected ")) {
        return format!("{} is expected, not {}", expected(wanted), unexpected(found)).into();
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        return known(rest, "this cannot be", "possible are", "nothing is possible here");
    }
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return known(rest, "there is no field", "there are", "there are no fields");
    }
    if let Some(field) = message.strip_prefix("missing field ") {
        return format!("{field} is missing").into();
    }
    if let Some(field) = message.strip_prefix("duplicate field ") {
        return format!("{field} comes twice").into();
    }
    // Of parsers below serde.
    match message {
        "provided string was not `true` or `false`" => "true or false is expected".into(),
        "invalid digit found in string" | "cannot parse integer from empty string" => WHOLE_NUMBER.into(),
        "number too large to fit in target type" => "the number is too large".into(),
        "number too small to fit in target type" => "the number is too small".into(),
        _ if message.starts_with("UUID parsing failed") => ID.into(),
        _ if message.starts_with("invalid IP") => ADDRESS.into(),
        _ if is_of_time(message) => TIME.into(),
        _ => message.into(),
    }
}

/// The field that a message says is missing.
pub(super) fn missing_field(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.strip_suffix('`')
}

/// A query that cannot be read: names the parameter.
pub(super) fn plain_query(message: &str) -> String {
    let message = strip(message, &["Failed to deserialize query string: "]).unwrap_or(message);
    match message.split_once(": ") {
        Some((parameter, rest)) if is_word(parameter) => match plain(rest) {
            // Those name it themselves.
            words if rest.starts_with("unknown field ") => words.replacen("field", "parameter", 1),
            words => format!("{parameter}: {words}"),
        },
        _ => plain(message).replacen("no field", "no parameter", 1),
    }
}

/// What is no JSON at all.
pub(super) fn plain_syntax(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!("line {}, column {}", error.line(), error.column());
    if message.starts_with("recursion limit") {
        "the JSON nests deeper than 127 levels".to_owned()
    } else if message.starts_with("trailing characters") {
        format!("something follows after the end of the JSON, in {place}")
    } else if error.is_eof() {
        "the JSON ends too early: a bracket, a brace or a quotation mark is not closed".to_owned()
    } else {
        format!("this is not JSON, from {place} on")
    }
}

fn strip<'a>(message: &'a str, prefixes: &[&str]) -> Option<&'a str> {
    prefixes.iter().find_map(|prefix| message.strip_prefix(prefix))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_of_time(message: &str) -> bool {
    let of_a_part = message.starts_with("the '") && message.ends_with("' component could not be parsed");
    of_a_part
        || message.ends_with(" was not in range")
        || message.starts_with("a character literal was not valid")
        || message.starts_with("unexpected trailing characters")
}

/// `` `x`, expected one of `a`, `b` ``
fn known(rest: &str, no_such: &str, these: &str, none: &str) -> Cow<'static, str> {
    match rest.split_once(", expected ") {
        Some((found, wanted)) => {
            let wanted = wanted.strip_prefix("one of ").unwrap_or(wanted).replace(" or ", " and ");
            format!("{no_such} {found}; {these} {wanted}").into()
        }
        None => {
            let found = rest.split_once(", there are no").map_or(rest, |(found, _)| found);
            format!("{no_such} {found}; {none}").into()
        }
    }
}

fn expected(wanted: &str) -> Cow<'_, str> {
    match wanted {
        "u8" => "a whole number from 0 to 255".into(),
        "u16" => "a whole number from 0 to 65535".into(),
        "u32" => "a whole number from 0 to 4294967295".into(),
        "u64" | "u128" | "usize" => "a whole number from 0".into(),
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a string" | "string" | "str" => "a text".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list".into(),
        "a map" => "an object".into(),
        "unit" => "null".into(),
        _ if wanted.starts_with("a nonzero ") => "a whole number from 1".into(),
        _ if wanted.starts_with("struct ") => "an object".into(),
        _ if wanted.starts_with("tuple ") => "a list".into(),
        _ if wanted.starts_with("enum ") || wanted == "string or map" => "a text".into(),
        _ if wanted.contains("OffsetDateTime") => "a time as in RFC 3339, like 2026-06-01T12:00:00Z,".into(),
        _ if wanted.contains("UUID") => "an id, which is a UUID,".into(),
        _ => wanted.into(),
    }
}

fn unexpected(found: &str) -> Cow<'_, str> {
    let number = strip(found, &["integer `", "floating point `", "boolean `"]);
    match (found, number.and_then(|rest| rest.strip_suffix('`'))) {
        (_, Some(value)) => value.into(),
        ("null" | "unit value" | "Option value", _) => "null".into(),
        ("map", _) => "an object".into(),
        ("sequence", _) => "a list".into(),
        _ => match found.strip_prefix("string ") {
            Some(text) => format!("the text {text}").into(),
            None => found.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;
    use std::num::NonZeroU32;

    use serde::Deserialize;
    use serde::de::DeserializeOwned;
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Colour {
        Red,
        Green,
        Blue,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only refused")]
    struct Fields {
        count: u8,
        colour: Option<Colour>,
        #[serde(default, with = "time::serde::rfc3339::option")]
        since: Option<OffsetDateTime>,
    }

    /// What serde says today, so that a new wording of theirs shows here.
    fn refused<T: DeserializeOwned + Debug>(json: &str) -> String {
        let message = serde_json::from_str::<T>(json).unwrap_err().to_string();
        plain(message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message)).into_owned()
    }

    #[test]
    fn wrong_values_are_named_without_rust() {
        assert_eq!(refused::<u8>(r#""x""#), r#"a whole number from 0 to 255 is expected, not the text "x""#);
        assert_eq!(refused::<u8>("300"), "a whole number from 0 to 255 is expected, not 300");
        assert_eq!(refused::<u32>("-1"), "a whole number from 0 to 4294967295 is expected, not -1");
        assert_eq!(refused::<i64>("1.5"), "a whole number is expected, not 1.5");
        assert_eq!(refused::<NonZeroU32>("0"), "a whole number from 1 is expected, not 0");
        assert_eq!(refused::<f64>("true"), "a number is expected, not true");
        assert_eq!(refused::<String>("null"), "a text is expected, not null");
        assert_eq!(refused::<bool>("{}"), "true or false is expected, not an object");
        assert_eq!(refused::<Vec<u8>>("7"), "a list is expected, not 7");
        assert_eq!(refused::<BTreeMap<String, u8>>("[]"), "an object is expected, not a list");
        assert_eq!(
            refused::<Fields>(r#""x, expected y""#),
            r#"an object is expected, not the text "x, expected y""#
        );
        assert_eq!(refused::<Uuid>(r#""x""#), "an id, which is a UUID, is expected");
        assert!(refused::<ipnet::IpNet>(r#""10.0.5/24""#).starts_with("an IP address like 10.0.1.4"));
        assert!(refused::<std::net::IpAddr>(r#""x""#).starts_with("an IP address like 10.0.1.4"));
        assert!(refused::<Uuid>("7").starts_with("an id, which is a UUID, is expected, not 7"));
        for time in [r#""x""#, r#""2026-13-01T00:00:00Z""#, r#""2026-01-01T00:00:00Zx""#, r#""2026-01-01 X""#]
        {
            assert_eq!(refused::<Fields>(&format!(r#"{{"count":1,"since":{time}}}"#)), TIME, "{time}");
        }
    }

    #[test]
    fn fields_and_choices_are_listed() {
        assert_eq!(
            refused::<Fields>(r#"{"surprise":1}"#),
            "there is no field `surprise`; there are `count`, `colour`, `since`"
        );
        assert_eq!(refused::<Fields>("{}"), "`count` is missing");
        assert_eq!(refused::<Fields>(r#"{"count":1,"count":1}"#), "`count` comes twice");
        assert_eq!(
            refused::<Colour>(r#""pink""#),
            "this cannot be `pink`; possible are `red`, `green`, `blue`"
        );
    }

    #[test]
    fn queries_name_the_parameter() {
        let query = |text: &str| {
            let uri = format!("/?{text}").parse().unwrap();
            axum::extract::Query::<Fields>::try_from_uri(&uri)
                .map_err(|error| plain_query(&error.body_text()))
                .unwrap_err()
        };
        assert_eq!(query("count=x"), "count: a whole number is expected");
        assert_eq!(query("count=300"), "count: the number is too large");
        assert_eq!(query("count=1&since=x"), format!("since: {TIME}"));
        assert_eq!(
            query("count=1&colour=pink"),
            "colour: this cannot be `pink`; possible are `red`, `green`, `blue`"
        );
        assert_eq!(query("since=2026-06-01T12:00:00Z"), "`count` is missing");
        assert_eq!(
            query("surprise=1"),
            "there is no parameter `surprise`; there are `count`, `colour`, `since`"
        );
    }

    #[test]
    fn what_is_no_json_is_said_where_it_helps() {
        let syntax = |text: &str| plain_syntax(&serde_json::from_str::<serde_json::Value>(text).unwrap_err());
        for unclosed in ["{", r#"{"a": [1"#, r#"{"a": "x"#] {
            assert!(syntax(unclosed).starts_with("the JSON ends too early"), "{unclosed}");
        }
        assert_eq!(syntax("{} {}"), "something follows after the end of the JSON, in line 1, column 4");
        assert_eq!(syntax("{\n  'a': 1}"), "this is not JSON, from line 2, column 3 on");
        assert_eq!(syntax(&"[".repeat(200)), "the JSON nests deeper than 127 levels");
    }
}
