//! The netlink sockets of a network namespace, and the three forms of a request: one reply, a dump,
//! and an acknowledged change.

use super::answer::{Answer, Form};
use super::generic;
use crate::error::{Error, Result};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, recv,
    send, socket_with,
};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The sockets through which one network namespace is queried and changed.
#[derive(Debug)]
pub struct Netlink {
    /// Links, addresses, routes, neighbours and traffic control.
    pub(super) route: Connection,
    /// Generic netlink families.
    pub(super) generic: Connection,
    /// The id of the generic family `netdev`; `None` before Linux 6.3.
    pub(super) netdev: Option<u16>,
}

impl Netlink {
    /// Opens the sockets in the network namespace of the calling thread.
    pub fn open() -> Result<Self> {
        let failed = || Error::system("open a netlink socket");
        let route = Connection::open(None).map_err(failed())?;
        let generic = Connection::open(Some(netlink::GENERIC)).map_err(failed())?;
        let netdev = generic::family_id(&generic, "netdev");
        Ok(Self {
            route,
            generic,
            netdev,
        })
    }
}

/// How long a reply may take. The kernel handles a request before `send` returns and continues a
/// dump in `recv`, so only a reply that was lost takes longer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How often a dump is requested until nothing that it lists changes meanwhile.
const ATTEMPTS: u32 = 8;

/// A socket, and the sequence number of its latest request. The lock is held until the request is
/// answered.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    sequence: Mutex<u32>,
}

impl Connection {
    /// Without a protocol it is the first one, `NETLINK_ROUTE`.
    fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
        let socket = socket_with(AddressFamily::NETLINK, kind, flags, protocol)?;
        // Port 0: as an address of one's own it lets the kernel choose, as a peer it is the kernel.
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        Self::over(socket, TIMEOUT)
    }

    fn over(socket: OwnedFd, timeout: Duration) -> io::Result<Self> {
        set_socket_timeout(&socket, Timeout::Recv, Some(timeout))?;
        Ok(Self {
            socket,
            sequence: Mutex::new(0),
        })
    }

    /// Reads one datagram, however long it is.
    fn receive(&self, flags: RecvFlags) -> rustix::io::Result<Vec<u8>> {
        let peek = RecvFlags::PEEK | RecvFlags::TRUNC | flags;
        let mut nothing = [0_u8; 0];
        let (_, length) = rustix::io::retry_on_intr(|| recv(&self.socket, &mut nothing[..], peek))?;
        let mut bytes = vec![0; length];
        let (read, _) = rustix::io::retry_on_intr(|| recv(&self.socket, &mut bytes[..], flags))?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Reads what an earlier request has left, for example one that was not answered in time. The
    /// kernel refuses a dump while another one is not read to its end.
    fn discard(&self) {
        /// More than the longest dump has.
        const LIMIT: u32 = 1 << 16;
        for _ in 0..LIMIT {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(datagram) => {
                    tracing::debug!(
                        "netlink: {} bytes that no request waits for",
                        datagram.len()
                    );
                }
                Err(Errno::AGAIN) => return,
                // It is reported once: replies were lost.
                Err(error) => tracing::debug!("netlink: {error}"),
            }
        }
    }

    /// Sends a request and reads the answer to it.
    fn request<T, R>(&self, payload: T, form: Form) -> io::Result<Vec<R>>
    where
        T: NetlinkSerializable,
        NetlinkPayload<T>: From<T>,
        R: NetlinkDeserializable,
    {
        let payload = NetlinkPayload::from(payload);
        let mut request = NetlinkMessage::new(NetlinkHeader::default(), payload);
        request.header.flags = NLM_F_REQUEST
            | match form {
                Form::Object => 0,
                Form::Dump => NLM_F_DUMP,
                Form::Change(flags) => NLM_F_ACK | flags,
            };
        let mut sequence = self.sequence.lock().unwrap_or_else(PoisonError::into_inner);
        let mut attempts = 0;
        loop {
            attempts += 1;
            // Notifications have the number 0.
            *sequence = sequence.checked_add(1).unwrap_or(1);
            request.header.sequence_number = *sequence;
            let answer: Answer<R> = self.exchange(&mut request, form)?;
            if !answer.was_interrupted {
                return Ok(answer.replies);
            }
            if attempts == ATTEMPTS {
                tracing::debug!("netlink: a list changed during {attempts} attempts to read it");
                return Ok(answer.replies);
            }
        }
    }

    fn exchange<T, R>(&self, request: &mut NetlinkMessage<T>, form: Form) -> io::Result<Answer<R>>
    where
        T: NetlinkSerializable,
        R: NetlinkDeserializable,
    {
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.discard();
        send(&self.socket, &bytes, SendFlags::empty())?;
        let mut answer = Answer::to(request.header.sequence_number, form);
        while !answer.is_complete {
            match self.receive(RecvFlags::empty()) {
                Ok(datagram) => answer.read(&datagram)?,
                Err(Errno::AGAIN) => return Err(not_answered()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(answer)
    }
}

fn not_answered() -> io::Error {
    let text = format!(
        "the kernel has not answered for {} s; try again",
        TIMEOUT.as_secs()
    );
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// The error for a reply about another object than the one that was asked for.
pub(super) fn another() -> io::Error {
    let text = "the kernel answered about another object; try again";
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Requests a change and waits for the kernel's acknowledgement or error.
pub(super) fn change(
    connection: &Connection,
    payload: RouteNetlinkMessage,
    flags: u16,
) -> io::Result<()> {
    let replies = connection.request(payload, Form::Change(flags));
    replies.map(|_: Vec<RouteNetlinkMessage>| ())
}

/// Requests one object.
pub(super) fn get<T, R>(connection: &Connection, payload: T) -> io::Result<R>
where
    T: NetlinkSerializable,
    NetlinkPayload<T>: From<T>,
    R: NetlinkDeserializable,
{
    let first = connection
        .request(payload, Form::Object)?
        .into_iter()
        .next();
    first.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// Requests all objects of a kind. An object that cannot be decoded is left out.
pub(super) fn dump<T, R>(connection: &Connection, payload: T) -> io::Result<Vec<R>>
where
    T: NetlinkSerializable,
    NetlinkPayload<T>: From<T>,
    R: NetlinkDeserializable,
{
    connection.request(payload, Form::Dump)
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
