//! Attaches one program to one hook point by a new link, or replaces the program of an existing
//! link.

use crate::config::interfaces::AttachTarget;
use crate::config::settings::{Mode, Modes};
use crate::dataplane::loader::{tc, xdp};
use crate::dataplane::native_refused::native_refused;
use crate::dataplane::tc_backend::{TcBackend, hook_name};
use crate::error::{Error, Result, causes};
use aya::Ebpf;
use aya::programs::LinkOrder;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions, TcAttachType};
use aya::programs::xdp::{XdpLink, XdpMode};
use xdp_common::Hook;

/// The error for a program that could not be attached.
pub(crate) fn attach_failed(target: &AttachTarget<'_>, error: &dyn std::error::Error) -> Error {
    Error::Attach {
        hook: hook_name(target.hook_point.hook, TcBackend::Tcx),
        interface: target.link.name.clone(),
        why: causes(error),
    }
}

/// Attaches a program by a new link. Dropping the link detaches the program.
pub(crate) fn attach(ebpf: &mut Ebpf, target: &AttachTarget<'_>, mode: Mode) -> Result<FdLink> {
    let failed = |error: &dyn std::error::Error| attach_failed(target, error);
    match target.hook_point.hook {
        Hook::Xdp => {
            let program = xdp(ebpf, target.program)?;
            let flags = match mode {
                Mode::Native => XdpMode::Driver,
                Mode::Generic => XdpMode::Skb,
            };
            let id = program
                .attach_to_if_index(target.link.index, flags)
                .map_err(|error| match mode {
                    Mode::Native => {
                        let option = Modes::option(target.hook_point.interface.side);
                        native_refused(target.link, option, &error)
                    }
                    Mode::Generic => failed(&error),
                })?;
            let link = program.take_link(id).map_err(|error| failed(&error))?;
            FdLink::try_from(link).map_err(|error| failed(&error))
        }
        Hook::Tc | Hook::Egress => {
            let program = tc(ebpf, target.program)?;
            let block = match target.hook_point.hook {
                Hook::Egress => TcAttachType::Egress,
                Hook::Xdp | Hook::Tc => TcAttachType::Ingress,
            };
            // First in the chain, so that no other program decides before ikenat's program has run.
            let first = TcAttachOptions::TcxOrder(LinkOrder::first());
            let id = program
                .attach_with_options(&target.link.name, block, first)
                .map_err(|error| failed(&error))?;
            let link = program.take_link(id).map_err(|error| failed(&error))?;
            FdLink::try_from(link).map_err(|error| failed(&error))
        }
    }
}

/// Replaces the program of a live link. Its pin does not change, and keeps it attached.
pub(crate) fn replace(ebpf: &mut Ebpf, target: &AttachTarget<'_>, link: PinnedLink) -> Result<()> {
    let failed = |error: &dyn std::error::Error| attach_failed(target, error);
    let link = FdLink::from(link);
    match target.hook_point.hook {
        Hook::Xdp => {
            let link = XdpLink::try_from(link).map_err(|error| failed(&error))?;
            let program = xdp(ebpf, target.program)?;
            program
                .attach_to_link(link)
                .map_err(|error| failed(&error))?;
        }
        Hook::Tc | Hook::Egress => {
            let link = SchedClassifierLink::try_from(link).map_err(|error| failed(&error))?;
            let program = tc(ebpf, target.program)?;
            program
                .attach_to_link(link)
                .map_err(|error| failed(&error))?;
        }
    }
    Ok(())
}
