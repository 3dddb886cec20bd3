//! The macvlans on top of WANs and LANs, which have MAC addresses of their own (VRRP uses
//! them): frames to them are for this host, and routes may leave by them.

use crate::config::interfaces::{Interface, Side};
use crate::config::plan::Plan;
use crate::netlink::Link;
use xdp_common::config::mac_word;
use xdp_common::limits::MACVLANS;

/// How the virtual MAC addresses of VRRP begin (RFC 5798 section 7.3, IPv4).
const VRRP: [u8; 5] = [0, 0, 0x5e, 0, 1];

/// A macvlan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Macvlan {
    /// The index of the interface beneath it.
    pub lower: u32,
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address.
    pub mac: [u8; 6],
}

impl Macvlan {
    fn is_of_vrrp(&self) -> bool {
        self.mac.starts_with(&VRRP)
    }
}

/// Those of `links`, all interfaces of the host, that receive and are on top of one of `lowers`, in
/// the order of their index.
pub(crate) fn on_top(links: &[Link], lowers: &[Link]) -> Vec<Macvlan> {
    let is_beneath = |index| lowers.iter().any(|lower| lower.index == index);
    let receiving = links.iter().filter(|link| link.up);
    let mut found: Vec<Macvlan> = receiving
        .filter_map(|link| {
            Some(Macvlan {
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
    /// The macvlan that most frames are sent to; zero: the interface's own.
    pub(crate) main: [u8; 6],
    /// The others that frames may be sent to.
    pub(crate) more: [u64; MACVLANS],
}

/// Macvlans of which the programs know only some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TooMany {
    /// As many as there are.
    pub(crate) number: usize,
    /// As many of them as are known, the first ones.
    pub(crate) known: usize,
    pub(crate) what: Unknown,
}

/// What the programs do not know of such a macvlan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// That frames to its MAC address, which arrive on this interface, are for this host.
    Frames(String),
    /// That its routes are those of this side, whose interfaces have one list together.
    Routes(Side),
}

impl Plan {
    /// The lists in which there is no room for all macvlans.
    pub(crate) fn too_many_macvlans(&self) -> Vec<TooMany> {
        let of_interface = |(_, link): &(Interface, &Link)| {
            let vrrp = self.macvlans_on(link.index).any(Macvlan::is_of_vrrp);
            TooMany {
                number: self.macvlans_on(link.index).count(),
                // With one of VRRP, the interface's own address is in the list.
                known: MACVLANS - usize::from(vrrp),
                what: Unknown::Frames(link.name.clone()),
            }
        };
        let of_side = |(side, links): (Side, &[Link])| TooMany {
            number: links
                .iter()
                .flat_map(|link| self.macvlans_on(link.index))
                .count(),
            known: MACVLANS,
            what: Unknown::Routes(side),
        };
        let interfaces = self.interfaces();
        let frames = interfaces.iter().map(of_interface);
        let sides = [(Side::Wan, &*self.wans), (Side::Lan, &*self.lans)];
        frames
            .chain(sides.map(of_side))
            .filter(|one| one.number > one.known)
            .collect()
    }

    /// The macvlans on top of one.
    pub(crate) fn macvlans_on(&self, lower: u32) -> impl Iterator<Item = &Macvlan> {
        self.macvlans.iter().filter(move |one| one.lower == lower)
    }

    /// The indices of the macvlans on top of these.
    pub(crate) fn indices_on(&self, links: &[Link]) -> [u32; MACVLANS] {
        let mut all = links.iter().flat_map(|link| self.macvlans_on(link.index));
        std::array::from_fn(|_| all.next().map_or(0, |one| one.index))
    }

    /// The MAC addresses of an interface. Routers of VRRP announce the virtual address, so nearly
    /// all frames are sent to that one.
    pub(crate) fn macs_of(&self, link: Option<&Link>) -> Macs {
        let index = link.map_or(0, |link| link.index);
        let main = self.macvlans_on(index).find(|one| one.is_of_vrrp());
        let own = link.and_then(|link| link.mac).filter(|_| main.is_some());
        let macvlans = self.macvlans_on(index).map(|one| one.mac);
        let mut more = own.into_iter().chain(macvlans).map(mac_word);
        Macs {
            main: main.map_or([0; 6], |one| one.mac),
            more: std::array::from_fn(|_| more.next().unwrap_or_default()),
        }
    }
}

/// The index of the interface beneath the macvlan that has this index, or the same index.
pub(crate) fn lower_of(macvlans: &[Macvlan], index: u32) -> u32 {
    let found = macvlans.iter().find(|one| one.index == index);
    found.map_or(index, |one| one.lower)
}

/// A MAC address as `ip` prints it.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
