//! Counts in sentences.

/// `2 instances and 1 image`: only what there is. `None` when there is nothing.
pub(crate) fn counted(counts: &[(i64, &str)]) -> Option<String> {
    let words = counts.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| {
        let plural = if *count == 1 { "" } else { "s" };
        format!("{count} {kind}{plural}")
    });
    let mut words: Vec<String> = words.collect();
    let last = words.pop()?;
    Some(if words.is_empty() { last } else { format!("{} and {last}", words.join(", ")) })
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn only_what_there_is_is_counted() {
        let words = |counts: [i64; 3]| {
            counted(&[(counts[0], "instance"), (counts[1], "image"), (counts[2], "service account")])
        };
        assert_eq!(words([0, 0, 0]), None);
        assert_eq!(words([0, 1, 0]).unwrap(), "1 image");
        assert_eq!(words([2, 0, 1]).unwrap(), "2 instances and 1 service account");
        assert_eq!(words([1, 2, 3]).unwrap(), "1 instance, 2 images and 3 service accounts");
    }
}
