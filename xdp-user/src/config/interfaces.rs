//! The interfaces of an instance by side and number, their hook points, and the names of programs
//! and pins.

use crate::config::plan::Plan;
use crate::netlink::Link;
use std::fmt;
use xdp_common::limits::INTERFACES;
use xdp_common::{Hook, cpu, meta};

/// The side of the gateway that an interface is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Towards the clients.
    Wan,
    /// Towards the server.
    Lan,
}

/// An interface of an instance, for example the first WAN or the second LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its side.
    pub side: Side,
    /// Its index in the list of that side.
    pub number: usize,
}

/// The form that the names of pins contain: `wan`, `lan`, and from the second one on `wan2`.
impl fmt::Display for Interface {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Wan => "wan",
            Side::Lan => "lan",
        };
        match self.number {
            0 => write!(out, "{side}"),
            number => write!(out, "{side}{}", number + 1),
        }
    }
}

impl Interface {
    /// All that there can be, WANs first.
    pub fn all() -> impl Iterator<Item = Self> {
        let of = |side| (0..INTERFACES).map(move |number| Self { side, number });
        of(Side::Wan).chain(of(Side::Lan))
    }

    /// The index of its egress word in the block of a CPU.
    pub const fn egress(self) -> usize {
        match self.side {
            Side::Wan => cpu::EGRESS_WAN + self.number,
            Side::Lan => cpu::EGRESS_LAN + self.number,
        }
    }

    /// The first of its words in META.
    pub const fn meta(self) -> usize {
        let first = match self.side {
            Side::Wan => meta::WANS,
            Side::Lan => meta::LANS,
        };
        first + self.number * meta::INTERFACE_WORDS
    }

    /// Its word in [`meta::LOST`].
    pub const fn lost(self) -> usize {
        // They have the order of the egress words.
        meta::LOST + self.egress()
    }

    /// Its bit in [`meta::GENERIC`].
    pub const fn generic(self) -> u64 {
        let first = match self.side {
            Side::Wan => 0,
            Side::Lan => INTERFACES,
        };
        1 << (first + self.number)
    }
}

/// A hook of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookPoint {
    /// The interface.
    pub interface: Interface,
    /// The hook.
    pub hook: Hook,
}

impl HookPoint {
    /// All that there can be, in the order in which links are detached: XDP first, so that packets
    /// that still arrive take the slow path.
    pub fn all() -> impl Iterator<Item = Self> {
        let at = |hook| Interface::all().map(move |interface| Self { interface, hook });
        Hook::ALL.into_iter().flat_map(at).filter(|hook_point| {
            hook_point.hook != Hook::Egress || hook_point.interface.side == Side::Wan
        })
    }

    /// The name of the pin of its link.
    pub fn link_pin(self) -> String {
        format!("link-{}-{}", self.hook.name(), self.interface)
    }

    /// The name of the pin of its program where it is a filter in a clsact, which has no link. XDP
    /// has none.
    pub fn filter_pin(self) -> Option<String> {
        let pin = || format!("filter-{}-{}", self.hook.name(), self.interface);
        (self.hook != Hook::Xdp).then(pin)
    }

    /// The name of its program in the object; `several`: that for several VIPs.
    pub const fn program(self, one_armed: bool, several: bool) -> &'static str {
        let both = one_armed && self.interface.number == 0;
        match (self.hook, self.interface.side, several) {
            (Hook::Xdp, Side::Wan, false) if both => "ikenat_xdp_both",
            (Hook::Xdp, Side::Wan, true) if both => "ikenat_xdp_both_several",
            (Hook::Xdp, Side::Wan, false) => "ikenat_xdp_wan",
            (Hook::Xdp, Side::Wan, true) => "ikenat_xdp_wan_several",
            (Hook::Xdp, Side::Lan, false) => "ikenat_xdp_lan",
            (Hook::Xdp, Side::Lan, true) => "ikenat_xdp_lan_several",
            (Hook::Tc, ..) => "ikenat_tc",
            (Hook::Egress, ..) => "ikenat_egress",
        }
    }
}

/// A hook point that has a program under a plan, and its interface.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttachTarget<'p> {
    pub(crate) hook_point: HookPoint,
    pub(crate) link: &'p Link,
    /// The name of its program in the object.
    pub(crate) program: &'static str,
}

impl Plan {
    /// All interfaces of the settings by side and number, WANs first, also those that do not exist.
    pub fn wanted_by_side(&self) -> Vec<(Interface, &Link)> {
        fn of(side: Side, links: &[Link]) -> impl Iterator<Item = (Interface, &Link)> {
            let numbered = links.iter().enumerate();
            numbered.map(move |(number, link)| (Interface { side, number }, link))
        }
        of(Side::Wan, &self.wans)
            .chain(of(Side::Lan, &self.lans))
            .collect()
    }

    /// Those that exist. On a one-armed gateway the first WAN and the first LAN are the same device.
    pub fn interfaces_by_side(&self) -> Vec<(Interface, &Link)> {
        let mut interfaces = self.wanted_by_side();
        interfaces.retain(|(_, link)| link.exists());
        interfaces
    }

    /// The names of those that do not exist, each once.
    pub fn absent(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (_, link) in self.wanted_by_side() {
            if !link.exists() && !names.contains(&link.name.as_str()) {
                names.push(&link.name);
            }
        }
        names
    }

    /// Each device once, by the side and number of the programs that it has.
    pub fn interfaces(&self) -> Vec<(Interface, &Link)> {
        const FIRST_LAN: Interface = Interface {
            side: Side::Lan,
            number: 0,
        };
        let mut interfaces = self.interfaces_by_side();
        interfaces.retain(|(interface, _)| !(self.is_one_armed() && *interface == FIRST_LAN));
        interfaces
    }

    /// Whether the plan needs a program there. A dry run has no XDP program, because attaching one
    /// may reset the link. It has an egress program only where nothing else shows what leaves: when
    /// a server is this host.
    fn needs(&self, hook_point: HookPoint) -> bool {
        match (hook_point.hook, hook_point.interface.side) {
            (Hook::Tc, _) => true,
            (Hook::Xdp, _) => !self.settings.dry_run,
            (Hook::Egress, Side::Wan) => !self.settings.dry_run || self.has_local_server(),
            (Hook::Egress, Side::Lan) => false,
        }
    }

    /// The hook points that get a program, in the order of attaching: the slow path first, so that
    /// it is there for whatever XDP hands over.
    pub(crate) fn attach_targets(&self) -> Vec<AttachTarget<'_>> {
        let (one_armed, several) = (self.is_one_armed(), self.needs_several());
        let at = |hook| {
            let target = move |(interface, link)| {
                let hook_point = HookPoint { interface, hook };
                AttachTarget {
                    hook_point,
                    link,
                    program: hook_point.program(one_armed, several),
                }
            };
            self.interfaces().into_iter().map(target)
        };
        [Hook::Tc, Hook::Egress, Hook::Xdp]
            .into_iter()
            .flat_map(at)
            .filter(|target| self.needs(target.hook_point))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_named_by_side_and_number() {
        let names: Vec<String> = HookPoint::all().map(HookPoint::link_pin).collect();
        assert_eq!(names.len(), 2 * 2 * INTERFACES + INTERFACES);
        assert_eq!(names.first().map(String::as_str), Some("link-xdp-wan"));
        for name in ["link-xdp-lan", "link-tc-lan4", "link-egress-wan2"] {
            assert!(names.iter().any(|found| found == name), "{name}");
        }
        assert!(!names.iter().any(|name| name.starts_with("link-egress-lan")));
    }

    #[test]
    fn no_two_interfaces_share_a_word_or_a_bit() {
        let interfaces: Vec<Interface> = Interface::all().collect();
        for (at, interface) in interfaces.iter().enumerate() {
            for other in &interfaces[at + 1..] {
                assert_ne!(interface.egress(), other.egress());
                assert_ne!(interface.generic(), other.generic());
                assert!(interface.meta().abs_diff(other.meta()) >= meta::INTERFACE_WORDS);
            }
        }
    }
}
