//! The packet pipeline: classify, find the route, count, rewrite.
//!
//! XDP and tc share it; they differ in how they can send a packet, so `Env::HOOK` says which of the
//! two it runs for.

use crate::classify::{self, refused_by_list};
use crate::conntrack::connection;
use crate::conntrack::fragment::{self, Fate};
use crate::conntrack::host_peer::{self, Owner};
use crate::conntrack::{self, Counted, proof};
use crate::env::{Env, Side, Verdict};
use crate::frame::Frame;
use crate::icmp::rate_limit::{self, Origin};
use crate::inside::is_inside;
use crate::packet::Packet;
use crate::rewrite;
use crate::route::{Route, cached_route, find_route};
use crate::table::word::Word;
use crate::transport::refuse_segment;
use crate::vip;
use xdp_common::{Class, Config, Direction, Hook, Outcome, Reason};

/// Decides what becomes of a frame, and rewrites it when it is forwarded. On
/// [`Verdict::NotForwarded`] no byte has changed.
#[inline(always)]
pub fn process<F: Frame + ?Sized, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    side: Side,
) -> Verdict {
    let for_us = classify::is_for_us(frame, config, side);
    let is_plain = match examine::<_, _, false>(frame, env, config, side, for_us) {
        Examined::Plain => true,
        Examined::Unusual => false,
        Examined::NotForwarded(Reason::OtherProtocol) => {
            match examine::<_, _, true>(frame, env, config, side, for_us) {
                Examined::Plain | Examined::Unusual => false,
                Examined::NotForwarded(reason) => {
                    return not_forwarded(frame, env, config, side, reason);
                }
            }
        }
        Examined::NotForwarded(reason) => return not_forwarded(frame, env, config, side, reason),
    };
    let jiffies = env.jiffies();
    let mut route = Route::STACK;
    let mut is_shared = false;
    // Every step loads the packet for itself, so that nothing of it is kept on the stack while
    // another function runs.
    if !is_plain
        && let Some(reason) = refuse_segment(frame, env, config, side)
            .or_else(|| refuse_unusual(frame, env, config, jiffies))
    {
        return Verdict::NotForwarded(reason);
    }
    if E::has_several(config) && config.pinned != 0 {
        // A segment is never plain.
        let segment = if is_plain {
            0
        } else {
            env.follow_segment(frame, config, jiffies)
        };
        if connection::is_refusal(segment) {
            return Verdict::NotForwarded(Reason::OtherVip);
        }
        env.settle_vip(frame, config, jiffies, segment);
    }
    if !cached_route(env, config, jiffies, &mut route) {
        // While the host has peers of its own, no route of inbound packets is cached.
        if E::HOOK != Hook::Egress && host_peer::in_use(env, config, jiffies) {
            match host_peer::owner_of_packet(env, config, jiffies) {
                Owner::Server => {}
                Owner::Host => {
                    remember_foreign_fragment(frame, env, config, side);
                    return Verdict::NotForwarded(Reason::HostPeer);
                }
                Owner::Undecided if E::HOOK == Hook::Xdp => {
                    return Verdict::NotForwarded(Reason::EspUndecided);
                }
                Owner::Undecided => {
                    if is_from_inside(env, config) {
                        return Verdict::NotForwarded(Reason::InsideSource);
                    }
                    is_shared = true;
                    copy_to_host(env, config, Reason::HostPeer);
                }
            }
        }
        if let Some(reason) = find_route(env, config, jiffies, &mut route) {
            return answer_or_refuse(env, config, reason, route.mtu, jiffies);
        }
    }
    // A flow, or an entry of FRAGMENT, would claim what follows for the server.
    let counted = if is_shared {
        Counted::No
    } else {
        conntrack::count(frame, env, config, jiffies, route.cached_hop)
    };
    // A number that the verifier does not know: it goes on once, and not once for each of the three.
    let mut counted = E::Word::opaque(counted as usize);
    if E::has_several(config) && config.pinned != 0 && !is_shared {
        env.note_vip(frame, config, jiffies);
    }
    if counted > Counted::Yes as usize {
        if counted == Counted::Segment as usize {
            let in_session = conntrack::count_segment(env, config, route.cached_hop);
            if in_session == Counted::No && is_forged_stream(env, config) {
                return Verdict::NotForwarded(Reason::InsideSource);
            }
            conntrack::count_stream(env);
            counted = E::Word::opaque(in_session as usize);
        } else if counted != Counted::PortChanged as usize {
            proof::remember_choice(frame, env, config, jiffies);
            // `ChoosesSpi`: its session has counted it; `Unmarked`: no table has.
            counted = E::Word::opaque(usize::from(counted == Counted::ChoosesSpi as usize));
        } else {
            conntrack::follow_port(env, config);
        }
    }
    let tracked = counted != Counted::No as usize;
    let Some(packet) = env.load_packet().and_then(Packet::unpack) else {
        return Verdict::NotForwarded(Reason::Malformed);
    };
    if E::HOOK != Hook::Egress
        && !tracked
        && packet.direction == Direction::Inbound
        && is_inside(env, config, packet.vip, packet.peer)
    {
        return Verdict::NotForwarded(Reason::InsideSource);
    }
    if config.dry_run == 0 && !write(frame, env, config, &route) {
        return Verdict::NotForwarded(Reason::Unwritable);
    }
    Verdict::Forward {
        hop: route.next_hop,
        direction: packet.direction,
        class: packet.class,
        bytes: packet.total_length,
        tracked,
    }
}

/// The verdict on a packet that [`examine`] refuses.
#[inline(always)]
fn not_forwarded<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    side: Side,
    reason: Reason,
) -> Verdict {
    if reason == Reason::OtherPort {
        remember_foreign_fragment(frame, env, config, side);
    }
    let is_group =
        reason == Reason::NotOurMac && classify::is_group_frame_to_service(frame, config, side);
    Verdict::NotForwarded(if is_group { Reason::GroupFrame } else { reason })
}

/// Rewrites a frame. False: there was no room for what has to be written.
// Out of line: what it keeps on the stack is not there while other steps run.
#[inline(never)]
fn write<F: Frame + ?Sized, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    route: &Route,
) -> bool {
    let Some(packet) = env.load_packet().and_then(Packet::unpack) else {
        return false;
    };
    // The host's stack decrements the TTL itself.
    let ttl = packet
        .ttl
        .wrapping_sub(u8::from(!route.next_hop.is_stack()));
    rewrite::translate(frame, &packet, ttl, config)
        && (E::HOOK != Hook::Xdp
            || rewrite::write_macs(frame, route.destination_mac, route.source_mac))
}

/// Remembers the first fragment of a datagram that is not handled.
#[inline(never)]
fn remember_foreign_fragment<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    side: Side,
) {
    if let Some(first) = classify::foreign_fragment(frame, config, side) {
        fragment::remember_foreign(env, config, &first, env.jiffies());
    }
}

/// True when the source of the packet at hand is behind a LAN.
#[inline(always)]
fn is_from_inside<E: Env>(env: &E, config: &Config) -> bool {
    let packet = env.load_packet().and_then(Packet::unpack);
    packet.is_some_and(|packet| is_inside(env, config, packet.vip, packet.peer))
}

/// True when the segment at hand, which belongs to no session, begins a stream of IKE over TCP and its
/// source is forged: such a stream is not counted.
// Asked here, and not after the same question about every packet: one more look at the packet there costs
// IKE 0.3 %.
#[inline(never)]
fn is_forged_stream<E: Env>(env: &E, config: &Config) -> bool {
    let packet = env.load_packet().and_then(Packet::unpack);
    E::HOOK != Hook::Egress
        && packet.is_some_and(|packet| {
            packet.begins_stream
                && packet.direction == Direction::Inbound
                && is_inside(env, config, packet.vip, packet.peer)
        })
}

/// In tc: gives the host a copy of the packet at hand, which is counted under this reason when it
/// arrives.
#[inline(never)]
fn copy_to_host<E: Env>(env: &E, config: &Config, reason: Reason) {
    if config.dry_run == 0 {
        env.copy_to_host(reason);
    }
}

/// The reason why a packet with options, or a fragment without ports, is not forwarded, if there is
/// one. Of a fragment that may be the host's own, the host gets a copy. Not in `classify`: after each kind of packet the verifier would go through the options.
#[inline(never)]
fn refuse_unusual<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    jiffies: u64,
) -> Option<Reason> {
    let packet = env.load_packet().and_then(Packet::unpack)?;
    // On egress the host has taken the packet already, and ingress has refused what it may not.
    if E::HOOK != Hook::Egress
        && let Some(reason) = classify::refuse_options(frame)
    {
        return Some(reason);
    }
    if packet.class != Class::Fragment {
        return None;
    }
    match (fragment::fate(env, config, &packet, jiffies), E::HOOK) {
        (Fate::Handled, _) | (Fate::Undecided, Hook::Egress) => None,
        (Fate::Undecided, Hook::Xdp) => Some(Reason::FragmentUndecided),
        (Fate::Undecided, Hook::Tc) => {
            // Before the host gets a copy, and not only before it is forwarded.
            if is_inside(env, config, packet.vip, packet.peer) {
                return Some(Reason::InsideSource);
            }
            copy_to_host(env, config, Reason::OtherFragment);
            None
        }
        (Fate::Refused(reason), _) => Some(reason),
    }
}

/// The verdict on a packet without a usable route. Its sender gets an ICMP error when the reason
/// calls for one, and nothing refuses it.
#[inline(always)]
fn answer_or_refuse<E: Env>(
    env: &E,
    config: &Config,
    reason: Reason,
    mtu: u16,
    jiffies: u64,
) -> Verdict {
    if E::HOOK != Hook::Tc || reason.outcome() != Outcome::Answered {
        return Verdict::NotForwarded(reason);
    }
    match refuse_answer(env, config, reason, jiffies) {
        Some(refused) => Verdict::NotForwarded(refused),
        None => Verdict::Answer { reason, mtu },
    }
}

/// The reason why the packet at hand is not answered, if there is one: its sender is forged, or has had
/// enough errors.
#[inline(never)]
fn refuse_answer<E: Env>(env: &E, config: &Config, reason: Reason, jiffies: u64) -> Option<Reason> {
    let Some(packet) = env.load_packet().and_then(Packet::unpack) else {
        return Some(Reason::Malformed);
    };
    if packet.direction == Direction::Inbound && is_inside(env, config, packet.vip, packet.peer) {
        return Some(Reason::InsideSource);
    }
    // RFC 1122 section 3.2.2: no error about a fragment other than the first.
    let origin = Origin::Own(packet.direction, reason);
    let of_peer = (vip::service_of::<E>(config, packet.vip), packet.peer);
    let may_answer = packet.offset == 0 && rate_limit::allow(env, config, of_peer, origin, jiffies);
    (!may_answer).then_some(Reason::IcmpLimited)
}

/// The result of parsing the headers.
enum Examined {
    /// A handled packet.
    Plain,
    /// The same with options, a segment of TCP, or a fragment without ports, which may be handled.
    Unusual,
    /// Not forwarded.
    NotForwarded(Reason),
}

/// Parses the headers and stores the packet for the next steps. TCP (`SEGMENT`) in an instance of its
/// own, so that what is common costs nothing more for it.
#[inline(never)]
fn examine<F: Frame + ?Sized, E: Env, const SEGMENT: bool>(
    frame: &F,
    env: &E,
    config: &Config,
    side: Side,
    for_us: bool,
) -> Examined {
    let packet = match classify::classify::<F, SEGMENT>(frame, config, side, E::HOOK, for_us) {
        Ok(packet) => packet,
        Err(reason) => return Examined::NotForwarded(reason),
    };
    env.store_packet(packet.pack());
    match refused_by_list(env, config, (packet.vip, packet.peer)) {
        Some(reason) => Examined::NotForwarded(reason),
        None if SEGMENT || packet.has_options() || packet.class == Class::Fragment => {
            Examined::Unusual
        }
        None => Examined::Plain,
    }
}
