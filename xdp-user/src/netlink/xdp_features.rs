//! What the driver of a device can do with XDP: run programs, and transmit frames that XDP
//! redirects to it (`ndo_xdp_xmit`).
//!
//! From Linux 6.3 on the kernel reports both (generic netlink family `netdev`). Older kernels report
//! neither. There, XDP transmit is assumed only where it is certain: a frame that XDP redirects to a
//! device without it is lost and no error is reported, while the slow path works on every device.

use super::generic::{self, Attributes, Family};
use super::socket::another;
use super::{Link, Netlink};
use crate::error::{Error, Result};
use netlink_packet_core::{DefaultNla, Nla as _};
use std::fs;
use std::path::Path;

/// Drivers that have `ndo_xdp_xmit` in Linux 6.1 and need nothing for it but an XDP program on the
/// device itself, which ikenat attaches. Left out are drivers that need more (stmmac, hv_netvsc,
/// bonds) and drivers that do not exist on x86-64.
const TRANSMITTING_DRIVERS: [&str; 11] = [
    "atlantic",
    "bnxt_en",
    "ena",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "mlx5_core",
    "qede",
    "virtio_net",
];

impl Netlink {
    /// Whether the device transmits frames that XDP redirects to it. An error means that the device
    /// no longer exists.
    pub fn has_xdp_xmit(&self, link: &Link) -> Result<bool> {
        match self.xdp_features(link)? {
            Some(features) => Ok(features & NDO_XMIT != 0),
            None => {
                let now = self.link_by_index(link.index).map_err(failed(link))?;
                Ok(self.surely_has_xdp_xmit(&now))
            }
        }
    }

    /// Whether the driver runs XDP programs; `None` when neither the kernel reports it nor the
    /// driver is in the list above.
    pub fn has_native_xdp(&self, link: &Link) -> Result<Option<bool>> {
        if let Some(features) = self.xdp_features(link)? {
            return Ok(Some(features & BASIC != 0));
        }
        let known = link.kind.as_deref() == Some("veth") || is_known_to_transmit(link);
        Ok(known.then_some(true))
    }

    /// Whether the kernel reports these features at all (Linux 6.3 and newer).
    pub const fn reports_xdp_features(&self) -> bool {
        self.netdev.is_some()
    }

    /// The kernel's report; `None` when it makes none.
    fn xdp_features(&self, link: &Link) -> Result<Option<u64>> {
        let Some(family) = self.netdev else {
            return Ok(None);
        };
        let reply = request(link.index).request(&self.generic, family);
        let reply = reply.map_err(failed(link))?;
        if !is_about(&reply, link.index) {
            return Err(failed(link)(another()));
        }
        Ok(Some(features(&reply)))
    }

    /// For kernels that make no report.
    fn surely_has_xdp_xmit(&self, link: &Link) -> bool {
        match (link.kind.as_deref(), &link.hardware, link.peer) {
            (None, Some(_), _) => is_known_to_transmit(link),
            // The peer must run NAPI for that (`veth_xdp_xmit` in drivers/net/veth.c). GRO has the
            // same effect but cannot be read from this end.
            (Some("veth"), _, Some(peer)) => {
                self.peer(peer).is_ok_and(|peer| peer.up && peer.native_xdp)
            }
            _ => false,
        }
    }
}

fn failed(link: &Link) -> impl FnOnce(std::io::Error) -> Error + use<> {
    Error::system(format!("read the XDP features of {}", link.name))
}

/// The driver of a device; `None` for a virtual one.
pub(crate) fn driver_of(link: &Link) -> Option<String> {
    let (bus, name) = link.hardware.as_ref()?;
    driver(bus, name)
}

/// Whether the driver is known to transmit redirected frames once its device has an XDP program.
pub(crate) fn is_known_to_transmit(link: &Link) -> bool {
    driver_of(link).is_some_and(|driver| TRANSMITTING_DRIVERS.contains(&driver.as_str()))
}

/// Unlike `/sys/class/net`, `/sys/bus` is the same in all network namespaces.
fn driver(bus: &str, name: &str) -> Option<String> {
    let path = Path::new("/sys/bus").join(bus).join("devices").join(name);
    let driver = fs::read_link(path.join("driver")).ok()?;
    Some(driver.file_name()?.to_str()?.to_owned())
}

/// `NETDEV_CMD_DEV_GET` of `linux/netdev.h`.
const DEVICE_GET: u8 = 1;
/// `NETDEV_A_DEV_IFINDEX`.
const IFINDEX: u16 = 1;
/// `NETDEV_A_DEV_XDP_FEATURES`.
const XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_BASIC`: the driver runs XDP programs.
const BASIC: u64 = 1;
/// `NETDEV_XDP_ACT_NDO_XMIT`: a veth sets it only while its peer has an XDP program or GRO.
const NDO_XMIT: u64 = 4;

#[derive(Clone, Debug)]
struct Netdev;

impl Family for Netdev {
    const NAME: &'static str = "netdev";
}

fn request(index: u32) -> Attributes<Netdev> {
    let index = DefaultNla::new(IFINDEX, index.to_ne_bytes().to_vec());
    Attributes::new(DEVICE_GET, vec![index])
}

fn is_about(attributes: &[DefaultNla], index: u32) -> bool {
    let attribute = attributes.iter().find(|nla| nla.kind() == IFINDEX);
    attribute.is_some_and(|nla| generic::payload(nla) == index.to_ne_bytes())
}

fn features(attributes: &[DefaultNla]) -> u64 {
    let attribute = attributes.iter().find(|nla| nla.kind() == XDP_FEATURES);
    let bytes = attribute.and_then(|nla| generic::payload(nla).try_into().ok());
    bytes.map(u64::from_ne_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::ParseableParametrized as _;
    use netlink_packet_generic::GenlHeader;

    #[test]
    fn features_are_read_from_the_kernels_bytes() {
        // As 6.18 replies for a veth: ifindex 5, padding, features 0x27, and one more attribute.
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
        let reply = Attributes::<Netdev>::parse_with_param(&bytes, header).expect("well-formed");
        assert_eq!(features(&reply.attributes), 0x27);
        assert_eq!(features(&request(5).attributes), 0);
    }

    #[test]
    fn xdp_transmit_is_not_assumed_for_unknown_devices() {
        let netlink = Netlink::open().expect("netlink needs no privilege");
        let transmits = |kind: Option<&str>, hardware: Option<(&str, &str)>| {
            netlink.surely_has_xdp_xmit(&Link {
                kind: kind.map(str::to_owned),
                hardware: hardware.map(|(bus, name)| (bus.to_owned(), name.to_owned())),
                ..Link::default()
            })
        };
        assert!(!transmits(None, None));
        assert!(!transmits(None, Some(("pci", "no such device"))));
        assert!(!transmits(Some("bridge"), None));
        assert!(!transmits(Some("veth"), None));
    }
}
