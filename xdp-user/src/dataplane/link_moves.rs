//! The links of an instance whose interfaces change: which of those that are there a start goes on
//! with, what their pins are called afterwards, and when the others go.
//!
//! A start pins the new link as `NAME-new` beside the old one, which keeps its name until nothing can
//! be refused any more. One that dies leaves both, and they may be all that some interface has.
//! So the next one replaces the program of the link that is on its own interface, whatever its pin
//! is called, and for whichever WAN or LAN it was. If that is none of them, the pending pin is set
//! aside as `NAME-aside-ID`.
//!
//! An interface may get the number of another one that stays, or of one that goes. So a link that
//! loses its name to another one is set aside, too, until it gets a name or is detached.
//!
//! Invariant: no link is detached before everything is attached, because the start may be refused.

use crate::bpffs::layout::{Instance, remove_file};
use crate::config::interfaces::{AttachTarget, HookPoint};
use crate::dataplane::detach;
use crate::dataplane::link::{self, BpfLink};
use crate::error::{Error, Result};
use crate::failpoints::{Step, pass};
use crate::netlink::Netlink;
use aya::programs::links::PinnedLink;

/// A link that is on the interface of a target.
pub(crate) struct LiveLink {
    pub(crate) link: PinnedLink,
    pub(crate) id: u32,
}

/// The names of all pins of links at a hook, those of a hook point first.
fn pins_at(instance: &Instance, first: HookPoint) -> Result<Vec<String>> {
    let is_other = move |other: &HookPoint| other.hook == first.hook && *other != first;
    let mut names = instance.pins_of_link(first)?;
    for other in HookPoint::all().filter(is_other) {
        names.extend(instance.pins_of_link(other)?);
    }
    Ok(names)
}

/// The link of an instance that is on the interface of a target; the one that has the name first. It
/// may have been that of another WAN or LAN.
pub(crate) fn live_link(
    instance: &Instance,
    target: &AttachTarget<'_>,
) -> Result<Option<LiveLink>> {
    let hook_point = target.hook_point;
    for pin in pins_at(instance, hook_point)? {
        if let Some((link, found)) = link::open(&instance.pin(&pin))?
            && link::is_on(&found, hook_point.hook, target.link)
        {
            return Ok(Some(LiveLink { link, id: found.id }));
        }
    }
    Ok(None)
}

/// Gives a pinned link the name of a hook point. Another one that has it is set aside. False: the
/// link has it already.
pub(crate) fn give_name(instance: &Instance, hook_point: HookPoint, id: u32) -> Result<bool> {
    let name = hook_point.link_pin();
    if let Some((_, named)) = link::open(&instance.pin(&name))? {
        if named.id == id {
            return Ok(false);
        }
        instance.set_aside(&name, named.id)?;
        pass(Step::SetAside)?;
    }
    for pin in pins_at(instance, hook_point)? {
        if let Some((_, found)) = link::open(&instance.pin(&pin))?
            && found.id == id
        {
            instance.rename_pin(&pin, &name)?;
            return Ok(true);
        }
    }
    Err(Error::Pin {
        action: "find",
        path: instance.pin(&name),
        why: format!("another process has removed the pin of link {id}"),
    })
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
        for pin in instance.pins_of_link(hook_point)? {
            let path = instance.pin(&pin);
            if pin != name
                && let Some((_, found)) = link::open(&path)?
            {
                remove_file(&path)?;
                // Of one whose interface is gone nothing runs any more.
                links.extend((found.ifindex != 0).then_some(found));
            }
        }
    }
    if !links.is_empty() {
        let programs: Vec<u32> = links.iter().map(|link| link.program).collect();
        detach::wait_until_gone(netlink, &links, &programs);
    }
    Ok(())
}
