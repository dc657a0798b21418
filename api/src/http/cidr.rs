//! Ranges of addresses in bodies.

use ipnet::IpNet;

use super::problem::FieldError;

/// Adds an error when bits of the address lie beyond the prefix: then it is not clear which range is meant.
pub(crate) fn validate_cidr(pointer: &str, cidr: IpNet, errors: &mut Vec<FieldError>) {
    if cidr.trunc() != cidr {
        let message = format!("{cidr} is an address in a range; the range is {}", cidr.trunc());
        errors.push(FieldError::new(pointer, "invalid", message));
    }
}
