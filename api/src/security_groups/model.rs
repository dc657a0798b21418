//! What a rule may say.

use std::ops::RangeInclusive;

use ipnet::IpNet;
use protocol::agent::{PortRange, RuleProtocol};

use super::types::{CreateSecurityGroupRule, NamedProtocol, Protocol};
use crate::http::{FieldError, validate_cidr, validate_description_at};

/// So many rules a group may have.
pub(super) const MAX_RULES: usize = 100;

const ALL_PORTS: PortRange = PortRange { first: 0, last: u16::MAX };

/// Types that neither protocol has given out, so that a type of the other one is noticed.
const NOT_ICMP: &[RangeInclusive<u8>] = &[44..=252, 255..=255];
const NOT_ICMPV6: &[RangeInclusive<u8>] = &[0..=0, 5..=99, 102..=126];

/// Adds an error for each field of each rule that is wrong.
pub(super) fn validate_rules(rules: &[CreateSecurityGroupRule], errors: &mut Vec<FieldError>) {
    if rules.len() > MAX_RULES {
        errors.push(FieldError::new("/rules", "too_many", format!("at most {MAX_RULES} rules")));
        return;
    }
    for (index, rule) in rules.iter().enumerate() {
        rule.validate(&format!("/rules/{index}"), errors);
    }
}

impl CreateSecurityGroupRule {
    /// Adds an error for each wrong field; `at` points at the rule.
    pub(super) fn validate(&self, at: &str, errors: &mut Vec<FieldError>) {
        validate_description_at(at, &self.description, errors);
        match (self.remote_cidr, &self.remote_group) {
            (Some(cidr), None) => validate_cidr(&format!("{at}/remote_cidr"), cidr, errors),
            (None, Some(_)) => {}
            _ => errors.push(FieldError::new(
                format!("{at}/remote_cidr"),
                "invalid",
                "give either remote_cidr or remote_group; 0.0.0.0/0 and ::/0 are everybody",
            )),
        }
        if let Err((field, message)) = self.protocol() {
            errors.push(FieldError::new(format!("{at}/{field}"), "invalid", message));
        }
    }

    /// The protocol with everything that belongs to it, or which field is wrong and why.
    pub(super) fn protocol(&self) -> Result<RuleProtocol, (&'static str, String)> {
        let wrong = |field: &'static str, message: &str| Err((field, message.to_owned()));
        let named = match self.protocol {
            Protocol::Named(named) => Some(named),
            Protocol::Number(_) => None,
        };
        if !matches!(named, Some(NamedProtocol::Tcp | NamedProtocol::Udp)) {
            for (field, port) in [("port_first", self.port_first), ("port_last", self.port_last)] {
                if port.is_some() {
                    return wrong(field, "only tcp and udp have ports");
                }
            }
        }
        if named != Some(NamedProtocol::Icmp) {
            for (field, value) in [("icmp_type", self.icmp_type), ("icmp_code", self.icmp_code)] {
                if value.is_some() {
                    return wrong(field, "only icmp has types and codes");
                }
            }
        }
        match self.protocol {
            Protocol::Named(NamedProtocol::Any) => Ok(RuleProtocol::Any),
            Protocol::Named(NamedProtocol::Tcp) => Ok(RuleProtocol::Tcp { ports: self.ports()? }),
            Protocol::Named(NamedProtocol::Udp) => Ok(RuleProtocol::Udp { ports: self.ports()? }),
            Protocol::Named(NamedProtocol::Icmp) => self.icmp(),
            Protocol::Number(6) => wrong("protocol", "protocol 6 is tcp: say \"tcp\""),
            Protocol::Number(17) => wrong("protocol", "protocol 17 is udp: say \"udp\""),
            Protocol::Number(1 | 58) => {
                wrong("protocol", "say \"icmp\": it is ICMP with IPv4 and ICMPv6 with IPv6")
            }
            Protocol::Number(number) => Ok(RuleProtocol::Number { number }),
        }
    }

    fn ports(&self) -> Result<PortRange, (&'static str, String)> {
        match (self.port_first, self.port_last) {
            (None, None) => Ok(ALL_PORTS),
            (None, Some(_)) => Err(("port_first", "give the first port, too".to_owned())),
            (Some(first), last) => {
                let last = last.unwrap_or(first);
                if first > last {
                    return Err(("port_last", format!("the last port is below the first, {first}")));
                }
                Ok(PortRange { first, last })
            }
        }
    }

    fn icmp(&self) -> Result<RuleProtocol, (&'static str, String)> {
        let Self { icmp_type, icmp_code, .. } = *self;
        let Some(kind) = icmp_type else {
            return match icmp_code {
                None => Ok(RuleProtocol::Icmp { icmp_type, icmp_code }),
                Some(_) => Err(("icmp_type", "a code needs its type".to_owned())),
            };
        };
        let (foreign, family, hint) = match self.remote_cidr {
            Some(IpNet::V4(_)) => (NOT_ICMP, "ICMP", "its echo request is 8"),
            Some(IpNet::V6(_)) => (NOT_ICMPV6, "ICMPv6", "its echo request is 128"),
            None => (&[][..], "", ""),
        };
        if foreign.iter().any(|range| range.contains(&kind)) {
            return Err(("icmp_type", format!("{family} has no type {kind}; {hint}")));
        }
        Ok(RuleProtocol::Icmp { icmp_type, icmp_code })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "reads better where it is called")]
    fn rule(fields: Value) -> CreateSecurityGroupRule {
        let mut all = json!({"direction": "ingress", "remote_cidr": "0.0.0.0/0"});
        for (key, value) in fields.as_object().unwrap() {
            all[key] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn what_is_left_out_means_all() {
        let ports = |fields| rule(fields).protocol().unwrap();
        assert_eq!(ports(json!({})), RuleProtocol::Any);
        assert_eq!(ports(json!({"protocol": "tcp"})), RuleProtocol::Tcp { ports: ALL_PORTS });
        let ssh = PortRange { first: 22, last: 22 };
        assert_eq!(ports(json!({"protocol": "udp", "port_first": 22})), RuleProtocol::Udp { ports: ssh });
        assert_eq!(ports(json!({"protocol": 47})), RuleProtocol::Number { number: 47 });
    }

    #[test]
    fn each_error_points_at_its_field() {
        for (fields, field) in [
            (json!({"port_first": 1}), "port_first"),
            (json!({"protocol": "icmp", "port_last": 1}), "port_last"),
            (json!({"protocol": 47, "port_first": 1}), "port_first"),
            (json!({"protocol": "tcp", "port_last": 1}), "port_first"),
            (json!({"protocol": "tcp", "port_first": 2, "port_last": 1}), "port_last"),
            (json!({"protocol": "tcp", "icmp_type": 8}), "icmp_type"),
            (json!({"protocol": "icmp", "icmp_code": 0}), "icmp_type"),
            (json!({"protocol": "icmp", "icmp_type": 128}), "icmp_type"),
            (json!({"protocol": "icmp", "icmp_type": 8, "remote_cidr": "::/0"}), "icmp_type"),
            (json!({"protocol": 6}), "protocol"),
            (json!({"protocol": 58}), "protocol"),
            (json!({"remote_group": "web"}), "remote_cidr"),
            (json!({"remote_cidr": null}), "remote_cidr"),
            (json!({"remote_cidr": "10.0.0.1/8"}), "remote_cidr"),
            (json!({"description": "a\0b"}), "description"),
        ] {
            let mut errors = Vec::new();
            validate_rules(&[rule(json!({})), rule(fields.clone())], &mut errors);
            let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
            assert_eq!(pointers, [format!("/rules/1/{field}")], "{fields}");
        }
        for fine in [
            json!({"protocol": "icmp", "icmp_type": 8, "icmp_code": 0}),
            json!({"protocol": "icmp", "icmp_type": 128, "remote_cidr": "2001:db8::/32"}),
            json!({"protocol": "icmp", "icmp_type": 128, "remote_cidr": null, "remote_group": "web"}),
            json!({"protocol": "tcp", "port_first": 0, "port_last": 65535}),
        ] {
            let mut errors = Vec::new();
            rule(fine.clone()).validate("", &mut errors);
            assert_eq!(errors, [], "{fine}");
        }
    }
}
