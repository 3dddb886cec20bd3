//! Which of the kernel's notifications concern an instance. After a change that may concern a next
//! hop, the dataplane looks up the route of every flow again; a host with containers or a BGP feed
//! changes links, neighbours and routes all the time, and nearly none of them is used.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};

use super::Link;
use super::neighbour::{self, NeighbourKey};

/// What an instance uses.
pub struct Used<'u> {
    /// Its interfaces, also those that do not exist.
    pub links: Vec<&'u Link>,
    /// The VIPs.
    pub vips: Vec<Ipv4Addr>,
    /// The servers.
    pub servers: Vec<Ipv4Addr>,
    /// Whether a next hop may be cached that goes to this neighbour.
    pub neighbour: &'u dyn Fn(NeighbourKey) -> bool,
}

impl Used<'_> {
    fn has_index(&self, index: u32) -> bool {
        self.links.iter().any(|link| link.index == index)
    }

    /// By its index, or by its name: one that is created again has another index. Also a macvlan on
    /// top of one, as VRRP uses them.
    fn has_link(&self, message: &LinkMessage) -> bool {
        let is_name = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::IfName(name) if self.links.iter().any(|link| link.name == *name));
        self.has_index(message.header.index)
            || message.attributes.iter().any(is_name)
            || lower_of_macvlan(message).is_some_and(|index| self.has_index(index))
    }
}

/// The index of the interface beneath a macvlan.
fn lower_of_macvlan(message: &LinkMessage) -> Option<u32> {
    let is_kind = |info: &LinkInfo| matches!(info, LinkInfo::Kind(InfoKind::MacVlan));
    let is_macvlan = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::LinkInfo(infos) if infos.iter().any(is_kind));
    let mut attributes = message.attributes.iter();
    attributes.clone().any(is_macvlan).then_some(())?;
    attributes.find_map(|attribute| {
        if let LinkAttribute::Link(index) = attribute {
            Some(*index)
        } else {
            None
        }
    })
}

/// What may have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// An interface of the instance was added, removed or changed, or the address of the gateway
    /// for a server.
    pub links: bool,
    /// Next hops that are used.
    pub hops: bool,
    /// Next hops to some peers: those in [`ChangeFilter::take_prefixes`].
    pub routes: bool,
    /// Who has a VIP.
    pub vip: bool,
}

impl Changes {
    /// Everything.
    pub const ALL: Self = Self {
        links: true,
        hops: true,
        routes: false,
        vip: true,
    };
    /// Used next hops.
    pub const HOPS: Self = Self {
        links: false,
        hops: true,
        routes: false,
        vip: false,
    };

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            links: self.links || other.links,
            hops: self.hops || other.hops,
            routes: self.routes || other.routes,
            vip: self.vip || other.vip,
        }
    }
}

/// So many changed prefixes are remembered until somebody asks which peers they concern. More, as
/// when a BGP session comes up, count as a change of all.
const PREFIXES: usize = 4096;

/// Finds the notifications that concern an instance.
#[derive(Debug, Default)]
pub struct ChangeFilter {
    /// The MAC addresses of the neighbours that were notified on interfaces of the instance.
    neighbours: HashMap<NeighbourKey, Vec<u8>>,
    /// The destinations of routes that were notified, except for those that cover a VIP or a server.
    prefixes: HashSet<Ipv4Net>,
}

impl ChangeFilter {
    /// Notifications were lost: which neighbours and routes have changed is not known.
    pub fn forget(&mut self) {
        self.neighbours.clear();
        self.prefixes.clear();
    }

    /// The destinations of the routes that were notified since the last call.
    pub fn take_prefixes(&mut self) -> HashSet<Ipv4Net> {
        std::mem::take(&mut self.prefixes)
    }

    /// What a notification changes.
    pub fn changes(&mut self, message: &RouteNetlinkMessage, used: &Used<'_>) -> Changes {
        if let RouteNetlinkMessage::NewNeighbour(message) = message {
            return hops(self.mac_changed(message, used));
        }
        if let RouteNetlinkMessage::DelNeighbour(message) = message {
            let key = neighbour::key(message);
            let known = |key| self.neighbours.remove(&key).is_some() && (used.neighbour)(key);
            return hops(key.is_some_and(known));
        }
        if let RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message) =
            message
        {
            let links = used.has_link(message);
            return Changes {
                links,
                ..hops(links)
            };
        }
        if let RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message) =
            message
        {
            return of_address(message, used);
        }
        if let RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) =
            message
        {
            return self.of_route(message, used);
        }
        // A rule, or what the kernel may notify in future.
        Changes::HOPS
    }

    /// A neighbour that is probed and replies passes through several states without a change of its
    /// address. Only a new MAC address, or the loss of one, counts.
    fn mac_changed(&mut self, message: &NeighbourMessage, used: &Used<'_>) -> bool {
        let Some(key) = neighbour::key(message).filter(|(index, _)| used.has_index(*index)) else {
            return false;
        };
        let changed = match neighbour::mac(message) {
            Some(address) => self.neighbours.insert(key, address.clone()) != Some(address),
            None => self.neighbours.remove(&key).is_some(),
        };
        changed && (used.neighbour)(key)
    }

    fn of_route(&mut self, message: &RouteMessage, used: &Used<'_>) -> Changes {
        let Some(prefix) = destination(message) else {
            return Changes::HOPS;
        };
        let covers = |addresses: &[Ipv4Addr]| addresses.iter().any(|one| prefix.contains(one));
        if prefix.prefix_len() == 0 || covers(&used.vips) || covers(&used.servers) {
            return Changes {
                links: covers(&used.servers),
                ..Changes::HOPS
            };
        }
        if self.prefixes.len() >= PREFIXES && !self.prefixes.contains(&prefix) {
            self.prefixes.clear();
            return Changes::HOPS;
        }
        self.prefixes.insert(prefix);
        Changes {
            routes: true,
            ..Changes::default()
        }
    }
}

fn hops(changed: bool) -> Changes {
    Changes {
        hops: changed,
        ..Changes::default()
    }
}

/// The destination of a route; `None` when it is not IPv4.
fn destination(message: &RouteMessage) -> Option<Ipv4Net> {
    let length = message.header.destination_prefix_length;
    let address = message.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Destination(RouteAddress::Inet(address)) = attribute {
            Some(*address)
        } else {
            None
        }
    });
    match (address, length) {
        (Some(address), length) => Some(Ipv4Net::new(address, length).ok()?.trunc()),
        (None, 0) => Some(Ipv4Net::default()),
        (None, _) => None,
    }
}

/// The kernel notifies of the routes that come with an address as well.
fn of_address(message: &AddressMessage, used: &Used<'_>) -> Changes {
    let is_in = |wanted: &[Ipv4Addr]| {
        message.attributes.iter().any(|attribute| {
            matches!(attribute, AddressAttribute::Local(IpAddr::V4(found)) | AddressAttribute::Address(IpAddr::V4(found)) if wanted.contains(found))
        })
    };
    let vip = is_in(&used.vips);
    let links = used.has_index(message.header.index);
    Changes {
        vip,
        links,
        ..hops(links || vip || is_in(&used.servers))
    }
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
