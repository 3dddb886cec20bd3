//! The pins of a filter whose instance moves to another interface: what a start makes of those that
//! an earlier one left when it died, and which of them stay until their filters are gone.
//!
//! A filter whose program no pin shows cannot be found without CAP_SYS_ADMIN. So each program that
//! a filter runs keeps a pin.

use crate::bpffs::layout::{Instance, remove_file};
use crate::dataplane::clsact::{FilterTarget, cleanup, slot};
use crate::error::Result;
use crate::failpoints::{Step, pass};
use crate::netlink::Netlink;

/// Moves the pin that a start left pending when it died, so that this start can pin its own program
/// there.
///
/// Invariant: no filter is removed, because this start may still be refused, and which of two
/// filters gets the packets is not known. If filters run both the pending and the named program, the
/// one on this interface has the name, and the pin of the other one is set aside until this start
/// has attached everything.
pub(crate) fn settle_pending_program(
    netlink: &Netlink,
    instance: &Instance,
    pin: &str,
    filter: FilterTarget<'_>,
) -> Result<()> {
    let Some(pending) = instance.pending_program(pin)? else {
        return Ok(());
    };
    let running = cleanup::running_programs(netlink)?;
    if !running.contains(&pending) {
        // The program of this start replaces it.
        return Ok(());
    }
    if let Some(named) = instance.pinned_program(pin)?
        && running.contains(&named)
    {
        let filters = filter.filters(netlink)?;
        let mut here = filters.iter().filter(|one| slot::is_in_slot(one));
        if !here.any(|one| one.program == Some(pending)) {
            return instance.set_pending_aside(pin, pending);
        }
        instance.set_aside(pin, named)?;
    }
    instance.commit_pin(pin)
}

/// Keeps the pin of the named program, before that of another one takes the name, if a filter on
/// another interface still runs it. `replaced` is the program that the filter on this interface has
/// run.
///
/// Invariant: that filter is not removed here. It may be the one of another WAN or LAN by now, whose
/// program this start is about to replace.
pub(crate) fn keep_named_program(
    netlink: &Netlink,
    instance: &Instance,
    pin: &str,
    replaced: Option<u32>,
) -> Result<()> {
    // With nothing pending, the named program is that of this start.
    if !instance.pending_pin(pin).exists() {
        return Ok(());
    }
    if let Some(named) = instance.pinned_program(pin)?
        && replaced != Some(named)
        && cleanup::running_programs(netlink)?.contains(&named)
    {
        instance.set_aside(pin, named)?;
        pass(Step::SetAside)?;
    }
    Ok(())
}

/// Removes the pins that were set aside whose filters are gone, after everything was attached.
pub(crate) fn remove_pins_aside(netlink: &Netlink, instance: &Instance) -> Result<()> {
    let aside = instance.filters_aside()?;
    if aside.is_empty() {
        return Ok(());
    }
    let running = cleanup::running_programs(netlink)?;
    for name in aside {
        let program = instance.pinned_program(&name)?;
        if program.is_none_or(|program| !running.contains(&program)) {
            remove_file(&instance.pin(&name))?;
        }
    }
    Ok(())
}
