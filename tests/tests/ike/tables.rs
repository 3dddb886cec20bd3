//! The tables under running programs.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use aya::maps::MapData;
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::strongswan::{End, Tunnel};
use xdp_common::meta;
use xdp_user::tables::mmap::Memory;

/// Empties the tables under the programs, as if they were new. Returns how many packets the client of a tunnel
/// has sent meanwhile: they show a VIP to programs that have lost some tables and not yet others.
///
/// The flows are the last, since what belongs to a flow with a fresh next hop shows nothing until that expires.
/// If the session went later, a packet of the client could make such a flow in between, and no entry in PIN,
/// for it comes by the VIP of the session; then the answers would go astray for a second.
pub(super) fn empty_tables(lab: &Lab, tunnel: &Tunnel<'_>) -> Result<usize> {
    let sent = || Ok::<_, anyhow::Error>(tunnel.installed_sa(End::Client)?.packets_out);
    let before = sent()?;
    let words = |name: &str| -> Result<Memory<AtomicU64>> {
        let map = MapData::from_pin(lab.pins().join(name))
            .with_context(|| format!("failed to open {name}"))?;
        Ok(Memory::of(&map, name)?)
    };
    for name in [
        "SESSION",
        "SESSION_COLD",
        "HALF",
        "PIN",
        "FRAGMENT",
        "FLOW_COLD",
        "FLOW",
    ] {
        for word in words(name)?.words() {
            word.store(0, Ordering::Relaxed);
        }
    }
    for entries in [meta::FLOW_ENTRIES, meta::SESSION_ENTRIES] {
        words("META")?.words()[entries].store(0, Ordering::Relaxed);
    }
    Ok((sent()? - before).try_into()?)
}
