//! A socket that sends packets of any protocol.

use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use super::frames::{Captured, ETHERNET};
use super::netns::Namespace;

/// Sends packets of any protocol from inside a namespace, as a program on that host does.
#[derive(Debug)]
pub struct RawSender(OwnedFd);

/// Opens one.
pub fn raw_sender(namespace: &Namespace) -> Result<RawSender> {
    namespace.enter(|| {
        let fd = socket(
            AddressFamily::Inet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Raw,
        )
        .context("failed to open a raw socket")?;
        Ok(RawSender(fd))
    })
}

impl RawSender {
    /// Sends the packet of a frame, from its IPv4 header on; the kernel routes it and writes
    /// another Ethernet header.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let destination = Captured::read(frame)?.destination;
        let to = SockaddrIn::from(SocketAddrV4::new(destination, 0));
        sendto(
            self.0.as_raw_fd(),
            &frame[ETHERNET..],
            &to,
            MsgFlags::empty(),
        )
        .with_context(|| format!("failed to send {} bytes to {destination}", frame.len()))?;
        Ok(())
    }
}
