//! IPv4 addresses of the interfaces.

use super::Netlink;
use super::socket::dump;
use crate::error::{Error, Result};
use ipnet::Ipv4Net;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::net::{IpAddr, Ipv4Addr};

/// An IPv4 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of the interface.
    pub index: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// Length of its prefix.
    pub prefix: u8,
    /// True when the interface had another address of that network first. The kernel then uses
    /// that one as the source of packets that it originates.
    pub secondary: bool,
}

impl Address {
    /// The network that this address is in.
    pub fn network(&self) -> Option<Ipv4Net> {
        Some(Ipv4Net::new(self.address, self.prefix).ok()?.trunc())
    }

    /// Whether another address is in the network of this one.
    pub fn is_on_link(&self, other: Ipv4Addr) -> bool {
        let bits = u32::from(self.address) ^ u32::from(other);
        bits.checked_shr(32 - u32::from(self.prefix.min(32)))
            .unwrap_or(0)
            == 0
    }
}

impl Netlink {
    /// All IPv4 addresses of this network namespace.
    pub fn addresses(&self) -> Result<Vec<Address>> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let replies = dump(&self.route, RouteNetlinkMessage::GetAddress(message))
            .map_err(Error::system("list the addresses of this host"))?;
        Ok(replies.iter().filter_map(address).collect())
    }
}

fn address(message: &RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    let found = |want_local: bool| {
        message.attributes.iter().find_map(|attribute| {
            if let AddressAttribute::Local(IpAddr::V4(address)) = attribute {
                want_local.then_some(*address)
            } else if let AddressAttribute::Address(IpAddr::V4(address)) = attribute {
                (!want_local).then_some(*address)
            } else {
                None
            }
        })
    };
    let flags = message.header.flags;
    Some(Address {
        index: message.header.index,
        // On a point-to-point interface `Address` is the remote end, so `Local` is preferred.
        address: found(true).or_else(|| found(false))?,
        prefix: message.header.prefix_len,
        secondary: flags.contains(AddressHeaderFlags::Secondary),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_compared_by_its_prefix() {
        let address = |prefix| Address {
            index: 1,
            address: Ipv4Addr::new(192, 168, 0, 254),
            prefix,
            secondary: false,
        };
        assert!(address(24).is_on_link(Ipv4Addr::new(192, 168, 0, 1)));
        assert!(!address(24).is_on_link(Ipv4Addr::new(192, 168, 1, 1)));
        assert!(address(0).is_on_link(Ipv4Addr::new(8, 8, 8, 8)));
        assert!(!address(32).is_on_link(Ipv4Addr::new(192, 168, 0, 1)));
        assert!(address(32).is_on_link(Ipv4Addr::new(192, 168, 0, 254)));
    }

    #[test]
    fn the_loopback_has_its_address() {
        let netlink = Netlink::open().expect("netlink needs no privilege");
        let addresses = netlink.addresses().expect("a list");
        let loopback = addresses
            .iter()
            .find(|one| one.address == Ipv4Addr::LOCALHOST);
        assert_eq!(loopback.map(|one| one.prefix), Some(8));
    }
}
