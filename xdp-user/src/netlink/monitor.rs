//! Counts the times at which something has changed that a route or a neighbour depends on: with a new count, next hops
//! that were remembered are forgotten.
//!
//! It may not know what has changed: the dataplane asks the kernel again for every flow.

use std::collections::HashMap;
use std::io::ErrorKind;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::neighbour::{self, Key};
use crate::error::{Error, Result};

/// The groups of `linux/rtnetlink.h` (`enum rtnetlink_groups`): links, neighbours, IPv4 addresses, routes and rules.
const GROUPS: [u32; 5] = [1, 3, 5, 7, 8];

/// A socket that hears of every change.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
    epoch: u16,
    heard: Heard,
    /// The neighbours of which was heard, and their addresses of the hardware.
    neighbours: HashMap<Key, Vec<u8>>,
}

/// What has changed since the last count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Heard {
    anything: bool,
    links: bool,
}

impl Heard {
    const ALL: Self = Self {
        anything: true,
        links: true,
    };
}

impl Events {
    /// Begins to listen in the network namespace of this process.
    ///
    /// # Errors
    /// The kernel gives no such socket.
    pub fn listen() -> Result<Self> {
        let failed = || Error::system("listen for changes of routes and neighbours");
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed())?;
        socket.bind_auto().map_err(failed())?;
        for group in GROUPS {
            socket.add_membership(group).map_err(failed())?;
        }
        socket.set_non_blocking(true).map_err(failed())?;
        // Not where the last daemon began: its count may still stand in the tables.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "any 16 bits do"
        )]
        let epoch = now.tv_sec as u16;
        Ok(Self {
            socket,
            epoch,
            heard: Heard::default(),
            neighbours: HashMap::new(),
        })
    }

    /// The count now.
    pub fn epoch(&mut self) -> u16 {
        self.listen_again();
        let heard = std::mem::take(&mut self.heard);
        self.epoch = self.epoch.wrapping_add(u16::from(heard.anything));
        self.epoch
    }

    /// True when an interface has come, gone or changed since the last call or count.
    pub fn links_changed(&mut self) -> bool {
        self.listen_again();
        std::mem::take(&mut self.heard.links)
    }

    /// Takes what has come in. An event that was lost counts as one of each kind.
    fn listen_again(&mut self) {
        /// So often at most that the kernel says that some are missing.
        const OVERRUNS: u32 = 2;
        let mut overruns = 0;
        loop {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => self.hear(&datagram),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Too many at once: the next ones can be read.
                Err(_) => {
                    self.heard = Heard::ALL;
                    overruns += 1;
                    if overruns == OVERRUNS {
                        return;
                    }
                }
            }
        }
    }

    fn hear(&mut self, mut datagram: &[u8]) {
        while !datagram.is_empty() {
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) else {
                self.heard = Heard::ALL;
                return;
            };
            let length = (message.header.length as usize).next_multiple_of(4);
            datagram = datagram.get(length..).unwrap_or_default();
            if let NetlinkPayload::InnerMessage(message) = message.payload {
                self.weigh(&message);
            }
        }
    }

    /// A neighbour that is asked and answers goes through several states, and nothing has changed: only another address
    /// counts, or none.
    fn weigh(&mut self, message: &RouteNetlinkMessage) {
        let links =
            RouteNetlinkMessage::is_new_link(message) || RouteNetlinkMessage::is_del_link(message);
        self.heard.links |= links;
        self.heard.anything |= if let RouteNetlinkMessage::NewNeighbour(message) = message {
            self.has_moved(message)
        } else if let RouteNetlinkMessage::DelNeighbour(message) = message {
            neighbour::key(message).is_some_and(|key| self.neighbours.remove(&key).is_some())
        } else {
            true
        };
    }

    fn has_moved(&mut self, message: &NeighbourMessage) -> bool {
        let Some(key) = neighbour::key(message) else {
            return false;
        };
        match neighbour::hardware(message) {
            Some(address) => self.neighbours.insert(key, address.clone()) != Some(address),
            None => self.neighbours.remove(&key).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};
    use std::net::Ipv4Addr;

    #[test]
    fn a_neighbour_that_answers_is_no_change_and_one_that_moves_is() {
        let mut events = Events::listen().expect("netlink works");
        let mut say = |state, last: Option<u8>| {
            let mut message = NeighbourMessage::default();
            message.header.state = state;
            let address = NeighbourAddress::Inet(Ipv4Addr::new(192, 168, 0, 1));
            message.attributes = vec![NeighbourAttribute::Destination(address)];
            let hardware = last.map(|last| vec![2, 0, 0, 0, 0, last]);
            message
                .attributes
                .extend(hardware.map(NeighbourAttribute::LinkLayerAddress));
            events.has_moved(&message)
        };
        assert!(say(NeighbourState::Reachable, Some(1)), "it is new");
        assert!(!say(NeighbourState::Probe, Some(1)));
        assert!(!say(NeighbourState::Reachable, Some(1)));
        assert!(say(NeighbourState::Stale, Some(2)), "another address");
        assert!(say(NeighbourState::Failed, Some(2)), "no address");
        assert!(!say(NeighbourState::Incomplete, None), "still none");
        assert!(say(NeighbourState::Reachable, Some(2)), "it is back");
    }

    #[test]
    fn silence_is_no_change() {
        let mut events = Events::listen().expect("netlink works");
        // Somebody else on this machine may change something at any moment; not all the time.
        let quiet = (0..1000).any(|_| events.epoch() == events.epoch());
        assert!(quiet);
    }
}
