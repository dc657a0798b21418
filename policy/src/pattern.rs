//! Patterns: `*` for any characters, `?` for one, `${key}` for a value of the request.

use crate::context::Context;

/// A pattern, ready to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// `*`
    Any,
    /// No wildcards.
    Exact(Box<str>),
    Glob(Box<[Token]>),
    /// Has variables: what it is depends on the request.
    Template(Box<[Part]>),
    /// No wildcards, in lower case: letters count in either case.
    Lower(Box<str>),
    /// The same with variables.
    IgnoreCase(Box<[Part]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Char(char),
    /// `?`
    One,
    /// `*`
    Many,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Tokens(Box<[Token]>),
    /// The value of this key, without wildcards of its own.
    Variable(Box<str>),
}

/// What became of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Matched {
    Yes,
    No,
    /// The request has no value for a variable.
    Unknown,
}

impl From<bool> for Matched {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// A `${…}` that is not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unclosed;

/// Splits a text into its parts; `wildcards` says whether `*` and `?` are any.
pub(crate) fn parse(text: &str, wildcards: bool) -> Result<Vec<Part>, Unclosed> {
    let (mut parts, mut tokens) = (Vec::new(), Vec::new());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if let Some(variable) = rest.strip_prefix("${") {
            let (name, after) = variable.split_once('}').ok_or(Unclosed)?;
            match name {
                "*" | "?" | "$" => tokens.extend(name.chars().map(Token::Char)),
                _ => {
                    parts.push(Part::Tokens(std::mem::take(&mut tokens).into()));
                    parts.push(Part::Variable(name.into()));
                }
            }
            rest = after;
            continue;
        }
        tokens.push(match next {
            '*' if wildcards => Token::Many,
            '?' if wildcards => Token::One,
            other => Token::Char(other),
        });
        rest = &rest[next.len_utf8()..];
    }
    parts.push(Part::Tokens(tokens.into()));
    Ok(parts)
}

/// Service, project and target of `crn:cumulo:<service>:<project>:<target>`. A colon in a variable separates
/// nothing.
pub(crate) fn split_crn(text: &str) -> Option<[&str; 3]> {
    let mut rest = text.strip_prefix("crn:cumulo:")?;
    let mut segments = [""; 2];
    for segment in &mut segments {
        let mut inside = false;
        let end = rest.char_indices().find_map(|(place, char)| {
            inside = match char {
                '{' => rest[..place].ends_with('$'),
                '}' => false,
                _ => inside,
            };
            (char == ':' && !inside).then_some(place)
        })?;
        *segment = &rest[..end];
        rest = &rest[end + 1..];
    }
    Some([segments[0], segments[1], rest])
}

/// Whether a character stands in a text outside of its variables.
pub(crate) fn has_char(parts: &[Part], wanted: char) -> bool {
    parts.iter().flat_map(Part::tokens).any(|token| *token == Token::Char(wanted))
}

/// The variables in a text.
pub(crate) fn variables(parts: &[Part]) -> impl Iterator<Item = &str> {
    parts.iter().filter_map(|part| match part {
        Part::Variable(name) => Some(&**name),
        Part::Tokens(_) => None,
    })
}

impl Pattern {
    /// A text that has been validated.
    pub(crate) fn new(text: &str, wildcards: bool) -> Self {
        let parts = parse(text, wildcards).unwrap_or_default();
        if variables(&parts).next().is_some() {
            return Self::Template(parts.into());
        }
        let tokens: Vec<Token> = parts.iter().flat_map(Part::tokens).copied().collect();
        if tokens == [Token::Many] {
            return Self::Any;
        }
        let literal: Option<String> = tokens.iter().map(|token| token.char()).collect();
        match literal {
            Some(text) => Self::Exact(text.into()),
            None => Self::Glob(tokens.into()),
        }
    }

    /// A text that has been validated, to be compared without regard to case.
    pub(crate) fn ignoring_case(text: &str) -> Self {
        let parts = parse(text, false).unwrap_or_default();
        if variables(&parts).next().is_some() {
            return Self::IgnoreCase(parts.into());
        }
        Self::Lower(
            parts
                .iter()
                .flat_map(Part::tokens)
                .copied()
                .filter_map(Token::char)
                .flat_map(char::to_lowercase)
                .collect(),
        )
    }

    pub(crate) fn matches(&self, text: &str, context: &Context) -> Matched {
        match self {
            Self::Any => Matched::Yes,
            Self::Exact(exact) => (**exact == *text).into(),
            Self::Lower(lower) => equal_but_for_case(lower, text).into(),
            Self::Glob(tokens) => glob(tokens, text).into(),
            Self::Template(parts) => match fill(parts, context) {
                Some(tokens) => glob(&tokens, text).into(),
                None => Matched::Unknown,
            },
            Self::IgnoreCase(parts) => match fill(parts, context) {
                Some(tokens) => {
                    let chars = tokens.into_iter().filter_map(Token::char);
                    equal_but_for_case(&chars.flat_map(char::to_lowercase).collect::<String>(), text).into()
                }
                None => Matched::Unknown,
            },
        }
    }

    /// The keys of its variables.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &str> {
        let parts = match self {
            Self::Template(parts) | Self::IgnoreCase(parts) => &**parts,
            Self::Any | Self::Exact(_) | Self::Lower(_) | Self::Glob(_) => &[],
        };
        variables(parts)
    }

    /// Whether it matches every text that is not empty (`Yes`), none (`No`), or some.
    pub(crate) fn matches_every_name(&self) -> Matched {
        match self {
            Self::Any => Matched::Yes,
            Self::Exact(exact) if exact.is_empty() => Matched::No,
            Self::Exact(_) | Self::Lower(_) | Self::Template(_) | Self::IgnoreCase(_) => Matched::Unknown,
            Self::Glob(tokens) => {
                let ones = tokens.iter().filter(|token| **token == Token::One).count();
                let others = tokens.iter().any(|token| matches!(token, Token::Char(_)));
                if ones <= 1 && !others && tokens.contains(&Token::Many) {
                    Matched::Yes
                } else {
                    Matched::Unknown
                }
            }
        }
    }

    /// Whether it matches every text that begins with this prefix (`Yes`), none (`No`), or some.
    pub(crate) fn covers(&self, prefix: &str) -> Matched {
        let tokens = match self {
            Self::Any => return Matched::Yes,
            Self::Exact(exact) if exact.starts_with(prefix) => return Matched::Unknown,
            Self::Exact(_) => return Matched::No,
            Self::Template(_) | Self::Lower(_) | Self::IgnoreCase(_) => return Matched::Unknown,
            Self::Glob(tokens) => tokens,
        };
        // What the prefix leaves goes into the last star.
        if tokens.last() == Some(&Token::Many) && glob(tokens, prefix) {
            return Matched::Yes;
        }
        let mut rest = prefix.chars();
        for token in tokens {
            match token {
                Token::Many => return Matched::Unknown,
                Token::One | Token::Char(_) => match rest.next() {
                    None => return Matched::Unknown,
                    Some(char) if *token == Token::Char(char) || *token == Token::One => {}
                    Some(_) => return Matched::No,
                },
            }
        }
        Matched::No
    }
}

impl Token {
    fn char(self) -> Option<char> {
        match self {
            Self::Char(char) => Some(char),
            Self::One | Self::Many => None,
        }
    }

    /// Whether it stands for this one character.
    fn takes(self, char: char) -> bool {
        match self {
            Self::Char(expected) => expected == char,
            Self::One => true,
            Self::Many => false,
        }
    }
}

impl Part {
    pub(crate) fn tokens(&self) -> &[Token] {
        match self {
            Self::Tokens(tokens) => tokens,
            Self::Variable(_) => &[],
        }
    }
}

fn fill(parts: &[Part], context: &Context) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    for part in parts {
        match part {
            Part::Tokens(more) => tokens.extend_from_slice(more),
            Part::Variable(key) => tokens.extend(context.text(key)?.chars().map(Token::Char)),
        }
    }
    Some(tokens)
}

/// Whether a text is this one, which is in lower case already.
fn equal_but_for_case(lower: &str, text: &str) -> bool {
    if text.is_ascii() {
        return lower.len() == text.len() && lower.eq_ignore_ascii_case(text);
    }
    lower.chars().eq(text.chars().flat_map(char::to_lowercase))
}

/// What stands before the first `*` and after the last is compared in place, so a pattern with one `*` costs its
/// length. Each piece between two of them is looked for from where the one before it ended, and never again: at
/// most the product of both lengths.
pub(crate) fn glob(pattern: &[Token], text: &str) -> bool {
    let (mut pattern, mut rest) = (pattern, text);
    loop {
        match pattern {
            [] => return rest.is_empty(),
            [Token::Many, ..] => break,
            [token, after @ ..] => {
                let mut chars = rest.chars();
                if !chars.next().is_some_and(|char| token.takes(char)) {
                    return false;
                }
                (pattern, rest) = (after, chars.as_str());
            }
        }
    }
    while let [before @ .., token] = pattern
        && *token != Token::Many
    {
        let mut chars = rest.chars();
        if !chars.next_back().is_some_and(|char| token.takes(char)) {
            return false;
        }
        (pattern, rest) = (before, chars.as_str());
    }
    pattern.split(|token| *token == Token::Many).all(|piece| match after_first(piece, rest) {
        Some(after) => {
            rest = after;
            true
        }
        None => false,
    })
}

/// What follows the first occurrence of a piece without `*`.
fn after_first<'a>(piece: &[Token], text: &'a str) -> Option<&'a str> {
    let mut from = text.chars();
    loop {
        let mut chars = from.clone();
        if piece.iter().all(|token| chars.next().is_some_and(|char| token.takes(char))) {
            return Some(chars.as_str());
        }
        from.next()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern, true).matches(text, &Context::default()) == Matched::Yes
    }

    #[test]
    fn wildcards() {
        let yes = [
            ("*", ""),
            ("a*", "a"),
            ("*a*b", "xaxxb"),
            ("a?c", "aéc"),
            ("a*b*c", "abbbc"),
            ("??", "ab"),
            ("", ""),
        ];
        for (pattern, text) in yes {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("a", "ab"), ("a*b", "abc"), ("?", ""), ("?", "ab"), ("A", "a"), ("*a", "b"), ("", "a")]
        {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        assert!(matches("a${*}b${?}${$}", "a*b?$"));
        assert!(!matches("a${*}b", "axb"));
        // Would take for ever if it tried all ways.
        assert!(!matches(&"a*".repeat(60), &("a".repeat(4000) + "b").replace('b', "")[..59]));
        assert!(!matches(&("a*".repeat(100) + "b"), &"a".repeat(5000)));
    }

    #[test]
    fn variables_are_literal_and_may_be_unknown() {
        let mut context = Context::default();
        context.set("cumulo:PrincipalName", "an*");
        let pattern = Pattern::new("user/${cumulo:PrincipalName}", true);
        assert_eq!(pattern.matches("user/an*", &context), Matched::Yes);
        assert_eq!(pattern.matches("user/anna", &context), Matched::No);
        assert_eq!(pattern.matches("user/an*", &Context::default()), Matched::Unknown);
        assert_eq!(parse("${open", true), Err(Unclosed));
    }

    #[test]
    fn colons_in_variables_separate_nothing() {
        assert_eq!(split_crn("crn:cumulo:a:${b:c}:d/${e:f}:g"), Some(["a", "${b:c}", "d/${e:f}:g"]));
        assert_eq!(split_crn("crn:cumulo:a::*"), Some(["a", "", "*"]));
        for wrong in ["crn:cumulo:a:b", "crn:cumulo:a:${b:c", "arn:aws:a:b:c"] {
            assert_eq!(split_crn(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn covering_a_prefix() {
        let covers = |pattern: &str| Pattern::new(pattern, true).covers("instance/");
        assert_eq!(covers("*"), Matched::Yes);
        assert_eq!(covers("instance/*"), Matched::Yes);
        assert_eq!(covers("instance/**"), Matched::Yes);
        assert_eq!(covers("inst*"), Matched::Yes);
        assert_eq!(covers("instance?*"), Matched::Yes);
        assert_eq!(covers("instance/?*"), Matched::Unknown);
        assert_eq!(covers("instance/web"), Matched::Unknown);
        assert_eq!(covers("*/web"), Matched::Unknown);
        assert_eq!(covers("*/*"), Matched::Yes);
        assert_eq!(covers("i*e/*"), Matched::Yes);
        assert_eq!(covers("i*e/*b"), Matched::Unknown);
        assert_eq!(covers("image/*"), Matched::No);
        assert_eq!(covers("instance"), Matched::No);
        assert_eq!(covers("inst?"), Matched::No);
    }
}
