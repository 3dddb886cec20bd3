//! Other instances that serve any VIP of a plan in its network namespace. Both would translate the
//! same packets.

use crate::bpffs::find::{self, Selector};
use crate::bpffs::layout::Instance;
use crate::bpffs::owner::Location;
use crate::config::plan::Plan;
use crate::dataplane::takeover;
use crate::error::{InstanceError, Result};
use std::net::Ipv4Addr;

/// Fails when there is one.
pub(crate) fn check(plan: &Plan, own: &Instance) -> Result<()> {
    for (vip, _) in plan.vips() {
        check_vip(plan, own, vip)?;
    }
    Ok(())
}

fn check_vip(plan: &Plan, own: &Instance, vip: Ipv4Addr) -> Result<()> {
    let serving = Selector {
        vip: Some(vip),
        ..Selector::default()
    };
    for other in find::instances(own.bpffs(), &serving)? {
        let location = Location::of(&other);
        let is_elsewhere = location.is_some_and(|found| found.namespace != plan.namespace);
        if other.name == own.name
            || !other.is_used()
            || is_elsewhere
            || takeover::is_possible(own, plan, &other)
        {
            continue;
        }
        let whose = other.whose();
        let error = match other.older_vip() {
            Some(_) => InstanceError::OlderServes {
                vip,
                bpffs: other.bpffs_option(),
                path: other.directory,
                whose,
            },
            None => InstanceError::VipServed {
                vip,
                unload: other.unload_command(),
                instance: other.name,
                whose,
            },
        };
        return Err(error.into());
    }
    Ok(())
}
