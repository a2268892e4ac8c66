//! Ranges of addresses, as in `10.0.0.0/8`.
//!
//! Invariant: no bit behind the length is set, so that a range says what it means.

use std::fmt;
use std::net::IpAddr;

/// An address, or all that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpRange {
    first: IpAddr,
    length: u32,
}

impl IpRange {
    /// Parses an address, or an address and the number of its leading bits.
    ///
    /// # Errors
    /// What is wrong with the text, as the end of a sentence that begins with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, length) = match text.split_once('/') {
            None => (text, None),
            Some((address, length)) => (address, Some(length)),
        };
        let first: IpAddr = address
            .parse()
            .map_err(|_| format!("`{}` is not an address", address.escape_debug()))?;
        let most = bits(first);
        let length = match length {
            None => most,
            Some(text) => text
                .parse()
                .ok()
                .filter(|length| *length <= most && !text.starts_with('+'))
                .ok_or_else(|| format!("`{}` is not a number up to {most}", text.escape_debug()))?,
        };
        let range = Self { first, length };
        if range.head(first) != Some(number(first)) {
            return Err(format!("has bits behind the first {length}"));
        }
        Ok(range)
    }

    /// Whether `address` is one of them; an IPv4 address counts the same when it is written as IPv6.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.head(address.to_canonical()) == Some(number(self.first))
    }

    /// The address without the bits behind the length; `None` for one of the other family.
    fn head(&self, address: IpAddr) -> Option<u128> {
        let most = bits(self.first);
        if bits(address) != most {
            return None;
        }
        let behind = most.saturating_sub(self.length);
        let number = number(address);
        Some(
            number
                .checked_shr(behind)
                .unwrap_or(0)
                .checked_shl(behind)
                .unwrap_or(0),
        )
    }
}

const fn bits(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.length)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_address_is_in_its_ranges_only() {
        let within = |range: &str, address: &str| {
            let range = IpRange::parse(range).unwrap();
            range.contains(address.parse().unwrap())
        };
        for (range, address) in [
            ("10.0.0.0/8", "10.255.255.255"),
            ("10.0.0.0/8", "::ffff:10.0.0.1"),
            ("0.0.0.0/0", "203.0.113.1"),
            ("::/0", "2001:db8::1"),
            ("127.0.0.1", "127.0.0.1"),
            ("fd00:1::/32", "fd00:1:ffff::1"),
            ("192.0.2.128/25", "192.0.2.255"),
        ] {
            assert!(within(range, address), "{range} {address}");
        }
        for (range, address) in [
            ("10.0.0.0/8", "11.0.0.0"),
            ("0.0.0.0/0", "::1"),
            ("::/0", "10.0.0.1"),
            ("127.0.0.1/32", "127.0.0.2"),
            ("192.0.2.128/25", "192.0.2.127"),
        ] {
            assert!(!within(range, address), "{range} {address}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "/8",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0.1/8",
            "host",
            "::/129",
            "10.0.0.0/",
        ] {
            assert!(IpRange::parse(text).is_err(), "{text}");
        }
        assert_eq!(IpRange::parse("fd00::/8").unwrap().to_string(), "fd00::/8");
    }
}
