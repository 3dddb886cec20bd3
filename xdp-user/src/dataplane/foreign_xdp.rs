//! XDP programs of others on our interfaces: an interface has room for one.
//!
//! It may not know how ours are attached.

use crate::bpffs::layout::Instance;
use crate::config::interfaces::HookPoint;
use crate::config::plan::Plan;
use crate::dataplane::link;
use crate::error::{Error, Result};
use std::path::Path;
use xdp_common::Hook;

/// What libxdp puts on an interface.
const DISPATCHER: &str = "xdp_dispatcher";

/// Refuses an interface on which an XDP program of somebody else runs. A dry run attaches none, and so can look at
/// another gateway's traffic.
pub(crate) fn check(plan: &Plan, bpffs: &Path, instance: &Instance) -> Result<()> {
    if plan.settings.dry_run {
        return Ok(());
    }
    let mut ours = Vec::new();
    for hook_point in HookPoint::all().filter(|hook_point| hook_point.hook == Hook::Xdp) {
        let name = hook_point.link_pin();
        // The second is what a start has left that died while it moved to another interface.
        for path in [instance.pin(&name), instance.new_pin(&name)] {
            if let Some((_, attachment)) = link::open(&path)? {
                ours.push(attachment.program);
            }
        }
    }
    for (_, link) in plan.ports() {
        let Some(id) = link.xdp.filter(|id| !ours.contains(id)) else {
            continue;
        };
        let called = link::program_name(id);
        let program = match &called {
            Some(name) => format!("`{name}` (id {id})"),
            None => format!("id {id}"),
        };
        let name = &link.name;
        let way_out = match link::instance_of(bpffs, id) {
            Some(other) => format!(
                "that is ikenat for {0}, and an interface has room for one; remove it with `ikenat unload --vip {0}`",
                other.vip
            ),
            // It runs several programs, but only those that are made for it.
            None if called.as_deref() == Some(DISPATCHER) => format!(
                "that is libxdp's, and ikenat cannot run under it; remove it with all its programs by `xdp-loader unload {name} --all`"
            ),
            None => format!(
                "an interface has room for one; remove it with `{}`, or stop the program that holds it",
                link::removal(name, id)
            ),
        };
        return Err(Error::OtherProgram {
            interface: name.clone(),
            program,
            way_out,
        });
    }
    Ok(())
}
