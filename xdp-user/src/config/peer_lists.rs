//! The lists of peers that are not translated: prefixes of `--except-peer`, which are left to the gateway, and of
//! `--deny`, which are dropped.
//!
//! It may not know how the dataplane looks them up.

use crate::error::{Error, Result};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use xdp_common::config::{DENY, EXCEPT};
use xdp_common::limits;

/// An IPv4 prefix; a single address has 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// Its address; the bits behind the length are zero.
    pub address: Ipv4Addr,
    /// Its length in bits, at most 32.
    pub length: u32,
}

const BITS: u32 = 32;

const fn mask(length: u32) -> u32 {
    match u32::MAX.checked_shl(BITS - length) {
        Some(mask) => mask,
        None => 0,
    }
}

impl Prefix {
    /// Whether it has an address in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.length) == self.address.to_bits()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "it is neither an IPv4 address nor a prefix; write it as 198.51.100.7 or 198.51.100.0/24"
                .to_owned()
        };
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, length.parse().map_err(|_| wrong())?),
            None => (text, BITS),
        };
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        if length > BITS {
            return Err(format!("a prefix has at most {BITS} bits, not {length}"));
        }
        let prefix = Self {
            address: Ipv4Addr::from_bits(address.to_bits() & mask(length)),
            length,
        };
        if prefix.address == address {
            Ok(prefix)
        } else {
            Err(format!(
                "bits behind the first {length} are set; did you mean {prefix}, or the host {address}/{BITS}?"
            ))
        }
    }
}

/// Both lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Of `--except-peer`.
    pub except: Vec<Prefix>,
    /// Of `--deny`.
    pub deny: Vec<Prefix>,
}

impl Lists {
    /// Refuses lists that contradict each other or are too long.
    pub fn check(&self) -> Result<()> {
        if let Some(both) = self.except.iter().find(|prefix| self.deny.contains(prefix)) {
            return Err(Error::PrefixTwice { prefix: *both });
        }
        let limit = limits::PREFIXES as usize;
        let found = self.all().count();
        if found > limit {
            return Err(Error::TooManyPrefixes { found, limit });
        }
        Ok(())
    }

    /// Every prefix once, with what PEERS says of it.
    pub fn all(&self) -> impl Iterator<Item = (Prefix, u32)> {
        let once = |list: &[Prefix]| {
            let mut list = list.to_vec();
            list.sort_unstable();
            list.dedup();
            list.into_iter()
        };
        let except = once(&self.except).map(|prefix| (prefix, EXCEPT));
        except.chain(once(&self.deny).map(|prefix| (prefix, DENY)))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.except.is_empty() && self.deny.is_empty()
    }

    /// Whether a peer is in any prefix.
    pub fn hold(&self, peer: Ipv4Addr) -> bool {
        let mut both = self.except.iter().chain(&self.deny);
        both.any(|prefix| prefix.contains(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().expect(text)
    }

    #[test]
    fn a_prefix_is_an_address_or_has_a_length() {
        assert_eq!(prefix("198.51.100.7").to_string(), "198.51.100.7/32");
        assert_eq!(prefix("198.51.100.0/24").length, 24);
        assert_eq!(prefix("0.0.0.0/0").length, 0);
        for wrong in ["", "1.2.3", "1.2.3.4/", "1.2.3.4/x", "1.2.3.4/33", "::/0"] {
            assert!(wrong.parse::<Prefix>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn bits_behind_the_prefix_are_an_error_that_names_the_right_one() {
        let error = "198.51.100.7/24".parse::<Prefix>().expect_err("host bits");
        assert!(error.contains("198.51.100.0/24"), "{error}");
        assert!(error.contains("198.51.100.7/32"), "{error}");
    }

    #[test]
    fn a_prefix_holds_its_addresses_and_no_others() {
        for (text, inside, outside) in [
            ("198.51.100.0/24", "198.51.100.255", "198.51.101.0"),
            ("198.51.100.7", "198.51.100.7", "198.51.100.6"),
            ("128.0.0.0/1", "255.255.255.255", "127.255.255.255"),
        ] {
            assert!(
                prefix(text).contains(inside.parse().expect(inside)),
                "{text}"
            );
            assert!(
                !prefix(text).contains(outside.parse().expect(outside)),
                "{text}"
            );
        }
        assert!(prefix("0.0.0.0/0").contains(Ipv4Addr::BROADCAST));
    }

    #[test]
    fn contradictions_and_too_many_are_refused() {
        let lists = |except: &[&str], deny: &[&str]| Lists {
            except: except.iter().map(|text| prefix(text)).collect(),
            deny: deny.iter().map(|text| prefix(text)).collect(),
        };
        let both = lists(&["10.0.0.0/8", "10.1.0.0/16"], &["10.1.0.0/16"]);
        let error = both.check().expect_err("in both").to_string();
        assert!(error.contains("10.1.0.0/16"), "{error}");
        // One inside the other is no contradiction: the longer one counts. Twice the same is none either.
        let nested = lists(&["10.1.0.0/16", "10.1.0.0/16"], &["10.0.0.0/8"]);
        assert!(nested.check().is_ok());
        assert_eq!(nested.all().count(), 2);
        let address = |number: u32| Prefix {
            address: Ipv4Addr::from_bits(number),
            length: BITS,
        };
        let mut many = Lists {
            except: Vec::new(),
            deny: (0..limits::PREFIXES).map(address).collect(),
        };
        assert!(many.check().is_ok());
        many.except.push(address(limits::PREFIXES));
        let error = many.check().expect_err("one too many").to_string();
        assert!(error.contains("1025") && error.contains("1024"), "{error}");
    }
}
