//! What is remembered of a packet: FLOW, SESSION, HALF and FRAGMENT, and who may create an entry.
//!
//! It may not know how a packet is sent. Forwarding never depends on it: a packet that finds no room is `untracked`.
//!
//! Established means a proof that a spoofer cannot give: the server sends ESP to the peer (it shares a key with it), or
//! an IKE message carries the pair of SPIs that the server's own reply to that address contained.

pub mod flow;
pub mod fragment;
mod proof;
pub mod session;

use crate::env::Env;
use crate::frame::Frame;
use crate::packet::Packet;
use xdp_common::Config;

/// Counts a packet that is about to be forwarded into the table that it belongs to. True: there it is counted. `hop` is
/// what its flow may remember of the way out; zero: nothing new (tc asks for the way of every packet).
// Out of line, as everything here that is large: the packets that care for nanoseconds do not come this way, and what one
// function keeps on the stack is not there while another one runs.
#[inline(never)]
pub fn count<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    jiffies: u64,
    hop: u64,
) -> bool {
    let Some(packet) = &env.load_packet().and_then(Packet::unpack) else {
        return false;
    };
    fragment::remember_fragment(env, config, packet, jiffies);
    let Some(key) = flow::FlowKey::of(packet, config) else {
        return session::count_session(frame, env, config, packet, jiffies, hop);
    };
    if let Some(slot) = key.find(env) {
        flow::count_and_refresh(slot, packet, jiffies, hop);
        return true;
    }
    flow::admit_flow(env, config, key, packet, jiffies, hop)
}
