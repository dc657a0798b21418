//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// The address of one network card: six bytes, written `52:54:00:12:34:56`. Never a group address, never
/// all zeros.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress([u8; 6]);

/// Why a text or six bytes are not a [`MacAddress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ParseMacError {
    #[error("a MAC address is six pairs of hexadecimal digits joined by colons")]
    Form,
    #[error("a network card has no group address: the second digit is even")]
    Group,
    #[error("a network card does not have the address 00:00:00:00:00:00")]
    Zero,
}

impl MacAddress {
    pub const fn from_bytes(bytes: [u8; 6]) -> Result<Self, ParseMacError> {
        if bytes[0] & 1 == 1 {
            return Err(ParseMacError::Group);
        }
        if matches!(bytes, [0, 0, 0, 0, 0, 0]) {
            return Err(ParseMacError::Zero);
        }
        Ok(Self(bytes))
    }

    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddress {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().ok_or(ParseMacError::Form)?;
            if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(ParseMacError::Form);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| ParseMacError::Form)?;
        }
        match pairs.next() {
            None => Self::from_bytes(bytes),
            Some(_) => Err(ParseMacError::Form),
        }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MacAddress({self})")
    }
}

impl Serialize for MacAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_no_card_has() {
        for (text, reason) in [
            ("", ParseMacError::Form),
            ("52:54:00:12:34", ParseMacError::Form),
            ("52:54:00:12:34:56:78", ParseMacError::Form),
            ("52-54-00-12-34-56", ParseMacError::Form),
            ("5:54:00:12:34:56", ParseMacError::Form),
            ("+2:54:00:12:34:56", ParseMacError::Form),
            ("53:54:00:12:34:56", ParseMacError::Group),
            ("ff:ff:ff:ff:ff:ff", ParseMacError::Group),
            ("00:00:00:00:00:00", ParseMacError::Zero),
        ] {
            assert_eq!(text.parse::<MacAddress>(), Err(reason), "{text:?}");
        }
        assert_eq!("52:54:00:AB:cd:Ef".parse::<MacAddress>().unwrap().to_string(), "52:54:00:ab:cd:ef");
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(bytes: [u8; 6]) {
            if let Ok(mac) = MacAddress::from_bytes(bytes) {
                prop_assert_eq!(mac.to_string().parse(), Ok(mac));
            }
        }
    }
}
