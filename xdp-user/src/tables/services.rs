//! SERVICE and VIP: the services that an instance translates, with numbers that outlive a start.
//!
//! The layout is that of `xdp_common::services`.

use crate::config::numbers::{NoNumber, Numbered, ServiceNumbers, assign};
use crate::config::services::Service;
use crate::error::{Result, ServiceError};
use crate::tables::meta::address;
use crate::tables::mmap::{self, Memory, ReadOnlyWord};
use crate::tables::{removal, service_record};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use xdp_common::services::{NUMBERS, flag, service, state, vip};
use xdp_core::Word;

pub use crate::tables::service_record::ServiceRecord;

/// The name of the map of services.
pub(crate) const SERVICE: &str = "SERVICE";
/// The name of the map of VIPs.
pub(crate) const VIP: &str = "VIP";

/// One record of SERVICE.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ServiceEntry {
    id: Numbered<String>,
    first_vip: u16,
    servers: Vec<IpAddr>,
    flags: u64,
    /// Of `--except-peer` and of `--deny`.
    prefixes: [u16; 2],
}

/// One record of VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
struct VipEntry {
    id: Numbered<IpAddr>,
    service: u16,
    place: u16,
}

/// The records of an instance that are not unused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Records {
    services: Vec<ServiceEntry>,
    vips: Vec<VipEntry>,
}

impl Records {
    /// Reads those of the instance whose pins are in a directory.
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let read = |name: &str| Memory::<ReadOnlyWord>::read(&directory.join(name), name);
        Ok(Self::decode(read(SERVICE)?.words(), read(VIP)?.words()))
    }

    /// Reads them from the words of both maps.
    pub(super) fn decode<W: Word>(services: &[W], vips: &[W]) -> Self {
        Self {
            services: decode(services, ServiceEntry::of),
            vips: decode(vips, VipEntry::of),
        }
    }

    /// The numbers of current services of the settings and of their IPv4 VIPs, in that order.
    pub(crate) fn numbers(&self, services: &[Service]) -> Vec<ServiceNumbers> {
        let vip_number = |vip| {
            let mut vips = self.vips.iter();
            let found = vips.find(|one| one.id.key == IpAddr::V4(vip));
            found.map(|one| one.id.number)
        };
        let of = |service: &Service| {
            let mut all = self.services.iter();
            let found = all.find(|one| one.id.key == service.name)?;
            Some(ServiceNumbers {
                service: found.id.number,
                vips: service.vips_v4().filter_map(vip_number).collect(),
            })
        };
        services.iter().filter_map(of).collect()
    }

    /// Those of the next start, with these services. Fails when one of them or of their VIPs gets no
    /// number; `unload` is the command that removes the instance.
    pub(crate) fn next(&self, services: &[ServiceRecord], unload: &str) -> Result<Self> {
        let names: Vec<String> = services.iter().map(|one| one.name.clone()).collect();
        let renamed = self.renamed(services);
        let rename = |id: &Numbered<String>| {
            let key = renamed.get(&id.key).unwrap_or(&id.key).clone();
            Numbered { key, ..id.clone() }
        };
        let before: Vec<_> = self.services.iter().map(|one| rename(&one.id)).collect();
        let service_ids = numbers(&before, &names, ("service", unload))?;
        let addresses: Vec<IpAddr> = services.iter().flat_map(|one| one.vips.clone()).collect();
        let before: Vec<_> = self.vips.iter().map(|one| one.id.clone()).collect();
        let vip_ids = numbers(&before, &addresses, ("VIP", unload))?;
        // Both lists begin with what is wanted, in that order; what is going follows.
        let mut vips = Vec::with_capacity(vip_ids.len());
        let mut current = Vec::with_capacity(service_ids.len());
        let bit = |set: bool, bit: u64| u64::from(set) * bit;
        let mut ids = vip_ids.into_iter();
        for (service, id) in services.iter().zip(&service_ids) {
            let own = ids.by_ref().take(service.vips.len()).zip(0..);
            let first = vips.len();
            vips.extend(own.map(|(vip, place)| VipEntry {
                id: vip,
                service: id.number,
                place,
            }));
            current.push(ServiceEntry {
                id: id.clone(),
                first_vip: vips.get(first).map_or(0, |vip: &VipEntry| vip.id.number),
                servers: service.servers.clone(),
                flags: bit(service.dedicated, flag::DEDICATED)
                    | bit(service.server_is_local, flag::SERVER_IS_LOCAL),
                prefixes: [service.except_peers, service.denied],
            });
        }
        let earlier = |id: &Numbered<String>| {
            let found = self.services.iter().find(|one| one.id.number == id.number);
            found.map(|one| ServiceEntry {
                id: id.clone(),
                ..one.clone()
            })
        };
        current.extend(service_ids[services.len()..].iter().filter_map(earlier));
        vips.extend(ids.filter_map(|id| {
            let found = self.vips.iter().find(|one| one.id.number == id.number);
            found.map(|one| VipEntry { id, ..*one })
        }));
        Ok(Self {
            services: current,
            vips,
        })
    }

    /// The new names, by the old ones, of services that these continue under another name.
    fn renamed(&self, services: &[ServiceRecord]) -> BTreeMap<String, String> {
        // One that was removed and comes back has a number of its own.
        let is_known = |name: &str| self.services.iter().any(|one| one.id.key == name);
        service_record::renamed(&self.current(), services, is_known)
    }

    /// The current services with the names that they have as these.
    pub(crate) fn current_as(&self, services: &[ServiceRecord]) -> Vec<ServiceRecord> {
        let renamed = self.renamed(services);
        let mut current = self.current();
        for one in &mut current {
            if let Some(name) = renamed.get(&one.name) {
                one.name.clone_from(name);
            }
        }
        current
    }

    /// These, and as going what only the next ones have: a start that dies after its programs were
    /// attached, before it is recorded what they serve, leaves entries with those numbers.
    pub(crate) fn reserving(&self, next: &Self) -> Self {
        let mut all = self.clone();
        let known: Vec<u16> = self.services.iter().map(|one| one.id.number).collect();
        let is_new = |one: &&ServiceEntry| !known.contains(&one.id.number);
        for one in next.services.iter().filter(is_new) {
            let mut new = one.clone();
            new.id.going = true;
            all.services.push(new);
        }
        let known: Vec<u16> = self.vips.iter().map(|one| one.id.number).collect();
        let is_new = |one: &&VipEntry| !known.contains(&one.id.number);
        for one in next.vips.iter().filter(is_new) {
            let mut new = one.clone();
            new.id.going = true;
            all.vips.push(new);
        }
        all
    }

    /// Writes them to the maps of an instance. All other numbers become unused.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        let open = |name: &str| {
            let map = mmap::open(&directory.join(name))?;
            Memory::<AtomicU64>::of(&map, name)
        };
        self.encode(open(SERVICE)?.words(), open(VIP)?.words());
        Ok(())
    }

    /// Writes them to the words of both maps.
    pub(super) fn encode<W: Word>(&self, services: &[W], vips: &[W]) {
        // A service names its first VIP, so the VIPs are written first.
        encode(
            vips,
            self.vips.iter().map(|one| (one.id.number, one.words())),
        );
        encode(
            services,
            self.services.iter().map(|one| (one.id.number, one.words())),
        );
    }

    /// The names of all services, also of those that were removed, by their numbers.
    pub(crate) fn names(&self) -> BTreeMap<u16, String> {
        let all = self.services.iter();
        all.map(|one| (one.id.number, one.id.key.clone())).collect()
    }

    /// The current services, in the order of their numbers.
    pub(crate) fn current(&self) -> Vec<ServiceRecord> {
        let mut current: Vec<&ServiceEntry> = self.services.iter().collect();
        current.retain(|one| !one.id.going);
        current.sort_by_key(|one| one.id.number);
        let record = |one: &ServiceEntry| ServiceRecord {
            name: one.id.key.clone(),
            vips: self.vips_of(one.id.number),
            servers: one.servers.clone(),
            server_is_local: one.flags & flag::SERVER_IS_LOCAL != 0,
            dedicated: one.flags & flag::DEDICATED != 0,
            except_peers: one.prefixes[0],
            denied: one.prefixes[1],
        };
        current.into_iter().map(record).collect()
    }

    /// The numbers of the service of a current VIP, and of the VIP.
    pub(crate) fn numbers_of(&self, vip: IpAddr) -> Option<(u16, u16)> {
        let mut vips = self.vips.iter().filter(|one| !one.id.going);
        let found = vips.find(|one| one.id.key == vip)?;
        Some((found.service, found.id.number))
    }

    /// The number of the service of a VIP with this number, also of one that was removed.
    pub(crate) fn service_of(&self, vip: u16) -> Option<u16> {
        let found = self.vips.iter().find(|one| one.id.number == vip);
        found.map(|one| one.service)
    }

    fn vips_of(&self, service: u16) -> Vec<IpAddr> {
        let all = self.vips.iter();
        let mut own: Vec<&VipEntry> = all
            .filter(|vip| vip.service == service && !vip.id.going)
            .collect();
        own.sort_by_key(|vip| vip.place);
        own.into_iter().map(|vip| vip.id.key).collect()
    }
}

fn numbers<K: Clone + Eq + Display>(
    before: &[Numbered<K>],
    wanted: &[K],
    (what, unload): (&'static str, &str),
) -> Result<Vec<Numbered<K>>> {
    let limit = u16::try_from(NUMBERS).unwrap_or(u16::MAX);
    assign(before, wanted, limit).map_err(|none| {
        let NoNumber {
            key,
            going,
            leaving,
            free,
        } = none;
        ServiceError::NoNumber {
            what,
            key: key.to_string(),
            going,
            leaving,
            free,
            seconds: removal::SECONDS,
            limit,
            unload: unload.to_owned(),
        }
        .into()
    })
}

fn decode<W: Word, T, const N: usize>(
    words: &[W],
    of: impl Fn(u16, [u64; N]) -> Option<T>,
) -> Vec<T> {
    let records = words.chunks_exact(N).zip(0..);
    let decoded = records
        .filter_map(|(record, number)| of(number, std::array::from_fn(|at| record[at].load())));
    decoded.collect()
}

/// Writes records to the words of a map. Their first words say what they are, so these are written last.
fn encode<W: Word, const N: usize>(words: &[W], records: impl Iterator<Item = (u16, [u64; N])>) {
    let (places, _) = words.as_chunks::<N>();
    let mut contents = vec![[0; N]; places.len()];
    for (number, words) in records {
        contents[usize::from(number)] = words;
    }
    for (place, content) in places.iter().zip(contents) {
        for (word, value) in place.iter().zip(content).skip(1) {
            Word::store(word, value);
        }
        place[0].publish(content[0]);
    }
}

/// The state in a first word, and the number above it.
const fn head(going: bool, number: u16) -> u64 {
    let state = if going { state::GOING } else { state::IN_USE };
    state as u64 | (number as u64) << 16
}

/// Whether a first word is that of a record that is going; `None`: it is unused.
pub(super) fn is_going(head: u64) -> Option<bool> {
    match head.to_le_bytes()[0] {
        state::IN_USE => Some(false),
        state::GOING => Some(true),
        _ => None,
    }
}

/// Sixteen bits of a first word, from this one on.
fn number_at(head: u64, bit: u32) -> u16 {
    u16::try_from(head >> bit & 0xffff).unwrap_or_default()
}

impl ServiceEntry {
    fn words(&self) -> [u64; service::WORDS] {
        let mut words = [0; service::WORDS];
        let [except, deny] = self.prefixes.map(u64::from);
        words[service::STATE] =
            head(self.id.going, self.first_vip) | self.flags | except << 32 | deny << 48;
        let mut name = [0_u8; service::NAME_BYTES];
        for (to, from) in name.iter_mut().zip(self.id.key.bytes()) {
            *to = from;
        }
        let name: [u64; service::NAME_BYTES / 8] = bytemuck::cast(name);
        words[service::NAME..][..name.len()].copy_from_slice(&name);
        for server in &self.servers {
            match server {
                IpAddr::V4(server) => {
                    words[service::SERVER_V4] = u32::from_ne_bytes(server.octets()).into();
                }
                IpAddr::V6(server) => {
                    let server: [u64; 2] = bytemuck::cast(server.octets());
                    words[service::SERVER_V6..].copy_from_slice(&server);
                }
            }
        }
        words
    }

    fn of(number: u16, words: [u64; service::WORDS]) -> Option<Self> {
        let [head, name @ .., server_v4, high, low] = words;
        let name: [u8; service::NAME_BYTES] = bytemuck::cast(name);
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let v4 = IpAddr::V4(address(server_v4));
        let v6 = IpAddr::V6(Ipv6Addr::from(bytemuck::cast::<_, [u8; 16]>([high, low])));
        let servers = [v4, v6].into_iter();
        Some(Self {
            id: Numbered {
                number,
                key: String::from_utf8_lossy(name).into_owned(),
                going: is_going(head)?,
            },
            first_vip: number_at(head, 16),
            flags: head & (flag::DEDICATED | flag::SERVER_IS_LOCAL),
            prefixes: [number_at(head, 32), number_at(head, 48)],
            servers: servers.filter(|server| !server.is_unspecified()).collect(),
        })
    }
}

impl VipEntry {
    fn words(&self) -> [u64; vip::WORDS] {
        let mut words = [0; vip::WORDS];
        words[vip::STATE] = head(self.id.going, self.service) | u64::from(self.place) << 32;
        let address = match self.id.key {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let address: [u64; 2] = bytemuck::cast(address.octets());
        words[vip::ADDRESS..][..address.len()].copy_from_slice(&address);
        words
    }

    fn of(number: u16, words: [u64; vip::WORDS]) -> Option<Self> {
        let [head, high, low, _] = words;
        let address = Ipv6Addr::from(bytemuck::cast::<_, [u8; 16]>([high, low]));
        Some(Self {
            id: Numbered {
                number,
                key: address.to_canonical(),
                going: is_going(head)?,
            },
            service: number_at(head, 16),
            place: number_at(head, 32),
        })
    }
}

#[cfg(test)]
#[path = "services_tests.rs"]
mod tests;
