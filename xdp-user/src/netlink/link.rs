//! Network interfaces: their addresses, kinds, XDP programs and peers.
//!
//! Replies are parsed here, and only as far as needed: `netlink-packet-route` rejects an interface
//! when it cannot parse one of its attributes, and newer kernels and foreign drivers may put
//! anything into them.

use super::Netlink;
use super::socket::{another, dump, get};
use crate::error::{Error, Result};
use netlink_packet_core::{DecodeError, NetlinkDeserializable, NetlinkHeader, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Length of `struct ifinfomsg`.
const HEADER: usize = 16;
/// Attributes of `linux/if_link.h`.
const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const LINK: u16 = 5;
const LINK_INFO: u16 = 18;
const LINK_NAMESPACE: u16 = 37;
const XDP: u16 = 43;
const PARENT_DEVICE: u16 = 56;
const PARENT_BUS: u16 = 57;
/// Attributes inside `LINK_INFO` and `XDP`.
const INFO_KIND: u16 = 1;
const XDP_PROGRAM: u16 = 4;
const XDP_DRIVER_PROGRAM: u16 = 5;

/// The kind of an interface with a MAC address of its own on top of another one.
const MACVLAN: &str = "macvlan";

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address; `None` when it is not an Ethernet interface.
    pub mac: Option<[u8; 6]>,
    /// The kind of virtual device, such as `veth`; `None` for hardware.
    pub kind: Option<String>,
    /// Its MTU.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// The id of its XDP program.
    pub xdp: Option<u32>,
    /// Whether that program runs in the driver (native mode).
    pub native_xdp: bool,
    /// The bus and the name of the parent device, for hardware.
    pub hardware: Option<(String, String)>,
    /// The other end, for a veth.
    pub peer: Option<LinkPeer>,
    /// The index of the interface beneath it in the same network namespace, for a macvlan.
    pub lower: Option<u32>,
}

/// The other end of a veth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkPeer {
    /// Its index in its own network namespace.
    pub index: u32,
    /// The id (`nsid`) of its network namespace; `None` when it is in the same one.
    pub namespace: Option<i32>,
}

impl Link {
    /// Stands for an interface that does not exist.
    pub fn absent(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// False for [`Self::absent`].
    pub const fn exists(&self) -> bool {
        self.index != 0
    }
}

impl Netlink {
    /// All interfaces.
    pub fn links(&self) -> Result<Vec<Link>> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        dump(&self.route, request).map_err(Error::system("list the network interfaces"))
    }

    /// The interface of an index.
    pub(crate) fn link_by_index(&self, index: u32) -> io::Result<Link> {
        self.get_link(index, None)
    }

    /// The other end of a veth, also when it is in another network namespace.
    pub(super) fn peer(&self, peer: LinkPeer) -> io::Result<Link> {
        self.get_link(peer.index, peer.namespace)
    }

    fn get_link(&self, index: u32, namespace: Option<i32>) -> io::Result<Link> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let namespace = namespace.map(LinkAttribute::IfNetnsId);
        message.attributes.extend(namespace);
        let link: Link = get(&self.route, RouteNetlinkMessage::GetLink(message))?;
        if link.index == index {
            Ok(link)
        } else {
            Err(another())
        }
    }

    /// The interface of a name. The error lists the interfaces that exist.
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

    /// The id (`nsid`) that this network namespace uses for another one; `None` when it has none.
    pub fn namespace_id(&self, namespace: BorrowedFd<'_>) -> Option<i32> {
        let mut message = NsidMessage::default();
        let descriptor = u32::try_from(namespace.as_raw_fd()).ok()?;
        message.attributes.push(NsidAttribute::Fd(descriptor));
        let reply = get(&self.route, RouteNetlinkMessage::GetNsId(message)).ok()?;
        let RouteNetlinkMessage::NewNsId(reply) = reply else {
            return None;
        };
        reply.attributes.iter().find_map(|attribute| {
            if let NsidAttribute::Id(id) = attribute {
                Some(*id).filter(|id| *id >= 0)
            } else {
                None
            }
        })
    }
}

impl NetlinkDeserializable for Link {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let (words, attributes) = payload
            .split_first_chunk::<HEADER>()
            .ok_or_else(|| DecodeError::buffer_too_small(payload.len(), HEADER))?;
        let (words, _) = words.as_chunks::<4>();
        let word = |at: usize| words.get(at).copied().map_or(0, u32::from_ne_bytes);
        let mut link = Self {
            index: word(1),
            up: LinkFlags::from_bits_retain(word(2)).contains(LinkFlags::Up),
            ..Self::default()
        };
        // The upper half of the first word is the type of the device (`ARPHRD_`).
        let [.., low, high] = word(0).to_ne_bytes();
        let is_ethernet = u16::from_ne_bytes([low, high]) == u16::from(LinkLayerType::Ether);
        let (mut bus, mut device, mut peer, mut namespace) = (None, None, None, None);
        for (kind, value) in values(attributes) {
            match kind {
                NAME => link.name = text(value),
                ADDRESS => link.mac = value.try_into().ok().filter(|_| is_ethernet),
                MTU => link.mtu = number(value).unwrap_or_default(),
                LINK_INFO => link.kind = find(&value, INFO_KIND).map(text),
                XDP => {
                    let id = |kind| find(&value, kind).and_then(number).filter(|id| *id != 0);
                    link.xdp = id(XDP_PROGRAM);
                    link.native_xdp = id(XDP_DRIVER_PROGRAM).is_some();
                }
                PARENT_BUS => bus = Some(text(value)),
                PARENT_DEVICE => device = Some(text(value)),
                LINK => peer = number(value),
                LINK_NAMESPACE => namespace = number(value).map(u32::cast_signed),
                _ => {}
            }
        }
        link.hardware = bus.zip(device);
        let is = |kind| link.kind.as_deref() == Some(kind);
        let lower = peer.filter(|_| is(MACVLAN) && namespace.is_none());
        link.peer = peer
            .map(|index| LinkPeer { index, namespace })
            .filter(|_| is("veth"));
        link.lower = lower;
        Ok(link)
    }
}

/// The kinds and the values of attributes, up to the first one that is damaged.
fn values(bytes: &[u8]) -> impl Iterator<Item = (u16, Vec<u8>)> {
    let attributes = NlasIterator::new(bytes).map_while(Result::ok);
    attributes.map(|attribute| (attribute.kind(), attribute.value().to_vec()))
}

fn find(bytes: &[u8], wanted: u16) -> Option<Vec<u8>> {
    let mut values = values(bytes);
    values.find_map(|(kind, value)| (kind == wanted).then_some(value))
}

fn number(value: Vec<u8>) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

/// A text that ends with a zero.
fn text(value: Vec<u8>) -> String {
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
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
        let by_index = netlink.link_by_index(loopback.index).expect("lo");
        assert_eq!(by_index.name, "lo");
        let missing = netlink
            .link("nosuch0")
            .expect_err("no such interface")
            .to_string();
        assert!(
            missing.contains("nosuch0") && missing.contains("lo"),
            "{missing}"
        );
    }

    /// As 6.18 replies for a veth, cut to the attributes that are read and two that are not: one
    /// that is shorter than it should be, and one that no kernel has yet.
    #[test]
    fn a_link_is_read_from_the_kernels_bytes() {
        let bytes = [
            &[0, 0, 1, 0][..],
            &[9, 0, 0, 0, 0x43, 0x10, 1, 0, 0, 0, 0, 0],
            &[9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0],
            &[10, 0, 1, 0, 2, 0, 0, 0, 0, 7, 0, 0],
            &[8, 0, 4, 0, 0xdc, 5, 0, 0],
            &[8, 0, 5, 0, 4, 0, 0, 0],
            &[8, 0, 37, 0, 3, 0, 0, 0],
            // IFLA_MAP and an attribute of the future.
            &[6, 0, 14, 0, 1, 2, 0, 0],
            &[8, 0, 0xff, 0x3f, 1, 2, 3, 4],
            &[
                16, 0, 18, 0x80, 9, 0, 1, 0, b'v', b'e', b't', b'h', 0, 0, 0, 0,
            ],
            &[28, 0, 43, 0x80],
            &[5, 0, 2, 0, 1, 0, 0, 0],
            &[8, 0, 4, 0, 77, 0, 0, 0],
            &[8, 0, 5, 0, 77, 0, 0, 0],
        ]
        .concat();
        let link = Link::deserialize(&NetlinkHeader::default(), &bytes).expect("well-formed");
        let expected = Link {
            index: 9,
            name: "eth0".to_owned(),
            mac: Some([2, 0, 0, 0, 0, 7]),
            kind: Some("veth".to_owned()),
            mtu: 1500,
            up: true,
            xdp: Some(77),
            native_xdp: true,
            hardware: None,
            peer: Some(LinkPeer {
                index: 4,
                namespace: Some(3),
            }),
            lower: None,
        };
        assert_eq!(link, expected);
        // A macvlan on top of an interface of this and of another namespace.
        let of_kind = |kind: &str, namespace: &[u8]| {
            let mut info = vec![4 + u8::try_from(kind.len() + 1).expect("short"), 0, 1, 0];
            info.extend(kind.bytes().chain([0]));
            info.resize(info.len().next_multiple_of(4), 0);
            let length = 4 + u8::try_from(info.len()).expect("short");
            let head = &bytes[..HEADER];
            let parts = [
                head,
                &[8, 0, 5, 0, 4, 0, 0, 0],
                namespace,
                &[length, 0, 18, 0x80],
                &info,
            ];
            Link::deserialize(&NetlinkHeader::default(), &parts.concat()).expect("well-formed")
        };
        let elsewhere = [8, 0, 37, 0, 3, 0, 0, 0];
        assert_eq!(of_kind("macvlan", &[]).lower, Some(4));
        assert_eq!(of_kind("macvlan", &elsewhere).lower, None);
        assert_eq!(of_kind("vlan", &[]).lower, None);
        let short = Link::deserialize(&NetlinkHeader::default(), &bytes[..HEADER - 1]);
        assert!(short.is_err());
    }
}
