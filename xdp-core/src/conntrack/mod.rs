//! Connection tracking: the tables FLOW, SESSION, HALF, PIN, FRAGMENT and HOSTPEER, and which packets
//! may create an entry.
//!
//! Invariant: apart from fragments without ports, from peers of the host itself, and, where a service has
//! several VIPs, from the choice among them and the RSTs that are refused for it, forwarding never depends on it.
//! A packet that finds no room is forwarded as `untracked`.
//!
//! A peer is established by a proof that a spoofer cannot give: the server sends ESP to the peer
//! (it shares a key with it), or an IKE message carries the pair of SPIs of a reply to that address,
//! and to no other one, in which the server chose its SPI. See `docs/decisions/proof-of-establishment.md`.

pub mod connection;
mod counted;
pub mod flow;
pub mod fragment;
pub mod host_peer;
pub mod pin;
pub mod places;
pub mod proof;
pub mod session;

pub use counted::Counted;

use crate::counters;
use crate::env::Env;
use crate::frame::Frame;
use crate::packet::Packet;
use crate::vip;
use xdp_common::{Config, Direction};

/// Writes the peer's port of the packet at hand, which the server has sent, down in the peer's session.
// A step of its own, and not one of `count`, for the stack.
#[inline(never)]
pub fn follow_port<E: Env>(env: &E, config: &Config) {
    if let Some(packet) = env.load_packet().and_then(Packet::unpack)
        && let Some(session) = session::session_of(
            env,
            config,
            vip::service_of::<E>(config, packet.vip),
            packet.peer,
        )
    {
        session::note_peer(session, packet.class, packet.port);
    }
}

/// Counts the segment of TCP at hand in the peer's session.
// A step of its own, likewise.
#[inline(never)]
pub fn count_segment<E: Env>(env: &E, config: &Config, hop: u64) -> Counted {
    let Some(packet) = &env.load_packet().and_then(Packet::unpack) else {
        return Counted::No;
    };
    Counted::of(session::count_segment(env, config, packet, hop))
}

/// Counts the stream that the segment at hand begins, if it begins one.
#[inline(never)]
pub fn count_stream<E: Env>(env: &E) {
    if let Some(packet) = env.load_packet().and_then(Packet::unpack)
        && packet.begins_stream
        && let Some(block) = env.cpu_block()
    {
        counters::count_stream(block, E::HOOK, packet.direction);
    }
}

/// Counts a packet that is about to be forwarded in the table that it belongs to. `hop` is the hop
/// word that its flow may cache; zero: none (tc asks the FIB for every packet).
// Out of line, like everything large here: ESP on the fast path does not come here, and what one
// function keeps on the stack is not there while another one runs.
#[inline(never)]
pub fn count<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    jiffies: u64,
    hop: u64,
) -> Counted {
    let Some(packet) = &env.load_packet().and_then(Packet::unpack) else {
        return Counted::No;
    };
    fragment::remember_fragment(env, config, packet, jiffies);
    let hop = packet.hop_to_keep::<E>(config, hop);
    let Some(key) = flow::FlowKey::of::<E>(packet, config) else {
        return session::count_session(frame, env, config, packet, jiffies, hop);
    };
    if let Some(slot) = key.find(env) {
        let has_moved = flow::count_and_refresh(env.flows(), slot, packet, jiffies, hop);
        return if has_moved && packet.direction == Direction::Outbound {
            Counted::PortChanged
        } else {
            Counted::Yes
        };
    }
    if flow::admit_flow(env, config, key, packet, jiffies, hop) {
        Counted::Yes
    } else {
        Counted::none(packet)
    }
}
