//! The programs of an instance, by its pins and by the filters that run them: those that are where
//! they belong, and those that a start has left on an interface when it died.

use crate::bpffs::layout::Instance as Pins;
use crate::config::interfaces::HookPoint;
use crate::config::settings::Mode;
use crate::dataplane::clsact;
use crate::dataplane::clsact::cleanup::{self, LocatedFilter};
use crate::dataplane::link::{self, BpfLink};
use crate::dataplane::tc_backend::{TcBackend, hook_name};
use crate::error::Result;
use crate::netlink::{Block, Link, Netlink};
use crate::report::status::ProgramStatus;
use crate::sys::netns;
use crate::tables::overview::{InterfaceRecord, Overview};
use xdp_common::Hook;

/// The programs of an instance.
pub(super) struct Programs {
    /// Those that have the name of a hook point.
    pub(super) attached: Vec<ProgramStatus>,
    /// Those that a start has left when it died.
    pub(super) left_over: Vec<ProgramStatus>,
}

impl Programs {
    /// Asks the kernel. `links` are the interfaces of this network namespace.
    pub(super) fn of(
        pins: &Pins,
        overview: &Overview,
        netlink: &Netlink,
        links: &[Link],
    ) -> Result<Self> {
        let mut programs = Self {
            attached: Vec::new(),
            left_over: Vec::new(),
        };
        for hook_point in HookPoint::all() {
            let name = hook_point.link_pin();
            for pin in pins.pins_of_link(hook_point)? {
                let path = pins.pin(&pin);
                let is_named = pin == name;
                let status = match link::is_closed(&path) {
                    true if is_named => unseen(hook_point, TcBackend::Tcx, overview, links),
                    true => unknown(hook_point, overview),
                    false => match link::open(&path)? {
                        Some((_, found)) => describe(&found, hook_point, overview, links),
                        None => continue,
                    },
                };
                if is_named {
                    programs.attached.push(status);
                } else {
                    programs.left_over.push(elsewhere(status, overview, links));
                }
            }
        }
        programs.add_filters(pins, overview, netlink, links)?;
        Ok(programs)
    }

    fn add_filters(
        &mut self,
        pins: &Pins,
        overview: &Overview,
        netlink: &Netlink,
        links: &[Link],
    ) -> Result<()> {
        let mut sought = Vec::new();
        for hook_point in HookPoint::all() {
            let (Some(pin), Some(block)) =
                (hook_point.filter_pin(), clsact::block(hook_point.hook))
            else {
                continue;
            };
            if link::is_closed(&pins.pin(&pin)) {
                let closed = unseen(hook_point, TcBackend::Clsact, overview, links);
                self.attached.push(closed);
            } else if let Some(program) = pins.pinned_program(&pin)? {
                let index = known(overview, hook_point).map_or(0, |known| known.index);
                sought.push((hook_point, program, (index, block)));
            }
        }
        if sought.is_empty() && pins.filters_aside()?.is_empty() {
            return Ok(());
        }
        let mut found = cleanup::filters(netlink, pins)?;
        for (hook_point, pinned, place) in sought {
            let at = found.iter().position(|filter| filter.place == place);
            let filter = at.map(|at| found.remove(at));
            let known = known(overview, hook_point);
            let name = name(place.0, filter.is_some_and(|filter| filter.here), links);
            let name = name.or(known.map(|known| &known.name));
            self.attached.push(ProgramStatus {
                interface: name.cloned().unwrap_or_default(),
                ifindex: if filter.is_some() { place.0 } else { 0 },
                hook: hook_name(hook_point.hook, TcBackend::Clsact),
                mode: mode(hook_point, known),
                program: Some(filter.map_or(pinned, |filter| filter.program)),
                alive: filter.is_some(),
                in_this_namespace: filter.is_some_and(|filter| filter.here),
            });
        }
        let left = |filter: LocatedFilter| {
            let status = ProgramStatus {
                interface: String::new(),
                ifindex: filter.place.0,
                hook: TcBackend::Clsact.name(),
                mode: filter.place.1.name(),
                program: Some(filter.program),
                alive: true,
                in_this_namespace: filter.here,
            };
            elsewhere(status, overview, links)
        };
        self.left_over.extend(found.into_iter().map(left));
        Ok(())
    }
}

/// The name of an interface, if it is in this network namespace.
fn name(index: u32, is_here: bool, links: &[Link]) -> Option<&String> {
    let found = links.iter().find(|link| is_here && link.index == index);
    found.map(|link| &link.name)
}

/// The same with the name of the interface that it is on, because META records another one, or none,
/// for the hook point.
fn elsewhere(status: ProgramStatus, overview: &Overview, links: &[Link]) -> ProgramStatus {
    let index = status.ifindex;
    let mut recorded = overview.interfaces.iter();
    let recorded = recorded.find(|record| record.index == index);
    let name = name(index, status.in_this_namespace, links);
    let name = name.or(recorded.map(|record| &record.name));
    ProgramStatus {
        interface: name.cloned().unwrap_or_default(),
        ..status
    }
}

/// A link that a start has left, with a pin that this user may not open.
fn unknown(hook_point: HookPoint, overview: &Overview) -> ProgramStatus {
    ProgramStatus {
        interface: String::new(),
        ifindex: 0,
        hook: hook_name(hook_point.hook, TcBackend::Tcx),
        mode: mode(hook_point, known(overview, hook_point)),
        program: None,
        alive: true,
        in_this_namespace: netns::own().is_ok_and(|own| own == overview.namespace),
    }
}

/// What META records of the interface of a hook point.
fn known(overview: &Overview, hook_point: HookPoint) -> Option<&InterfaceRecord> {
    let mut all = overview.interfaces.iter();
    all.find(|record| record.interface == hook_point.interface)
}

const fn mode(hook_point: HookPoint, interface: Option<&InterfaceRecord>) -> &'static str {
    match (hook_point.hook, interface) {
        (Hook::Xdp, Some(interface)) => interface.mode.name(),
        (Hook::Xdp, None) => Mode::Native.name(),
        (Hook::Tc, _) => Block::Ingress.name(),
        (Hook::Egress, _) => Block::Egress.name(),
    }
}

fn describe(
    attachment: &BpfLink,
    hook_point: HookPoint,
    overview: &Overview,
    links: &[Link],
) -> ProgramStatus {
    let mut here = links.iter();
    let here = here.find(|link| link::is_on(attachment, hook_point.hook, link));
    let known = known(overview, hook_point);
    let name = here.map(|link| &link.name);
    let name = name.or(known.map(|known| &known.name));
    ProgramStatus {
        interface: name.cloned().unwrap_or_default(),
        ifindex: attachment.ifindex,
        hook: hook_name(hook_point.hook, TcBackend::Tcx),
        mode: mode(hook_point, known),
        program: Some(attachment.program),
        alive: attachment.ifindex != 0,
        in_this_namespace: here.is_some(),
    }
}

/// A program with a pin that this user may not open.
fn unseen(
    hook_point: HookPoint,
    backend: TcBackend,
    overview: &Overview,
    links: &[Link],
) -> ProgramStatus {
    let known = known(overview, hook_point);
    // In another network namespace nothing can be examined without a capability.
    let here = netns::own().is_ok_and(|own| own == overview.namespace);
    let mut found = links.iter();
    let found = found.find(|link| here && known.is_some_and(|known| known.index == link.index));
    let program = found.filter(|_| hook_point.hook == Hook::Xdp);
    ProgramStatus {
        interface: known.map_or_else(String::new, |known| known.name.clone()),
        ifindex: known.map_or(0, |known| known.index),
        hook: hook_name(hook_point.hook, backend),
        mode: mode(hook_point, known),
        program: program.and_then(|link| link.xdp),
        alive: !here || found.is_some(),
        in_this_namespace: here,
    }
}
