//! Counts the times at which something has changed that a route or a neighbour depends on: with a new count, next hops
//! that were remembered are forgotten.
//!
//! It may not know what has changed: the dataplane asks the kernel again for every flow.

use std::io::ErrorKind;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::error::{Error, Result};

/// The groups of `linux/rtnetlink.h` (`enum rtnetlink_groups`): links, neighbours, IPv4 addresses, routes and rules.
const GROUPS: [u32; 5] = [1, 3, 5, 7, 8];

/// A socket that hears of every change.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
    epoch: u16,
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
        Ok(Self { socket, epoch })
    }

    /// The count now.
    pub fn epoch(&mut self) -> u16 {
        self.epoch = self.epoch.wrapping_add(u16::from(self.changed()));
        self.epoch
    }

    /// True when something has changed since the last call. An event that was lost counts as one.
    fn changed(&self) -> bool {
        let mut any = false;
        loop {
            match self.socket.recv_from_full() {
                Ok(_) => any = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return any,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Too many at once: the kernel says that some are missing, and the next ones can be read.
                Err(_) if !any => any = true,
                Err(_) => return true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_no_change() {
        let mut events = Events::listen().expect("netlink works");
        // Somebody else on this machine may change something at any moment; not all the time.
        let quiet = (0..1000).any(|_| events.epoch() == events.epoch());
        assert!(quiet);
    }
}
