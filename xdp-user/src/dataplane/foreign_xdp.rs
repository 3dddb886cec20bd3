//! XDP programs of other software, or of another instance, on the interfaces of a plan. An
//! interface can have one XDP program.

use crate::bpffs::find::{self, Selector};
use crate::bpffs::layout::Instance;
use crate::config::commands::quoted;
use crate::config::plan::Plan;
use crate::dataplane::{bpf_query, link, takeover};
use crate::error::{Error, Result};
use crate::netlink::Link;
use std::path::Path;

/// The name of libxdp's program, which calls the programs that are registered with it.
const DISPATCHER: &str = "xdp_dispatcher";

/// Fails when an interface of the plan has a foreign XDP program.
pub(crate) fn check(plan: &Plan, bpffs: &Path, instance: &Instance) -> Result<()> {
    let found = on_interfaces(plan, bpffs, instance)?;
    match found.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// The interfaces of the plan that have a foreign XDP program, and the error for each. A dry run
/// attaches no XDP program, so it can count the traffic of another gateway.
pub(crate) fn on_interfaces<'p>(
    plan: &'p Plan,
    bpffs: &Path,
    instance: &Instance,
) -> Result<Vec<(&'p Link, Error)>> {
    if plan.settings.dry_run {
        return Ok(Vec::new());
    }
    let mut own = takeover::programs(instance, plan)?;
    own.extend(link::programs_of(instance)?);
    let foreign = plan.interfaces().into_iter().filter_map(|(_, link)| {
        let id = link.xdp.filter(|id| !own.contains(id))?;
        Some((link, other_program(link, id, bpffs)))
    });
    Ok(foreign.collect())
}

/// The error for an interface that has this foreign XDP program.
fn other_program(link: &Link, id: u32, bpffs: &Path) -> Error {
    let called = bpf_query::program_name(id);
    let program = match &called {
        Some(name) => format!("`{name}` (id {id})"),
        None => format!("id {id}"),
    };
    let name = quoted(&link.name);
    let remedy = match instance_of(bpffs, id) {
        Some(other) => format!(
            "it belongs to the ikenat instance {}, and an interface can have only one; remove it with `ikenat unload {}{}`",
            other.name_and_vips(),
            other.selector(),
            other.bpffs_option()
        ),
        // It runs several programs, but only those that were built for it.
        None if called.as_deref() == Some(DISPATCHER) => format!(
            "it is the dispatcher of libxdp, under which ikenat cannot run; remove it and all of its programs with `xdp-loader unload {name} --all`"
        ),
        None => format!(
            "an interface can have only one; remove it with `{}`, or stop the software that attached it",
            removal_command(&link.name, id)
        ),
    };
    Error::OtherProgram {
        interface: link.name.clone(),
        program,
        remedy,
    }
}

/// The command that removes a foreign program from an interface.
pub fn removal_command(interface: &str, program: u32) -> String {
    // `ip` cannot remove a program that a BPF link holds.
    match bpf_query::link_of_program(program) {
        Some(id) => format!("bpftool link detach id {id}"),
        None => format!("ip link set dev {} xdp off", quoted(interface)),
    }
}

/// The instance to which an XDP program belongs; `None` when it is foreign.
pub fn instance_of(bpffs: &Path, program: u32) -> Option<Instance> {
    let instances = find::instances(bpffs, &Selector::default()).ok()?;
    instances.into_iter().find(|instance| {
        let links = link::all_of(instance).unwrap_or_default();
        links.iter().any(|bpf_link| bpf_link.program == program)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_removed_from_its_interface_whatever_the_name() {
        // No program has this id, so no link has it.
        let command = removal_command("eth$1", u32::MAX);
        assert_eq!(command, "ip link set dev 'eth$1' xdp off");
    }
}
