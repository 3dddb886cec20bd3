//! What happens to the tables in the kernel between two packets.

use super::{Bucket, Dataplane, cpus};
use anyhow::{Context, Result};
use aya::maps::{Array, MapData};
use xdp_common::slot::{WORDS, flow};
use xdp_common::{cpu, meta};

impl Dataplane {
    /// Changes the hop words of all flows.
    ///
    /// # Errors
    /// The map cannot be read or written.
    pub fn change_hops(&mut self, mut change: impl FnMut(u64) -> u64) -> Result<()> {
        self.change_slots("FLOW", |slot| slot[flow::HOP] = change(slot[flow::HOP]))
    }

    /// Empties FLOW and SESSION, and forgets the server's next hop.
    ///
    /// # Errors
    /// A map cannot be read or written.
    pub fn forget(&mut self) -> Result<()> {
        for table in ["FLOW", "SESSION"] {
            self.change_slots(table, |slot| slot.fill(0))?;
            self.clear_cold(table)?;
        }
        for word in [
            meta::FLOW_ENTRIES,
            meta::SESSION_ENTRIES,
            meta::server_hop(0),
        ] {
            self.set_meta(word, 0)?;
        }
        Ok(())
    }

    /// Writes the word of an egress interface for every CPU. No program may run meanwhile: it
    /// copies whole blocks.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_egress(&mut self, side: usize, word: u64) -> Result<()> {
        let map = self
            .ebpf
            .map_mut("CPU")
            .context("failed to find the map CPU")?;
        let mut map: Array<&mut MapData, [u64; cpu::WORDS]> = map.try_into()?;
        for number in 0..cpus()? {
            let mut block = map.get(&number, 0)?;
            block[side] = word;
            map.set(number, block, 0)?;
        }
        Ok(())
    }

    /// Writes a word of META.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_meta(&mut self, index: usize, value: u64) -> Result<()> {
        let map = self
            .ebpf
            .map_mut("META")
            .context("failed to find the map META")?;
        let mut map: Array<&mut MapData, [u64; meta::WORDS]> = map.try_into()?;
        let mut words = map.get(&0, 0)?;
        words[index] = value;
        map.set(0, words, 0)?;
        Ok(())
    }

    /// Clears the cold halves of a table.
    fn clear_cold(&mut self, table: &str) -> Result<()> {
        let name = format!("{table}_COLD");
        let map = self.ebpf.map_mut(&name);
        let map = map.with_context(|| format!("failed to find the map {name}"))?;
        let mut map: Array<&mut MapData, [u64; WORDS]> = map.try_into()?;
        for number in 0..map.len() {
            if map.get(&number, 0)? != [0; WORDS] {
                map.set(number, [0; WORDS], 0)?;
            }
        }
        Ok(())
    }

    /// Changes the hot halves of the live slots of a table. No program may run meanwhile: it copies whole buckets.
    fn change_slots(&mut self, name: &str, mut change: impl FnMut(&mut [u64])) -> Result<()> {
        let map = self
            .ebpf
            .map_mut(name)
            .with_context(|| format!("failed to find the map {name}"))?;
        let mut map: Array<&mut MapData, Bucket> = map.try_into()?;
        for index in 0..map.len() {
            let mut bucket = map.get(&index, 0)?;
            let mut live = bucket.chunks_exact_mut(WORDS).filter(|slot| slot[0] != 0);
            if let Some(first) = live.next() {
                change(first);
                live.for_each(&mut change);
                map.set(index, bucket, 0)?;
            }
        }
        Ok(())
    }
}
