//! Neighbours of this host: what the kernel knows of one, and how it is made to ask it again.
//!
//! It may not know which of them are anybody's next hop.

use super::{Netlink, ask, order};
use netlink_packet_core::NLM_F_REPLACE;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::io;
use std::net::Ipv4Addr;

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It has an address of the hardware, and the kernel sees to it.
    Resolved,
    /// The same, and it is being asked whether it is still there; no answer has come yet.
    Asked,
    /// Nobody knows its address, or somebody else sees to it: an administrator, a routing daemon.
    NotOurs,
}

/// Interface and address.
pub type Key = (u32, Ipv4Addr);

/// Interface and address of a neighbour that a message is about.
pub(super) fn key(message: &NeighbourMessage) -> Option<Key> {
    message.attributes.iter().find_map(|attribute| {
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) = attribute {
            Some((message.header.ifindex, *address))
        } else {
            None
        }
    })
}

/// Whether the kernel sends to a neighbour in this state (`NUD_VALID`).
pub(super) fn is_valid(state: NeighbourState) -> bool {
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

/// Its address of the hardware, if it can be sent to at this moment.
pub(super) fn hardware(message: &NeighbourMessage) -> Option<Vec<u8>> {
    let address = message.attributes.iter().find_map(|attribute| {
        if let NeighbourAttribute::LinkLayerAddress(address) = attribute {
            Some(address.clone())
        } else {
            None
        }
    });
    address.filter(|_| is_valid(message.header.state))
}

fn about((index, address): Key) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    let destination = NeighbourAttribute::Destination(NeighbourAddress::Inet(address));
    message.attributes.push(destination);
    message
}

fn judge(message: &NeighbourMessage) -> Known {
    let foreign = NeighbourFlags::ExtLearned | NeighbourFlags::Proxy;
    let extended = |attribute: &NeighbourAttribute| matches!(attribute, NeighbourAttribute::ExtFlags(flags) if !flags.is_empty());
    if message.header.flags.intersects(foreign) || message.attributes.iter().any(extended) {
        return Known::NotOurs;
    }
    let resolved = [
        NeighbourState::Reachable,
        NeighbourState::Stale,
        NeighbourState::Delay,
    ];
    if resolved.contains(&message.header.state) {
        Known::Resolved
    } else if message.header.state == NeighbourState::Probe {
        Known::Asked
    } else {
        Known::NotOurs
    }
}

impl Netlink {
    /// What the kernel knows of a neighbour.
    pub fn neighbour_state(&self, key: Key) -> io::Result<Known> {
        let request = RouteNetlinkMessage::GetNeighbour(about(key));
        let answers = match ask(&self.route, request, false) {
            Ok(answers) => answers,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Known::NotOurs),
            Err(error) => return Err(error),
        };
        let known = answers.iter().find_map(|answer| {
            if let RouteNetlinkMessage::NewNeighbour(message) = answer {
                Some(judge(message))
            } else {
                None
            }
        });
        Ok(known.unwrap_or(Known::NotOurs))
    }

    /// Lets the kernel ask a neighbour, by its address of the hardware, whether it is still there. Packets go on.
    pub fn probe(&self, key: Key) -> io::Result<()> {
        let mut message = about(key);
        message.header.state = NeighbourState::Probe;
        let request = RouteNetlinkMessage::NewNeighbour(message);
        order(&self.route, request, NLM_F_REPLACE)
    }

    /// Lets the kernel forget a neighbour: for the next packet it asks everybody on the link.
    pub fn forget(&self, key: Key) -> io::Result<()> {
        order(
            &self.route,
            RouteNetlinkMessage::DelNeighbour(about(key)),
            0,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(state: NeighbourState) -> NeighbourMessage {
        let mut message = about((3, Ipv4Addr::new(192, 168, 0, 1)));
        message.header.state = state;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1]));
        message
    }

    #[test]
    fn what_somebody_else_sees_to_is_left_alone() {
        assert_eq!(judge(&message(NeighbourState::Stale)), Known::Resolved);
        assert_eq!(judge(&message(NeighbourState::Probe)), Known::Asked);
        assert_eq!(judge(&message(NeighbourState::Permanent)), Known::NotOurs);
        assert_eq!(judge(&message(NeighbourState::Failed)), Known::NotOurs);
        let mut learned = message(NeighbourState::Reachable);
        learned.header.flags = NeighbourFlags::ExtLearned;
        assert_eq!(judge(&learned), Known::NotOurs);
    }

    #[test]
    fn only_an_address_that_can_be_sent_to_counts() {
        let address = Some(vec![2, 0, 0, 0, 0, 1]);
        assert_eq!(hardware(&message(NeighbourState::Delay)), address);
        assert_eq!(hardware(&message(NeighbourState::Permanent)), address);
        assert_eq!(hardware(&message(NeighbourState::Failed)), None);
        assert_eq!(
            key(&message(NeighbourState::Failed)),
            Some((3, Ipv4Addr::new(192, 168, 0, 1)))
        );
    }
}
