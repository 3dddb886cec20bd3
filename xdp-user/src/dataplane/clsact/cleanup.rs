//! Finds and removes the filters of an instance in all network namespaces, by the programs that
//! they run.

use crate::bpffs::layout::Instance;
use crate::dataplane::clsact::slot::{self, InstancePrograms};
use crate::dataplane::clsact::{self, failed};
use crate::error::{Error, Result};
use crate::netlink::namespaces::{self, Namespace};
use crate::netlink::{Block, Filter, Netlink};
use std::ops::ControlFlow;

/// Removes the filters of an instance in all network namespaces, except those in this process's own
/// namespace that are listed in `keep`.
pub(crate) fn remove_filters(
    netlink: &Netlink,
    instance: &Instance,
    keep: &[(u32, Block)],
) -> Result<()> {
    let programs = InstancePrograms::of(instance);
    namespaces::visit(netlink, |inside| {
        let keep = if inside.own { keep } else { &[] };
        remove_in_namespace(inside, instance, &programs, keep)?;
        Ok(ControlFlow::Continue(()))
    })
}

fn remove_in_namespace(
    inside: &Namespace<'_>,
    instance: &Instance,
    programs: &InstancePrograms,
    keep: &[(u32, Block)],
) -> Result<()> {
    let list = Error::system("list the qdiscs");
    for (index, blocks) in inside.netlink.clsacts().map_err(list)? {
        for &block in blocks {
            if keep.contains(&(index, block)) {
                continue;
            }
            let filters = filters_of(inside, index, block)?;
            if filters.iter().any(|filter| programs.owns(filter)) {
                clsact::delete_filter(inside.netlink, (index, block))?;
            }
        }
        clsact::remove_unused_clsact(inside.netlink, instance, inside.number, index)?;
    }
    Ok(())
}

fn filters_of(inside: &Namespace<'_>, index: u32, block: Block) -> Result<Vec<Filter>> {
    let filters = inside.netlink.filters(index, block);
    filters.map_err(failed("list", &format!("interface {index}")))
}

/// Calls `look` with each filter in the slot, in all network namespaces, and its place.
fn each(
    netlink: &Netlink,
    mut look: impl FnMut(&Namespace<'_>, (u32, Block), &Filter) + Send,
) -> Result<()> {
    namespaces::visit(netlink, |inside| {
        let list = Error::system("list the qdiscs");
        for (index, blocks) in inside.netlink.clsacts().map_err(list)? {
            for &block in blocks {
                let filters = filters_of(inside, index, block)?;
                let in_slot = filters.iter().filter(|filter| slot::is_in_slot(filter));
                in_slot.for_each(|filter| look(inside, (index, block), filter));
            }
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// The programs that filters in the slot run, in all network namespaces, of whatever instance.
pub(crate) fn running_programs(netlink: &Netlink) -> Result<Vec<u32>> {
    let mut programs = Vec::new();
    each(netlink, |_, _, filter| programs.extend(filter.program))?;
    Ok(programs)
}

/// A filter of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocatedFilter {
    /// The id of its program.
    pub program: u32,
    /// The index of its interface, and the block.
    pub place: (u32, Block),
    /// True when it is in this network namespace.
    pub here: bool,
}

/// The filters of an instance in all network namespaces, those of this one first.
pub fn filters(netlink: &Netlink, instance: &Instance) -> Result<Vec<LocatedFilter>> {
    let own = InstancePrograms::of(instance);
    let mut found = Vec::new();
    each(netlink, |inside, place, filter| {
        let program = filter.program.filter(|_| own.owns(filter));
        found.extend(program.map(|program| LocatedFilter {
            program,
            place,
            here: inside.own,
        }));
    })?;
    Ok(found)
}
