//! The filter slot (chain, priority and handle) of ikenat's filter, and whose filter is in it.

use crate::bpffs::layout::Instance;
use crate::dataplane::bpf_query;
use crate::dataplane::clsact::FilterTarget;
use crate::error::{Error, Result};
use crate::netlink::{Filter, Netlink};
use aya::maps::MapInfo;

/// After filters that an administrator put first on purpose (1), before those numbered in tens or
/// by the kernel (49152).
const PRIORITY: u16 = 5;
/// A handle that no other software uses by accident.
const HANDLE: u32 = 0x1ce;
/// Both, as requests to the kernel need them.
pub(super) const FILTER_ID: (u16, u32) = (PRIORITY, HANDLE);

/// What is in the filter slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FilterSlot {
    /// There is no filter.
    Vacant,
    /// A filter of this instance, which runs this program.
    Owned(u32),
    /// A filter of an ikenat instance without pins. Nothing can reach its tables any more. If the
    /// instance still had an XDP program, the start would have been refused before.
    Orphaned,
    /// A filter of other software occupies it.
    Foreign(Filter),
}

/// The programs that use the tables of an instance.
#[derive(Clone, Debug, Default)]
pub(crate) struct InstancePrograms(Vec<u32>);

impl InstancePrograms {
    /// Empty when there are no tables yet. Finding programs that are not pinned needs CAP_SYS_ADMIN.
    /// Without it only the pinned ones are found: every step of a start, and one that dies at any of
    /// them, leaves a pin of each program that a filter runs.
    pub(crate) fn of(instance: &Instance) -> Self {
        let mut own: Vec<u32> = instance.filter_programs().filter_map(Result::ok).collect();
        if let Ok(meta) = MapInfo::from_pin(instance.pin("META")) {
            own.extend(bpf_query::programs_using_map(meta.id()));
        }
        Self(own)
    }

    /// Whether a filter is in the slot and runs one of these programs.
    pub(crate) fn owns(&self, filter: &Filter) -> bool {
        is_in_slot(filter) && filter.program.is_some_and(|id| self.0.contains(&id))
    }
}

pub(super) fn is_in_slot(filter: &Filter) -> bool {
    (filter.chain, filter.priority, filter.handle) == (0, PRIORITY, HANDLE)
}

/// What is in the slot, by the filters of the block. `program` is the name of the program that
/// belongs there.
pub(super) fn classify(filters: &[Filter], own: &InstancePrograms, program: &str) -> FilterSlot {
    classify_by(filters, own, program, bpf_query::program_name)
}

fn classify_by(
    filters: &[Filter],
    own: &InstancePrograms,
    program: &str,
    name: impl Fn(u32) -> Option<String>,
) -> FilterSlot {
    if let Some(found) = filters.iter().find(|filter| is_in_slot(filter)) {
        return match found.program {
            Some(id) if own.owns(found) => FilterSlot::Owned(id),
            Some(id) if name(id).as_deref() == Some(program) => FilterSlot::Orphaned,
            Some(_) | None => FilterSlot::Foreign(found.clone()),
        };
    }
    // All filters of a priority are of one kind and one protocol.
    let mut others = filters
        .iter()
        .filter(|filter| filter.chain == 0 && filter.priority == PRIORITY);
    match others.find(|filter| filter.kind != "bpf" || !filter.all_protocols) {
        Some(other) => FilterSlot::Foreign(other.clone()),
        None => FilterSlot::Vacant,
    }
}

/// Asks the kernel what is in the slot.
pub(crate) fn state(
    netlink: &Netlink,
    target: FilterTarget<'_>,
    own: &InstancePrograms,
) -> Result<FilterSlot> {
    let filters = target.filters(netlink)?;
    Ok(classify(&filters, own, target.program))
}

/// The error for a foreign filter in the slot.
pub(crate) fn occupied(target: FilterTarget<'_>, filter: &Filter) -> Error {
    let program = filter.program.map(|id| match bpf_query::program_name(id) {
        Some(name) => format!(", program `{name}` (id {id})"),
        None => format!(", program id {id}"),
    });
    Error::OtherFilter {
        interface: target.name.to_owned(),
        filter: format!(
            "kind {}, handle {:#x}{}",
            filter.kind,
            filter.handle,
            program.unwrap_or_default()
        ),
        block: target.block.name(),
        priority: PRIORITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Block;

    fn filter(priority: u16, handle: u32, kind: &str, program: Option<u32>) -> Filter {
        Filter {
            priority,
            all_protocols: true,
            chain: 0,
            handle,
            kind: kind.to_owned(),
            program,
        }
    }

    #[test]
    fn only_filters_that_use_the_instances_tables_are_owned() {
        let own = InstancePrograms(vec![7]);
        let name = |id: u32| (id == 8).then(|| "ikenat_egress".to_owned());
        let slot = |filters: &[Filter]| classify_by(filters, &own, "ikenat_egress", name);
        let bpf = |id| filter(PRIORITY, HANDLE, "bpf", Some(id));
        assert_eq!(slot(&[]), FilterSlot::Vacant);
        assert_eq!(slot(&[bpf(7)]), FilterSlot::Owned(7));
        assert_eq!(slot(&[bpf(8)]), FilterSlot::Orphaned);
        assert_eq!(slot(&[bpf(9)]), FilterSlot::Foreign(bpf(9)));
        // Other handles of the priority do not matter, unless the kernel would refuse ikenat's
        // filter beside them.
        let beside = filter(PRIORITY, 1, "bpf", Some(9));
        assert_eq!(slot(std::slice::from_ref(&beside)), FilterSlot::Vacant);
        let other_kind = filter(PRIORITY, 1, "u32", None);
        assert_eq!(
            slot(std::slice::from_ref(&other_kind)),
            FilterSlot::Foreign(other_kind)
        );
        let one_protocol = Filter {
            all_protocols: false,
            ..beside
        };
        assert_eq!(
            slot(std::slice::from_ref(&one_protocol)),
            FilterSlot::Foreign(one_protocol)
        );
        let elsewhere = [
            filter(PRIORITY + 1, HANDLE, "u32", None),
            Filter { chain: 1, ..bpf(9) },
        ];
        assert_eq!(slot(&elsewhere), FilterSlot::Vacant);
    }

    #[test]
    fn a_filter_in_the_way_is_named() {
        let target = FilterTarget {
            index: 7,
            name: "eth1",
            block: Block::Egress,
            program: "ikenat_egress",
        };
        let error = occupied(target, &filter(PRIORITY, 0x800, "u32", None)).to_string();
        assert!(error.contains("eth1") && error.contains("u32"), "{error}");
        assert!(error.contains("0x800"), "{error}");
        assert!(error.contains("tc filter del dev eth1 egress"), "{error}");
    }
}
