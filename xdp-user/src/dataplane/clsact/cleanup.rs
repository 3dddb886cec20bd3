//! The filters of an instance in all network namespaces: found for `status`, removed for `unload`.
//!
//! It may not know how a filter is put there.

use crate::bpffs::layout::Instance;
use crate::dataplane::clsact::{self, Ours, failed};
use crate::error::{Error, Result};
use crate::netlink::namespaces::{self, Namespace};
use crate::netlink::{Block, Netlink};
use std::ops::ControlFlow;

/// Removes the filters of an instance, in whatever namespace they are, but for those of the own one that are to stay.
pub(crate) fn sweep(netlink: &Netlink, instance: &Instance, stay: &[(u32, Block)]) -> Result<()> {
    let ours = Ours::of(instance);
    namespaces::visit(netlink, |inside| {
        sweep_one(inside, instance, &ours, if inside.own { stay } else { &[] })?;
        Ok(ControlFlow::Continue(()))
    })
}

fn sweep_one(
    inside: &Namespace<'_>,
    instance: &Instance,
    ours: &Ours,
    stay: &[(u32, Block)],
) -> Result<()> {
    let list = Error::system("list the qdiscs");
    for (index, blocks) in inside.netlink.clsacts().map_err(list)? {
        for &block in blocks {
            if stay.contains(&(index, block)) {
                continue;
            }
            let filters = inside
                .netlink
                .filters(index, block)
                .map_err(failed("list", &format!("interface {index}")))?;
            if filters.iter().any(|filter| ours.sits_in(filter)) {
                clsact::take_away(inside.netlink, (index, block))?;
            }
        }
        clsact::remove_clsact(inside.netlink, instance, inside.number, index)?;
    }
    Ok(())
}

/// A filter of ours, as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The id of its program.
    pub program: u32,
    /// True when it is in this network namespace.
    pub here: bool,
}

/// Looks for the filters of an instance on devices with these indexes, here and elsewhere.
pub fn find(
    netlink: &Netlink,
    instance: &Instance,
    sought: &[(u32, Block)],
) -> Result<Vec<Option<Found>>> {
    let ours = Ours::of(instance);
    let mut found = vec![None; sought.len()];
    namespaces::visit(netlink, |inside| {
        for (found, (index, block)) in found.iter_mut().zip(sought) {
            if found.is_some() {
                continue;
            }
            let filters = inside
                .netlink
                .filters(*index, *block)
                .map_err(failed("list", &format!("interface {index}")))?;
            let mut mine = filters.iter().filter(|filter| ours.sits_in(filter));
            *found = mine.find_map(|filter| filter.program).map(|program| Found {
                program,
                here: inside.own,
            });
        }
        Ok(if found.iter().all(Option::is_some) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    Ok(found)
}
