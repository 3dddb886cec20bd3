//! One packet from the first look to the last byte: classify, find the way out, count, rewrite.
//!
//! It may not know what XDP or tc are, only which of the two it runs for: they differ in what they can send.

use crate::classify::{self, listed};
use crate::conntrack;
use crate::env::{Env, Side, Verdict};
use crate::frame::Frame;
use crate::icmp::rate_limit;
use crate::packet::Packet;
use crate::rewrite;
use crate::route::{Way, find_way, recall_way};
use xdp_common::{Class, Config, Hook, Outcome, Reason};

/// Decides what becomes of a frame, and rewrites it when it is forwarded. On [`Verdict::Leave`] no byte has changed.
#[inline(always)]
pub fn process<F: Frame + ?Sized, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    side: Side,
) -> Verdict {
    let is_fragment = match examine(frame, env, config, side) {
        Seen::Whole => false,
        Seen::Fragment => true,
        Seen::Left(reason) => {
            if reason == Reason::OtherPort {
                note_foreign(frame, env, config, side);
            }
            return Verdict::Leave(reason);
        }
    };
    let jiffies = env.jiffies();
    let mut way = Way::STACK;
    // Every step takes the packet anew, so that nothing of it is kept on the stack while another function runs.
    if is_fragment && let Some(reason) = refuse_fragment(env, config, jiffies) {
        return Verdict::Leave(reason);
    }
    if !recall_way(env, config, jiffies, &mut way)
        && let Some(reason) = find_way(env, config, jiffies, &mut way)
    {
        return stay(env, config, reason, way.mtu, jiffies);
    }
    let tracked = conntrack::track(frame, env, config, jiffies, way.hop_word);
    let Some(packet) = env.take().and_then(Packet::unpack) else {
        return Verdict::Leave(Reason::Malformed);
    };
    if config.dry_run == 0 {
        // The stack counts the TTL down itself.
        let ttl = packet.ttl.wrapping_sub(u8::from(!way.hop.is_stack()));
        let written = rewrite::translate(frame, &packet, ttl, config)
            && (E::HOOK != Hook::Xdp || rewrite::address_frame(frame, way.destination, way.source));
        if !written {
            return Verdict::Leave(Reason::Unwritable);
        }
    }
    Verdict::Forward {
        hop: way.hop,
        direction: packet.direction,
        class: packet.class,
        bytes: packet.total_length,
        tracked,
    }
}

/// Remembers the first fragment of a datagram that is not ours.
#[inline(never)]
fn note_foreign<F: Frame + ?Sized, E: Env>(frame: &F, env: &E, config: &Config, side: Side) {
    if let Some(first) = classify::foreign_fragment(frame, config, side) {
        conntrack::fragment::remember_foreign(env, config, &first, env.jiffies());
    }
}

/// Says of a fragment without ports whether it is ours.
#[inline(never)]
fn refuse_fragment<E: Env>(env: &E, config: &Config, jiffies: u64) -> Option<Reason> {
    let packet = env.take().and_then(Packet::unpack)?;
    conntrack::fragment::refuse_fragment(env, config, &packet, jiffies)
}

/// What becomes of a packet that has no way: its sender is told, when there is something to tell, somebody to be told, and
/// not too much was told already.
#[inline(always)]
fn stay<E: Env>(env: &E, config: &Config, reason: Reason, mtu: u16, jiffies: u64) -> Verdict {
    if E::HOOK != Hook::Tc || reason.outcome() != Outcome::Answered {
        return Verdict::Leave(reason);
    }
    let Some(packet) = env.take().and_then(Packet::unpack) else {
        return Verdict::Leave(Reason::Malformed);
    };
    // RFC 1122 section 3.2.2: no error about a fragment other than the first.
    let told = packet.offset == 0 && rate_limit::allow(env, config, packet.peer, [0; 4], jiffies);
    if told {
        Verdict::Answer { reason, mtu }
    } else {
        Verdict::Leave(Reason::IcmpLimited)
    }
}

/// What the headers say.
enum Seen {
    /// Packet, as it is.
    Whole,
    /// A fragment without ports: perhaps ours.
    Fragment,
    /// Not forwarded.
    Left(Reason),
}

/// Looks at the headers and puts away what they say.
#[inline(never)]
fn examine<F: Frame + ?Sized, E: Env>(frame: &F, env: &E, config: &Config, side: Side) -> Seen {
    let packet = match classify::classify(frame, config, side, E::HOOK) {
        Ok(packet) => packet,
        Err(reason) => return Seen::Left(reason),
    };
    env.put(packet.pack());
    match listed(env, config, packet.peer) {
        Some(reason) => Seen::Left(reason),
        None if packet.class == Class::Fragment => Seen::Fragment,
        None => Seen::Whole,
    }
}
