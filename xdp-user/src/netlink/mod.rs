//! What the kernel says over netlink: interfaces and the route to the server; in files of their own whether a device
//! takes XDP frames, and what traffic control does with it.
//!
//! It may not know what is done with the answers. Never `/sys/class/net`: after `nsenter` that may be the view of
//! another network namespace.

pub mod address;
pub mod ethtool;
pub mod monitor;
pub mod namespaces;
pub mod neighbour;
mod tc;
mod xdp_features;

pub use tc::{Block, Filter};
pub(crate) use xdp_features::{driver_of, will_take_frames};

use crate::error::{Error, Result};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::link::{
    LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::net::Ipv4Addr;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address, when it is an Ethernet interface.
    pub mac: Option<[u8; 6]>,
    /// What kind of virtual device it is; `None` for hardware.
    pub kind: Option<String>,
    /// Its MTU.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// The id of its XDP program.
    pub xdp: Option<u32>,
    /// True when that runs in the driver.
    pub native_xdp: bool,
    /// The bus and the name of the hardware beneath it.
    pub hardware: Option<(String, String)>,
    /// The other end of a veth.
    pub peer: Option<Peer>,
}

/// The other end of a veth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its index.
    pub index: u32,
    /// The number by which our network namespace knows the one that it is in; `None` when that is our own.
    pub namespace: Option<i32>,
}

/// Where packets to an address go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Out of an interface.
    By {
        /// Its index.
        index: u32,
        /// The address that this host then has.
        source: Option<Ipv4Addr>,
    },
    /// To this host itself.
    Local,
}

/// Two netlink sockets.
#[derive(Debug)]
pub struct Netlink {
    route: Socket,
    generic: Socket,
    /// The id of the family `netdev`, where the kernel has it (6.3).
    netdev: Option<u16>,
}

fn socket(protocol: isize) -> io::Result<Socket> {
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

/// Sends an order and waits for the kernel's yes or no.
fn order<T>(socket: &Socket, payload: T, flags: u16) -> io::Result<()>
where
    T: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<T>: From<T>,
{
    send(socket, payload, NLM_F_ACK | flags)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let answer = NetlinkMessage::<T>::deserialize(&datagram).map_err(io::Error::other)?;
        if let NetlinkPayload::Error(answer) = answer.payload {
            return match answer.code {
                Some(_) => Err(answer.to_io()),
                None => Ok(()),
            };
        }
    }
}

/// Sends a request and collects the answers: all of a dump, or the only one.
fn ask<T>(socket: &Socket, payload: T, dump: bool) -> io::Result<Vec<T>>
where
    T: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<T>: From<T>,
{
    send(socket, payload, if dump { NLM_F_DUMP } else { 0 })?;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<T>::deserialize(rest).map_err(io::Error::other)?;
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Done(_) => return Ok(answers),
                NetlinkPayload::Error(_) | NetlinkPayload::Noop | NetlinkPayload::Overrun(_) => {}
                _ => {}
            }
        }
        if !dump && !answers.is_empty() {
            return Ok(answers);
        }
    }
}

impl Netlink {
    /// Opens the sockets in the network namespace of this process.
    pub fn open() -> Result<Self> {
        let failed = || Error::system("open a netlink socket");
        let route = socket(NETLINK_ROUTE).map_err(failed())?;
        let generic = socket(NETLINK_GENERIC).map_err(failed())?;
        let netdev = xdp_features::family(&generic, "netdev");
        Ok(Self {
            route,
            generic,
            netdev,
        })
    }

    /// All interfaces.
    pub fn links(&self) -> Result<Vec<Link>> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = ask(&self.route, request, true)
            .map_err(Error::system("list the network interfaces"))?;
        Ok(answers.iter().filter_map(link).collect())
    }

    /// One interface as it is now, of our own network namespace or of one that has a number in it.
    pub(crate) fn look(&self, index: u32, namespace: Option<i32>) -> io::Result<Link> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message
            .attributes
            .extend(namespace.map(LinkAttribute::IfNetnsId));
        let answers = ask(&self.route, RouteNetlinkMessage::GetLink(message), false)?;
        let found = answers.iter().find_map(link);
        found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// The interface of a name.
    pub fn link(&self, name: &str) -> Result<Link> {
        let links = self.links()?;
        let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
        let missing = Error::NoInterface {
            name: name.to_owned(),
            existing: names.join(", "),
        };
        links
            .into_iter()
            .find(|link| link.name == name)
            .ok_or(missing)
    }

    /// The route to an address; the kernel's word when there is none.
    pub fn route(&self, address: Ipv4Addr) -> io::Result<Route> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 32;
        message
            .attributes
            .push(RouteAttribute::Destination(RouteAddress::Inet(address)));
        let answers = ask(&self.route, RouteNetlinkMessage::GetRoute(message), false)?;
        for answer in answers {
            if let RouteNetlinkMessage::NewRoute(route) = answer {
                if route.header.kind == RouteType::Local {
                    return Ok(Route::Local);
                }
                let (mut egress, mut source) = (None, None);
                for attribute in &route.attributes {
                    if let RouteAttribute::Oif(index) = attribute {
                        egress = Some(*index);
                    } else if let RouteAttribute::PrefSource(RouteAddress::Inet(address)) =
                        attribute
                    {
                        source = Some(*address);
                    }
                }
                if let Some(index) = egress {
                    return Ok(Route::By { index, source });
                }
            }
        }
        Err(io::Error::other("the kernel names no interface"))
    }
}

fn link(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            link.name.clone_from(name);
        } else if let LinkAttribute::Address(address) = attribute {
            link.mac = address.as_slice().try_into().ok().filter(|_| ethernet);
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            link.mtu = *mtu;
        } else if let LinkAttribute::LinkInfo(infos) = attribute {
            link.kind = infos.iter().find_map(|info| {
                if let LinkInfo::Kind(kind) = info {
                    Some(kind.to_string())
                } else {
                    None
                }
            });
        } else if let LinkAttribute::Xdp(infos) = attribute {
            for info in infos {
                if let LinkXdp::ProgId(id) = info {
                    link.xdp = Some(*id).filter(|id| *id != 0);
                } else if let LinkXdp::DrvProgId(id) = info {
                    link.native_xdp = *id != 0;
                }
            }
        }
    }
    link.hardware = hardware(&message.attributes);
    link.peer = peer(&message.attributes).filter(|_| link.kind.as_deref() == Some("veth"));
    Some(link)
}

fn hardware(attributes: &[LinkAttribute]) -> Option<(String, String)> {
    let (mut bus, mut name) = (None, None);
    for attribute in attributes {
        if let LinkAttribute::ParentDevBusName(text) = attribute {
            bus = Some(text.clone());
        } else if let LinkAttribute::ParentDevName(text) = attribute {
            name = Some(text.clone());
        }
    }
    bus.zip(name)
}

fn peer(attributes: &[LinkAttribute]) -> Option<Peer> {
    let (mut peer, mut namespace) = (None, None);
    for attribute in attributes {
        if let LinkAttribute::Link(index) = attribute {
            peer = Some(*index);
        } else if let LinkAttribute::LinkNetNsId(number) = attribute {
            namespace = Some(*number);
        }
    }
    peer.map(|index| Peer { index, namespace })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_there_and_has_no_ethernet() {
        let netlink = Netlink::open().expect("netlink needs no privilege");
        let links = netlink.links().expect("links");
        let loopback = links.iter().find(|link| link.name == "lo").expect("lo");
        assert_eq!(loopback.mac, None);
        let missing = netlink
            .link("nosuch0")
            .expect_err("no such interface")
            .to_string();
        assert!(
            missing.contains("nosuch0") && missing.contains("lo"),
            "{missing}"
        );
    }

    #[test]
    fn loopback_addresses_are_local() {
        let netlink = Netlink::open().expect("netlink needs no privilege");
        assert_eq!(netlink.route(Ipv4Addr::LOCALHOST).ok(), Some(Route::Local));
    }
}
