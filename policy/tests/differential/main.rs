//! The evaluator beside a naive one, over random documents and requests from small alphabets, so that they
//! meet often. One seed is always the same, one is new in each run; both are printed with a failure.

mod generate;
mod naive;
mod properties;
mod question;

use std::hash::{BuildHasher, RandomState};

use generate::{Dice, VOCABULARY};
use policy::{Document, Policy, evaluate};
use serde_json::Value;

/// Sets of documents for each seed.
const SETS: usize = 9_000;
/// Requests to each set of documents.
const REQUESTS: usize = 6;

const SEED: u64 = 0x00C0_FFEE;

/// Another seed in each run.
fn fresh_seed() -> u64 {
    RandomState::new().hash_one("differential")
}

#[derive(Debug, Default)]
struct Counts {
    cases: usize,
    allowed: usize,
    denied_explicitly: usize,
}

/// Whatever the documents cost.
fn compile(documents: &[Value]) -> Vec<Policy> {
    let compile = |document| match Document::parse_stored(document, &VOCABULARY) {
        Ok(document) => Policy::compile(&document),
        Err(findings) => panic!("the generator made a faulty document\n{document:#}\n{findings:#?}"),
    };
    documents.iter().map(compile).collect()
}

fn compare(seed: u64) -> Counts {
    let mut dice = Dice::new(seed);
    let mut counts = Counts::default();
    for set in 0..SETS {
        let documents = generate::documents(&mut dice);
        let policies = compile(&documents);
        for _ in 0..REQUESTS {
            let question = generate::question(&mut dice);
            let (allowed, statements) = naive::decide(&documents, &question);
            let context = question.context();
            let request = question.request(&context);
            let decision = evaluate(&policies, &request);
            let deciding: Vec<_> = decision.deciding.iter().map(|one| (one.policy, one.statement)).collect();
            assert_eq!(
                (allowed, &statements),
                (decision.allowed, &deciding),
                "seed {seed}, set {set}: the naive evaluator is on the left\n{question:#?}\n{:#}",
                Value::from(documents)
            );
            counts.cases += 1;
            counts.allowed += usize::from(allowed);
            counts.denied_explicitly += usize::from(!allowed && !statements.is_empty());
        }
    }
    counts
}

#[test]
fn agrees_with_the_naive_evaluator() {
    let mut cases = 0;
    for seed in [SEED, fresh_seed()] {
        println!("seed {seed}");
        let counts = compare(seed);
        println!("{counts:?}");
        assert!(
            counts.allowed * 5 > counts.cases,
            "seed {seed}: too few are allowed to prove anything: {counts:?}"
        );
        assert!(counts.denied_explicitly * 5 > counts.cases, "seed {seed}: too few are denied: {counts:?}");
        cases += counts.cases;
    }
    assert!(cases >= 100_000);
}
