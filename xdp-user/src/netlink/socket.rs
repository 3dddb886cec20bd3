//! The netlink sockets of a network namespace, and the three forms of a request: one reply, a dump,
//! and an acknowledged change.

use super::generic;
use crate::error::{Error, Result};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use std::io;

/// The sockets through which one network namespace is queried and changed.
#[derive(Debug)]
pub struct Netlink {
    /// Links, addresses, routes, neighbours and traffic control.
    pub(super) route: Socket,
    /// Generic netlink families.
    pub(super) generic: Socket,
    /// The id of the generic family `netdev`; `None` before Linux 6.3.
    pub(super) netdev: Option<u16>,
}

impl Netlink {
    /// Opens the sockets in the network namespace of the calling thread.
    pub fn open() -> Result<Self> {
        let failed = || Error::system("open a netlink socket");
        let route = connect(NETLINK_ROUTE).map_err(failed())?;
        let generic = connect(NETLINK_GENERIC).map_err(failed())?;
        let netdev = generic::family_id(&generic, "netdev");
        Ok(Self {
            route,
            generic,
            netdev,
        })
    }
}

fn connect(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn send<T>(socket: &Socket, payload: T, flags: u16) -> io::Result<()>
where
    T: NetlinkSerializable,
    NetlinkPayload<T>: From<T>,
{
    let mut request = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(payload));
    request.header.flags = NLM_F_REQUEST | flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    Ok(())
}

/// Requests a change and waits for the kernel's acknowledgement or error.
pub(super) fn change(socket: &Socket, payload: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    send(socket, payload, NLM_F_ACK | flags)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let reply = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&datagram)
            .map_err(io::Error::other)?;
        if let NetlinkPayload::Error(reply) = reply.payload {
            return match reply.code {
                Some(_) => Err(reply.to_io()),
                None => Ok(()),
            };
        }
    }
}

/// Requests one object.
pub(super) fn get<T, R>(socket: &Socket, payload: T) -> io::Result<R>
where
    T: NetlinkSerializable,
    NetlinkPayload<T>: From<T>,
    R: NetlinkDeserializable,
{
    send(socket, payload, 0)?;
    let first = receive(socket, false)?.into_iter().next();
    first.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// Requests all objects of a kind.
pub(super) fn dump<T, R>(socket: &Socket, payload: T) -> io::Result<Vec<R>>
where
    T: NetlinkSerializable,
    NetlinkPayload<T>: From<T>,
    R: NetlinkDeserializable,
{
    send(socket, payload, NLM_F_DUMP)?;
    receive(socket, true)
}

/// Reads the replies: up to the end of a dump, or until there is one.
fn receive<R: NetlinkDeserializable>(socket: &Socket, is_dump: bool) -> io::Result<Vec<R>> {
    let mut replies = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<R>::deserialize(rest).map_err(io::Error::other)?;
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(reply) => replies.push(reply),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Done(_) => return Ok(replies),
                NetlinkPayload::Error(_) | NetlinkPayload::Noop | NetlinkPayload::Overrun(_) => {}
                _ => {}
            }
        }
        if !is_dump && !replies.is_empty() {
            return Ok(replies);
        }
    }
}
