//! What a document costs those who decide: a bound on the work of one decision, known when it is written.
//!
//! A step is the comparison of a character, or what takes as long. Actions cost nothing, because they are
//! compared once, when a document is compiled. `tests/rules/worst.rs` measures what the limit amounts to.

use crate::compile::ResourcePattern;
use crate::condition::Operand;
use crate::pattern::{Part, Pattern, Token};

/// The most steps of a document.
pub const MAX_STEPS: usize = 32 * 1024;

/// What every text costs, however short.
const TEXT: usize = 8;
/// How often a piece between two `*` is compared: at every place of the longest name or label.
const SEARCH: usize = 64;
/// Filling in a variable takes so much longer than comparing it.
const FILL: usize = 16;
/// How many values a request may have of a key that can have several: as many as a resource has labels.
const VALUES: usize = 32;

impl Pattern {
    fn steps(&self) -> usize {
        match self {
            Self::Any => 0,
            Self::Exact(text) | Self::Lower(text) => TEXT + text.len(),
            Self::Glob(tokens) => TEXT + search(tokens),
            Self::Template(parts) | Self::IgnoreCase(parts) => TEXT + fill(parts),
        }
    }
}

fn search(tokens: &[Token]) -> usize {
    let is_many = |token: &Token| *token == Token::Many;
    let first = tokens.iter().position(is_many);
    let last = tokens.iter().rposition(is_many);
    tokens.len() + first.zip(last).map_or(0, |(first, last)| (last - first) * SEARCH)
}

/// What a variable stands for may be as long as a name, and stand between two `*`.
fn fill(parts: &[Part]) -> usize {
    let lengths = parts.iter().map(|part| match part {
        Part::Tokens(tokens) => tokens.len(),
        Part::Variable(key) => key.len(),
    });
    let stars = parts.iter().flat_map(Part::tokens).filter(|token| **token == Token::Many).count();
    lengths.sum::<usize>() * if stars > 1 { SEARCH } else { FILL }
}

impl ResourcePattern {
    pub(crate) fn steps(&self) -> usize {
        match self {
            Self::Any => TEXT,
            Self::Crn { service, project, target } => {
                TEXT + service.steps() + project.steps() + target.steps()
            }
        }
    }
}

impl Operand {
    /// `several`: of a key that can have several values in a request.
    pub(crate) fn steps(&self, several: bool) -> usize {
        let once = match self {
            Self::Pattern(pattern) => pattern.steps().max(TEXT),
            Self::Number(..) | Self::Date(..) | Self::Bool(_) | Self::Net(_) => TEXT,
        };
        if several { once * VALUES } else { once }
    }
}
