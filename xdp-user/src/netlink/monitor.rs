//! Listens to changes of links, neighbours, addresses, routes and rules.
//!
//! It does not say what has changed: after any change that may concern a next hop, the dataplane
//! looks up the route of every flow again.

use std::collections::HashMap;
use std::io::ErrorKind;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use super::neighbour::{self, NeighbourKey};
use crate::error::{Error, Result};

/// Multicast groups of `linux/rtnetlink.h` (`enum rtnetlink_groups`): links, neighbours, IPv4
/// addresses, IPv4 routes and IPv4 rules.
const GROUPS: [u32; 5] = [1, 3, 5, 7, 8];

/// A socket that receives the kernel's notifications of changes.
#[derive(Debug)]
pub struct ChangeMonitor {
    socket: Socket,
    /// Notifications were lost, and the kernel may lose more until all others are read.
    overrun: bool,
    /// The MAC addresses of the neighbours that were notified.
    neighbours: HashMap<NeighbourKey, Vec<u8>>,
}

/// What may have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// An interface was added, removed or changed.
    pub links: bool,
    /// Next hops: interfaces, the MAC address of a neighbour, addresses, routes or rules.
    pub hops: bool,
}

impl Changes {
    /// Everything.
    pub const ALL: Self = Self {
        links: true,
        hops: true,
    };
}

/// What one call has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The changes.
    pub changes: Changes,
    /// False when more may be pending, which the socket does not report again.
    pub is_drained: bool,
}

impl ChangeMonitor {
    /// Subscribes to the changes in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn listen() -> Result<Self> {
        let failed = || Error::system("listen for changes of routes and neighbours");
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed())?;
        socket.bind_auto().map_err(failed())?;
        for group in GROUPS {
            socket.add_membership(group).map_err(failed())?;
        }
        socket.set_non_blocking(true).map_err(failed())?;
        Ok(Self {
            socket,
            overrun: false,
            neighbours: HashMap::new(),
        })
    }

    /// Reads the pending notifications. Lost ones count as a change of everything.
    pub fn receive(&mut self) -> Received {
        /// Notifications that are read in one call at most, so that the caller can do its other
        /// work while they come without end.
        const BATCH: u32 = 1024;
        /// Reports of lost notifications that are read in one call at most. Then the socket counts
        /// as drained, so that one with nothing but errors is not read without end.
        const OVERRUNS: u32 = 2;
        let mut changes = Changes::default();
        let mut overruns = 0;
        for _ in 0..BATCH {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => self.parse(&datagram, &mut changes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.drained(changes);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The receive buffer has overflowed (ENOBUFS). Reading goes on after that. Which
                // neighbours have changed meanwhile is not known.
                Err(_) => {
                    self.overrun = true;
                    self.neighbours.clear();
                    changes = Changes::ALL;
                    overruns += 1;
                    if overruns == OVERRUNS {
                        return self.drained(changes);
                    }
                }
            }
        }
        Received {
            changes,
            is_drained: false,
        }
    }

    /// After an overrun the kernel drops notifications, without another report, until the buffer is
    /// empty. So what was read until now may be older than what was lost.
    fn drained(&mut self, changes: Changes) -> Received {
        let overrun = std::mem::take(&mut self.overrun);
        Received {
            changes: if overrun { Changes::ALL } else { changes },
            is_drained: true,
        }
    }

    fn parse(&mut self, mut datagram: &[u8], changes: &mut Changes) {
        while !datagram.is_empty() {
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) else {
                *changes = Changes::ALL;
                return;
            };
            let length = (message.header.length as usize).next_multiple_of(4);
            datagram = datagram.get(length..).unwrap_or_default();
            if let NetlinkPayload::InnerMessage(message) = message.payload {
                self.note(&message, changes);
            }
        }
    }

    /// A neighbour that is probed and replies passes through several states without a change of its
    /// address. Only a new MAC address, or the loss of one, counts.
    fn note(&mut self, message: &RouteNetlinkMessage, changes: &mut Changes) {
        changes.links |=
            RouteNetlinkMessage::is_new_link(message) || RouteNetlinkMessage::is_del_link(message);
        changes.hops |= if let RouteNetlinkMessage::NewNeighbour(message) = message {
            self.mac_changed(message)
        } else if let RouteNetlinkMessage::DelNeighbour(message) = message {
            neighbour::key(message).is_some_and(|key| self.neighbours.remove(&key).is_some())
        } else {
            true
        };
    }

    fn mac_changed(&mut self, message: &NeighbourMessage) -> bool {
        let Some(key) = neighbour::key(message) else {
            return false;
        };
        match neighbour::mac(message) {
            Some(address) => self.neighbours.insert(key, address.clone()) != Some(address),
            None => self.neighbours.remove(&key).is_some(),
        }
    }
}

/// Readable when notifications are pending, so that an event loop can wait for them.
impl AsFd for ChangeMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for ChangeMonitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};
    use std::net::Ipv4Addr;

    #[test]
    fn only_a_new_mac_address_of_a_neighbour_is_a_change() {
        let mut monitor = ChangeMonitor::listen().expect("netlink works");
        let mut notify = |state, last: Option<u8>| {
            let mut message = NeighbourMessage::default();
            message.header.state = state;
            let address = NeighbourAddress::Inet(Ipv4Addr::new(192, 168, 0, 1));
            message.attributes = vec![NeighbourAttribute::Destination(address)];
            let mac = last.map(|last| vec![2, 0, 0, 0, 0, last]);
            message
                .attributes
                .extend(mac.map(NeighbourAttribute::LinkLayerAddress));
            monitor.mac_changed(&message)
        };
        assert!(notify(NeighbourState::Reachable, Some(1)), "it is new");
        assert!(!notify(NeighbourState::Probe, Some(1)));
        assert!(!notify(NeighbourState::Reachable, Some(1)));
        assert!(notify(NeighbourState::Stale, Some(2)), "another address");
        assert!(notify(NeighbourState::Failed, Some(2)), "no address");
        assert!(!notify(NeighbourState::Incomplete, None), "still none");
        assert!(notify(NeighbourState::Reachable, Some(2)), "it is back");
    }

    #[test]
    fn silence_is_no_change() {
        let mut monitor = ChangeMonitor::listen().expect("netlink works");
        // Another process may change something at any moment, but not all the time.
        let nothing = Received {
            changes: Changes::default(),
            is_drained: true,
        };
        assert!((0..1000).any(|_| monitor.receive() == nothing));
    }
}
