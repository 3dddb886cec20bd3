//! Route selection: the cached next hop of a packet, or the result of a FIB lookup and what it
//! means.

use crate::conntrack::{host_peer, session};
use crate::env::{Env, FibQuery, FibResult, NextHop};
use crate::interfaces::{may_leave_by, position_of};
use crate::neighbour::cached_hop;
use crate::neighbour::table::{self as neighbour_table, Neighbour};
use crate::packet::{Packet, is_no_host};
use crate::table::word::Word;
use crate::uplink::owning_wan;
use crate::vip;
use xdp_common::{Config, Direction, Hook, Reason, Vip, cpu, meta};

/// The route of a packet, and what of it can be cached. All fields are plain numbers and always
/// written: the verifier requires it where one function passes them to another.
pub(crate) struct Route {
    pub(crate) next_hop: NextHop,
    /// MAC addresses of neighbour and egress, as words; zero in tc, where the kernel writes them.
    pub(crate) destination_mac: u64,
    pub(crate) source_mac: u64,
    /// The hop word that the flow may cache; zero in tc, which asks the FIB for every packet.
    pub(crate) cached_hop: u64,
    /// MTU of a route that is too small for the packet.
    pub(crate) mtu: u16,
}

impl Route {
    /// To the host's own stack.
    pub(crate) const STACK: Self = Self::for_tc(NextHop::STACK);

    /// A route in tc, where the kernel writes the MAC addresses and nothing is cached.
    const fn for_tc(hop: NextHop) -> Self {
        Self {
            next_hop: hop,
            destination_mac: 0,
            source_mac: 0,
            cached_hop: 0,
            mtu: 0,
        }
    }
}

/// In XDP: fills in the cached route of an earlier packet while it is valid. True: there is one.
#[inline(never)]
pub(crate) fn cached_route<E: Env>(
    env: &E,
    config: &Config,
    jiffies: u64,
    route: &mut Route,
) -> bool {
    if E::HOOK != Hook::Xdp {
        return false;
    }
    let found = env
        .load_packet()
        .and_then(Packet::unpack)
        .and_then(|packet| route_from_cache(env, config, &packet, jiffies));
    match found {
        Some(found) => {
            *route = found;
            true
        }
        None => false,
    }
}

/// Finds the route of the packet at hand and fills it in, or returns the reason why the packet has none. Where
/// there are several WANs, it first asks which of them has the VIP; then [`look_up_route`] asks for the route itself.
// The WAN is asked before the look-up and not within it: together they would need more stack than Linux 6.1 lets
// a program have. Out of line, so that the general path is the same without several WANs.
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "it was a u32")]
pub(crate) fn find_route<E: Env>(
    env: &E,
    config: &Config,
    jiffies: u64,
    route: &mut Route,
) -> Option<Reason> {
    // One WAN has all VIPs. On egress the kernel has found the route.
    let wan = if E::HOOK == Hook::Egress || config.wans[1] == 0 {
        0
    } else {
        wan_of_vip(env, config) as u32
    };
    look_up_route(env, config, jiffies, route, wan)
}

/// The look-up within [`find_route`], when the WAN is known: asks the FIB for a route that leaves by it; by any
/// interface, if it is 0.
// Out of line: the stack that the helper needs is not occupied while other functions run.
#[inline(never)]
fn look_up_route<E: Env>(
    env: &E,
    config: &Config,
    jiffies: u64,
    route: &mut Route,
    wan: u32,
) -> Option<Reason> {
    let Some(packet) = &env.load_packet().and_then(Packet::unpack) else {
        return Some(Reason::Malformed);
    };
    let found = match E::HOOK {
        Hook::Xdp => route_for_xdp(
            env,
            config,
            packet,
            query_fib(env, config, packet, wan),
            jiffies,
        ),
        Hook::Tc => route_for_tc(env, config, packet, route, wan),
        // The kernel has already found the route.
        Hook::Egress => Ok(Route::STACK),
    };
    match found {
        Ok(found) => {
            *route = found;
            None
        }
        Err(reason) => Some(reason),
    }
}

/// Asks the FIB for the route of a packet with its translated addresses, so that policy routing for
/// the VIP applies, and with all else that rules may look at.
#[inline(always)]
fn query_fib<E: Env>(env: &E, config: &Config, packet: &Packet, wan: u32) -> FibResult {
    let vip = vip::by_number::<E>(config, packet.vip);
    let (source, destination) = match packet.direction {
        Direction::Inbound => (packet.peer, vip.server),
        // Here and not earlier: a packet with a cached route has passed this.
        Direction::Outbound if is_no_host(packet.peer) => return FibResult::NotForwarded,
        Direction::Outbound => (vip.address, packet.peer),
    };
    let query = FibQuery {
        source,
        destination,
        total_length: packet.length_to_send(env.merged_size()),
        tos: packet.tos,
        protocol: packet.protocol.number(),
        ports: packet.routed_ports(),
        ingress: 0,
        egress: wan,
    };
    env.fib_lookup(&query)
}

/// The WAN that has the VIP of the outbound packet at hand ([`owning_wan`]).
// A step of its own: two look-ups of one function would have their structures on the stack at once.
#[inline(never)]
fn wan_of_vip<E: Env>(env: &E, config: &Config) -> usize {
    let Some(packet) = env.load_packet().and_then(Packet::unpack) else {
        return 0;
    };
    if packet.direction == Direction::Inbound || is_no_host(packet.peer) {
        return 0;
    }
    let vip = vip::by_number::<E>(config, packet.vip);
    let header = (packet.protocol.number(), packet.tos);
    let query = FibQuery {
        ports: packet.routed_ports(),
        ..FibQuery::without_ports((vip.address, packet.peer), header, FibQuery::ANY_LENGTH)
    };
    // One state for what follows, whatever the WAN.
    E::Word::opaque(owning_wan(env, config, vip, query) as usize)
}

#[inline(always)]
fn route_from_cache<E: Env>(
    env: &E,
    config: &Config,
    packet: &Packet,
    jiffies: u64,
) -> Option<Route> {
    let direction = E::Word::opaque(packet.direction as usize) & 1;
    let translation = vip::translation::<E>(config, direction, packet.vip);
    let egress = env.cpu_block()?[translation.egress_word as usize & (cpu::COUNTERS - 1)].load();
    // Where there are several services, a peer of the host does not take the next hop away from each.
    if E::has_several(config)
        && packet.direction == Direction::Inbound
        && host_peer::in_use(env, config, jiffies)
    {
        return None;
    }
    let hop_word = session::next_hop(env, config, packet)?;
    let destination = cached_hop::mac(hop_word, cached_hop::stamp(translation, egress, jiffies))?;
    (packet.total_length <= cpu::shared_mtu(egress)).then_some(Route {
        next_hop: NextHop {
            ifindex: translation.egress,
        },
        destination_mac: destination,
        source_mac: translation.source_mac,
        cached_hop: hop_word,
        mtu: 0,
    })
}

/// The dataplane's state of an egress; `None`: the egress accepts no frames from XDP.
#[inline(always)]
fn egress_word<E: Env>(env: &E, config: &Config, ifindex: u32) -> Option<u64> {
    let (wan, lan) = (
        position_of(&config.wans, ifindex),
        position_of(&config.lans, ifindex),
    );
    let place = match (wan, lan) {
        (0, 0) => return None,
        // An interface that is both WAN and LAN has the same word twice.
        (0, lan) => cpu::EGRESS_LAN + lan - 1,
        (wan, _) => cpu::EGRESS_WAN + wan - 1,
    };
    let word = env.cpu_block()?[E::Word::opaque(place) & (cpu::COUNTERS - 1)].load();
    (word != 0).then_some(word)
}

/// The reason that a FIB result without a next hop gives for a handled packet.
#[inline(always)]
pub(crate) fn fib_refusal(direction: Direction, routed: FibResult) -> Reason {
    match (direction, routed) {
        (_, FibResult::TooBig(_)) => Reason::TooBig,
        // The kernel would deliver it locally, as the gateway's own.
        (Direction::Inbound, FibResult::ForwardingDisabled) => Reason::ForwardingDisabledInbound,
        (Direction::Inbound, _) => Reason::NoRoute,
        (Direction::Outbound, FibResult::ForwardingDisabled) => Reason::ForwardingDisabled,
        // Traffic between the server and the gateway, or without a destination: the kernel knows
        // what to answer.
        (Direction::Outbound, _) => Reason::NotByWan,
    }
}

/// In tc: the next hop of a FIB result, whose gateway is kept. `Err`: it has none.
#[inline(always)]
pub(crate) fn hop_for_tc<E: Env>(env: &E, routed: FibResult) -> Result<NextHop, FibResult> {
    let (ifindex, gateway) = match routed {
        FibResult::Neighbour(neighbour) => (neighbour.ifindex, neighbour.gateway),
        FibResult::Unresolved { ifindex, gateway } => (ifindex, gateway),
        FibResult::TooBig(_)
        | FibResult::NotForwarded
        | FibResult::NoRoute
        | FibResult::ForwardingDisabled => return Err(routed),
    };
    env.keep_gateway(&gateway);
    Ok(NextHop { ifindex })
}

#[inline(always)]
fn route_for_xdp<E: Env>(
    env: &E,
    config: &Config,
    packet: &Packet,
    routed: FibResult,
    jiffies: u64,
) -> Result<Route, Reason> {
    let neighbour = match routed {
        FibResult::Neighbour(neighbour) => neighbour,
        FibResult::Unresolved { ifindex, .. }
            if may_leave_by(config, packet.direction, ifindex) =>
        {
            return Err(Reason::NeighbourUnresolved);
        }
        FibResult::Unresolved { .. } => return Err(Reason::NotByWan),
        FibResult::TooBig(_)
        | FibResult::NotForwarded
        | FibResult::NoRoute
        | FibResult::ForwardingDisabled => {
            return Err(fib_refusal(packet.direction, routed));
        }
    };
    if !may_leave_by(config, packet.direction, neighbour.ifindex) {
        return Err(Reason::NotByWan);
    }
    let Some(egress) = egress_word(env, config, neighbour.ifindex) else {
        return Err(Reason::EgressNotXdp);
    };
    record_neighbour(env, config, &neighbour, jiffies)?;
    let outbound = packet.direction == Direction::Outbound;
    let direction = E::Word::opaque(usize::from(outbound));
    let translation = vip::translation::<E>(config, direction, packet.vip);
    let hop_word = cached_hop::for_neighbour(translation, egress, &neighbour, jiffies);
    if !outbound
        && !host_peer::in_use(env, config, jiffies)
        && let Some(word) = env.meta(meta::server_hop(vip::service_of::<E>(config, packet.vip)))
    {
        word.store(hop_word);
    }
    Ok(Route {
        next_hop: NextHop {
            ifindex: neighbour.ifindex,
        },
        destination_mac: neighbour.destination,
        source_mac: neighbour.source,
        cached_hop: hop_word,
        mtu: 0,
    })
}

/// Writes the FIB's answer to NEXTHOP. At intervals one packet goes through the kernel's neighbour
/// layer instead: frames that XDP sends never confirm a neighbour, so a stale MAC address would be
/// kept forever. See `docs/decisions/next-hop-confirmation.md`.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a tick has 32 bits")]
fn record_neighbour<E: Env>(
    env: &E,
    config: &Config,
    neighbour: &Neighbour,
    jiffies: u64,
) -> Result<(), Reason> {
    let mut probe = 0;
    while probe < neighbour_table::PROBES {
        let index = neighbour.hash().wrapping_add(probe) & (xdp_common::limits::NEXTHOPS - 1);
        if let Some(entry) = env.neighbour(index)
            && neighbour_table::claim(entry, neighbour)
        {
            neighbour_table::write(entry, neighbour);
            let tick = (jiffies >> config.tick_shift) as u32;
            if neighbour_table::confirmation_due(entry, tick, config.confirm_ticks) {
                return Err(Reason::NeighbourConfirm);
            }
            return Ok(());
        }
        probe += 1;
    }
    Ok(())
}

#[inline(always)]
fn route_for_tc<E: Env>(
    env: &E,
    config: &Config,
    packet: &Packet,
    route: &mut Route,
    wan: u32,
) -> Result<Route, Reason> {
    let inbound = packet.direction == Direction::Inbound;
    let vip = vip::by_number::<E>(config, packet.vip);
    if inbound && vip.server_is_local != 0 {
        return Ok(Route::STACK);
    }
    let hop = match hop_for_tc(env, query_fib(env, config, packet, wan)) {
        Ok(hop) => hop,
        Err(FibResult::TooBig(_)) if packet.ttl <= 1 => return Err(ttl_exceeded(vip, packet)),
        Err(FibResult::TooBig(mtu)) => {
            route.mtu = mtu;
            return oversized(vip, packet);
        }
        Err(routed) => return Err(fib_refusal(packet.direction, routed)),
    };
    if !may_leave_by(config, packet.direction, hop.ifindex) {
        return Err(Reason::NotByWan);
    }
    if packet.ttl <= 1 {
        return Err(ttl_exceeded(vip, packet));
    }
    Ok(Route::for_tc(hop))
}

/// The reason for a packet whose TTL expires here.
#[inline(always)]
fn ttl_exceeded(vip: &Vip, packet: &Packet) -> Reason {
    if packet.direction == Direction::Inbound || can_answer_server(vip) {
        Reason::TimeExceeded
    } else {
        Reason::TtlExpired
    }
}

/// True when there is a source address for ICMP errors to the server. Without one they are left to
/// the kernel.
#[inline(always)]
const fn can_answer_server(vip: &Vip) -> bool {
    u32::from_ne_bytes(vip.lan_address) != 0
}

/// A packet larger than the MTU of its route: the kernel fragments it, inbound after the
/// translation and outbound before it. If DF is set, its sender gets an ICMP error.
#[inline(always)]
const fn oversized(vip: &Vip, packet: &Packet) -> Result<Route, Reason> {
    match (packet.direction, packet.dont_fragment) {
        (Direction::Inbound, true) => Err(Reason::FragmentationNeeded),
        (Direction::Outbound, true) if can_answer_server(vip) => Err(Reason::FragmentationNeeded),
        (Direction::Outbound, true) => Err(Reason::TooBig),
        (Direction::Inbound, false) => Ok(Route::STACK),
        // After the translation its source is an address of this host, and the kernel would treat
        // it as a martian.
        (Direction::Outbound, false) => Err(Reason::ToFragment),
    }
}
