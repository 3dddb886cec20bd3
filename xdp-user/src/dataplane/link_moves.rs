//! The links of an instance that moves to another interface: which of those that earlier starts left
//! when they died a start goes on with, and when the others go.
//!
//! A start pins the new link as `NAME-new` beside the old one, which keeps its name until nothing can
//! be refused any more. One that dies leaves both, and they may be all that some interface has.
//! So the next one replaces the program of the link that is on its own interface, whatever its pin
//! is called, and for whichever WAN or LAN it was. If that is none of them, the pending pin is set
//! aside as `NAME-aside-ID`.
//!
//! Invariant: no link is detached before everything is attached, because the start may be refused.

use crate::bpffs::layout::{Instance, remove_file};
use crate::config::interfaces::{AttachTarget, HookPoint};
use crate::dataplane::detach;
use crate::dataplane::link::{self, BpfLink};
use crate::error::Result;
use crate::netlink::Netlink;
use aya::programs::links::PinnedLink;

/// A link that is on the interface of a target.
pub(crate) struct LiveLink {
    pub(crate) link: PinnedLink,
    /// The name of its pin.
    pub(crate) pin: String,
}

/// The link of an instance that is on the interface of a target; the one that has the name first.
/// What a start that died has left there may have been for another WAN or LAN.
pub(crate) fn live_link(
    instance: &Instance,
    target: &AttachTarget<'_>,
) -> Result<Option<LiveLink>> {
    let hook_point = target.hook_point;
    let is_other = |other: &HookPoint| other.hook == hook_point.hook && *other != hook_point;
    let left = HookPoint::all().filter(is_other).flat_map(|other| {
        let name = other.link_pin();
        let pins = instance.pins_of_link(other).into_iter();
        pins.filter(move |pin| *pin != name)
    });
    for pin in instance.pins_of_link(hook_point).into_iter().chain(left) {
        if let Some((link, found)) = link::open(&instance.pin(&pin))?
            && link::is_on(&found, hook_point.hook, target.link)
        {
            return Ok(Some(LiveLink { link, pin }));
        }
    }
    Ok(None)
}

/// Makes the name of a pending pin free for a new link.
pub(crate) fn set_pending_aside(instance: &Instance, hook_point: HookPoint) -> Result<()> {
    let name = hook_point.link_pin();
    match link::open(&instance.pending_pin(&name))? {
        Some((_, found)) => instance.set_pending_aside(&name, found.id),
        None => Ok(()),
    }
}

/// Detaches what is on other interfaces, after everything was attached.
pub(crate) fn detach_others(netlink: &Netlink, instance: &Instance) -> Result<()> {
    let mut links: Vec<BpfLink> = Vec::new();
    for hook_point in HookPoint::all() {
        let name = hook_point.link_pin();
        for pin in instance.pins_of_link(hook_point) {
            let path = instance.pin(&pin);
            if pin != name
                && let Some((_, found)) = link::open(&path)?
            {
                remove_file(&path)?;
                links.push(found);
            }
        }
    }
    if !links.is_empty() {
        let programs: Vec<u32> = links.iter().map(|link| link.program).collect();
        detach::wait_until_gone(netlink, &links, &programs);
    }
    Ok(())
}
