//! Network interfaces: their addresses, kinds, XDP programs and peers.

use super::Netlink;
use super::socket::{dump, get};
use crate::error::{Error, Result};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

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
        let replies =
            dump(&self.route, request).map_err(Error::system("list the network interfaces"))?;
        Ok(replies.iter().filter_map(link).collect())
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
        let reply = get(&self.route, RouteNetlinkMessage::GetLink(message))?;
        link(&reply).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
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

fn peer(attributes: &[LinkAttribute]) -> Option<LinkPeer> {
    let (mut peer, mut namespace) = (None, None);
    for attribute in attributes {
        if let LinkAttribute::Link(index) = attribute {
            peer = Some(*index);
        } else if let LinkAttribute::LinkNetNsId(id) = attribute {
            namespace = Some(*id);
        }
    }
    peer.map(|index| LinkPeer { index, namespace })
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
}
