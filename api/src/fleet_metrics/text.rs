//! Prometheus' text format, version 0.0.4.

use std::fmt::Write;

#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// One metric with its values, each under its labels.
    pub(super) fn gauge<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Vec<(&'static str, &'a str)>, i64)>,
    ) {
        let text = &mut self.0;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in values {
            text.push_str(name);
            for (n, (label, said)) in labels.iter().enumerate() {
                let said = said.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let _ = write!(text, "{}{label}=\"{said}\"", if n == 0 { '{' } else { ',' });
            }
            let _ = writeln!(text, "{} {value}", if labels.is_empty() { "" } else { "}" });
        }
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_quoted() {
        let mut text = Text::default();
        text.gauge("a", "b", [(vec![], 1), (vec![("c", "d"), ("e", "\"\\\n")], -2)]);
        assert_eq!(text.into_string(), "# HELP a b\n# TYPE a gauge\na 1\na{c=\"d\",e=\"\\\"\\\\\\n\"} -2\n");
    }
}
