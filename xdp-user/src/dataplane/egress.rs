//! The egress words: whether an interface takes the frames that XDP redirects to it, how large ones, and since when its
//! neighbours and routes are as they are.
//!
//! It may not know what is attached.

use crate::config::interfaces::{Interface, Side};
use crate::config::plan::Plan;
use crate::config::settings::{Mode, Modes};
use crate::dataplane::Dataplane;
use crate::error::Result;
use crate::netlink::{Link, Netlink};
use crate::tables::mmap::Tables;
use std::sync::atomic::AtomicU64;
use xdp_common::cpu;

/// Whether a device takes frames that XDP redirects to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XmitSupport {
    /// It does.
    Ready,
    /// It does not.
    NotReady,
    /// The kernel knows no such device any more.
    Gone,
}

/// What leaves by an interface comes from the other side. In generic mode there, any hardware takes what XDP redirects: it
/// goes the way of the stack's own frames.
pub(crate) fn takes_any_frame(modes: Modes, side: Side, link: &Link) -> bool {
    let other = match side {
        Side::Wan => Side::Lan,
        Side::Lan => Side::Wan,
    };
    modes.of(other) == Mode::Generic && link.kind.is_none()
}

/// Whether an interface takes what XDP redirects to it from the other side.
pub(crate) fn is_ready(netlink: &Netlink, modes: Modes, side: Side, link: &Link) -> Result<bool> {
    if takes_any_frame(modes, side, link) {
        return Ok(true);
    }
    // Most drivers send such frames only while they have a program of their own. Some kernels say so.
    let own_is_generic = modes.of(side) == Mode::Generic;
    if own_is_generic && link.kind.is_none() && !netlink.reports_xdp_features() {
        return Ok(false);
    }
    netlink.has_xdp_xmit(link)
}

/// The word of an egress that takes frames. A larger MTU than 16 bits hold is one that no packet exceeds.
fn egress(netlink: &Netlink, link: &Link, epoch: u16) -> u64 {
    let mtu = netlink.link_by_index(link.index).map_or(0, |now| now.mtu);
    cpu::egress(u16::try_from(mtu).unwrap_or(u16::MAX), epoch)
}

/// Writes the words before anything is attached: without an MTU, until house is kept; so long the FIB is asked for every
/// packet. Interfaces that an earlier start had take nothing any more.
pub(crate) fn begin(tables: &Tables<AtomicU64>, netlink: &Netlink, plan: &Plan) -> Result<()> {
    let ports = plan.ports();
    for port in Interface::all() {
        let word = match ports.iter().find(|(found, _)| *found == port) {
            Some((_, link)) if is_ready(netlink, plan.settings.modes, port.side, link)? => {
                cpu::egress(0, 0)
            }
            Some(_) | None => 0,
        };
        tables.set_egress(port.egress(), word);
    }
    Ok(())
}

/// The words as they are, of every port that there can be.
pub(crate) fn words(tables: &Tables<AtomicU64>) -> Vec<(usize, u64)> {
    Interface::all()
        .map(|port| (port.egress(), tables.egress(port.egress())))
        .collect()
}

/// Writes the words as they were.
pub(crate) fn put_back(tables: &Tables<AtomicU64>, words: Vec<(usize, u64)>) {
    for (side, word) in words {
        tables.set_egress(side, word);
    }
}

impl Dataplane {
    /// Asks again which devices take frames from XDP, and how large ones. Names those that changed; a device that is gone
    /// takes none. A new `epoch` says that a route or a neighbour may have changed, so every next hop has to be asked for
    /// again.
    pub fn refresh_egress(
        &self,
        netlink: &Netlink,
        plan: &Plan,
        epoch: u16,
    ) -> Vec<(String, XmitSupport)> {
        let mut changed: Vec<(String, XmitSupport)> = Vec::new();
        for (port, link) in plan.ports() {
            let readiness = match is_ready(netlink, plan.settings.modes, port.side, link) {
                Ok(true) => XmitSupport::Ready,
                Ok(false) => XmitSupport::NotReady,
                Err(_) => XmitSupport::Gone,
            };
            let old = self.tables.egress(port.egress());
            let ready = readiness == XmitSupport::Ready;
            let word = if ready {
                egress(netlink, link, epoch)
            } else {
                0
            };
            self.tables.set_egress(port.egress(), word);
            // A one-armed gateway has one interface on both sides.
            if (old != 0) != ready && changed.iter().all(|(name, _)| *name != link.name) {
                changed.push((link.name.clone(), readiness));
            }
        }
        changed
    }

    /// The devices that take no frames from XDP, as the dataplane believes.
    pub fn not_ready<'p>(&self, plan: &'p Plan) -> Vec<&'p str> {
        let interfaces = plan.interfaces();
        let slow = interfaces
            .iter()
            .filter(|(port, _)| self.tables.egress(port.egress()) == 0);
        slow.map(|(_, link)| link.name.as_str()).collect()
    }
}
