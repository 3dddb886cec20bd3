//! The tables under running programs.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use aya::maps::MapData;
use ikenat_tests::lab::Lab;
use xdp_common::meta;
use xdp_user::tables::mmap::Memory;

/// Empties the tables under the programs, as if they were new. For a peer all is over with its session: what
/// PIN has of it by then is from before, and what comes later is new.
pub(super) fn empty_tables(lab: &Lab) -> Result<()> {
    let words = |name: &str| -> Result<Memory<AtomicU64>> {
        let map = MapData::from_pin(lab.pins().join(name))
            .with_context(|| format!("failed to open {name}"))?;
        Ok(Memory::of(&map, name)?)
    };
    for name in [
        "FLOW",
        "FLOW_COLD",
        "HALF",
        "PIN",
        "FRAGMENT",
        "SESSION_COLD",
        "SESSION",
    ] {
        for word in words(name)?.words() {
            word.store(0, Ordering::Relaxed);
        }
    }
    for entries in [meta::FLOW_ENTRIES, meta::SESSION_ENTRIES] {
        words("META")?.words()[entries].store(0, Ordering::Relaxed);
    }
    Ok(())
}
