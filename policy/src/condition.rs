//! Conditions: operators as AWS names them, and what they say of a request.

use std::net::IpAddr;

use ipnet::IpNet;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::context::{Context, Value};
use crate::pattern::{Matched, Pattern};
use crate::vocabulary::KeyType;

/// An operator with its prefix and suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operator {
    pub base: Base,
    pub negated: bool,
    pub if_exists: bool,
    pub quantifier: Option<Quantifier>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantifier {
    ForAnyValue,
    ForAllValues,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    StringEquals,
    StringEqualsIgnoreCase,
    StringLike,
    Numeric(Order),
    Date(Order),
    Bool,
    IpAddress,
    Null,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Equals,
    LessThan,
    LessThanEquals,
    GreaterThan,
    GreaterThanEquals,
}

/// Every operator without prefix and suffix.
pub(crate) const OPERATORS: &[(&str, Base, bool)] = &[
    ("StringEquals", Base::StringEquals, false),
    ("StringNotEquals", Base::StringEquals, true),
    ("StringEqualsIgnoreCase", Base::StringEqualsIgnoreCase, false),
    ("StringNotEqualsIgnoreCase", Base::StringEqualsIgnoreCase, true),
    ("StringLike", Base::StringLike, false),
    ("StringNotLike", Base::StringLike, true),
    ("NumericEquals", Base::Numeric(Order::Equals), false),
    ("NumericNotEquals", Base::Numeric(Order::Equals), true),
    ("NumericLessThan", Base::Numeric(Order::LessThan), false),
    ("NumericLessThanEquals", Base::Numeric(Order::LessThanEquals), false),
    ("NumericGreaterThan", Base::Numeric(Order::GreaterThan), false),
    ("NumericGreaterThanEquals", Base::Numeric(Order::GreaterThanEquals), false),
    ("DateEquals", Base::Date(Order::Equals), false),
    ("DateNotEquals", Base::Date(Order::Equals), true),
    ("DateLessThan", Base::Date(Order::LessThan), false),
    ("DateLessThanEquals", Base::Date(Order::LessThanEquals), false),
    ("DateGreaterThan", Base::Date(Order::GreaterThan), false),
    ("DateGreaterThanEquals", Base::Date(Order::GreaterThanEquals), false),
    ("Bool", Base::Bool, false),
    ("IpAddress", Base::IpAddress, false),
    ("NotIpAddress", Base::IpAddress, true),
    ("Null", Base::Null, false),
];

impl Operator {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (quantifier, rest) = match text.split_once(':') {
            Some(("ForAnyValue", rest)) => (Some(Quantifier::ForAnyValue), rest),
            Some(("ForAllValues", rest)) => (Some(Quantifier::ForAllValues), rest),
            Some(_) => return None,
            None => (None, text),
        };
        let (name, if_exists) = match rest.strip_suffix("IfExists") {
            Some(name) => (name, true),
            None => (rest, false),
        };
        let (_, base, negated) = OPERATORS.iter().find(|(known, _, _)| *known == name)?;
        if *base == Base::Null && (if_exists || quantifier.is_some()) {
            return None;
        }
        Some(Self { base: *base, negated: *negated, if_exists, quantifier })
    }

    /// The type of key that it needs; `None` for any.
    pub(crate) const fn key_type(self) -> Option<KeyType> {
        match self.base {
            Base::StringEquals | Base::StringEqualsIgnoreCase | Base::StringLike => Some(KeyType::String),
            Base::Numeric(_) => Some(KeyType::Numeric),
            Base::Date(_) => Some(KeyType::Date),
            Base::Bool => Some(KeyType::Bool),
            Base::IpAddress => Some(KeyType::Ip),
            Base::Null => None,
        }
    }
}

/// A value of a document, parsed for its operator.
#[derive(Debug, Clone)]
pub(crate) enum Operand {
    Pattern(Pattern),
    Number(Order, f64),
    Date(Order, OffsetDateTime),
    Bool(bool),
    Net(IpNet),
}

impl Operand {
    /// `None` for a text that the operator cannot take.
    pub(crate) fn parse(operator: Operator, text: &str) -> Option<Self> {
        Some(match operator.base {
            Base::StringEquals => Self::Pattern(Pattern::new(text, false)),
            Base::StringLike => Self::Pattern(Pattern::new(text, true)),
            Base::StringEqualsIgnoreCase => Self::Pattern(Pattern::ignoring_case(text)),
            Base::Numeric(order) => {
                Self::Number(order, text.parse().ok().filter(|number: &f64| number.is_finite())?)
            }
            Base::Date(order) => Self::Date(order, date(text)?),
            Base::Bool | Base::Null => Self::Bool(text.parse().ok()?),
            Base::IpAddress => Self::Net(net(text)?),
        })
    }

    fn matches(&self, value: &Value, context: &Context) -> bool {
        match (self, value) {
            (Self::Pattern(pattern), Value::String(text)) => pattern.matches(text, context) == Matched::Yes,
            (Self::Number(order, number), Value::Number(value)) => order.holds(value.partial_cmp(number)),
            (Self::Date(order, date), Value::Date(value)) => order.holds(Some(value.cmp(date))),
            (Self::Bool(truth), Value::Bool(value)) => value == truth,
            (Self::Net(net), Value::Ip(address)) => net.contains(address),
            _ => false,
        }
    }
}

impl Order {
    fn holds(self, ordering: Option<std::cmp::Ordering>) -> bool {
        ordering.is_some_and(|ordering| match self {
            Self::Equals => ordering.is_eq(),
            Self::LessThan => ordering.is_lt(),
            Self::LessThanEquals => ordering.is_le(),
            Self::GreaterThan => ordering.is_gt(),
            Self::GreaterThanEquals => ordering.is_ge(),
        })
    }
}

/// RFC 3339, or seconds since 1970. `2026` and `20260131` look like dates but would be hours in 1970, and a
/// condition that is always true: they are refused.
fn date(text: &str) -> Option<OffsetDateTime> {
    const EARLIEST: i64 = 100_000_000;
    match text.parse::<i64>() {
        Ok(seconds) if seconds < EARLIEST => None,
        Ok(seconds) => OffsetDateTime::from_unix_timestamp(seconds).ok(),
        Err(_) => OffsetDateTime::parse(text, &Rfc3339).ok(),
    }
}

/// A CIDR prefix or one address; IPv4 in IPv6 clothes is IPv4.
fn net(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical().into());
    }
    let net: IpNet = text.parse().ok()?;
    Some(match net {
        IpNet::V6(v6) => match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
            (Some(v4), Some(length)) => IpNet::new(IpAddr::V4(v4), length).ok()?,
            _ => net,
        },
        IpNet::V4(_) => net,
    })
}

/// One line of a condition block.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    operator: Operator,
    key: Box<str>,
    operands: Box<[Operand]>,
}

impl Condition {
    /// Of texts that have been validated.
    pub(crate) fn new(operator: &str, key: &str, texts: &[String]) -> Option<Self> {
        let operator = Operator::parse(operator)?;
        let operands: Option<Vec<_>> = texts.iter().map(|text| Operand::parse(operator, text)).collect();
        Some(Self { operator, key: key.into(), operands: operands?.into() })
    }

    /// The key that is tested, and those whose values it is compared with.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        let compared = self.operands.iter().filter_map(|operand| match operand {
            Operand::Pattern(pattern) => Some(pattern.variables()),
            _ => None,
        });
        std::iter::once(&*self.key).chain(compared.flatten())
    }

    pub(crate) fn holds(&self, context: &Context) -> bool {
        let values = context.values(&self.key);
        let Operator { base, negated, if_exists, quantifier } = self.operator;
        if base == Base::Null {
            let absent = Value::Bool(values.is_empty());
            return self.operands.iter().any(|operand| operand.matches(&absent, context));
        }
        let one =
            |value: &Value| negated != self.operands.iter().any(|operand| operand.matches(value, context));
        match (values, quantifier) {
            ([], _) if if_exists => true,
            ([], None) => negated,
            (values, Some(Quantifier::ForAllValues)) => values.iter().all(one),
            (values, Some(Quantifier::ForAnyValue)) => values.iter().any(one),
            (values, None) => values.iter().any(one),
        }
    }
}
