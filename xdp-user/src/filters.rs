//! The tc program as a filter in a clsact: what kernels before 6.6 have instead of tcx links.
//!
//! A filter needs no process and no pin to live on; so it outlives the daemon, and nothing but a delete takes it away.
//! Ours has a priority and a handle of its own, hence there is never a second one, and its program is exchanged in
//! place. It is known as ours by what its program counts into: our pinned META. That holds after a crash at any point.
//!
//! Two kinds of notes are in the directory of the pins. The program is pinned as `filter-tc-wan` and `filter-tc-lan`, so
//! that any shell sees that there are filters to be found. The directory `clsact-NAMESPACE-INDEX` says that the clsact
//! there was added by us; it goes with our filter if nothing else is in it. Both are written before what they speak of.
//!
//! It may not know which interfaces a gateway has.

use crate::error::{Error, Result, causes, word};
use crate::links;
use crate::namespaces::{self, Inside, Next};
use crate::netlink::{Block, Filter, Link, Netlink};
use crate::object::TC;
use crate::pins::{FILTERS, Instance};
use aya::maps::MapInfo;
use aya::programs::{ProgramInfo, SchedClassifier, loaded_programs};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

/// After what somebody has put first on purpose (1), before what is numbered in tens or by the kernel (49152).
const PRIORITY: u16 = 5;
/// Nobody's by accident.
const HANDLE: u32 = 0x1ce;
const SEAT: (u16, u32) = (PRIORITY, HANDLE);

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
        let pinned = FILTERS
            .iter()
            .filter_map(|(name, _)| instance.pinned_program(name).ok().flatten());
        let mut ours: Vec<u32> = pinned.collect();
        if let Ok(meta) = MapInfo::from_pin(instance.pin("META")) {
            let uses = |program: &ProgramInfo| {
                let maps = program.map_ids().ok().flatten();
                maps.is_some_and(|maps| maps.contains(&meta.id()))
            };
            let programs = loaded_programs().filter_map(Result::<_, _>::ok);
            ours.extend(programs.filter(uses).map(|program| program.id()));
        }
        Self(ours)
    }

    fn has(&self, filter: &Filter) -> bool {
        filter.program.is_some_and(|id| self.0.contains(&id))
    }
}

fn is_at_seat(filter: &Filter) -> bool {
    (filter.chain, filter.priority, filter.handle) == (0, PRIORITY, HANDLE)
}

fn seat_in(filters: &[Filter], ours: &Ours, name: impl Fn(u32) -> Option<String>) -> Seat {
    if let Some(found) = filters.iter().find(|filter| is_at_seat(filter)) {
        return match found.program {
            _ if ours.has(found) => Seat::Ours,
            Some(id) if name(id).as_deref() == Some(TC) => Seat::Orphan,
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

fn failed(action: &str, interface: &str) -> impl FnOnce(io::Error) -> Error {
    Error::system(format!("{action} the tc filters of {interface}"))
}

/// Looks who sits where our filter of a device belongs.
pub(crate) fn seat(
    netlink: &Netlink,
    (index, interface): (u32, &str),
    ours: &Ours,
) -> Result<Seat> {
    let filters = netlink
        .filters(index, Block::Ingress)
        .map_err(failed("list", interface))?;
    Ok(seat_in(&filters, ours, links::program_name))
}

/// The sentence about a filter in the way.
pub(crate) fn in_the_way(interface: &str, filter: &Filter) -> Error {
    let program = filter.program.map(|id| match links::program_name(id) {
        Some(name) => format!(", program `{name}` (id {id})"),
        None => format!(", program id {id}"),
    });
    Error::OtherFilter {
        interface: interface.to_owned(),
        filter: format!(
            "kind {}, handle {:#x}{}",
            filter.kind,
            filter.handle,
            program.unwrap_or_default()
        ),
        priority: PRIORITY,
    }
}

/// Sits down in a free seat, in a clsact that is made if there is none. True when it was made.
pub(crate) fn sit_down(
    netlink: &Netlink,
    instance: &Instance,
    (index, interface): (u32, &str),
    program: BorrowedFd<'_>,
) -> Result<bool> {
    let made = ensure_clsact(netlink, instance, index)?;
    let put = netlink.put_filter(index, SEAT, (program, TC), false);
    match put {
        Ok(()) => Ok(made),
        Err(error) => {
            remove_clsact(netlink, instance, namespaces::own()?, index)?;
            Err(Error::Attach {
                hook: "a clsact filter",
                interface: interface.to_owned(),
                why: word(&error),
            })
        }
    }
}

/// Exchanges the program of our filter.
pub(crate) fn exchange(
    netlink: &Netlink,
    (index, interface): (u32, &str),
    program: BorrowedFd<'_>,
) -> Result<()> {
    netlink
        .put_filter(index, SEAT, (program, TC), true)
        .map_err(failed("replace", interface))
}

/// The note comes first: a crash behind it leaves a note too much, which a qdisc that is not empty makes harmless.
fn ensure_clsact(netlink: &Netlink, instance: &Instance, index: u32) -> Result<bool> {
    let noted_before = instance.note_clsact(namespaces::own()?, index)?;
    match netlink.add_clsact(index) {
        Ok(()) => Ok(true),
        Err(error) => {
            if !noted_before {
                instance.forget_clsact(namespaces::own()?, index)?;
            }
            // An ingress qdisc is in the same place and takes filters as well.
            if error.kind() == io::ErrorKind::AlreadyExists {
                return Ok(false);
            }
            let action = format!("add a clsact qdisc to interface {index}");
            Err(Error::system(action)(error))
        }
    }
}

/// Removes a clsact that we have made, if nothing is in it. One that is in use by somebody else now is theirs.
pub(crate) fn remove_clsact(
    netlink: &Netlink,
    instance: &Instance,
    namespace: u64,
    index: u32,
) -> Result<()> {
    if !instance.forget_clsact(namespace, index)? {
        return Ok(());
    }
    let listed = |block| {
        let filters = netlink.filters(index, block);
        filters.map_err(failed("list", &format!("interface {index}")))
    };
    if listed(Block::Ingress)?.is_empty() && listed(Block::Egress)?.is_empty() {
        match netlink.remove_clsact(index) {
            Ok(()) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => {
                return Err(Error::system(format!(
                    "remove the clsact qdisc of interface {index}"
                ))(error));
            }
        }
    }
    Ok(())
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
pub(crate) fn remove_orphan(netlink: &Netlink, instance: &Instance, link: &Link) -> Result<()> {
    match seat(netlink, (link.index, &link.name), &Ours::of(instance))? {
        Seat::Orphan => take_away(netlink, link.index),
        Seat::Free | Seat::Ours | Seat::Other(_) => Ok(()),
    }
}

/// Puts our filter back from its pin if somebody has removed it. True when that was done.
pub(crate) fn put_back(
    netlink: &Netlink,
    instance: &Instance,
    link: &Link,
    pin: &str,
) -> Result<bool> {
    let device = (link.index, link.name.as_str());
    let filters = netlink
        .filters(link.index, Block::Ingress)
        .map_err(failed("list", &link.name))?;
    let pinned = instance.pinned_program(pin)?;
    let is_there = |f: &Filter| is_at_seat(f) && f.program == pinned;
    if pinned.is_none() || filters.iter().any(is_there) || netlink.look(link.index, None).is_err() {
        return Ok(false);
    }
    let path = instance.pin(pin);
    let failed = |error: &dyn std::error::Error| Error::Map {
        action: "open",
        name: path.display().to_string(),
        why: causes(error),
    };
    let program = SchedClassifier::from_pin(&path).map_err(|error| failed(&error))?;
    let program = program.fd().map_err(|error| failed(&error))?;
    match seat_in(&filters, &Ours::of(instance), links::program_name) {
        Seat::Other(filter) => Err(in_the_way(&link.name, &filter)),
        Seat::Ours | Seat::Orphan => exchange(netlink, device, program.as_fd()).map(|()| true),
        Seat::Free => sit_down(netlink, instance, device, program.as_fd()).map(|_| true),
    }
}

/// Removes our filter from a device of the own namespace, and the clsact as [`remove_clsact`] does.
pub(crate) fn leave(netlink: &Netlink, instance: &Instance, index: u32) -> Result<()> {
    take_away(netlink, index)?;
    remove_clsact(netlink, instance, namespaces::own()?, index)
}

fn take_away(netlink: &Netlink, index: u32) -> Result<()> {
    match netlink.remove_filter(index, SEAT) {
        Ok(()) => Ok(()),
        Err(error) if is_gone(&error) => Ok(()),
        Err(error) => Err(failed("remove", &format!("interface {index}"))(error)),
    }
}

/// Removes the filters of an instance, in whatever namespace they are, but for those of the own one that are to stay.
pub(crate) fn sweep(netlink: &Netlink, instance: &Instance, stay: &[u32]) -> Result<()> {
    let ours = Ours::of(instance);
    namespaces::visit(netlink, |inside| {
        sweep_one(inside, instance, &ours, if inside.own { stay } else { &[] })?;
        Ok(Next::GoOn)
    })
}

fn sweep_one(inside: &Inside<'_>, instance: &Instance, ours: &Ours, stay: &[u32]) -> Result<()> {
    let list = Error::system("list the qdiscs");
    for index in inside.netlink.clsacts().map_err(list)? {
        if stay.contains(&index) {
            continue;
        }
        let filters = inside
            .netlink
            .filters(index, Block::Ingress)
            .map_err(failed("list", &format!("interface {index}")))?;
        if filters.iter().any(|f| is_at_seat(f) && ours.has(f)) {
            take_away(inside.netlink, index)?;
        }
        remove_clsact(inside.netlink, instance, inside.number, index)?;
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
    indexes: [Option<u32>; 2],
) -> Result<[Option<Found>; 2]> {
    let ours = Ours::of(instance);
    let mut found = [None; 2];
    namespaces::visit(netlink, |inside| {
        for (found, index) in found.iter_mut().zip(indexes) {
            let Some(index) = index.filter(|_| found.is_none()) else {
                continue;
            };
            let filters = inside
                .netlink
                .filters(index, Block::Ingress)
                .map_err(failed("list", &format!("interface {index}")))?;
            let mut mine = filters.iter().filter(|f| is_at_seat(f) && ours.has(f));
            *found = mine.find_map(|filter| filter.program).map(|program| Found {
                program,
                here: inside.own,
            });
        }
        let all = found.iter().zip(indexes);
        let missing = all.filter(|(found, index)| index.is_some() && found.is_none());
        Ok(match missing.count() {
            0 => Next::Enough,
            _ => Next::GoOn,
        })
    })?;
    Ok(found)
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
        let name = |id: u32| (id == 8).then(|| TC.to_owned());
        let seat = |filters: &[Filter]| seat_in(filters, &ours, name);
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
        let error = in_the_way("eth1", &filter(PRIORITY, 0x800, "u32", None)).to_string();
        assert!(error.contains("eth1") && error.contains("u32"), "{error}");
        assert!(error.contains("0x800"), "{error}");
    }
}
