//! Raw Ethernet frames sent and received on an interface inside a namespace (AF_PACKET).

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, recvfrom,
    send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::frames::describe;
use super::netns::Namespace;

/// `sll_pkttype` of a frame that this host has sent itself.
const OUTGOING: u8 = 4;
/// No frame of the lab is larger, not even one that segmentation offload has put together.
const LARGEST: usize = 1 << 16;
/// Holds a second of the fastest generator.
const BUFFER: usize = 64 << 20;

/// A packet socket on one interface: sends frames as they are, receives those that come in.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    interface: String,
    index: usize,
}

impl PacketSocket {
    /// Opens the interface in promiscuous mode.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        namespace.run(&format!("ip link set dev {interface} promisc on"))?;
        namespace
            .enter(|| Self::open_here(interface))
            .with_context(|| {
                format!(
                    "failed to open a packet socket on {interface} in {}",
                    namespace.name()
                )
            })
    }

    fn open_here(interface: &str) -> Result<Self> {
        let address = getifaddrs()?
            .filter(|entry| entry.interface_name == interface)
            .find_map(|entry| entry.address.as_ref()?.as_link_addr().copied())
            .context("failed to find the interface")?;
        let fd = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )?;
        setsockopt(&fd, sockopt::RcvBufForce, &BUFFER)?;
        bind(fd.as_raw_fd(), &address)?;
        let socket = Self {
            fd,
            interface: interface.to_owned(),
            index: address.ifindex(),
        };
        // Before the bind it received from every interface of the namespace.
        socket.drain()?;
        Ok(socket)
    }

    /// Sends a frame that is complete from its Ethernet header on.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = send(self.fd.as_raw_fd(), frame, MsgFlags::empty())
            .with_context(|| format!("failed to send a frame on {}", self.interface))?;
        if sent != frame.len() {
            bail!("sent {sent} of {} bytes on {}", frame.len(), self.interface);
        }
        Ok(())
    }

    /// The next frame that came in from the wire, if one comes in time.
    pub fn receive(&self, patience: Duration) -> Result<Option<Vec<u8>>> {
        self.receive_of(patience, |kind| kind != OUTGOING)
    }

    /// The next frame that came in or went out, likewise.
    pub fn receive_either(&self, patience: Duration) -> Result<Option<Vec<u8>>> {
        self.receive_of(patience, |_| true)
    }

    fn receive_of(
        &self,
        patience: Duration,
        is_wanted: impl Fn(u8) -> bool,
    ) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + patience;
        let mut buffer = vec![0; LARGEST];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // A zero timeout would mean to wait for ever.
            let micros = i64::try_from(left.as_micros()).unwrap_or(i64::MAX).max(1);
            setsockopt(
                &self.fd,
                sockopt::ReceiveTimeout,
                &TimeVal::microseconds(micros),
            )?;
            match recvfrom::<LinkAddr>(self.fd.as_raw_fd(), &mut buffer) {
                Ok((length, Some(from))) => {
                    if from.ifindex() == self.index && is_wanted(from.pkttype()) {
                        buffer.truncate(length);
                        return Ok(Some(buffer));
                    }
                }
                Ok((_, None)) => {}
                Err(Errno::EAGAIN | Errno::EINTR) => {
                    if left.is_zero() {
                        return Ok(None);
                    }
                }
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("failed to receive on {}", self.interface));
                }
            }
        }
    }

    /// The next incoming frame that `wanted` accepts; others are passed over.
    pub fn find(
        &self,
        patience: Duration,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Under load there is always another frame.
            if left.is_zero() {
                return Ok(None);
            }
            match self.receive(left)? {
                Some(frame) if wanted(&frame) => return Ok(Some(frame)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// Fails unless exactly this frame arrives; frames that `ignored` accepts are skipped.
    pub fn expect(
        &self,
        wanted: &[u8],
        patience: Duration,
        ignored: impl Fn(&[u8]) -> bool,
    ) -> Result<()> {
        match self.find(patience, |frame| !ignored(frame))? {
            Some(frame) if frame == wanted => Ok(()),
            Some(frame) => bail!(
                "a wrong frame came in on {}:\n  wanted {}\n  came   {}",
                self.interface,
                describe(wanted),
                describe(&frame)
            ),
            None => bail!(
                "nothing came in on {} within {patience:?}:\n  wanted {}",
                self.interface,
                describe(wanted)
            ),
        }
    }

    /// Fails if a frame that `ignored` does not accept arrives within this time.
    pub fn expect_silence(&self, long: Duration, ignored: impl Fn(&[u8]) -> bool) -> Result<()> {
        match self.find(long, |frame| !ignored(frame))? {
            None => Ok(()),
            Some(frame) => bail!(
                "a frame came in on {} that should not:\n  {}",
                self.interface,
                describe(&frame)
            ),
        }
    }

    /// Discards the frames received so far.
    pub fn drain(&self) -> Result<()> {
        // A timeout, however short, would last until the next tick of the clock.
        let mut frame = [0; 1];
        loop {
            match recv(self.fd.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("failed to drain {}", self.interface));
                }
            }
        }
    }
}
