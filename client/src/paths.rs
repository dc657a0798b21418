//! Parts of paths.

/// One segment of a path, whatever the text.
pub fn segment(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => char::from(byte).to_string(),
        // Alone, dots would be another folder.
        b'.' if text != "." && text != ".." => ".".to_owned(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::segment;

    #[test]
    fn no_word_leaves_its_segment() {
        for (word, path) in
            [("web-1", "web-1"), ("..", "%2E%2E"), ("a/b?c#d", "a%2Fb%3Fc%23d"), ("ä", "%C3%A4")]
        {
            assert_eq!(segment(word), path);
        }
    }
}
