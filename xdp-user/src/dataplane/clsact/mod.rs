//! The tc program as a filter in a clsact: what kernels before 6.6 have instead of tcx links.
//!
//! A filter needs no process and no pin to live on; so it outlives the daemon, and nothing but a delete takes it away.
//! Ours has a priority and a handle of its own, hence there is never a second one, and its program is exchanged in
//! place. It is known as ours by what its program counts into: our pinned META. That holds after a crash at any point.
//!
//! Two kinds of notes are in the directory of the pins. The program is pinned as `filter-tc-wan`, `filter-egress-wan` and so
//! on, so that any shell sees that there are filters to be found. The directory `clsact-NAMESPACE-INDEX` says that the clsact
//! there was added by us; it goes with our filter if nothing else is in it. Both are written before what they speak of.
//!
//! It may not know which interfaces a gateway has.

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

/// After what somebody has put first on purpose (1), before what is numbered in tens or by the kernel (49152).
const PRIORITY: u16 = 5;
/// Nobody's by accident.
const HANDLE: u32 = 0x1ce;
const SEAT: (u16, u32) = (PRIORITY, HANDLE);

/// The block of filters of a device that ours belongs into, and what our program is called there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device<'d> {
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

impl<'d> Device<'d> {
    /// Of a place that has a filter.
    pub(crate) fn of(place: &AttachTarget<'d>) -> Option<Self> {
        Some(Self {
            index: place.link.index,
            name: &place.link.name,
            block: block(place.hook_point.hook)?,
            program: place.hook_point.program(),
        })
    }

    pub(crate) const fn key(&self) -> (u32, Block) {
        (self.index, self.block)
    }

    /// The filters that are there. It is an error when there can be none.
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

/// Who sits where our filter belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// Nobody.
    Free,
    /// Our filter.
    Ours,
    /// One of ours whose pins are gone: an XDP program of it would have been refused, and nothing can reach its tables.
    Orphan,
    /// Somebody else, in the way.
    Other(Filter),
}

/// The programs that count into the tables of an instance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ours(Vec<u32>);

impl Ours {
    /// Asks the kernel. None where there are no tables yet. To look at programs that are not pinned takes CAP_SYS_ADMIN;
    /// without it the pinned ones are known, which are all but after a crash at a certain moment.
    pub(crate) fn of(instance: &Instance) -> Self {
        let pinned = Instance::filter_pins()
            .filter_map(|name| instance.pinned_program(&name).ok().flatten());
        let mut ours: Vec<u32> = pinned.collect();
        if let Ok(meta) = MapInfo::from_pin(instance.pin("META")) {
            ours.extend(bpf_query::programs_using_map(meta.id()));
        }
        Self(ours)
    }

    /// Whether a filter is at our seat and runs one of them.
    pub(crate) fn sits_in(&self, filter: &Filter) -> bool {
        is_at_seat(filter) && filter.program.is_some_and(|id| self.0.contains(&id))
    }
}

fn is_at_seat(filter: &Filter) -> bool {
    (filter.chain, filter.priority, filter.handle) == (0, PRIORITY, HANDLE)
}

fn seat_in(
    filters: &[Filter],
    ours: &Ours,
    program: &str,
    name: impl Fn(u32) -> Option<String>,
) -> Seat {
    if let Some(found) = filters.iter().find(|filter| is_at_seat(filter)) {
        return match found.program {
            _ if ours.sits_in(found) => Seat::Ours,
            Some(id) if name(id).as_deref() == Some(program) => Seat::Orphan,
            Some(_) | None => Seat::Other(found.clone()),
        };
    }
    // All filters of a priority are of one kind and one protocol.
    let mut others = filters
        .iter()
        .filter(|filter| filter.chain == 0 && filter.priority == PRIORITY);
    match others.find(|filter| filter.kind != "bpf" || !filter.all_protocols) {
        Some(other) => Seat::Other(other.clone()),
        None => Seat::Free,
    }
}

pub(crate) fn failed(action: &str, interface: &str) -> impl FnOnce(io::Error) -> Error {
    Error::system(format!("{action} the tc filters of {interface}"))
}

/// Looks who sits where our filter of a device belongs.
pub(crate) fn seat(netlink: &Netlink, device: Device<'_>, ours: &Ours) -> Result<Seat> {
    let filters = device.filters(netlink)?;
    Ok(seat_in(
        &filters,
        ours,
        device.program,
        bpf_query::program_name,
    ))
}

/// The sentence about a filter in the way.
pub(crate) fn in_the_way(device: Device<'_>, filter: &Filter) -> Error {
    let program = filter.program.map(|id| match bpf_query::program_name(id) {
        Some(name) => format!(", program `{name}` (id {id})"),
        None => format!(", program id {id}"),
    });
    Error::OtherFilter {
        interface: device.name.to_owned(),
        filter: format!(
            "kind {}, handle {:#x}{}",
            filter.kind,
            filter.handle,
            program.unwrap_or_default()
        ),
        block: device.block.name(),
        priority: PRIORITY,
    }
}

/// Sits down in a free seat, in a clsact that is made if there is none. True when it was made.
pub(crate) fn sit_down(
    netlink: &Netlink,
    instance: &Instance,
    device: Device<'_>,
    program: BorrowedFd<'_>,
) -> Result<bool> {
    let made = ensure_clsact(netlink, instance, device)?;
    pass(Step::ClsactMade)?;
    let put = netlink.put_filter(device.key(), SEAT, (program, device.program), false);
    match put {
        Ok(()) => Ok(made),
        Err(error) => {
            remove_clsact(netlink, instance, netns::own()?, device.index)?;
            Err(not_attached(device, "cls_bpf", &error))
        }
    }
}

/// What the kernel does not find is a module.
fn not_attached(device: Device<'_>, module: &str, error: &io::Error) -> Error {
    let mut why = word(error);
    if error.kind() == io::ErrorKind::NotFound {
        why = format!("this kernel has no module {module}, which it takes without tcx (Linux 6.6)");
    }
    Error::Attach {
        hook: "a clsact filter",
        interface: device.name.to_owned(),
        why,
    }
}

/// Exchanges the program of our filter.
pub(crate) fn exchange(
    netlink: &Netlink,
    device: Device<'_>,
    program: BorrowedFd<'_>,
) -> Result<()> {
    netlink
        .put_filter(device.key(), SEAT, (program, device.program), true)
        .map_err(failed("replace", device.name))
}

/// The note comes first: a crash behind it leaves a note too much, which a qdisc that is not empty makes harmless.
fn ensure_clsact(netlink: &Netlink, instance: &Instance, device: Device<'_>) -> Result<bool> {
    let noted_before = instance.note_clsact(netns::own()?, device.index)?;
    pass(Step::ClsactNoted)?;
    match netlink.add_clsact(device.index) {
        Ok(()) => Ok(true),
        Err(error) => {
            // An ingress qdisc is in the same place and takes filters as well, but only for what comes in.
            let is_there = error.kind() == io::ErrorKind::AlreadyExists;
            if !noted_before {
                instance.forget_clsact(netns::own()?, device.index)?;
            }
            if is_there {
                return Ok(false);
            }
            Err(not_attached(device, "sch_ingress", &error))
        }
    }
}

/// Removes a clsact that we have made, if nothing is in it. While a filter of ours is, it stays ours; one that is in use
/// by somebody else is theirs from now on.
pub(crate) fn remove_clsact(
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
    let ours = Ours::of(instance);
    if left.iter().any(|filter| ours.sits_in(filter))
        || !instance.forget_clsact(namespace, index)?
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

/// No such filter, qdisc or device any more: what was wanted.
fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let gone = [Errno::NOENT, Errno::NODEV, Errno::INVAL];
    error
        .raw_os_error()
        .is_some_and(|code| gone.iter().any(|gone| gone.raw_os_error() == code))
}

/// Removes a filter that an instance has left whose pins are gone. Where tcx is used nothing else would meet it.
pub(crate) fn remove_orphan(
    netlink: &Netlink,
    instance: &Instance,
    device: Device<'_>,
) -> Result<()> {
    match seat(netlink, device, &Ours::of(instance))? {
        Seat::Orphan => take_away(netlink, device.key()),
        Seat::Free | Seat::Ours | Seat::Other(_) => Ok(()),
    }
}

/// Puts our filter back from its pin if somebody has removed it. True when that was done.
pub(crate) fn put_back(
    netlink: &Netlink,
    instance: &Instance,
    hook_point: HookPoint,
    device: Device<'_>,
) -> Result<bool> {
    let Some(pin) = hook_point.filter_pin() else {
        return Ok(false);
    };
    let filters = device.filters(netlink)?;
    let pinned = instance.pinned_program(&pin)?;
    let is_there = |f: &Filter| is_at_seat(f) && f.program == pinned;
    if pinned.is_none()
        || filters.iter().any(is_there)
        || netlink.link_by_index(device.index).is_err()
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
    let ours = Ours::of(instance);
    match seat_in(&filters, &ours, device.program, bpf_query::program_name) {
        Seat::Other(filter) => Err(in_the_way(device, &filter)),
        Seat::Ours | Seat::Orphan => exchange(netlink, device, program).map(|()| true),
        Seat::Free => sit_down(netlink, instance, device, program).map(|_| true),
    }
}

/// Removes our filter from a device of the own namespace, and the clsact as [`remove_clsact`] does.
pub(crate) fn leave(
    netlink: &Netlink,
    instance: &Instance,
    (index, block): (u32, Block),
) -> Result<()> {
    take_away(netlink, (index, block))?;
    remove_clsact(netlink, instance, netns::own()?, index)
}

pub(crate) fn take_away(netlink: &Netlink, (index, block): (u32, Block)) -> Result<()> {
    match netlink.remove_filter((index, block), SEAT) {
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
    fn only_what_counts_into_our_tables_is_ours() {
        let ours = Ours(vec![7]);
        let name = |id: u32| (id == 8).then(|| "ikenat_egress".to_owned());
        let seat = |filters: &[Filter]| seat_in(filters, &ours, "ikenat_egress", name);
        let bpf = |id| filter(PRIORITY, HANDLE, "bpf", Some(id));
        assert_eq!(seat(&[]), Seat::Free);
        assert_eq!(seat(&[bpf(7)]), Seat::Ours);
        assert_eq!(seat(&[bpf(8)]), Seat::Orphan);
        assert_eq!(seat(&[bpf(9)]), Seat::Other(bpf(9)));
        // Beside ours there is room, unless the kernel could not put ours there.
        let beside = filter(PRIORITY, 1, "bpf", Some(9));
        assert_eq!(seat(std::slice::from_ref(&beside)), Seat::Free);
        let other_kind = filter(PRIORITY, 1, "u32", None);
        assert_eq!(
            seat(std::slice::from_ref(&other_kind)),
            Seat::Other(other_kind)
        );
        let one_protocol = Filter {
            all_protocols: false,
            ..beside
        };
        assert_eq!(
            seat(std::slice::from_ref(&one_protocol)),
            Seat::Other(one_protocol)
        );
        let elsewhere = [
            filter(PRIORITY + 1, HANDLE, "u32", None),
            Filter { chain: 1, ..bpf(9) },
        ];
        assert_eq!(seat(&elsewhere), Seat::Free);
    }

    #[test]
    fn a_filter_in_the_way_is_named() {
        let device = Device {
            index: 7,
            name: "eth1",
            block: Block::Egress,
            program: "ikenat_egress",
        };
        let error = in_the_way(device, &filter(PRIORITY, 0x800, "u32", None)).to_string();
        assert!(error.contains("eth1") && error.contains("u32"), "{error}");
        assert!(error.contains("0x800"), "{error}");
        assert!(error.contains("tc filter del dev eth1 egress"), "{error}");
    }
}
