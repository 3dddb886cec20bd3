//! The messages that the dataplane writes to the log, only with `--log`.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::info;
use xdp_common::Direction;

/// Logs that a peer has proved to be a client of the server: a packet in this direction completed
/// the proof of establishment.
// `OUT` creates one instance per program, which is inlined: a shared one would be a function with a
// stack frame of its own.
#[inline(always)]
pub(crate) fn established<C: EbpfContext, const OUT: bool>(
    context: &C,
    peer: [u8; 4],
    by: Direction,
) {
    let peer = u32::from_be_bytes(peer);
    match by {
        Direction::Inbound => info!(context, "session {:i}: completed the IKE handshake", peer),
        Direction::Outbound => info!(context, "session {:i}: the server sends it ESP", peer),
    }
}
