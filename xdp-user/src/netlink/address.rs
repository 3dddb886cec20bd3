//! The addresses, neighbours and routes of this host, as far as one has to know them to say whether packets will come
//! and go.
//!
//! It may not know what they are needed for.

use super::neighbour::{is_valid, key};
use super::{Netlink, ask};
use crate::error::{Error, Result};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// An IPv4 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of the interface.
    pub index: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// Length of its prefix.
    pub prefix: u8,
    /// True when another address of that network was there first: then that one is the source of what the kernel itself
    /// says.
    pub secondary: bool,
}

impl Address {
    /// Whether an address is in the same network.
    pub fn reaches(&self, other: Ipv4Addr) -> bool {
        let bits = u32::from(self.address) ^ u32::from(other);
        bits.checked_shr(32 - u32::from(self.prefix.min(32)))
            .unwrap_or(0)
            == 0
    }
}

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// It has answered, or was set by hand.
    Known,
    /// It is being asked.
    Asked,
    /// It did not answer.
    Failed,
}

/// Where packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Index of the interface.
    pub index: u32,
    /// The next router; `None` when the destination is a neighbour.
    pub gateway: Option<Ipv4Addr>,
    /// The host itself is the destination.
    pub local: bool,
}

impl Netlink {
    /// All IPv4 addresses of this network namespace.
    pub fn addresses(&self) -> Result<Vec<Address>> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let answers = ask(&self.route, RouteNetlinkMessage::GetAddress(message), true)
            .map_err(Error::system("list the addresses of this host"))?;
        Ok(answers.iter().filter_map(address).collect())
    }

    /// What is known of a neighbour; `None` when nobody has asked for it yet.
    pub fn neighbour(&self, index: u32, address: Ipv4Addr) -> Result<Option<Neighbour>> {
        let all = self.neighbours(NeighbourFlags::empty())?;
        let found = all
            .iter()
            .find(|entry| key(entry) == Some((index, address)));
        Ok(found.and_then(|entry| {
            let state = entry.header.state;
            if is_valid(state) {
                Some(Neighbour::Known)
            } else if state == NeighbourState::Incomplete {
                Some(Neighbour::Asked)
            } else {
                (state == NeighbourState::Failed).then_some(Neighbour::Failed)
            }
        }))
    }

    /// Whether this host answers ARP for that one address of somebody else (`ip neighbour add proxy`).
    pub fn is_proxied(&self, index: u32, address: Ipv4Addr) -> Result<bool> {
        let all = self.neighbours(NeighbourFlags::Proxy)?;
        Ok(all.iter().any(|entry| key(entry) == Some((index, address))))
    }

    fn neighbours(&self, flags: NeighbourFlags) -> Result<Vec<NeighbourMessage>> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.flags = flags;
        let answers = ask(
            &self.route,
            RouteNetlinkMessage::GetNeighbour(message),
            true,
        )
        .map_err(Error::system("list the neighbours of this host"))?;
        let neighbours = answers.into_iter().filter_map(|answer| {
            if let RouteNetlinkMessage::NewNeighbour(neighbour) = answer {
                Some(neighbour)
            } else {
                None
            }
        });
        Ok(neighbours.collect())
    }

    /// The number by which our network namespace knows another one; `None` when it knows it by none.
    pub fn namespace_number(&self, namespace: BorrowedFd<'_>) -> Option<i32> {
        let mut message = NsidMessage::default();
        let descriptor = u32::try_from(namespace.as_raw_fd()).ok()?;
        message.attributes.push(NsidAttribute::Fd(descriptor));
        let answers = ask(&self.route, RouteNetlinkMessage::GetNsId(message), false).ok()?;
        answers.iter().find_map(|answer| {
            let RouteNetlinkMessage::NewNsId(answer) = answer else {
                return None;
            };
            answer.attributes.iter().find_map(|attribute| {
                if let NsidAttribute::Id(number) = attribute {
                    Some(*number).filter(|number| *number >= 0)
                } else {
                    None
                }
            })
        })
    }

    /// The way to an address, from another one of this host's where that matters (`ip rule from`). The kernel's word
    /// when there is none.
    pub fn way(&self, to: Ipv4Addr, from: Option<Ipv4Addr>) -> io::Result<Way> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 32;
        let destination = RouteAttribute::Destination(RouteAddress::Inet(to));
        message.attributes.push(destination);
        if let Some(from) = from {
            message.header.source_prefix_length = 32;
            let source = RouteAttribute::Source(RouteAddress::Inet(from));
            message.attributes.push(source);
        }
        let answers = ask(&self.route, RouteNetlinkMessage::GetRoute(message), false)?;
        let found = answers.iter().find_map(|answer| {
            if let RouteNetlinkMessage::NewRoute(route) = answer {
                way(route)
            } else {
                None
            }
        });
        found.ok_or_else(|| io::Error::other("the kernel names no interface"))
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
        // `Address` is the far end of a point-to-point interface.
        address: found(true).or_else(|| found(false))?,
        prefix: message.header.prefix_len,
        secondary: flags.contains(AddressHeaderFlags::Secondary),
    })
}

fn way(message: &RouteMessage) -> Option<Way> {
    let mut way = Way {
        index: 0,
        gateway: None,
        local: message.header.kind == RouteType::Local,
    };
    for attribute in &message.attributes {
        if let RouteAttribute::Oif(index) = attribute {
            way.index = *index;
        } else if let RouteAttribute::Gateway(RouteAddress::Inet(gateway)) = attribute {
            way.gateway = Some(*gateway);
        }
    }
    (way.index != 0).then_some(way)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_told_apart() {
        let address = |prefix| Address {
            index: 1,
            address: Ipv4Addr::new(192, 168, 0, 254),
            prefix,
            secondary: false,
        };
        assert!(address(24).reaches(Ipv4Addr::new(192, 168, 0, 1)));
        assert!(!address(24).reaches(Ipv4Addr::new(192, 168, 1, 1)));
        assert!(address(0).reaches(Ipv4Addr::new(8, 8, 8, 8)));
        assert!(!address(32).reaches(Ipv4Addr::new(192, 168, 0, 1)));
        assert!(address(32).reaches(Ipv4Addr::new(192, 168, 0, 254)));
    }

    #[test]
    fn the_loopback_has_its_address_and_no_neighbour() {
        let netlink = Netlink::open().expect("netlink needs no privilege");
        let addresses = netlink.addresses().expect("a list");
        let loopback = addresses
            .iter()
            .find(|one| one.address == Ipv4Addr::LOCALHOST);
        assert_eq!(loopback.map(|one| one.prefix), Some(8));
        let way = netlink.way(Ipv4Addr::LOCALHOST, None).expect("a way");
        assert!(way.local);
        let unknown = netlink.neighbour(1, Ipv4Addr::new(192, 0, 2, 77));
        assert_eq!(unknown.expect("a list"), None);
    }
}
