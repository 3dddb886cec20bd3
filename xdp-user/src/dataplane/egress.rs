//! The egress words: per interface, whether XDP may redirect frames to it, its MTU, and the epoch
//! of its routes and neighbours. The daemon writes them; the dataplane reads them for every packet.

use crate::config::interfaces::{Interface, Side};
use crate::config::plan::Plan;
use crate::config::settings::{Mode, Modes};
use crate::error::Result;
use crate::netlink::rule_depth::{RuleDepth, Traffic};
use crate::netlink::{Link, Netlink};
use crate::tables::meta::index_and_name;
use crate::tables::mmap::Tables;
use std::sync::atomic::AtomicU64;
use xdp_common::cpu;
use xdp_common::limits::INTERFACES;

/// Whether the driver of an interface transmits frames that XDP redirects to it (`ndo_xdp_xmit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XmitSupport {
    /// It does.
    Supported,
    /// It does not: egress uses the tc slow path.
    Unsupported,
    /// The interface no longer exists.
    InterfaceGone,
}

/// Whether frames for this interface are sent by the network stack, which every device supports.
/// What leaves by an interface came in on the other side; generic XDP there redirects through the
/// stack.
pub(crate) fn is_sent_by_stack(modes: Modes, side: Side, link: &Link) -> bool {
    let other = match side {
        Side::Wan => Side::Lan,
        Side::Lan => Side::Wan,
    };
    modes.of(other) == Mode::Generic && link.kind.is_none()
}

/// Whether an interface transmits what XDP redirects to it from the other side.
pub(crate) fn supports_xmit(
    netlink: &Netlink,
    modes: Modes,
    side: Side,
    link: &Link,
) -> Result<bool> {
    if is_sent_by_stack(modes, side, link) {
        return Ok(true);
    }
    // Most drivers transmit such frames only while an XDP program is attached to them in native
    // mode. Since Linux 6.3 the kernel reports which ones transmit them at the moment.
    let own_is_generic = modes.of(side) == Mode::Generic;
    if own_is_generic && link.kind.is_none() && !netlink.reports_xdp_features() {
        return Ok(false);
    }
    netlink.has_xdp_xmit(link)
}

/// How much of inbound and of outbound packets the rules of the host look at. If they cannot be
/// read, all of it.
pub fn rule_depths(netlink: &Netlink, plan: &Plan) -> [RuleDepth; 2] {
    fn names(links: &[Link]) -> Vec<&str> {
        links.iter().map(|link| link.name.as_str()).collect()
    }
    let inbound = |server| Traffic {
        ingress: names(&plan.wans),
        source: None,
        destination: Some(server),
    };
    let outbound = |(vip, _)| Traffic {
        ingress: names(&plan.lans),
        source: Some(vip),
        destination: None,
    };
    let inbound: Vec<_> = plan.settings.servers().map(inbound).collect();
    let outbound: Vec<_> = plan.vips().map(outbound).collect();
    let depths = netlink.rule_depths([&inbound, &outbound]);
    depths.unwrap_or([RuleDepth::Packet; 2])
}

/// The egress word of an interface that transmits. No packet exceeds an MTU that needs more than
/// 16 bits, so such an MTU is capped. Next hops are cached as far as the rules permit.
fn ready_word(netlink: &Netlink, link: &Link, epoch: u16, rules: RuleDepth) -> u64 {
    let mtu = netlink.link_by_index(link.index).map_or(0, |now| now.mtu);
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    match rules {
        RuleDepth::Session => cpu::egress(mtu, epoch),
        RuleDepth::Flow => cpu::egress(mtu, epoch) | cpu::NOT_SHARED,
        RuleDepth::Packet => cpu::egress(0, epoch) | cpu::NOT_SHARED,
    }
}

/// The epoch of an interface, from the one that all share. Those of two WANs are so far apart that a next
/// hop of one is never valid on the other. A flow, or a session, whose VIP changes on one CPU while another one caches
/// a next hop of the VIP before would otherwise send to the router of another WAN until that expires.
fn epoch_of(wans: &[Link], link: &Link, epoch: u16) -> u16 {
    // An interface that is a LAN as well has the same word twice.
    let place = wans.iter().position(|wan| wan.index == link.index);
    epoch.wrapping_add(EPOCH_OFFSETS[place.unwrap_or(0)])
}

/// How far each WAN is ahead: the 15 bits of a stamp ([`xdp_core::neighbour::cached_hop::stamp`]) in equal
/// parts.
const EPOCH_OFFSETS: [u16; INTERFACES] = [0, 0x2000, 0x4000, 0x6000];

/// Egress words by their indices in the block of a CPU.
pub(crate) type Words = Vec<(usize, u64)>;

/// The first egress words of a start. They have no MTU, so the dataplane asks the FIB for every packet
/// until the daemon calls [`refresh`]. Interfaces of an earlier start that the plan no longer has
/// become unusable.
pub(crate) fn first(netlink: &Netlink, plan: &Plan) -> Result<Words> {
    let planned = plan.interfaces_by_side();
    let word = |interface: Interface| {
        let word = match planned.iter().find(|(found, _)| *found == interface) {
            Some((_, link))
                if supports_xmit(netlink, plan.settings.modes, interface.side, link)? =>
            {
                cpu::egress(0, 0)
            }
            Some(_) | None => 0,
        };
        Ok((interface.egress(), word))
    };
    Interface::all().map(word).collect()
}

/// The same for the time in which programs of the start before and of this one run side by side. A
/// number that is another interface for them means an unusable one: XDP then leaves such packets to
/// the slow path, whichever program it is. One that is unusable now stays so: programs of a start that
/// died may run, which the tables do not describe.
pub(crate) fn side_by_side(
    tables: &Tables<AtomicU64>,
    plan: &Plan,
    words: &[(usize, u64)],
) -> Words {
    let planned = plan.interfaces_by_side();
    let is_same = |interface: Interface| {
        let recorded = index_and_name(tables.meta.words(), interface).map(|(index, _)| index);
        let now = planned.iter().find(|(found, _)| *found == interface);
        recorded == now.map(|(_, link)| link.index)
    };
    let word = |(interface, (index, word)): (Interface, &(usize, u64))| {
        let is_usable = is_same(interface) && tables.egress(*index) != 0;
        (*index, if is_usable { *word } else { 0 })
    };
    Interface::all().zip(words).map(word).collect()
}

/// The current egress words of all possible interfaces.
pub(crate) fn save(tables: &Tables<AtomicU64>) -> Words {
    Interface::all()
        .map(|interface| (interface.egress(), tables.egress(interface.egress())))
        .collect()
}

/// Writes egress words.
pub(crate) fn write(tables: &Tables<AtomicU64>, words: &[(usize, u64)]) {
    for (index, word) in words {
        tables.set_egress(*index, *word);
    }
}

/// Updates the egress words: transmit support, MTU and `epoch`. Returns the names of the
/// interfaces that changed their support. A new epoch means that a route or a neighbour may have
/// changed, and makes the dataplane look up every next hop again. `rules` is the result of
/// [`rule_depths`].
pub fn refresh(
    tables: &Tables<AtomicU64>,
    netlink: &Netlink,
    plan: &Plan,
    epoch: u16,
    [inbound, outbound]: [RuleDepth; 2],
) -> Vec<(String, XmitSupport)> {
    let mut changed: Vec<(String, XmitSupport)> = Vec::new();
    for (interface, link) in plan.interfaces_by_side() {
        let support = match supports_xmit(netlink, plan.settings.modes, interface.side, link) {
            Ok(true) => XmitSupport::Supported,
            Ok(false) => XmitSupport::Unsupported,
            Err(_) => XmitSupport::InterfaceGone,
        };
        let old = tables.egress(interface.egress());
        let supported = support == XmitSupport::Supported;
        let word = if supported {
            // Inbound packets leave by a LAN.
            let rules = match interface.side {
                Side::Lan => inbound,
                Side::Wan => outbound,
            };
            ready_word(netlink, link, epoch_of(&plan.wans, link, epoch), rules)
        } else {
            0
        };
        tables.set_egress(interface.egress(), word);
        // A one-armed gateway has one interface on both sides.
        if (old != 0) != supported && changed.iter().all(|(name, _)| *name != link.name) {
            changed.push((link.name.clone(), support));
        }
    }
    changed
}

/// The names of the interfaces without transmit support, by the current egress words.
pub fn unsupported<'p>(tables: &Tables<AtomicU64>, plan: &'p Plan) -> Vec<&'p str> {
    let interfaces = plan.interfaces();
    let slow = interfaces
        .iter()
        .filter(|(interface, _)| tables.egress(interface.egress()) == 0);
    slow.map(|(_, link)| link.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stamp has 15 bits of the sum of epoch and time.
    #[test]
    fn the_epochs_of_wans_are_far_apart() {
        const STAMP: u16 = 0x7fff;
        let link = |index| Link {
            index,
            ..Link::absent("wan")
        };
        let wans: Vec<Link> = (1..).map(link).take(INTERFACES).collect();
        for epoch in [0, 1, 0x1fff, 0x7fff, 0xffff] {
            let epochs: Vec<u16> = wans.iter().map(|wan| epoch_of(&wans, wan, epoch)).collect();
            assert_eq!(epochs[0], epoch);
            for (at, one) in epochs.iter().enumerate() {
                for other in &epochs[at + 1..] {
                    let apart = one.wrapping_sub(*other) & STAMP;
                    // In steps of a second more than two hours.
                    assert!(apart.min(STAMP - apart) >= 8000, "{epochs:x?}");
                }
            }
            assert_eq!(epoch_of(&wans, &link(77), epoch), epoch, "a LAN");
            assert_eq!(epoch_of(&wans, &wans[2].clone(), epoch), epochs[2]);
        }
    }
}
