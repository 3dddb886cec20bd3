//! The memory of the tables, and how full they can be.

use super::gateway::{Size, fill, secret, sized};
use super::rounds::Random;
use crate::results::{BLoad, BMemory};
use anyhow::{Context, Result};
use aya::EbpfLoader;
use aya::maps::Map;
use ikenat_tests::bpf::tables::SlotTable;
use ikenat_tests::bpf::{Object, slots};
use std::os::fd::{AsFd as _, AsRawFd as _};
use xdp_common::slot::{self, Key, WAYS};
use xdp_common::{Class, Config, Direction};
use xdp_user::tables::mmap::{FLOW, SESSION};

/// Capacities of the tables, in flows.
const SIZES: [u64; 6] = [1 << 15, 1 << 16, 1 << 17, 1 << 18, 1 << 19, 1 << 20];
/// Buckets of the table that is filled: a million slots.
const BUCKETS: u32 = 1 << 18;

/// The bytes of FLOW and SESSION at several sizes, as the kernel accounts them. SESSION has half as
/// many slots as FLOW, as by default: a tunnel has two flows and one peer.
///
/// # Errors
/// The kernel refuses such a map.
pub(super) fn memory() -> Result<Vec<BMemory>> {
    let mut rows = Vec::new();
    for flows in SIZES {
        let config: Config = sized(Config::ZERO, Size::HalfLoad, flows, flows / 2)?;
        let ebpf = EbpfLoader::new()
            .override_global("CONFIG", bytemuck::bytes_of(&config), true)
            .map_max_entries("FLOW", config.flow_mask + 1)
            .map_max_entries("FLOW_COLD", slots(config.flow_mask))
            .map_max_entries("SESSION", config.session_mask + 1)
            .map_max_entries("SESSION_COLD", slots(config.session_mask))
            .load_file(Object::Usual.path()?)
            .context("failed to load the object")?;
        let mut bytes = 0;
        for name in [FLOW, SESSION].into_iter().flatten() {
            let map = ebpf
                .map(name)
                .with_context(|| format!("failed to find {name}"))?;
            bytes += accounted(map).with_context(|| format!("failed to weigh {name}"))?;
        }
        rows.push(BMemory { flows, bytes });
    }
    Ok(rows)
}

/// The memory of an array according to `/proc/self/fdinfo`.
fn accounted(map: &Map) -> Result<u64> {
    let Map::Array(data) = map else {
        anyhow::bail!("it is not an array");
    };
    let path = format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd());
    let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    let line = line.with_context(|| format!("failed to find memlock in {path}"))?;
    Ok(line.trim().parse()?)
}

/// The number of keys that find no slot, at loads from a tenth to nine tenths of a million slots.
pub(super) fn loads() -> Vec<BLoad> {
    let mut rows = Vec::new();
    let mut random = Random::new(5);
    #[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
    let mut random_key = || {
        let number = random.next();
        (number as u32, (number >> 32) as u32)
    };
    fill_up("random", &mut rows, |_| random_key());
    fill_up("sequential", &mut rows, |number| {
        (0x0a00_0000 + number, 0x1000 + number)
    });
    rows
}

/// Inserts keys until nine tenths of the slots would be full, and records the result at every
/// tenth.
fn fill_up(kind: &str, rows: &mut Vec<BLoad>, mut peer_and_spi: impl FnMut(u32) -> (u32, u32)) {
    let table = SlotTable::new(BUCKETS);
    let secret = secret(3);
    let slots = u64::from(BUCKETS) * WAYS as u64;
    let mut next = 0_u32;
    let mut without_slot = 0;
    for tenth in 1..=9_u32 {
        let keys = slots * u64::from(tenth) / 10;
        let more = std::iter::from_fn(|| {
            (u64::from(next) < keys).then(|| {
                let (peer, spi) = peer_and_spi(next);
                next += 1;
                key(peer, spi)
            })
        });
        without_slot += fill(table.arrays(), &secret, more, |_| ());
        rows.push(BLoad {
            kind: kind.to_owned(),
            load: f64::from(tenth) / 10.0,
            keys,
            without_slot,
        });
    }
}

fn key(peer: u32, spi: u32) -> Key {
    let peer = peer.to_be_bytes();
    slot::flow_key(peer, spi, Class::EspInUdp, Direction::Inbound, 0)
}

#[cfg(test)]
mod tests {
    use super::super::gateway::buckets;
    use super::*;

    #[test]
    fn sizes_are_two_slots_a_flow() -> Result<()> {
        assert_eq!(buckets(1 << 20, 4)? as usize * WAYS, 2 << 20);
        assert_eq!(buckets(1, 1 << 16)? as usize * WAYS, 1 << 16);
        Ok(())
    }
}
