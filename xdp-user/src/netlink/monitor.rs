//! Counts changes of links, neighbours, addresses, routes and rules. The dataplane discards the next
//! hops that it has cached when the count changes.
//!
//! The count does not say what has changed: the dataplane looks up the route of every flow again.

use std::collections::HashMap;
use std::io::ErrorKind;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use std::os::fd::{AsRawFd, RawFd};

use super::neighbour::{self, NeighbourKey};
use crate::error::{Error, Result};

/// Multicast groups of `linux/rtnetlink.h` (`enum rtnetlink_groups`): links, neighbours, IPv4
/// addresses, IPv4 routes and IPv4 rules.
const GROUPS: [u32; 5] = [1, 3, 5, 7, 8];

/// A socket that receives the kernel's notifications of changes.
#[derive(Debug)]
pub struct ChangeMonitor {
    socket: Socket,
    epoch: u16,
    pending: Pending,
    /// The MAC addresses of the neighbours that were notified.
    neighbours: HashMap<NeighbourKey, Vec<u8>>,
}

/// Changes that have not been reported to the caller yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pending {
    any: bool,
    links: bool,
}

impl Pending {
    const ALL: Self = Self {
        any: true,
        links: true,
    };
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
        // The time, so that the count differs from that of an earlier daemon, which may still be
        // in the tables.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "any 16 bits serve"
        )]
        let epoch = now.tv_sec as u16;
        Ok(Self {
            socket,
            epoch,
            pending: Pending::default(),
            neighbours: HashMap::new(),
        })
    }

    /// Reads the pending notifications and returns the count.
    pub fn epoch(&mut self) -> u16 {
        self.receive();
        let pending = std::mem::take(&mut self.pending);
        self.epoch = self.epoch.wrapping_add(u16::from(pending.any));
        self.epoch
    }

    /// Reads the pending notifications; true when an interface was added, removed or changed since
    /// the last call of this function or of `epoch`.
    pub fn links_changed(&mut self) -> bool {
        self.receive();
        std::mem::take(&mut self.pending.links)
    }

    /// A lost notification counts as one of each kind.
    fn receive(&mut self) {
        /// Reports of lost notifications that are read in one call at most.
        const OVERRUNS: u32 = 2;
        let mut overruns = 0;
        loop {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => self.parse(&datagram),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The receive buffer has overflowed (ENOBUFS). Reading goes on after that.
                Err(_) => {
                    self.pending = Pending::ALL;
                    overruns += 1;
                    if overruns == OVERRUNS {
                        return;
                    }
                }
            }
        }
    }

    fn parse(&mut self, mut datagram: &[u8]) {
        while !datagram.is_empty() {
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) else {
                self.pending = Pending::ALL;
                return;
            };
            let length = (message.header.length as usize).next_multiple_of(4);
            datagram = datagram.get(length..).unwrap_or_default();
            if let NetlinkPayload::InnerMessage(message) = message.payload {
                self.note(&message);
            }
        }
    }

    /// A neighbour that is probed and replies passes through several states without a change of its
    /// address. Only a new MAC address, or the loss of one, counts.
    fn note(&mut self, message: &RouteNetlinkMessage) {
        let links =
            RouteNetlinkMessage::is_new_link(message) || RouteNetlinkMessage::is_del_link(message);
        self.pending.links |= links;
        self.pending.any |= if let RouteNetlinkMessage::NewNeighbour(message) = message {
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
        let quiet = (0..1000).any(|_| monitor.epoch() == monitor.epoch());
        assert!(quiet);
    }
}
