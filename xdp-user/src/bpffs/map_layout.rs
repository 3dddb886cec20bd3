//! What a pinned map must look like before it is reused.

use crate::config::settings::Sizes;
use crate::error::{Error, Result};
use crate::tables::secret::SECRET;
use crate::tables::services::{SERVICE, VIP};
use aya::maps::{MapInfo, MapType};
use xdp_common::services::{NUMBERS, service, vip};
use xdp_common::{Secret, cpu, limits, meta, slot};

/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;

/// What a map must look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    /// Its name: of the map and of the pin.
    pub name: &'static str,
    /// Its type.
    pub kind: MapType,
    /// Bytes of a value.
    pub value_size: usize,
    /// Number of values.
    pub max_entries: u32,
    /// Flags.
    pub flags: u32,
}

const WORD: usize = size_of::<u64>();

/// Words of a bucket of FLOW or SESSION: the hot halves.
const BUCKET: usize = slot::WAYS * slot::WORDS;

impl Sizes {
    /// The layouts of all pinned maps.
    pub fn layouts(&self) -> Result<[Layout; 15]> {
        let cpus = aya::util::nr_cpus().map_err(|(path, error)| {
            Error::system(format!("read the number of CPUs from {path}"))(error)
        })?;
        const WAYS: u32 = 4;
        let mapped = |name, words: usize, max_entries| Layout {
            name,
            kind: MapType::Array,
            value_size: words * WORD,
            max_entries,
            flags: MMAPABLE,
        };
        Ok([
            mapped("FLOW", BUCKET, self.flow_slots / WAYS),
            mapped("FLOW_COLD", slot::WORDS, self.flow_slots),
            mapped("SESSION", BUCKET, self.session_slots / WAYS),
            mapped("SESSION_COLD", slot::WORDS, self.session_slots),
            mapped("HALF", slot::recent::BUCKET_WORDS, limits::HALF_BUCKETS),
            mapped("PIN", slot::recent::BUCKET_WORDS, limits::PIN_BUCKETS),
            mapped(
                "FRAGMENT",
                slot::recent::BUCKET_WORDS,
                limits::FRAGMENT_BUCKETS,
            ),
            mapped(
                "HOSTPEER",
                slot::recent::BUCKET_WORDS,
                limits::HOST_PEER_BUCKETS,
            ),
            mapped("NEXTHOP", slot::nexthop::WORDS, limits::NEXTHOPS),
            mapped("LIMIT", 1, limits::ICMP_BUCKETS),
            mapped("META", meta::WORDS, 1),
            mapped(SERVICE, service::WORDS, NUMBERS),
            mapped(VIP, vip::WORDS, NUMBERS),
            mapped(SECRET, size_of::<Secret>() / WORD, 1),
            mapped("CPU", cpu::WORDS, u32::try_from(cpus).unwrap_or(u32::MAX)),
        ])
    }
}

impl Layout {
    /// The flags of maps that user space maps into memory.
    pub(super) const MMAPABLE: u32 = MMAPABLE;

    /// How a pinned map differs; `None` when it is as it should be.
    pub(super) fn difference(&self, found: &MapInfo) -> Option<String> {
        let kind = found.map_type().ok();
        if kind != Some(self.kind) {
            return Some(format!(
                "it is a map of type {kind:?} instead of {:?}",
                self.kind
            ));
        }
        let numbers = [
            ("keys of {} bytes instead of {}", found.key_size(), 4),
            (
                "values of {} bytes instead of {}",
                found.value_size(),
                u32::try_from(self.value_size).unwrap_or(u32::MAX),
            ),
            ("flags {} instead of {}", found.map_flags(), self.flags),
            (
                "{} entries instead of the {} asked for, and the size of a live table cannot change",
                found.max_entries(),
                self.max_entries,
            ),
        ];
        let differs = numbers.into_iter().find(|(_, is, should)| is != should);
        differs.map(|(text, is, should)| {
            let text = text.replacen("{}", &is.to_string(), 1);
            format!("it has {}", text.replacen("{}", &should.to_string(), 1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_are_those_of_the_abi() {
        let layouts = Sizes {
            flow_slots: 1 << 16,
            session_slots: 1 << 15,
        }
        .layouts()
        .expect("the number of CPUs");
        let of = |name: &str| {
            let found = layouts.iter().find(|layout| layout.name == name);
            found.map(|layout| (layout.value_size, layout.max_entries))
        };
        assert_eq!(of("FLOW"), Some((256, 1 << 14)));
        assert_eq!(of("FLOW_COLD"), Some((64, 1 << 16)));
        assert_eq!(of("SESSION"), Some((256, 1 << 13)));
        assert_eq!(of("SESSION_COLD"), Some((64, 1 << 15)));
        assert_eq!(of("META"), Some((8192, 1)));
        assert_eq!(of("HALF"), Some((128, 1 << 12)));
    }
}
