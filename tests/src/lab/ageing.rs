//! Makes the entries of an instance older than they are, so that a test does not wait for minutes.

use std::sync::atomic::AtomicU64;

use anyhow::Result;
use xdp_common::meta;
use xdp_common::slot::{STATE, flow, recent, session};
use xdp_core::Word;
use xdp_core::table::{Slot, State};
use xdp_user::tables::clock;
use xdp_user::tables::mmap::{Memory, Tables, open};

use super::topology::Lab;

impl Lab {
    /// Moves the last packet of every SPI and every peer this many seconds into the past.
    pub fn age_entries(&self, seconds: u32) -> Result<()> {
        let directory = self.pins();
        let tables = Tables::<AtomicU64>::open(&directory)?;
        let jiffies = u64::from(seconds) * Word::load(tables.meta(meta::HZ));
        let live = |slot: &&Slot<AtomicU64>| State::of(Word::load(&slot[STATE])) == State::Live;
        for slot in tables.flow.arrays().hot().iter().filter(live) {
            let seen = Word::load(&slot[flow::SEEN]);
            Word::store(&slot[flow::SEEN], seen.wrapping_sub(jiffies << 32));
        }
        for slot in tables.session.arrays().hot().iter().filter(live) {
            let seen = Word::load(&slot[session::LAST_SEEN]);
            let aged = seen.wrapping_sub(jiffies) & 0xffff_ffff;
            Word::store(&slot[session::LAST_SEEN], aged);
        }
        Ok(())
    }

    /// Moves the last packet to every peer of the host itself this many seconds into the past.
    pub fn age_host_peers(&self, seconds: u32) -> Result<()> {
        let directory = self.pins();
        let meta = Memory::<AtomicU64>::of(&open(&directory.join("META"))?, "META")?;
        let rate = Word::load(&meta.words()[meta::HZ]);
        let ticks = (u64::from(seconds) * rate) >> clock::tick_shift(rate);
        let table = Memory::<AtomicU64>::of(&open(&directory.join("HOSTPEER"))?, "HOSTPEER")?;
        let (entries, _) = table.words().as_chunks::<{ recent::WORDS }>();
        for entry in entries {
            let digest = Word::load(&entry[recent::DIGEST]);
            if digest != 0 {
                let tick = digest.wrapping_sub(ticks) & 0xffff;
                Word::store(&entry[recent::DIGEST], digest & !0xffff | tick);
                let ports = &entry[recent::DETAILS + 2];
                Word::store(ports, Word::load(ports).wrapping_sub(ticks << 32));
            }
        }
        let latest = &meta.words()[meta::HOST_PEER_LAST_TICK];
        Word::store(latest, Word::load(latest).wrapping_sub(ticks));
        Ok(())
    }
}
