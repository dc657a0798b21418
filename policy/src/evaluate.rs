//! The decision: pure, and with its reasons.

use crate::compile::{Policy, Prepared, Reach};
use crate::context::{Place, Request};
use crate::document::Effect;

/// A statement that made a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deciding {
    /// Which of the policies, counted from 0.
    pub policy: usize,
    /// Which of its statements, counted from 0.
    pub statement: usize,
    pub sid: Option<String>,
    pub effect: Effect,
}

/// What came out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// Every statement that denies; if none does, every statement that allows.
    pub deciding: Vec<Deciding>,
}

/// Decides: denied unless a statement allows it, and denied whenever a statement denies it.
pub fn evaluate<P: AsRef<Policy>>(policies: &[P], request: &Request<'_>) -> Decision {
    let prepared = Prepared::new(&request.resource);
    let mut decision = Decision::default();
    let mut denied = false;
    for (number, policy) in policies.iter().enumerate() {
        for (statement, compiled) in policy.as_ref().about(request.action) {
            // Once something denies, whatever allows is of no interest.
            if (denied && compiled.effect == Effect::Allow) || !compiled.applies(&prepared, request.context) {
                continue;
            }
            if !denied && compiled.effect == Effect::Deny {
                denied = true;
                decision.deciding.clear();
            }
            decision.deciding.push(Deciding {
                policy: number,
                statement,
                sid: compiled.sid.clone(),
                effect: compiled.effect,
            });
        }
    }
    decision.allowed = !denied && !decision.deciding.is_empty();
    decision
}

/// The decision about an action when it is the same for every resource of the type at this place and whatever
/// the context; `None` when it depends on them.
pub fn foresee<'a, P: AsRef<Policy>>(
    policies: &[P],
    action: &str,
    service: &str,
    kind: &str,
    place: impl Into<Place<'a>>,
) -> Option<Decision> {
    let place = place.into();
    let (mut always, mut may_deny, mut may_allow) = (Vec::new(), false, false);
    for (number, policy) in policies.iter().enumerate() {
        for (statement, compiled) in policy.as_ref().about(action) {
            match (compiled.reach(service, kind, place), compiled.effect) {
                (Reach::Never, _) => {}
                (Reach::Sometimes, Effect::Deny) => may_deny = true,
                (Reach::Sometimes, Effect::Allow) => may_allow = true,
                (Reach::Always, effect) => {
                    always.push(Deciding { policy: number, statement, sid: compiled.sid.clone(), effect });
                }
            }
        }
    }
    let with = |effect| always.iter().filter(move |one: &&Deciding| one.effect == effect).cloned().collect();
    let (denies, allows): (Vec<_>, Vec<_>) = (with(Effect::Deny), with(Effect::Allow));
    if !denies.is_empty() {
        Some(Decision { allowed: false, deciding: denies })
    } else if !may_allow && allows.is_empty() {
        Some(Decision::default())
    } else if may_deny || allows.is_empty() {
        None
    } else {
        Some(Decision { allowed: true, deciding: allows })
    }
}
