//! The virtual interfaces on top of WANs and LANs that have MAC addresses of their own (macvlan, as
//! VRRP uses them): frames to them are for this host, and routes may leave by them.

use crate::config::plan::Plan;
use crate::netlink::Link;
use xdp_common::config::mac_word;
use xdp_common::limits::VIRTUALS;

/// How the virtual MAC addresses of VRRP begin (RFC 5798 section 7.3, IPv4).
const VRRP: [u8; 5] = [0, 0, 0x5e, 0, 1];

/// A virtual interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Virtual {
    /// The index of the interface beneath it.
    pub lower: u32,
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address.
    pub mac: [u8; 6],
}

impl Virtual {
    fn is_of_vrrp(&self) -> bool {
        self.mac.starts_with(&VRRP)
    }
}

/// Those of `links`, all interfaces of the host, that receive and are on top of one of `lowers`, in
/// the order of their index.
pub(crate) fn on_top(links: &[Link], lowers: &[Link]) -> Vec<Virtual> {
    let is_beneath = |index| lowers.iter().any(|lower| lower.index == index);
    let receiving = links.iter().filter(|link| link.up);
    let mut found: Vec<Virtual> = receiving
        .filter_map(|link| {
            Some(Virtual {
                lower: link.lower.filter(|index| is_beneath(*index))?,
                index: link.index,
                name: link.name.clone(),
                mac: link.mac?,
            })
        })
        .collect();
    found.sort_by_key(|one| one.index);
    found
}

/// The MAC addresses of one interface, as its programs need them.
pub(crate) struct Macs {
    /// The virtual one that most frames are sent to; zero: the interface's own.
    pub(crate) main: [u8; 6],
    /// The others that frames may be sent to.
    pub(crate) more: [u64; VIRTUALS],
}

impl Plan {
    /// The virtual interfaces on top of one.
    pub(crate) fn virtuals_on(&self, lower: u32) -> impl Iterator<Item = &Virtual> {
        self.virtuals.iter().filter(move |one| one.lower == lower)
    }

    /// The indices of the virtual interfaces on top of these.
    pub(crate) fn indices_on(&self, links: &[Link]) -> [u32; VIRTUALS] {
        let mut all = links.iter().flat_map(|link| self.virtuals_on(link.index));
        std::array::from_fn(|_| all.next().map_or(0, |one| one.index))
    }

    /// The MAC addresses of an interface. Routers of VRRP announce the virtual address, so nearly
    /// all frames are sent to that one.
    pub(crate) fn macs_of(&self, link: Option<&Link>) -> Macs {
        let index = link.map_or(0, |link| link.index);
        let main = self.virtuals_on(index).find(|one| one.is_of_vrrp());
        let own = link.and_then(|link| link.mac).filter(|_| main.is_some());
        let virtuals = self.virtuals_on(index).map(|one| one.mac);
        let mut more = own.into_iter().chain(virtuals).map(mac_word);
        Macs {
            main: main.map_or([0; 6], |one| one.mac),
            more: std::array::from_fn(|_| more.next().unwrap_or_default()),
        }
    }
}

/// The index of the interface beneath the virtual one that has this index, or the same index.
pub(crate) fn lower_of(virtuals: &[Virtual], index: u32) -> u32 {
    let found = virtuals.iter().find(|one| one.index == index);
    found.map_or(index, |one| one.lower)
}

/// A MAC address as `ip` prints it.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
