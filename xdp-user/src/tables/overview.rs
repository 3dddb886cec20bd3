//! What an instance records about itself, its counters, and how full its tables are: everything
//! but the entries of FLOW and SESSION, which may take gigabytes.

use crate::config::commands::unload_command;
use crate::config::interfaces::Interface;
use crate::config::settings::Mode;
use crate::error::{Error, InstanceError, Result};
use crate::tables::clock::{self, Clock, Moment};
use crate::tables::meta::{absent, check_version, index_and_name};
use crate::tables::mmap::{FLOW, Memory, ReadOnlyWord, SESSION, pinned_bytes};
use crate::tables::records::halves;
use crate::tables::services::{Records, ServiceRecord};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::{fs, io};
use xdp_common::counters::Counters;
use xdp_common::limits::{FRAGMENT_TICKS, HOST_PEER_TICKS, UNAUTHENTICATED_TICKS};
use xdp_common::slot::{self, recent};
use xdp_common::{Hook, meta};
use xdp_core::Word;

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableUsage {
    /// Its name.
    pub name: &'static str,
    /// Entries now.
    pub entries: u64,
    /// Entries at most.
    pub limit: u64,
    /// Bytes of memory.
    pub bytes: u64,
}

/// An interface, as META records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceRecord {
    /// Its side and number.
    pub interface: Interface,
    /// Its index.
    pub index: u32,
    /// Its name when it was attached.
    pub name: String,
    /// How its XDP program runs.
    pub mode: Mode,
    /// Whether it accepts frames from XDP.
    pub ready: bool,
    /// Packets lost after the redirect to it.
    pub lost: u64,
}

/// An instance without its entries.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The services, in the order of their numbers.
    pub services: Vec<ServiceRecord>,
    /// The names by the numbers, also of services that were removed and still have entries.
    pub service_names: BTreeMap<u16, String>,
    /// Its settings, as bits ([`meta::FLAGS`]).
    pub flags: u64,
    /// The number of the network namespace of the interfaces.
    pub namespace: u64,
    /// Identifies the set of tables: `CLOCK_MONOTONIC` in microseconds when they were created. A
    /// restart of the daemon keeps it, new tables have another one.
    pub generation: u64,
    /// WANs and LANs.
    pub interfaces: Vec<InterfaceRecord>,
    /// WANs and LANs that did not exist when the others were attached.
    pub absent: Vec<(Interface, String)>,
    /// Counters of each hook.
    pub counters: [Counters; Hook::ALL.len()],
    /// The tables that this user may read.
    pub tables: Vec<TableUsage>,
    /// The peers of the host itself, the latest first.
    pub host_peers: Vec<HostPeer>,
}

/// A peer of the host itself, which the egress program has learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPeer {
    /// The number of the service to whose VIP its packets come, if that VIP has a record.
    pub service: Option<u16>,
    /// Its address.
    pub peer: Ipv4Addr,
    /// Its UDP port, and the VIP's; `None`: native ESP.
    pub ports: Option<(u16, u16)>,
    /// Seconds since the host has sent something to it.
    pub age_secs: u64,
}

/// The clock of the dataplane.
pub(super) fn clock_of<W: Word>(meta: &[W]) -> Clock {
    let anchor = Moment {
        jiffies: meta[meta::JIFFIES].load(),
        monotonic: meta[meta::MONOTONIC].load(),
    };
    Clock::new(meta[meta::HZ].load(), anchor)
}

/// The tick of a moment in jiffies, as the entries of HALF, FRAGMENT and HOSTPEER have it.
pub(super) fn tick(clock: &Clock, now: u64) -> u16 {
    u16::try_from(now >> clock::tick_shift(clock.rate()) & 0xffff).unwrap_or_default()
}

impl Overview {
    /// The entries of a table.
    pub fn entries(&self, name: &str) -> u64 {
        let found = self.tables.iter().find(|table| table.name == name);
        found.map_or(0, |table| table.entries)
    }

    /// The name of the service with this number, which an entry has.
    pub fn service_name(&self, number: u16) -> &str {
        self.service_names.get(&number).map_or("?", String::as_str)
    }

    /// Reads the tables that are pinned in the directory of an instance.
    pub fn take(directory: &Path, instance: &str) -> Result<Self> {
        let meta = read_meta(directory, instance)?;
        let half = Memory::read_if_allowed(&directory.join("HALF"), "HALF")?;
        Self::of(directory, &meta, half.as_ref())
    }

    /// The same with META, and with HALF if this user may read it.
    pub(super) fn of(
        directory: &Path,
        meta: &Memory<ReadOnlyWord>,
        half: Option<&Memory<ReadOnlyWord>>,
    ) -> Result<Self> {
        let memory = |name: &str| Memory::<ReadOnlyWord>::read(&directory.join(name), name);
        let meta = meta.words();
        let cpu = memory("CPU")?;
        let host_peer = memory("HOSTPEER")?;
        let records = Records::read(directory)?;
        Ok(Self {
            services: records.current(),
            service_names: records.names(),
            flags: meta[meta::FLAGS].load(),
            namespace: meta[meta::NAMESPACE].load(),
            generation: meta[meta::MONOTONIC].load() / 1_000,
            interfaces: interfaces(meta, &cpu),
            absent: Interface::all()
                .filter_map(|interface| Some((interface, absent(meta, interface)?)))
                .collect(),
            counters: cpu.counters(),
            host_peers: host_peers(host_peer.words(), &clock_of(meta), &records),
            tables: table_usages(directory, meta, half, &host_peer)?,
        })
    }
}

fn unfinished(directory: &Path, instance: &str) -> Error {
    let instance = instance.to_owned();
    let unload = unload_command(directory);
    InstanceError::Unfinished { instance, unload }.into()
}

/// META of an instance whose tables are complete and of this version.
pub(super) fn read_meta(directory: &Path, instance: &str) -> Result<Memory<ReadOnlyWord>> {
    let path = directory.join("META");
    let is_missing = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
    if fs::symlink_metadata(&path).is_err_and(is_missing) {
        return Err(unfinished(directory, instance));
    }
    let meta = Memory::<ReadOnlyWord>::read(&path, "META")?;
    let version = meta.words()[meta::VERSION].load();
    // It is written last.
    if version == 0 {
        return Err(unfinished(directory, instance));
    }
    let word = |at: usize| meta.words().get(at).map_or(0, Word::load);
    check_version(directory, instance, word)?;
    Ok(meta)
}

fn interfaces(meta: &[ReadOnlyWord], cpu: &Memory<ReadOnlyWord>) -> Vec<InterfaceRecord> {
    let generic = meta[meta::GENERIC].load();
    let read = |interface: Interface| {
        let (index, name) = index_and_name(meta, interface)?;
        Some(InterfaceRecord {
            interface,
            index,
            name,
            mode: Mode::of(generic & interface.generic() != 0),
            ready: cpu.egress(interface.egress()) != 0,
            lost: meta[interface.lost()].load(),
        })
    };
    Interface::all().filter_map(read).collect()
}

/// The entries of HALF, FRAGMENT or HOSTPEER that are not older than a limit: the age in ticks, and
/// the peer in the details.
pub(super) fn young<W: Word>(words: &[W], tick: u16, limit: u16) -> Vec<(u16, Option<Ipv4Addr>)> {
    let (entries, _) = words.as_chunks::<{ recent::WORDS }>();
    entries
        .iter()
        .filter_map(|entry| {
            let digest = entry[recent::DIGEST].load();
            let age = tick.wrapping_sub(u16::try_from(digest & 0xffff).unwrap_or_default());
            let details = [
                entry[recent::DETAILS].load(),
                slot::half::peer_word(entry[recent::DETAILS + 1].load()),
            ];
            let peer = slot::peer_address(details).map(Ipv4Addr::from);
            (digest != 0 && age <= limit).then_some((age, peer))
        })
        .collect()
}

/// The entries of HOSTPEER that count, the latest first.
fn host_peers(words: &[ReadOnlyWord], clock: &Clock, records: &Records) -> Vec<HostPeer> {
    let shift = clock::tick_shift(clock.rate());
    let now = clock.now() >> shift;
    let (entries, _) = words.as_chunks::<{ recent::WORDS }>();
    let mut peers: Vec<HostPeer> = entries
        .iter()
        .filter_map(|entry| {
            let detail = |at: usize| entry[recent::DETAILS + at].load();
            let tick = slot::host_peer::tick(detail(2));
            let (_, ports) = halves(detail(2));
            // An entry that was written since the clock was read is no older than now.
            let age = now.saturating_sub(tick);
            let is_used = entry[recent::DIGEST].load() != 0
                && age <= HOST_PEER_TICKS.into()
                && ports != slot::host_peer::ANY_UDP;
            let peer = slot::host_peer::peer(detail(1)).filter(|_| is_used)?;
            let vip = u16::try_from(detail(0)).ok();
            Some(HostPeer {
                service: vip.and_then(|vip| records.service_of(vip)),
                peer: peer.into(),
                ports: (ports != 0).then_some(slot::host_peer::split(ports)),
                age_secs: (age << shift) / clock.rate().max(1),
            })
        })
        .collect();
    peers.sort_by_key(|peer| (peer.age_secs, peer.peer, peer.ports));
    peers
}

/// How full the tables are that this user may read.
fn table_usages(
    directory: &Path,
    meta: &[ReadOnlyWord],
    half: Option<&Memory<ReadOnlyWord>>,
    host_peer: &Memory<ReadOnlyWord>,
) -> Result<Vec<TableUsage>> {
    let clock = clock_of(meta);
    let tick = tick(&clock, clock.now());
    let slots = |[name, cold]: [&'static str; 2], entries: usize| -> Result<TableUsage> {
        let bytes = |name| pinned_bytes(&directory.join(name), name);
        let hot = bytes(name)?;
        Ok(TableUsage {
            name,
            entries: meta[entries].load(),
            limit: hot / size_of::<[u64; slot::WORDS]>() as u64 / 2,
            bytes: hot + bytes(cold)?,
        })
    };
    let recent = |name: &'static str, memory: &Memory<ReadOnlyWord>, limit: u16| {
        let words = memory.words();
        TableUsage {
            name,
            entries: young(words, tick, limit).len() as u64,
            limit: (words.len() / recent::WORDS) as u64,
            bytes: size_of_val(words) as u64,
        }
    };
    let fragment = Memory::read_if_allowed(&directory.join("FRAGMENT"), "FRAGMENT")?;
    let fragment = fragment.map(|memory| recent("FRAGMENT", &memory, FRAGMENT_TICKS));
    let pin = Memory::read_if_allowed(&directory.join("PIN"), "PIN")?;
    let mut usages = vec![
        slots(FLOW, meta::FLOW_ENTRIES)?,
        slots(SESSION, meta::SESSION_ENTRIES)?,
    ];
    usages.extend(half.map(|memory| recent("HALF", memory, UNAUTHENTICATED_TICKS)));
    usages.extend(pin.map(|memory| pin_usage(&memory, tick)));
    usages.extend(fragment);
    usages.push(recent("HOSTPEER", host_peer, HOST_PEER_TICKS));
    usages.push(nexthop_usage(directory)?);
    Ok(usages)
}

/// An entry of PIN counts for as long as its owner says.
fn pin_usage(memory: &Memory<ReadOnlyWord>, tick: u16) -> TableUsage {
    let words = memory.words();
    TableUsage {
        name: "PIN",
        entries: pins(words, tick) as u64,
        limit: (words.len() / recent::WORDS) as u64,
        bytes: size_of_val(words) as u64,
    }
}

fn pins<W: Word>(words: &[W], tick: u16) -> usize {
    let (entries, _) = words.as_chunks::<{ recent::WORDS }>();
    let counts = |entry: &&[W; recent::WORDS]| {
        let (digest, owner) = (entry[recent::DIGEST].load(), entry[recent::DETAILS].load());
        let age = tick.wrapping_sub(u16::try_from(digest & 0xffff).unwrap_or_default());
        digest != 0 && age <= slot::pin::limit(owner)
    };
    entries.iter().filter(counts).count()
}

fn nexthop_usage(directory: &Path) -> Result<TableUsage> {
    let hops = Memory::<ReadOnlyWord>::read(&directory.join("NEXTHOP"), "NEXTHOP")?;
    let (entries, _) = hops.words().as_chunks::<{ slot::nexthop::WORDS }>();
    let used = entries
        .iter()
        .filter(|hop| hop[slot::nexthop::KEY].load() != 0);
    Ok(TableUsage {
        name: "NEXTHOP",
        entries: used.count() as u64,
        limit: entries.len() as u64,
        bytes: size_of_val(hops.words()) as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use xdp_common::limits::{PIN_CONNECTION_TICKS, PIN_TICKS};

    #[test]
    fn a_pin_counts_for_as_long_as_its_owner_says() {
        let (tick, peer) = (3_u16, 0x0a71_00cb);
        let of_peer = slot::pin::owner(peer, 1);
        let of_connection = slot::pin::connection(peer, 4500, 1);
        let mut words = [0_u64; 5 * recent::WORDS];
        let pins_with_age = [
            (of_peer, PIN_TICKS),
            (of_peer, PIN_TICKS + 1),
            (of_connection, PIN_CONNECTION_TICKS),
            (of_connection, PIN_CONNECTION_TICKS + 1),
        ];
        // The last one is empty.
        for (at, (owner, age)) in pins_with_age.into_iter().enumerate() {
            let at = at * recent::WORDS;
            words[at + recent::DIGEST] = 0xabcd_0000 | u64::from(tick.wrapping_sub(age));
            words[at + recent::DETAILS] = owner;
        }
        assert_eq!(pins(&words.map(AtomicU64::new), tick), 2);
    }
}
