//! What a document may speak of. The evaluator knows no action and no resource by itself.

/// Longer than the key of any label, in bytes.
const MAX_LABEL_KEY: usize = 256;
/// Longer than any word of a vocabulary, in bytes. What is longer is no slip of the pen, and comparing it costs
/// its length times that of every candidate.
const MAX_COMPARED: usize = 128;

/// The actions, types and condition keys of a release.
#[derive(Debug, Clone, Copy)]
pub struct Vocabulary {
    /// `service:Verb`.
    pub actions: &'static [&'static str],
    /// Service and type.
    pub resources: &'static [(&'static str, &'static str)],
    pub keys: &'static [Key],
}

/// A condition key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// A name that ends in `/` stands for all names that begin so, like `cumulo:ResourceLabel/`.
    pub name: &'static str,
    pub value: KeyType,
    /// Whether a request may give it several values at once.
    pub multivalued: bool,
}

/// What values a key has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    String,
    Numeric,
    Bool,
    Date,
    Ip,
}

impl KeyType {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Numeric => "number",
            Self::Bool => "boolean",
            Self::Date => "date",
            Self::Ip => "address",
        }
    }
}

impl Vocabulary {
    /// The key of this name, whose letters count in either case as they do in AWS, and its proper spelling.
    pub fn key(&self, name: &str) -> Option<(&'static Key, String)> {
        self.keys.iter().find_map(|key| {
            if !key.name.ends_with('/') {
                return key.name.eq_ignore_ascii_case(name).then(|| (key, key.name.to_owned()));
            }
            let (start, rest) = name.split_at_checked(key.name.len())?;
            (key.name.eq_ignore_ascii_case(start) && (1..=MAX_LABEL_KEY).contains(&rest.len()))
                .then(|| (key, format!("{}{rest}", key.name)))
        })
    }
}

/// The word that is most like this one, if any is like it at all.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > MAX_COMPARED {
        return None;
    }
    let word = word.to_ascii_lowercase();
    candidates
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance * 3 <= candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let next = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_suggested_and_a_far_one_is_not() {
        let words = ["compute:CreateInstance", "compute:DeleteInstance", "image:GetImage"];
        assert_eq!(nearest("compute:createinstanse", words.into_iter()), Some("compute:CreateInstance"));
        assert_eq!(nearest("s3:PutObject", words.into_iter()), None);
        let long = "compute:CreateInstance".repeat(6);
        assert_eq!(nearest(&long, [long.as_str()].into_iter()), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
