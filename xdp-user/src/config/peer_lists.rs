//! The lists of peers that are not translated: prefixes of `--except-peer`, which are left to this
//! host, and of `--deny`, which are dropped.

use crate::error::{Error, Result};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use xdp_common::config::{DENY, EXCEPT};
use xdp_common::limits;

/// Reads an IPv4 prefix as an option names it: an address alone is a prefix of 32 bits, and no bit
/// behind the length may be set.
pub fn prefix(text: &str) -> Result<Ipv4Net, String> {
    const WRONG: &str = "it is neither an IPv4 address nor a prefix of at most 32 bits; write it as 198.51.100.7 or 198.51.100.0/24";
    let prefix: Ipv4Net = match text.parse::<Ipv4Addr>() {
        Ok(address) => address.into(),
        Err(_) => text.parse().map_err(|_| WRONG)?,
    };
    if prefix.addr() == prefix.network() {
        return Ok(prefix);
    }
    Err(format!(
        "bits behind the first {} are set; did you mean {}, or the host {}/32?",
        prefix.prefix_len(),
        prefix.trunc(),
        prefix.addr()
    ))
}

/// Both lists of prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Of `--except-peer`.
    pub except: Vec<Ipv4Net>,
    /// Of `--deny`.
    pub deny: Vec<Ipv4Net>,
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

    /// Every prefix once, with its value in PEERS.
    pub fn all(&self) -> impl Iterator<Item = (Ipv4Net, u32)> {
        let once = |list: &[Ipv4Net]| {
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
        both.any(|prefix| prefix.contains(&peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Ipv4Net {
        super::prefix(text).expect(text)
    }

    #[test]
    fn a_prefix_is_an_address_or_has_a_length() {
        assert_eq!(prefix("198.51.100.7").to_string(), "198.51.100.7/32");
        assert_eq!(prefix("198.51.100.0/24").prefix_len(), 24);
        assert_eq!(prefix("0.0.0.0/0").prefix_len(), 0);
        for wrong in ["", "1.2.3", "1.2.3.4/", "1.2.3.4/x", "1.2.3.4/33", "::/0"] {
            assert!(super::prefix(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bits_behind_the_prefix_are_an_error_that_names_the_right_one() {
        let error = super::prefix("198.51.100.7/24").expect_err("host bits");
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
                prefix(text).contains(&inside.parse::<Ipv4Addr>().expect(inside)),
                "{text}"
            );
            assert!(
                !prefix(text).contains(&outside.parse::<Ipv4Addr>().expect(outside)),
                "{text}"
            );
        }
        assert!(prefix("0.0.0.0/0").contains(&Ipv4Addr::BROADCAST));
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
        // A prefix inside another one is no contradiction: the longer one counts. Neither is the
        // same prefix twice in one list.
        let nested = lists(&["10.1.0.0/16", "10.1.0.0/16"], &["10.0.0.0/8"]);
        assert!(nested.check().is_ok());
        assert_eq!(nested.all().count(), 2);
        let address = |number: u32| Ipv4Net::from(Ipv4Addr::from_bits(number));
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
