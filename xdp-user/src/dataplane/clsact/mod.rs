//! The tc program as a filter in a clsact qdisc: for kernels without tcx links (before 6.6).
//!
//! A filter needs neither process nor pin, so it outlives the daemon until it is deleted. ikenat's
//! filter has a priority and handle of its own; hence there is never a second one, and its program
//! is replaced in place. It is recognised by the map that its program uses, the pinned META of the
//! instance, or by a pin of the program. That holds after a crash at any point.
//!
//! The directory of the pins has two kinds of records, written before what they describe. The
//! program is pinned as `filter-tc-wan`, `filter-egress-wan` and so on, which shows in any network
//! namespace that there are filters to find. The next program of a filter is pinned beside it as
//! `NAME-new`, and gets the name when the filter runs it. As `NAME-aside-ID` is pinned a program that
//! a filter on another interface still runs: during a move, and after starts that died (`pending`).
//! The directory `clsact-NAMESPACE-INDEX` says that ikenat added the clsact of that interface; ikenat removes it
//! with its filter if nothing else is in it.

pub mod cleanup;
pub(crate) mod pending;
pub mod pins;
pub(crate) mod slot;

use crate::bpffs::layout::Instance;
use crate::config::interfaces::{AttachTarget, HookPoint};
use crate::config::plan::Plan;
use crate::dataplane::clsact::slot::{FILTER_ID, FilterSlot, InstancePrograms};
use crate::error::{Error, Result, causes, log_clean_up, word};
use crate::failpoints::{Step, pass};
use crate::netlink::{Block, Filter, Netlink};
use crate::sys::netns;
use aya::programs::SchedClassifier;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use xdp_common::Hook;

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
            program: target.program,
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

pub(crate) fn failed(action: &str, interface: &str) -> impl FnOnce(io::Error) -> Error {
    Error::system(format!("{action} the tc filters of {interface}"))
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
            let removed = netns::own().and_then(|namespace| {
                remove_unused_clsact(netlink, instance, namespace, target.index)
            });
            log_clean_up(removed, &instance.unload_command());
            Err(not_attached(target, "cls_bpf", &error))
        }
    }
}

/// ENOENT here means that a kernel module is missing.
fn not_attached(target: FilterTarget<'_>, module: &str, error: &io::Error) -> Error {
    let mut why = word(error);
    if error.kind() == io::ErrorKind::NotFound {
        why = format!(
            "this kernel has no module {module}, which is needed without tcx (before Linux 6.6)"
        );
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
                let forgotten = netns::own()
                    .and_then(|namespace| instance.forget_clsact_record(namespace, target.index));
                log_clean_up(forgotten.map(drop), &instance.unload_command());
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
    match slot::state(netlink, target, &InstancePrograms::of(instance))? {
        FilterSlot::Orphaned => delete_filter(netlink, target.key()),
        FilterSlot::Vacant | FilterSlot::Owned(_) | FilterSlot::Foreign(_) => Ok(()),
    }
}

/// The result of restoring a filter that other software removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterRestore {
    /// The filter is installed again.
    Restored,
    /// It could not be installed, for this reason.
    Failed(String),
}

/// Restores filters that other software removed. Returns the names of their interfaces; interfaces
/// that no longer exist are skipped.
pub(crate) fn restore_filters(
    netlink: &Netlink,
    instance: &Instance,
    plan: &Plan,
) -> Vec<(String, FilterRestore)> {
    let mut results = Vec::new();
    for target in plan.attach_targets() {
        let Some(filter) = FilterTarget::of(&target) else {
            continue;
        };
        let result = match restore(netlink, instance, target.hook_point, filter) {
            Ok(false) => continue,
            Ok(true) => FilterRestore::Restored,
            Err(error) => FilterRestore::Failed(instance.named(&causes(&error))),
        };
        results.push((target.link.name.clone(), result));
    }
    results
}

/// Installs the filter from its pinned program if other software removed it. Returns true if so.
fn restore(
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
    let is_there = |f: &Filter| slot::is_in_slot(f) && f.program == pinned;
    if pinned.is_none()
        || filters.iter().any(is_there)
        || netlink.link_by_index(target.index).is_err()
    {
        return Ok(false);
    }
    let path = instance.pin(&pin);
    let failed = |error: &dyn std::error::Error| Error::Pin {
        action: "open",
        path: path.clone(),
        why: causes(error),
    };
    let program = SchedClassifier::from_pin(&path).map_err(|error| failed(&error))?;
    let program = program.fd().map_err(|error| failed(&error))?.as_fd();
    let own = InstancePrograms::of(instance);
    match slot::classify(&filters, &own, target.program) {
        FilterSlot::Foreign(filter) => Err(slot::occupied(target, &filter)),
        FilterSlot::Owned(_) | FilterSlot::Orphaned => {
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
