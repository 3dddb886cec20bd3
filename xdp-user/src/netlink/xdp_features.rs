//! Whether a device takes frames that XDP redirects to it.
//!
//! From Linux 6.3 on the kernel says so itself (family `netdev`). Before, nobody can ask: then a device is believed to
//! take frames only where that is certain, because a frame that XDP sends to another is lost without a word, and the
//! slow path is right for every device.
//!
//! It may not know what is done with the answer.

use super::{Link, Netlink, ask};
use crate::error::{Error, Result};
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, Nla as _, NlasIterator, Parseable as _,
    ParseableParametrized,
};
use netlink_packet_generic::ctrl::nlas::{GenlCtrlAttrs, OpAttrs};
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::Socket;
use std::fs;
use std::path::Path;

/// Drivers that have `ndo_xdp_xmit` in Linux 6.1 and need no more for it than an XDP program of their own, which ours
/// is. Left out: those that need more (stmmac, hv_netvsc, bonds), and those not found on x86-64.
const SENDING_DRIVERS: [&str; 11] = [
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
    /// Whether the device takes frames that XDP redirects to it. An error: there is no such device any more.
    pub fn takes_frames(&self, link: &Link) -> Result<bool> {
        match self.xdp_features(link)? {
            Some(features) => Ok(features & NDO_XMIT != 0),
            None => {
                let failed = asking(link);
                let now = self.look(link.index, None).map_err(failed)?;
                Ok(self.surely_takes_frames(&now))
            }
        }
    }

    /// Whether the driver runs XDP programs; `None` where neither the kernel nor our list of drivers tells.
    pub fn runs_native_xdp(&self, link: &Link) -> Result<Option<bool>> {
        if let Some(features) = self.xdp_features(link)? {
            return Ok(Some(features & BASIC != 0));
        }
        let known = link.kind.as_deref() == Some("veth")
            || driver_of(link).is_some_and(|driver| SENDING_DRIVERS.contains(&driver.as_str()));
        Ok(known.then_some(true))
    }

    /// Whether the kernel tells such things at all (6.3 and newer).
    pub fn tells_xdp_features(&self) -> bool {
        self.netdev.is_some()
    }

    /// What the kernel says.
    fn xdp_features(&self, link: &Link) -> Result<Option<u64>> {
        let failed = asking(link);
        let Some(family) = self.netdev else {
            return Ok(None);
        };
        let request = GenlMessage::new(
            GenlHeader {
                cmd: DEVICE_GET,
                version: 1,
            },
            Device::asking(link.index),
            family,
        );
        let answers = ask(&self.generic, request, false).map_err(failed)?;
        let first = answers.first();
        let features = first.and_then(|answer| answer.payload.features());
        Ok(Some(features.unwrap_or_default()))
    }

    /// Whether the kernel tells that itself.
    pub(crate) const fn tells_who_takes_frames(&self) -> bool {
        self.netdev.is_some()
    }

    /// For kernels that do not tell.
    fn surely_takes_frames(&self, link: &Link) -> bool {
        match (link.kind.as_deref(), &link.hardware, link.peer) {
            (None, Some((bus, name)), _) => {
                driver(bus, name).is_some_and(|driver| SENDING_DRIVERS.contains(&driver.as_str()))
            }
            // It polls then (`veth_xdp_xmit` in drivers/net/veth.c). GRO makes it poll too, but cannot be seen from here.
            (Some("veth"), _, Some(peer)) => self
                .look(peer.index, peer.namespace)
                .is_ok_and(|peer| peer.up && peer.native_xdp),
            _ => false,
        }
    }
}

fn asking(link: &Link) -> impl FnOnce(std::io::Error) -> Error + use<> {
    Error::system(format!("ask what {} can do with XDP frames", link.name))
}

/// The driver of a device; `None` for a virtual one.
pub(crate) fn driver_of(link: &Link) -> Option<String> {
    let (bus, name) = link.hardware.as_ref()?;
    driver(bus, name)
}

/// Whether a driver takes frames once a program of ours is on its device.
pub(crate) fn will_take_frames(link: &Link) -> bool {
    driver_of(link).is_some_and(|driver| SENDING_DRIVERS.contains(&driver.as_str()))
}

/// The driver of a device. Unlike `/sys/class/net`, `/sys/bus` is the same in all network namespaces.
fn driver(bus: &str, name: &str) -> Option<String> {
    let path = Path::new("/sys/bus").join(bus).join("devices").join(name);
    let driver = fs::read_link(path.join("driver")).ok()?;
    Some(driver.file_name()?.to_str()?.to_owned())
}

/// What the kernel says of a generic netlink family.
fn about_family(socket: &Socket, name: &str) -> Option<Vec<GenlCtrlAttrs>> {
    let request = GenlMessage::from_payload(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName(name.to_owned())],
    });
    let answers = ask(socket, request, false).ok()?;
    Some(answers.into_iter().next()?.payload.nlas)
}

/// The number of a generic netlink family.
pub(super) fn family(socket: &Socket, name: &str) -> Option<u16> {
    let about = about_family(socket, name)?;
    about.iter().find_map(|attribute| {
        if let GenlCtrlAttrs::FamilyId(id) = attribute {
            Some(*id)
        } else {
            None
        }
    })
}

/// Whether this kernel's family has a command. Asked for one that it has not, it answers as a driver does that has nothing to
/// say.
pub(super) fn has_command(socket: &Socket, name: &str, command: u8) -> bool {
    let about = about_family(socket, name).unwrap_or_default();
    about.iter().any(|attribute| {
        if let GenlCtrlAttrs::Ops(commands) = attribute {
            let id = OpAttrs::Id(command.into());
            commands.iter().any(|about| about.contains(&id))
        } else {
            false
        }
    })
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
    fn what_is_not_known_to_take_frames_gets_none() {
        let netlink = Netlink::open().expect("netlink needs no privilege");
        let takes = |kind: Option<&str>, hardware: Option<(&str, &str)>| {
            netlink.surely_takes_frames(&Link {
                kind: kind.map(str::to_owned),
                hardware: hardware.map(|(bus, name)| (bus.to_owned(), name.to_owned())),
                ..Link::default()
            })
        };
        assert!(!takes(None, None));
        assert!(!takes(None, Some(("pci", "no such device"))));
        assert!(!takes(Some("bridge"), None));
        assert!(!takes(Some("veth"), None));
    }
}
