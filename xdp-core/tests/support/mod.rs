//! What several test binaries need.

use xdp_common::slot::nexthop::{DESTINATION, KEY, SEQUENCE, SOURCE};
use xdp_core::Word;
use xdp_core::neighbour::Neighbour;
use xdp_core::neighbour::table::{self, Entry};

const MAC: u64 = 0xffff_ffff_ffff;

/// Reads an entry of NEXTHOP as its sequence number demands; `None` while a CPU writes it, or when
/// it is empty.
pub(crate) fn read_neighbour<W: Word>(entry: &Entry<W>) -> Option<Neighbour> {
    let before = entry[SEQUENCE].load();
    let key = entry[KEY].load();
    let destination = entry[DESTINATION].load();
    let source = entry[SOURCE].load();
    let gateway = table::gateway(entry, key);
    // Sequence 0: claimed, but not written yet.
    if before == 0 || before & 1 != 0 || entry[SEQUENCE].load() != before {
        return None;
    }
    let low = |word: u64| u32::try_from(word & 0xffff_ffff).expect("32 bits");
    Some(Neighbour {
        ifindex: low(key >> 32),
        gateway,
        destination: destination & MAC,
        source: source & MAC,
        mtu: u16::try_from(destination >> 48).expect("16 bits"),
    })
}
