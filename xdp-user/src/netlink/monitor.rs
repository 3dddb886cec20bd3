//! Listens to changes of links, neighbours, addresses, routes, rules and nexthop objects.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use ipnet::Ipv4Net;
use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::changes::{ChangeFilter, Changes, Used};
use crate::error::{Error, Result};

/// Multicast groups of `linux/rtnetlink.h` (`enum rtnetlink_groups`): links, neighbours, IPv4
/// addresses, IPv4 routes, IPv4 rules and nexthop objects (`ip nexthop`, which routes refer to).
const GROUPS: [u32; 6] = [1, 3, 5, 7, 8, 32];

/// `RTM_NEWNEXTHOP` and `RTM_DELNEXTHOP`. The routes that refer to a nexthop object are not notified
/// when it changes.
const NEXTHOP_MESSAGES: [u16; 2] = [104, 105];

/// A socket that receives the kernel's notifications of changes.
#[derive(Debug)]
pub struct ChangeMonitor {
    socket: Socket,
    /// Notifications were lost, and the kernel may lose more until all others are read.
    overrun: bool,
    filter: ChangeFilter,
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
            filter: ChangeFilter::default(),
        })
    }

    /// Reads the pending notifications. Lost ones count as a change of everything.
    pub fn receive(&mut self, used: &Used<'_>) -> Received {
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
                Ok((datagram, _)) => changes = changes.and(self.parse(&datagram, used)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.drained(changes);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The receive buffer has overflowed (ENOBUFS). Reading goes on after that.
                Err(_) => {
                    self.overrun = true;
                    self.filter.forget();
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

    /// The destinations of routes that have changed since the last call, beside those that count at
    /// once.
    pub fn take_prefixes(&mut self) -> HashSet<Ipv4Net> {
        self.filter.take_prefixes()
    }

    fn parse(&mut self, mut datagram: &[u8], used: &Used<'_>) -> Changes {
        let mut changes = Changes::default();
        while !datagram.is_empty() {
            let Ok(header) = NetlinkBuffer::new_checked(datagram) else {
                return Changes::ALL;
            };
            let length = (header.length() as usize).next_multiple_of(4);
            if NEXTHOP_MESSAGES.contains(&header.message_type()) {
                changes = changes.and(Changes::HOPS);
            } else {
                match NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) {
                    Ok(NetlinkMessage {
                        payload: NetlinkPayload::InnerMessage(message),
                        ..
                    }) => changes = changes.and(self.filter.changes(&message, used)),
                    Ok(_) => {}
                    // What it says of is not known.
                    Err(_) => changes = changes.and(Changes::ALL),
                }
            }
            datagram = datagram.get(length..).unwrap_or_default();
        }
        changes
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
    use netlink_packet_core::NetlinkSerializable as _;
    use netlink_packet_route::rule::RuleMessage;
    use std::net::Ipv4Addr;

    fn nothing_used() -> Used<'static> {
        Used {
            links: Vec::new(),
            vips: vec![Ipv4Addr::new(203, 0, 113, 1)],
            servers: vec![Ipv4Addr::new(192, 168, 0, 1)],
            neighbour: &|_| false,
        }
    }

    #[test]
    fn silence_is_no_change() {
        let mut monitor = ChangeMonitor::listen().expect("netlink works");
        // Another process may change something at any moment, but not all the time.
        let nothing = Received {
            changes: Changes::default(),
            is_drained: true,
        };
        assert!((0..1000).any(|_| monitor.receive(&nothing_used()) == nothing));
    }

    /// A message of a type with this payload.
    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + payload.len()).expect("a short message");
        let mut bytes = vec![0; 16];
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn each_message_of_a_datagram_counts() {
        const NEW_RULE: u16 = 32;
        let mut monitor = ChangeMonitor::listen().expect("netlink works");
        let mut parse = |messages: &[Vec<u8>]| monitor.parse(&messages.concat(), &nothing_used());
        let rule = RouteNetlinkMessage::NewRule(RuleMessage::default());
        let mut payload = vec![0; rule.buffer_len()];
        rule.serialize(&mut payload);
        let rule = message(NEW_RULE, &payload);
        // `struct nhmsg` of a nexthop object without attributes.
        let nexthop = message(NEXTHOP_MESSAGES[0], &[2, 0, 0, 0, 0, 0, 0, 0]);
        let unknown = message(1234, &[0; 4]);
        let done = message(3, &[0; 4]);
        assert_eq!(parse(std::slice::from_ref(&done)), Changes::default());
        assert_eq!(parse(&[done.clone(), rule]), Changes::HOPS);
        assert_eq!(parse(&[done.clone(), nexthop]), Changes::HOPS);
        assert_eq!(parse(&[unknown, done.clone()]), Changes::ALL);
        assert_eq!(parse(&[done, vec![1, 2, 3]]), Changes::ALL);
    }
}
