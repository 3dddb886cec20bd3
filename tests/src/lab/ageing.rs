//! Makes the entries of an instance older than they are, so that a test does not wait for minutes.

use std::sync::atomic::AtomicU64;

use anyhow::Result;
use xdp_common::meta;
use xdp_common::slot::{STATE, flow, session};
use xdp_core::Word;
use xdp_core::table::{Slot, State};
use xdp_user::tables::mmap::Tables;

use super::topology::{Lab, VIP};

impl Lab {
    /// Moves the last packet of every SPI and every peer this many seconds into the past.
    pub fn age_entries(&self, seconds: u32) -> Result<()> {
        let directory = self.bpffs().join("ikenat");
        let directory = directory.join(VIP.to_string().replace('.', "_"));
        let tables = Tables::<AtomicU64>::open(&directory)?;
        let jiffies = u64::from(seconds) * Word::load(tables.meta(meta::HZ));
        let live = |slot: &&Slot<AtomicU64>| State::of(Word::load(&slot[STATE])) == State::Live;
        for slot in tables.flow.slots().iter().filter(live) {
            let seen = Word::load(&slot[flow::SEEN]);
            Word::store(&slot[flow::SEEN], seen.wrapping_sub(jiffies << 32));
        }
        for slot in tables.session.slots().iter().filter(live) {
            let seen = Word::load(&slot[session::LAST_SEEN]);
            let aged = seen.wrapping_sub(jiffies) & 0xffff_ffff;
            Word::store(&slot[session::LAST_SEEN], aged);
        }
        Ok(())
    }
}
