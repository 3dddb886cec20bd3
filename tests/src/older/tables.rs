//! The tables of ABI 3 to 6 with entries, and what META says of them.

use super::{Filled, Jiffies, META_WORDS, RETIRED, SLOTS, Version, WAYS, ifindex, inode};
use crate::lab::topology::{LAN, SERVER, VIP, WAN};
use anyhow::{Result, ensure};
use aya::maps::{Array, MapData};
use std::path::Path;
use xdp_common::Secret;
use xdp_core::table::Place;
use xdp_core::table::hash::pair;
use xdp_user::tables::clock;
use xdp_user::tables::mmap::Bytes;

const WORDS: usize = 16;
type Bucket = [[u64; WORDS]; WAYS as usize];
/// Bytes, as the kernel sees a value: aya has to know that a bucket is plain bytes.
type Value = Bytes<Bucket>;

/// A bucketed table that is written before programs use it.
struct Table(Vec<Bucket>);

impl Table {
    fn put(
        &mut self,
        secret: &Secret,
        kind: u64,
        (peer, spi): ([u8; 4], u32),
        words: &[(usize, u64)],
    ) {
        let key = u64::from(spi.to_be()) << 32 | u64::from(u32::from_ne_bytes(peer));
        for bucket in Place::new(pair(secret, key), SLOTS / WAYS - 1).buckets() {
            let bucket = &mut self.0[bucket as usize];
            let free = bucket
                .iter_mut()
                .zip(0_u64..)
                .find(|(slot, _)| slot[0] == 0);
            if let Some((slot, way)) = free {
                for (word, value) in words {
                    slot[*word] = *value;
                }
                // Live.
                slot[0] = 2 | way << 7 | kind << 9;
                slot[1] = key;
                return;
            }
        }
    }

    fn write(self, directory: &Path, name: &str) -> Result<u64> {
        let map = MapData::from_pin(directory.join(name))?;
        let mut map: Array<_, Value> = Array::try_from(aya::maps::Map::Array(map))?;
        let live = self.0.iter().flatten().filter(|slot| slot[0] != 0).count();
        for (index, bucket) in (0..).zip(self.0) {
            if bucket.iter().any(|slot| slot[0] != 0) {
                map.set(index, Bytes(bucket), 0)?;
            }
        }
        Ok(live as u64)
    }
}

/// A session and two SPIs of each of so many peers.
pub(super) fn fill(
    directory: &Path,
    secret: &Secret,
    peers: u32,
    (version, jiffies): (Version, Jiffies),
) -> Result<Filled> {
    let now = jiffies.now;
    // One SPI of each direction; the outbound ones were counted since ABI 4.
    let spis = match version {
        Version::Three => 1,
        Version::Four | Version::Five | Version::Six => 1 << 32 | 1,
    };
    let mut ports = 500 << 16 | 4500;
    if version == Version::Six {
        ports |= began(version, jiffies) << 32;
    }
    let empty = || Table(vec![[[0; WORDS]; WAYS as usize]; (SLOTS / WAYS) as usize]);
    let (mut flows, mut sessions) = (empty(), empty());
    let mut filled = Filled {
        peers,
        ..Filled::default()
    };
    let stamp = now & 0xffff_ffff;
    for number in 0..peers {
        let [_, a, b, c] = number.to_be_bytes();
        let peer = [100, 64 + a, b, c];
        let packets = u64::from(number % 1000) + 1;
        for (kind, spi, packets) in [(0, 0x1000_0000, packets), (1, 0x2000_0000, 2 * packets)] {
            flows.put(
                secret,
                kind,
                (peer, spi + number),
                &[
                    (4, packets),
                    (5, packets * 100),
                    (6, stamp << 32 | packets),
                    (8, now),
                    (9, 1 << 32 | 4500),
                ],
            );
            filled.packets[usize::from(kind != 0)] += packets;
        }
        sessions.put(
            secret,
            4,
            (peer, 0),
            &[(4, stamp), (5, spis), (7, ports), (8, 3), (9, 2)],
        );
    }
    let flows = flows.write(directory, "FLOW")?;
    let sessions = sessions.write(directory, "SESSION")?;
    ensure!(
        (flows, sessions) == (2 * u64::from(peers), peers.into()),
        "{flows} flows and {sessions} sessions found room"
    );
    Ok(filled)
}

/// The tick in which the sessions began. ABI 6 records it, here as ten before the first packet; of the
/// versions before it, the flows show it.
#[must_use]
pub fn began(version: Version, jiffies: Jiffies) -> u64 {
    let tick = jiffies.now >> clock::tick_shift(jiffies.rate);
    let recorded = version == Version::Six;
    tick.saturating_sub(if recorded { 10 } else { 0 }) & 0x7fff_ffff
}

/// What the daemon writes into META, and the key.
pub(super) fn describe(
    directory: &Path,
    (version, secret): (Version, &Secret),
    filled: Filled,
    jiffies: Jiffies,
) -> Result<()> {
    let map = MapData::from_pin(directory.join("META"))?;
    let mut map: Array<_, Bytes<[u64; META_WORDS]>> = Array::try_from(aya::maps::Map::Array(map))?;
    let mut meta = [0_u64; META_WORDS];
    let address = |octets| u64::from(u32::from_ne_bytes(octets));
    (meta[0], meta[1]) = (2 * u64::from(filled.peers), filled.peers.into());
    (meta[2], meta[3], meta[4]) = (version.number(), jiffies.rate, jiffies.now);
    meta[5] = clock::monotonic();
    (meta[9], meta[10]) = (address(VIP.octets()), address(SERVER.octets()));
    meta[11] = inode()?;
    if version == Version::Six {
        let map = MapData::from_pin(directory.join("SECRET"))?;
        let mut map: Array<_, Bytes<Secret>> = Array::try_from(aya::maps::Map::Array(map))?;
        map.set(0, Bytes(*secret), 0)?;
    } else {
        meta[16..32].copy_from_slice(secret);
    }
    for (at, name) in [(40, WAN), (52, LAN)] {
        let mut bytes = [0; 16];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let words: [u64; 2] = bytemuck::cast(bytes);
        meta[at] = ifindex(name)?.into();
        meta[at + 1..at + 3].copy_from_slice(&words);
    }
    (meta[64], meta[65], meta[74], meta[75]) = (RETIRED, RETIRED * 100, 1, 1);
    map.set(0, Bytes(meta), 0)?;
    Ok(())
}
