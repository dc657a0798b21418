//! What must be true whatever the documents say.

use policy::{Decision, Document, Effect, Policy, evaluate, foresee};
use serde_json::{Value, json};

use super::generate::{self, Dice, VOCABULARY};
use super::question::{Question, names};
use super::{SEED, compile, fresh_seed};

/// Random sets of documents, and a question to each.
fn for_each_case(cases: usize, mut check: impl FnMut(&mut Dice, Vec<Value>, &Question)) {
    for seed in [SEED, fresh_seed()] {
        println!("seed {seed}");
        let mut dice = Dice::new(seed);
        for _ in 0..cases {
            let documents = generate::documents(&mut dice);
            let question = generate::question(&mut dice);
            check(&mut dice, documents, &question);
        }
    }
}

fn decide(policies: &[Policy], question: &Question) -> Decision {
    let context = question.context();
    evaluate(policies, &question.request(&context))
}

fn statements(document: &Value) -> Vec<Value> {
    match &document["Statement"] {
        Value::Array(statements) => statements.clone(),
        one => vec![one.clone()],
    }
}

fn of(statements: Vec<Value>) -> Value {
    let statements = Value::Array(statements);
    json!({"Version": "2012-10-17", "Statement": statements})
}

#[test]
fn only_an_allow_allows_and_a_deny_always_wins() {
    for_each_case(5_000, |_, documents, question| {
        let decision = decide(&compile(&documents), question);
        let effects: Vec<Effect> = decision.deciding.iter().map(|one| one.effect).collect();
        let expected = if decision.allowed { Effect::Allow } else { Effect::Deny };
        assert!(effects.iter().all(|effect| *effect == expected));
        assert!(!decision.allowed || !effects.is_empty(), "nobody allowed it: {documents:#?}");

        let mut more = documents;
        more.push(of(vec![json!({"Effect": "Deny", "Action": "*", "Resource": "*"})]));
        assert!(!decide(&compile(&more), question).allowed);
    });
}

#[test]
fn the_deciding_statements_decide_alone() {
    for_each_case(3_000, |_, documents, question| {
        let decision = decide(&compile(&documents), question);
        for one in &decision.deciding {
            let alone = statements(&documents[one.policy]).swap_remove(one.statement);
            assert_eq!(alone.get("Sid").and_then(Value::as_str), one.sid.as_deref());
            let again = decide(&compile(&[of(vec![alone])]), question);
            assert_eq!((again.allowed, again.deciding.len()), (decision.allowed, 1));
        }
    });
}

#[test]
fn order_makes_no_difference() {
    for_each_case(3_000, |dice, documents, question| {
        let before = decide(&compile(&documents), question);
        let mut turned: Vec<Value> = documents;
        for document in &mut turned {
            let mut statements = statements(document);
            let by = dice.below(statements.len());
            statements.rotate_left(by);
            if dice.chance(50) {
                statements.reverse();
            }
            *document = of(statements);
        }
        turned.reverse();
        let after = decide(&compile(&turned), question);
        assert_eq!(
            (before.allowed, before.deciding.len()),
            (after.allowed, after.deciding.len()),
            "{turned:#?}"
        );
    });
}

#[test]
fn adding_a_deny_never_grants() {
    for_each_case(3_000, |dice, mut documents, question| {
        let before = decide(&compile(&documents), question).allowed;
        let mut more = statements(&documents[0]);
        more.insert(dice.below(more.len() + 1), generate::statement(dice, Some("Deny")));
        documents[0] = of(more);
        assert!(before || !decide(&compile(&documents), question).allowed, "{documents:#?}");
    });
}

#[test]
fn removing_an_allow_never_grants() {
    for_each_case(3_000, |dice, documents, question| {
        let before = decide(&compile(&documents), question).allowed;
        let policy = dice.below(documents.len());
        let mut rest = statements(&documents[policy]);
        let Some(index) = rest.iter().position(|statement| statement["Effect"] == "Allow") else { return };
        rest.remove(index);
        let mut fewer = documents;
        if rest.is_empty() {
            fewer.remove(policy);
        } else {
            fewer[policy] = of(rest);
        }
        assert!(before || !decide(&compile(&fewer), question).allowed, "{fewer:#?}");
    });
}

/// A key with a policy of its own may do what both it and its owner may.
#[test]
fn a_key_never_exceeds_its_owner() {
    let (mut narrowed, mut granted) = (0, 0);
    for_each_case(3_000, |dice, documents, question| {
        let (owner, key) = (compile(&documents), compile(&[generate::document(dice)]));
        let (owner, key) = (decide(&owner, question).allowed, decide(&key, question).allowed);
        let both = owner && key;
        assert!(!both || owner);
        // What all documents say together is another thing, and may be more.
        narrowed += usize::from(owner && !both);
        granted += usize::from(both);
    });
    assert!(narrowed > 0 && granted > 0);
}

#[test]
fn the_canonical_form_means_the_same() {
    for_each_case(3_000, |_, documents, question| {
        let canonical: Vec<Value> = documents
            .iter()
            .map(|source| {
                let parse =
                    |value: &Value| Document::parse_stored(value, &VOCABULARY).expect("a good document");
                let document = parse(source);
                let canonical = serde_json::to_value(&document).expect("serialises");
                let again = parse(&canonical);
                assert_eq!(document, again, "{source:#}");
                assert_eq!(
                    serde_json::to_string(&document).expect("serialises"),
                    serde_json::to_string(&again).expect("serialises")
                );
                canonical
            })
            .collect();
        assert_eq!(decide(&compile(&documents), question), decide(&compile(&canonical), question));
    });
}

#[test]
fn what_was_foreseen_comes_true() {
    let (mut allowed, mut denied, mut open) = (0, 0, 0);
    for_each_case(4_000, |dice, documents, question| {
        let policies = compile(&documents);
        let project = names(question.project.as_ref());
        let foreseen = foresee(&policies, &question.action, &question.service, &question.kind, project);
        let Some(foreseen) = foreseen else {
            open += 1;
            return;
        };
        allowed += usize::from(foreseen.allowed);
        denied += usize::from(!foreseen.allowed);
        for _ in 0..8 {
            let target = dice.chance(80).then(|| generate::called(dice));
            let question = Question { target, values: generate::values(dice), ..question.clone() };
            let decision = decide(&policies, &question);
            assert_eq!(foreseen.allowed, decision.allowed, "{question:#?}\n{documents:#?}");
            assert!(foreseen.deciding.iter().all(|one| decision.deciding.contains(one)), "{decision:#?}");
        }
    });
    // Otherwise the loop above has seen nothing.
    assert!(allowed > 300 && denied > 300 && open > 300, "{allowed} {denied} {open}");
}
