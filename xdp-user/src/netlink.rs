//! What the kernel says over netlink: interfaces, the route to the server, and whether a device takes XDP frames.
//!
//! It may not know what is done with the answers. Never `/sys/class/net`: after `nsenter` that may be the view of
//! another network namespace.

use crate::error::{Error, Result};
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, Nla as _, NlasIterator,
    Parseable as _, ParseableParametrized,
};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
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
    /// Whether it is up.
    pub up: bool,
    /// The id of its XDP program.
    pub xdp: Option<u32>,
}

/// Where packets to an address go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Out of the interface with this index.
    By(u32),
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

/// Sends a request and collects the answers: all of a dump, or the only one.
fn ask<T>(socket: &Socket, payload: T, dump: bool) -> io::Result<Vec<T>>
where
    T: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<T>: From<T>,
{
    let mut request = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(payload));
    request.header.flags = NLM_F_REQUEST | if dump { NLM_F_DUMP } else { 0 };
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
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
        let netdev = netdev_family(&generic);
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
                let egress = route.attributes.iter().find_map(|attribute| {
                    if let RouteAttribute::Oif(index) = attribute {
                        Some(*index)
                    } else {
                        None
                    }
                });
                if let Some(index) = egress {
                    return Ok(Route::By(index));
                }
            }
        }
        Err(io::Error::other("the kernel names no interface"))
    }

    /// Whether the device takes frames that XDP redirects to it.
    ///
    /// Without the family `netdev` nobody can tell; then hardware is trusted and virtual devices are not.
    pub fn takes_frames(&self, link: &Link) -> Result<bool> {
        let Some(family) = self.netdev else {
            return Ok(link.kind.is_none());
        };
        let request = GenlMessage::new(
            GenlHeader {
                cmd: DEVICE_GET,
                version: 1,
            },
            Device::asking(link.index),
            family,
        );
        let answers = ask(&self.generic, request, false).map_err(Error::system(format!(
            "ask what {} can do with XDP frames",
            link.name
        )))?;
        Ok(answers
            .first()
            .and_then(|answer| answer.payload.features())
            .is_some_and(|features| features & NDO_XMIT != 0))
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
        } else if let LinkAttribute::LinkInfo(infos) = attribute {
            link.kind = infos.iter().find_map(|info| {
                if let LinkInfo::Kind(kind) = info {
                    Some(kind.to_string())
                } else {
                    None
                }
            });
        } else if let LinkAttribute::Xdp(infos) = attribute {
            link.xdp = infos.iter().find_map(|info| {
                if let LinkXdp::ProgId(id) = info {
                    Some(*id).filter(|id| *id != 0)
                } else {
                    None
                }
            });
        }
    }
    Some(link)
}

fn netdev_family(socket: &Socket) -> Option<u16> {
    let request = GenlMessage::from_payload(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName("netdev".to_owned())],
    });
    let answers = ask(socket, request, false).ok()?;
    answers.first()?.payload.nlas.iter().find_map(|attribute| {
        if let GenlCtrlAttrs::FamilyId(id) = attribute {
            Some(*id)
        } else {
            None
        }
    })
}

/// `NETDEV_CMD_DEV_GET` of `linux/netdev.h`.
const DEVICE_GET: u8 = 1;
/// `NETDEV_A_DEV_IFINDEX`.
const IFINDEX: u16 = 1;
/// `NETDEV_A_DEV_XDP_FEATURES`.
const XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_NDO_XMIT`: a veth sets it only while its peer has an XDP program or GRO.
const NDO_XMIT: u64 = 4;

/// A message of the family `netdev`: attributes and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Device(Vec<DefaultNla>);

impl Device {
    fn asking(index: u32) -> Self {
        Self(vec![DefaultNla::new(IFINDEX, index.to_ne_bytes().to_vec())])
    }

    fn features(&self) -> Option<u64> {
        let attribute = self.0.iter().find(|nla| nla.kind() == XDP_FEATURES)?;
        let mut value = vec![0; attribute.value_len()];
        attribute.emit_value(&mut value);
        Some(u64::from_ne_bytes(value.try_into().ok()?))
    }
}

impl GenlFamily for Device {
    fn family_name() -> &'static str {
        "netdev"
    }
    fn command(&self) -> u8 {
        DEVICE_GET
    }
    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Device {
    fn buffer_len(&self) -> usize {
        self.0.as_slice().buffer_len()
    }
    fn emit(&self, buffer: &mut [u8]) {
        self.0.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Device {
    fn parse_with_param(bytes: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        let attributes = NlasIterator::new(bytes).map(|nla| DefaultNla::parse(&nla?));
        Ok(Self(attributes.collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_read_from_the_kernels_bytes() {
        // As 6.18 answers for a veth: ifindex 5, padding, features 0x23, and more that nobody asked for.
        let bytes = [
            &[8, 0, 1, 0, 5, 0, 0, 0][..],
            &[4, 0, 2, 0],
            &[12, 0, 3, 0, 0x27, 0, 0, 0, 0, 0, 0, 0],
            &[12, 0, 6, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        let header = GenlHeader {
            cmd: DEVICE_GET,
            version: 1,
        };
        let device = Device::parse_with_param(&bytes, header).expect("well-formed");
        assert_eq!(device.features(), Some(0x27));
        assert_eq!(Device::asking(5).features(), None);
    }

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
