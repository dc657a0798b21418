//! One text, or a list of them.

use serde_json::Value;

use super::Check;

const MAX_TEXT_BYTES: usize = 1024;
const MAX_LIST: usize = 200;

impl Check<'_> {
    /// A text or a list of texts, each with its place.
    pub(super) fn texts(&mut self, value: &Value, at: &str) -> Option<Vec<(String, String)>> {
        self.list(value, at, |value| value.as_str().map(str::to_owned), "a text, or a list of texts")
    }

    pub(super) fn list(
        &mut self,
        value: &Value,
        at: &str,
        read: impl Fn(&Value) -> Option<String>,
        expected: &str,
    ) -> Option<Vec<(String, String)>> {
        let items: Vec<(&Value, String)> = match value {
            Value::Array(items) if items.is_empty() || items.len() > MAX_LIST => {
                self.add(at, "out_of_range", format!("from 1 to {MAX_LIST} values, not {}", items.len()));
                return None;
            }
            Value::Array(items) => {
                items.iter().enumerate().map(|(number, item)| (item, format!("{at}/{number}"))).collect()
            }
            item => vec![(item, at.to_owned())],
        };
        let mut texts = Vec::with_capacity(items.len());
        for (item, pointer) in items {
            match read(item) {
                Some(text) if text.len() <= MAX_TEXT_BYTES => texts.push((text, pointer)),
                Some(text) => {
                    let message = format!("at most {MAX_TEXT_BYTES} bytes, this has {}", text.len());
                    self.add(&pointer, "too_long", message);
                }
                None => self.add(&pointer, "invalid", expected),
            }
        }
        Some(texts)
    }
}
