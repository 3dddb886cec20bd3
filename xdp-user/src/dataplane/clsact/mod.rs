//! The tc program as a filter in a clsact qdisc: for kernels without tcx links (before 6.6).
//!
//! A filter needs neither process nor pin, so it outlives the daemon until it is deleted. ikenat's
//! filter has a priority and handle of its own; hence there is never a second one, and its program
//! is replaced in place. It is recognised by the map that its program uses, the pinned META of the
//! instance. That holds after a crash at any point.
//!
//! The directory of the pins has two kinds of records, written before what they describe. The
//! program is pinned as `filter-tc-wan`, `filter-egress-wan` and so on, which shows in any network
//! namespace that there are filters to find. The directory `clsact-NAMESPACE-INDEX` says that
//! ikenat added the clsact of that interface; ikenat removes it with its filter if nothing else is
//! in it.

pub mod cleanup;
pub mod pins;

use crate::bpffs::layout::Instance;
use crate::config::interfaces::{AttachTarget, HookPoint};
use crate::dataplane::bpf_query;
use crate::error::{Error, Result, causes, word};
use crate::failpoints::{Step, pass};
use crate::netlink::{Block, Filter, Netlink};
use crate::sys::netns;
use aya::maps::MapInfo;
use aya::programs::SchedClassifier;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use xdp_common::Hook;

/// After filters that an administrator put first on purpose (1), before those numbered in tens or by
/// the kernel (49152).
const PRIORITY: u16 = 5;
/// A handle that no other software uses by accident.
const HANDLE: u32 = 0x1ce;
const FILTER_ID: (u16, u32) = (PRIORITY, HANDLE);

/// The interface and block of a filter, and the name of its program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FilterTarget<'d> {
    pub(crate) index: u32,
    pub(crate) name: &'d str,
    pub(crate) block: Block,
    program: &'static str,
}

/// The block of a hook; XDP has none.
pub(crate) const fn block(hook: Hook) -> Option<Block> {
    match hook {
        Hook::Xdp => None,
        Hook::Tc => Some(Block::Ingress),
        Hook::Egress => Some(Block::Egress),
    }
}

impl<'d> FilterTarget<'d> {
    /// The filter of an attach target; `None` for XDP.
    pub(crate) fn of(target: &AttachTarget<'d>) -> Option<Self> {
        Some(Self {
            index: target.link.index,
            name: &target.link.name,
            block: block(target.hook_point.hook)?,
            program: target.hook_point.program(),
        })
    }

    pub(crate) const fn key(&self) -> (u32, Block) {
        (self.index, self.block)
    }

    /// The filters of the block. Fails when an ingress qdisc leaves no egress block.
    pub(crate) fn filters(&self, netlink: &Netlink) -> Result<Vec<Filter>> {
        let qdiscs = netlink.clsacts().map_err(failed("list", self.name))?;
        let mut here = qdiscs.iter().filter(|(index, _)| *index == self.index);
        if here.any(|(_, blocks)| !blocks.contains(&self.block)) {
            return Err(Error::IngressQdisc {
                interface: self.name.to_owned(),
            });
        }
        netlink
            .filters(self.index, self.block)
            .map_err(failed("list", self.name))
    }
}

/// The state of the place (chain, priority, handle) where ikenat's filter belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FilterSlot {
    /// There is no filter.
    Vacant,
    /// A filter of this instance.
    Owned,
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
    /// Empty when there are no tables yet. Finding programs that are not pinned needs
    /// CAP_SYS_ADMIN. Without it only the pinned ones are found, which are all of them unless an
    /// earlier start crashed between two of its steps.
    pub(crate) fn of(instance: &Instance) -> Self {
        let pinned = Instance::filter_pins()
            .filter_map(|name| instance.pinned_program(&name).ok().flatten());
        let mut own: Vec<u32> = pinned.collect();
        if let Ok(meta) = MapInfo::from_pin(instance.pin("META")) {
            own.extend(bpf_query::programs_using_map(meta.id()));
        }
        Self(own)
    }

    /// Whether a filter is in ikenat's place and runs one of these programs.
    pub(crate) fn owns(&self, filter: &Filter) -> bool {
        is_in_slot(filter) && filter.program.is_some_and(|id| self.0.contains(&id))
    }
}

fn is_in_slot(filter: &Filter) -> bool {
    (filter.chain, filter.priority, filter.handle) == (0, PRIORITY, HANDLE)
}

fn classify(
    filters: &[Filter],
    own: &InstancePrograms,
    program: &str,
    name: impl Fn(u32) -> Option<String>,
) -> FilterSlot {
    if let Some(found) = filters.iter().find(|filter| is_in_slot(filter)) {
        return match found.program {
            _ if own.owns(found) => FilterSlot::Owned,
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

pub(crate) fn failed(action: &str, interface: &str) -> impl FnOnce(io::Error) -> Error {
    Error::system(format!("{action} the tc filters of {interface}"))
}

/// Finds out what is in the place of ikenat's filter.
pub(crate) fn slot(
    netlink: &Netlink,
    target: FilterTarget<'_>,
    own: &InstancePrograms,
) -> Result<FilterSlot> {
    let filters = target.filters(netlink)?;
    Ok(classify(
        &filters,
        own,
        target.program,
        bpf_query::program_name,
    ))
}

/// The error for a foreign filter in ikenat's place.
pub(crate) fn slot_occupied(target: FilterTarget<'_>, filter: &Filter) -> Error {
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

/// Installs the filter in a vacant slot, and adds the clsact if there is none. Returns true when
/// the clsact is new.
pub(crate) fn install(
    netlink: &Netlink,
    instance: &Instance,
    target: FilterTarget<'_>,
    program: BorrowedFd<'_>,
) -> Result<bool> {
    let added = ensure_clsact(netlink, instance, target)?;
    pass(Step::ClsactMade)?;
    let put = netlink.put_filter(target.key(), FILTER_ID, (program, target.program), false);
    match put {
        Ok(()) => Ok(added),
        Err(error) => {
            remove_unused_clsact(netlink, instance, netns::own()?, target.index)?;
            Err(not_attached(target, "cls_bpf", &error))
        }
    }
}

/// ENOENT here means that a kernel module is missing.
fn not_attached(target: FilterTarget<'_>, module: &str, error: &io::Error) -> Error {
    let mut why = word(error);
    if error.kind() == io::ErrorKind::NotFound {
        why = format!("this kernel has no module {module}, which it takes without tcx (Linux 6.6)");
    }
    Error::Attach {
        hook: "a clsact filter",
        interface: target.name.to_owned(),
        why,
    }
}

/// Replaces the program of ikenat's filter.
pub(crate) fn replace(
    netlink: &Netlink,
    target: FilterTarget<'_>,
    program: BorrowedFd<'_>,
) -> Result<()> {
    netlink
        .put_filter(target.key(), FILTER_ID, (program, target.program), true)
        .map_err(failed("replace", target.name))
}

/// The record is written first. A crash after it leaves a record for a clsact that other software
/// added, which is harmless while that qdisc has filters.
fn ensure_clsact(netlink: &Netlink, instance: &Instance, target: FilterTarget<'_>) -> Result<bool> {
    let was_recorded = instance.record_clsact(netns::own()?, target.index)?;
    pass(Step::ClsactNoted)?;
    match netlink.add_clsact(target.index) {
        Ok(()) => Ok(true),
        Err(error) => {
            // An ingress qdisc has the same handle and holds filters too, but only for ingress.
            let is_there = error.kind() == io::ErrorKind::AlreadyExists;
            if !was_recorded {
                instance.forget_clsact_record(netns::own()?, target.index)?;
            }
            if is_there {
                return Ok(false);
            }
            Err(not_attached(target, "sch_ingress", &error))
        }
    }
}

/// Removes a clsact that ikenat added, if it is empty. With a filter of this instance in it, it
/// stays recorded as ikenat's; with only foreign filters it belongs to them from then on.
pub(crate) fn remove_unused_clsact(
    netlink: &Netlink,
    instance: &Instance,
    namespace: u64,
    index: u32,
) -> Result<()> {
    let mut left = Vec::new();
    for block in Block::ALL {
        let filters = netlink.filters(index, block);
        left.extend(filters.map_err(failed("list", &format!("interface {index}")))?);
    }
    let own = InstancePrograms::of(instance);
    if left.iter().any(|filter| own.owns(filter))
        || !instance.forget_clsact_record(namespace, index)?
        || !left.is_empty()
    {
        return Ok(());
    }
    match netlink.remove_clsact(index) {
        Ok(()) => Ok(()),
        Err(error) if is_gone(&error) => Ok(()),
        Err(error) => Err(Error::system(format!(
            "remove the clsact qdisc of interface {index}"
        ))(error)),
    }
}

/// The filter, qdisc or device no longer exists, so there is nothing left to remove.
fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let gone = [Errno::NOENT, Errno::NODEV, Errno::INVAL];
    error
        .raw_os_error()
        .is_some_and(|code| gone.iter().any(|gone| gone.raw_os_error() == code))
}

/// Removes a filter of an instance without pins. With the tcx backend nothing else would find it.
pub(crate) fn remove_orphan(
    netlink: &Netlink,
    instance: &Instance,
    target: FilterTarget<'_>,
) -> Result<()> {
    match slot(netlink, target, &InstancePrograms::of(instance))? {
        FilterSlot::Orphaned => delete_filter(netlink, target.key()),
        FilterSlot::Vacant | FilterSlot::Owned | FilterSlot::Foreign(_) => Ok(()),
    }
}

/// Installs the filter from its pinned program if other software removed it. Returns true if so.
pub(crate) fn restore(
    netlink: &Netlink,
    instance: &Instance,
    hook_point: HookPoint,
    target: FilterTarget<'_>,
) -> Result<bool> {
    let Some(pin) = hook_point.filter_pin() else {
        return Ok(false);
    };
    let filters = target.filters(netlink)?;
    let pinned = instance.pinned_program(&pin)?;
    let is_there = |f: &Filter| is_in_slot(f) && f.program == pinned;
    if pinned.is_none()
        || filters.iter().any(is_there)
        || netlink.link_by_index(target.index).is_err()
    {
        return Ok(false);
    }
    let path = instance.pin(&pin);
    let failed = |error: &dyn std::error::Error| Error::Map {
        action: "open",
        name: path.display().to_string(),
        why: causes(error),
    };
    let program = SchedClassifier::from_pin(&path).map_err(|error| failed(&error))?;
    let program = program.fd().map_err(|error| failed(&error))?.as_fd();
    let own = InstancePrograms::of(instance);
    match classify(&filters, &own, target.program, bpf_query::program_name) {
        FilterSlot::Foreign(filter) => Err(slot_occupied(target, &filter)),
        FilterSlot::Owned | FilterSlot::Orphaned => {
            replace(netlink, target, program).map(|()| true)
        }
        FilterSlot::Vacant => install(netlink, instance, target, program).map(|_| true),
    }
}

/// Removes ikenat's filter from an interface of this network namespace, and the clsact as
/// [`remove_unused_clsact`] does.
pub(crate) fn remove(
    netlink: &Netlink,
    instance: &Instance,
    (index, block): (u32, Block),
) -> Result<()> {
    delete_filter(netlink, (index, block))?;
    remove_unused_clsact(netlink, instance, netns::own()?, index)
}

pub(crate) fn delete_filter(netlink: &Netlink, (index, block): (u32, Block)) -> Result<()> {
    match netlink.remove_filter((index, block), FILTER_ID) {
        Ok(()) => Ok(()),
        Err(error) if is_gone(&error) => Ok(()),
        Err(error) => Err(failed("remove", &format!("interface {index}"))(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let slot = |filters: &[Filter]| classify(filters, &own, "ikenat_egress", name);
        let bpf = |id| filter(PRIORITY, HANDLE, "bpf", Some(id));
        assert_eq!(slot(&[]), FilterSlot::Vacant);
        assert_eq!(slot(&[bpf(7)]), FilterSlot::Owned);
        assert_eq!(slot(&[bpf(8)]), FilterSlot::Orphaned);
        assert_eq!(slot(&[bpf(9)]), FilterSlot::Foreign(bpf(9)));
        // Other handles of the priority do not matter, unless the kernel would refuse ikenat's beside them.
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
        let error = slot_occupied(target, &filter(PRIORITY, 0x800, "u32", None)).to_string();
        assert!(error.contains("eth1") && error.contains("u32"), "{error}");
        assert!(error.contains("0x800"), "{error}");
        assert!(error.contains("tc filter del dev eth1 egress"), "{error}");
    }
}
