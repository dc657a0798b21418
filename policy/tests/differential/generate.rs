//! Random documents and questions. The alphabets are small, so patterns and requests meet often.

use std::collections::BTreeMap;

use policy::{Key, KeyType, Vocabulary};
use serde_json::{Map, Value, json};

use super::question::{Called, Question};

pub const VOCABULARY: Vocabulary = Vocabulary {
    actions: &["s:A", "s:Ab", "s:B", "s:Bb", "t:A", "t:Ba"],
    resources: &[("s", "a"), ("s", "ab"), ("t", "a"), ("t", "b")],
    keys: &[
        key("k:Text", KeyType::String, false),
        key("k:Name", KeyType::String, false),
        key("k:Label/", KeyType::String, false),
        key("k:Number", KeyType::Numeric, false),
        key("k:Bool", KeyType::Bool, false),
        key("k:Date", KeyType::Date, false),
        key("k:Ip", KeyType::Ip, false),
        key("m:Texts", KeyType::String, true),
        key("m:Numbers", KeyType::Numeric, true),
        key("m:Bools", KeyType::Bool, true),
        key("m:Dates", KeyType::Date, true),
        key("m:Ips", KeyType::Ip, true),
    ],
};

const fn key(name: &'static str, value: KeyType, multivalued: bool) -> Key {
    Key { name, value, multivalued }
}

/// SplitMix64: enough chance for a test, and the same on every machine.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True in `percent` of all cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// `at_least` to `at_most` of what `make` makes.
    fn several<T>(
        &mut self,
        at_least: usize,
        at_most: usize,
        mut make: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        let count = at_least + self.below(at_most - at_least + 1);
        (0..count).map(|_| make(self)).collect()
    }
}

/// One to three documents.
pub fn documents(dice: &mut Dice) -> Vec<Value> {
    dice.several(1, 3, document)
}

pub fn document(dice: &mut Dice) -> Value {
    let mut statements = dice.several(1, 4, |dice| statement(dice, None));
    for (index, statement) in statements.iter_mut().enumerate() {
        if dice.chance(30) {
            statement["Sid"] = format!("S{index}").into();
        }
    }
    let single = statements.len() == 1 && dice.chance(50);
    let statement = if single { statements.remove(0) } else { statements.into() };
    json!({"Version": "2012-10-17", "Statement": statement})
}

pub fn statement(dice: &mut Dice, effect: Option<&str>) -> Value {
    let mut statement = Map::new();
    let effect = effect.unwrap_or(if dice.chance(33) { "Deny" } else { "Allow" });
    statement.insert("Effect".to_owned(), effect.into());
    let name = if dice.chance(15) { "NotAction" } else { "Action" };
    statement.insert(name.to_owned(), one_or_many(dice, action));
    let name = if dice.chance(15) { "NotResource" } else { "Resource" };
    statement.insert(name.to_owned(), one_or_many(dice, resource));
    if dice.chance(45) {
        let mut operators: Map<String, Value> = Map::new();
        for _ in 0..=dice.below(2) {
            let (operator, key, values) = condition(dice);
            let keys = operators.entry(operator).or_insert_with(|| json!({}));
            keys[key] = values;
        }
        statement.insert("Condition".to_owned(), operators.into());
    }
    statement.into()
}

/// A string, or an array of one to three.
fn one_or_many(dice: &mut Dice, mut make: impl FnMut(&mut Dice) -> Value) -> Value {
    if dice.chance(50) { make(dice) } else { dice.several(1, 3, make).into() }
}

fn action(dice: &mut Dice) -> Value {
    let patterns =
        ["*", "s:*", "t:*", "s:A", "S:aB", "s:?", "s:*b", "t:*A", "s:B*", "T:?*", "t:b?", "s:**b*", "t:A"];
    dice.pick(&patterns).into()
}

fn resource(dice: &mut Dice) -> Value {
    if dice.chance(20) {
        return "*".into();
    }
    let service = dice.pick(&["*", "s", "s", "t"]);
    let projects = ["", "*", "*", "p", "p", "q", "?", "p*", "1", "?*", "*1*", "${k:Name}", "p${k:Text}*"];
    let project = dice.pick(&projects);
    let target = match dice.below(4) {
        0 => dice.pick(&["*", "*", "*/a", "*/*", "?/*", "?*/?", "a*/b", "a**/*", "*/**", "*/?*"]).into(),
        1 => format!("a*/{}", pattern(dice)),
        _ => {
            let kind = dice.pick(if service == "t" { &["a", "b"] } else { &["a", "a", "ab"] });
            format!("{kind}/{}", pattern(dice))
        }
    };
    format!("crn:cumulo:{service}:{project}:{target}").into()
}

/// A pattern for a name or a string; never empty.
fn pattern(dice: &mut Dice) -> String {
    let pieces =
        ["a", "a", "b", "*", "*", "?", "ab", "${k:Name}", "${k:Label/x}", "${*}", "${?}", "${$}", "é"];
    let usual = dice.below(10);
    if usual < 6 {
        dice.pick(&["*", "a", "b", "a*", "*b", "?"]).to_owned()
    } else {
        dice.several(1, 4, |dice| dice.pick(&pieces)).concat()
    }
}

/// Operator, key and values.
fn condition(dice: &mut Dice) -> (String, String, Value) {
    let key = &VOCABULARY.keys[dice.below(VOCABULARY.keys.len())];
    let name = if key.name.ends_with('/') {
        format!("{}{}", key.name, dice.pick(&["x", "y"]))
    } else {
        key.name.to_owned()
    };
    if dice.chance(8) {
        return ("Null".to_owned(), name, one_or_many(dice, |dice| value(dice, KeyType::Bool, false)));
    }
    let ordered =
        ["Equals", "Equals", "NotEquals", "LessThan", "LessThanEquals", "GreaterThan", "GreaterThanEquals"];
    let texts = ["Equals", "NotEquals", "EqualsIgnoreCase", "NotEqualsIgnoreCase", "Like", "Like", "NotLike"];
    let operator = match key.value {
        KeyType::String => format!("String{}", dice.pick(&texts)),
        KeyType::Numeric => format!("Numeric{}", dice.pick(&ordered)),
        KeyType::Date => format!("Date{}", dice.pick(&ordered)),
        KeyType::Bool => "Bool".to_owned(),
        KeyType::Ip => dice.pick(&["IpAddress", "NotIpAddress"]).to_owned(),
    };
    let set = if key.multivalued { dice.pick(&["ForAnyValue:", "ForAllValues:"]) } else { "" };
    let suffix = if dice.chance(25) { "IfExists" } else { "" };
    let like = operator.contains("Like");
    let values = one_or_many(dice, |dice| value(dice, key.value, like));
    (format!("{set}{operator}{suffix}"), name, values)
}

fn value(dice: &mut Dice, kind: KeyType, like: bool) -> Value {
    match kind {
        KeyType::String if like => pattern(dice).into(),
        KeyType::String if dice.chance(30) => pattern(dice).into(),
        KeyType::String => text(dice).replace('$', "${$}").into(),
        KeyType::Numeric if dice.chance(50) => json!(dice.below(3)),
        KeyType::Numeric => dice.pick(&["0", "1", "2", "1.0", "1.5", "-1", "1e0"]).into(),
        KeyType::Bool if dice.chance(50) => json!(dice.chance(50)),
        KeyType::Bool => dice.pick(&["true", "false"]).into(),
        KeyType::Date if dice.chance(30) => json!(1_767_225_600 + dice.below(3)),
        KeyType::Date => date(dice).into(),
        KeyType::Ip => {
            let networks = [
                "10.0.0.0/8",
                "10.0.0.1",
                "10.0.0.1/31",
                "0.0.0.0/0",
                "::/0",
                "fd00::/8",
                "fd00::1",
                "::ffff:10.0.0.0/104",
                "::ffff:10.0.0.1",
                "fd00::1/127",
                "10.0.0.0/32",
            ];
            dice.pick(&networks).into()
        }
    }
}

fn date(dice: &mut Dice) -> &'static str {
    dice.pick(&[
        "2026-01-01T00:00:00Z",
        "2026-01-01T01:00:01+01:00",
        "2025-12-31T23:00:02-01:00",
        "2026-01-01T00:00:00.5Z",
        "2026-01-01T00:00:00.000Z",
    ])
}

fn text(dice: &mut Dice) -> String {
    dice.pick(&["a", "a", "b", "ab", "A", "aB", "", "*", "?", "$", "é", "É", "b*"]).to_owned()
}

pub fn called(dice: &mut Dice) -> Called {
    let id = dice.chance(70).then(|| dice.pick(&["1", "11", "b", "a1"]).to_owned());
    (dice.pick(&["a", "b", "ab", "aa", "ba", "é"]).to_owned(), id)
}

pub fn project(dice: &mut Dice) -> Option<Called> {
    let id = dice.chance(70).then(|| dice.pick(&["1", "21", "q"]).to_owned());
    dice.chance(85).then(|| (dice.pick(&["p", "p", "q", "pp"]).to_owned(), id))
}

pub fn question(dice: &mut Dice) -> Question {
    let action = dice.pick(&["s:A", "s:Ab", "s:B", "s:Bb", "t:A", "t:Ba"]).to_owned();
    let &(service, kind) = dice.pick(&VOCABULARY.resources.iter().collect::<Vec<_>>());
    let target = dice.chance(80).then(|| called(dice));
    let project = project(dice);
    Question {
        action,
        service: service.to_owned(),
        project,
        kind: kind.to_owned(),
        target,
        values: values(dice),
    }
}

/// Values for some of the keys.
pub fn values(dice: &mut Dice) -> BTreeMap<String, Vec<String>> {
    let mut values = BTreeMap::new();
    for key in VOCABULARY.keys {
        let labels: &[&str] = if key.name.ends_with('/') { &["x", "y"] } else { &[""] };
        for label in labels {
            let (at_least, at_most) = if key.multivalued { (0, 3) } else { (1, 1) };
            let made = dice.several(at_least, at_most, |dice| known(dice, key.value));
            if dice.chance(70) {
                values.insert(format!("{}{label}", key.name), made);
            }
        }
    }
    values
}

fn known(dice: &mut Dice, kind: KeyType) -> String {
    match kind {
        KeyType::String => text(dice),
        KeyType::Numeric => dice.pick(&["0", "1", "2", "1.5", "-1"]).to_owned(),
        KeyType::Bool => dice.pick(&["true", "false"]).to_owned(),
        KeyType::Date => date(dice).to_owned(),
        KeyType::Ip => dice
            .pick(&["10.0.0.1", "10.0.0.0", "11.0.0.1", "fd00::1", "fe80::1", "::ffff:10.0.0.1"])
            .to_owned(),
    }
}
