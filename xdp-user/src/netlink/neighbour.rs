//! Neighbour entries (ARP, and Neighbour Discovery for IPv6 next hops): their states, probing and deletion.

use super::Netlink;
use super::socket::{another, change, get};
use netlink_packet_core::NLM_F_REPLACE;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::io;
use std::net::IpAddr;

/// State of a neighbour entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// The MAC address is known, and the kernel maintains it (REACHABLE, STALE, DELAY).
    Resolved,
    /// As above, and a unicast probe is pending (PROBE).
    Probing,
    /// The MAC address is known and maintained by an administrator or a routing daemon
    /// (PERMANENT, NOARP, externally learned). The kernel does not probe it.
    External,
    /// The first ARP request is pending (INCOMPLETE).
    Incomplete,
    /// No ARP reply came (FAILED).
    Failed,
}

/// Index of the interface, and address of the neighbour.
pub type NeighbourKey = (u32, IpAddr);

/// The key of the entry that a message describes.
pub(super) fn key(message: &NeighbourMessage) -> Option<NeighbourKey> {
    message.attributes.iter().find_map(|attribute| {
        let address = if let NeighbourAttribute::Destination(address) = attribute {
            address
        } else {
            return None;
        };
        if let NeighbourAddress::Inet(address) = address {
            Some((message.header.ifindex, IpAddr::from(*address)))
        } else if let NeighbourAddress::Inet6(address) = address {
            Some((message.header.ifindex, IpAddr::from(*address)))
        } else {
            None
        }
    })
}

/// Whether the kernel sends to a neighbour in this state (`NUD_VALID`).
fn is_valid(state: NeighbourState) -> bool {
    const VALID: [NeighbourState; 6] = [
        NeighbourState::Permanent,
        NeighbourState::Noarp,
        NeighbourState::Reachable,
        NeighbourState::Probe,
        NeighbourState::Stale,
        NeighbourState::Delay,
    ];
    VALID.contains(&state)
}

/// The MAC address, if packets can be sent to it now.
pub(super) fn mac(message: &NeighbourMessage) -> Option<Vec<u8>> {
    let address = message.attributes.iter().find_map(|attribute| {
        if let NeighbourAttribute::LinkLayerAddress(address) = attribute {
            Some(address.clone())
        } else {
            None
        }
    });
    address.filter(|_| is_valid(message.header.state))
}

fn request((index, address): NeighbourKey) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    let (family, address) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    message.header.family = family;
    message.header.ifindex = index;
    message
        .attributes
        .push(NeighbourAttribute::Destination(address));
    message
}

/// `None` for an entry that has never been used.
fn state(message: &NeighbourMessage) -> Option<Neighbour> {
    let foreign = NeighbourFlags::ExtLearned | NeighbourFlags::Proxy;
    let extended = |attribute: &NeighbourAttribute| matches!(attribute, NeighbourAttribute::ExtFlags(flags) if !flags.is_empty());
    let is_foreign =
        message.header.flags.intersects(foreign) || message.attributes.iter().any(extended);
    let state = message.header.state;
    let resolved = [
        NeighbourState::Reachable,
        NeighbourState::Stale,
        NeighbourState::Delay,
    ];
    if resolved.contains(&state) && !is_foreign {
        Some(Neighbour::Resolved)
    } else if state == NeighbourState::Probe && !is_foreign {
        Some(Neighbour::Probing)
    } else if is_valid(state) {
        Some(Neighbour::External)
    } else if state == NeighbourState::Incomplete {
        Some(Neighbour::Incomplete)
    } else {
        (state == NeighbourState::Failed).then_some(Neighbour::Failed)
    }
}

impl Netlink {
    /// The state of a neighbour; `None` when there is no entry.
    pub fn neighbour(&self, key: NeighbourKey) -> io::Result<Option<Neighbour>> {
        let entry = self.get_neighbour(key, NeighbourFlags::empty())?;
        Ok(entry.as_ref().and_then(state))
    }

    /// Whether this host answers ARP for an address by an entry of `ip neighbour add proxy`.
    pub fn is_proxied(&self, key: NeighbourKey) -> io::Result<bool> {
        Ok(self.get_neighbour(key, NeighbourFlags::Proxy)?.is_some())
    }

    fn get_neighbour(
        &self,
        key: NeighbourKey,
        flags: NeighbourFlags,
    ) -> io::Result<Option<NeighbourMessage>> {
        let mut message = request(key);
        message.header.flags = flags;
        match get(&self.route, RouteNetlinkMessage::GetNeighbour(message)) {
            Ok(RouteNetlinkMessage::NewNeighbour(entry)) if self::key(&entry) == Some(key) => {
                Ok(Some(entry))
            }
            Ok(_) => Err(another()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Starts a unicast probe of a neighbour. Packets are still sent to its MAC address.
    pub fn probe_neighbour(&self, key: NeighbourKey) -> io::Result<()> {
        let mut message = request(key);
        message.header.state = NeighbourState::Probe;
        let message = RouteNetlinkMessage::NewNeighbour(message);
        change(&self.route, message, NLM_F_REPLACE)
    }

    /// Deletes an entry. The next packet makes the kernel resolve the address by broadcast.
    pub fn delete_neighbour(&self, key: NeighbourKey) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelNeighbour(request(key));
        change(&self.route, message, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const KEY: NeighbourKey = (3, IpAddr::V4(Ipv4Addr::new(192, 168, 0, 1)));

    fn message(state: NeighbourState) -> NeighbourMessage {
        let mut message = request(KEY);
        message.header.state = state;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1]));
        message
    }

    #[test]
    fn entries_of_others_are_distinguished_from_the_kernels() {
        let of = |state_of_entry| state(&message(state_of_entry));
        assert_eq!(of(NeighbourState::Stale), Some(Neighbour::Resolved));
        assert_eq!(of(NeighbourState::Probe), Some(Neighbour::Probing));
        assert_eq!(of(NeighbourState::Permanent), Some(Neighbour::External));
        assert_eq!(of(NeighbourState::Failed), Some(Neighbour::Failed));
        assert_eq!(of(NeighbourState::Incomplete), Some(Neighbour::Incomplete));
        assert_eq!(of(NeighbourState::None), None);
        for state_of_entry in [NeighbourState::Reachable, NeighbourState::Probe] {
            let mut learned = message(state_of_entry);
            learned.header.flags = NeighbourFlags::ExtLearned;
            assert_eq!(state(&learned), Some(Neighbour::External));
        }
    }

    #[test]
    fn only_a_valid_entry_has_a_mac_address() {
        let address = Some(vec![2, 0, 0, 0, 0, 1]);
        assert_eq!(mac(&message(NeighbourState::Delay)), address);
        assert_eq!(mac(&message(NeighbourState::Permanent)), address);
        assert_eq!(mac(&message(NeighbourState::Failed)), None);
        assert_eq!(key(&message(NeighbourState::Failed)), Some(KEY));
    }

    #[test]
    fn an_address_without_an_entry_has_no_state() {
        let netlink = Netlink::open().expect("netlink needs no privilege");
        let absent = (1, IpAddr::from([192, 0, 2, 77]));
        assert_eq!(netlink.neighbour(absent).expect("an answer"), None);
        assert!(!netlink.is_proxied(absent).expect("an answer"));
    }
}
