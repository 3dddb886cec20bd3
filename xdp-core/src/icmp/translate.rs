//! Translation of ICMP errors in both directions, and which packet they quote (RFC 5508 section 4).
//!
//! The quoted packet alone decides: no session is needed, and none is created, refreshed or ended
//! (RFC 4787 REQ-12). This runs in tc only: errors are rare, and most ICMP is the gateway's own.

use crate::checksum::Delta;
use crate::classify::{is_bogus, is_for_us, is_ipv4, refuse_options, refused_by_list};
use crate::env::{Env, FibQuery, FibResult, Side, Verdict};
use crate::frame::{Frame, update_field};
use crate::icmp::quote;
use crate::icmp::rate_limit::{self, Origin};
use crate::icmp::report::{OFFSET_MASK, Report};
use crate::inside::is_inside;
use crate::interfaces::may_leave_by;
use crate::packet::is_no_host;
use crate::route::{fib_refusal, hop_for_tc};
use crate::transport::{checksum_offset, is_service};
use crate::uplink::owning_wan;
use crate::vip;
use crate::wire::icmp::{self, Kind};
use crate::wire::ipv4::{self, Protocol};
use crate::wire::{ethernet, tcp};
use xdp_common::slot::host_peer;
use xdp_common::{Class, Config, Direction, Hook, Reason};

/// The sum of a header whose checksum is right.
const VALID_SUM: u16 = 0xffff;

/// True for a frame that [`process`] can handle: IPv4 with ICMP in it.
#[inline(always)]
pub fn is_icmp<F: Frame + ?Sized>(frame: &F) -> bool {
    is_ipv4(frame)
        && ipv4::Header::read_outer(frame).is_some_and(|ip| ip.protocol == Protocol::ICMP)
}

/// The verdict on ICMP, rewritten when it is forwarded. [`Verdict::NotForwarded`] changes no byte.
// To be inlined into a function that does nothing else: a verdict that is returned through the
// stack has parts that were never written.
#[inline(always)]
pub fn process<F: Frame + ?Sized, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    side: Side,
) -> Verdict {
    let mut report = Report::EMPTY;
    if let Some(reason) = read(frame, env, config, side, &mut report) {
        return Verdict::NotForwarded(reason);
    }
    if quote::is_of_host(frame, env, config, &report) {
        return Verdict::NotForwarded(Reason::HostPeer);
    }
    if let Some(reason) = refuse(frame, env, config, &report) {
        return Verdict::NotForwarded(reason);
    }
    if E::has_several(config) && config.pinned != 0 && report.direction == Direction::Outbound {
        report.vip = quote::vip_of_peer(frame, env, config, &report);
    }
    if let Some(reason) = find_next_hop(env, config, &mut report) {
        return Verdict::NotForwarded(reason);
    }
    if config.dry_run == 0 && !translate(frame, config, &report) {
        return Verdict::NotForwarded(Reason::Unwritable);
    }
    Verdict::Forward {
        hop: report.hop,
        direction: report.direction,
        class: Class::Icmp,
        bytes: report.total_length,
        tracked: false,
    }
}

/// Reads an error and finds out whose packet it quotes; or the reason why it is not translated.
// Out of line, like every step here: they do not share the stack.
#[inline(never)]
fn read<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    side: Side,
    report: &mut Report,
) -> Option<Reason> {
    if !is_for_us(frame, config, side) {
        return Some(Reason::NotOurMac);
    }
    let Some(ip) = ipv4::Header::read_outer(frame) else {
        return Some(Reason::Malformed);
    };
    let Some(header) = ip.header_length() else {
        return Some(Reason::Malformed);
    };
    let total = usize::from(ip.total_length);
    if total < header + icmp::LENGTH || ethernet::LENGTH + total > frame.length() {
        return Some(Reason::Malformed);
    }
    let at = (ethernet::LENGTH + header) & OFFSET_MASK;
    let Some(kind) = Kind::read(frame, at) else {
        return Some(Reason::Malformed);
    };
    // The kernel reassembles the gateway's own ICMP; an error is not larger than a link carries.
    if !kind.is_passed_on() || ip.is_later_fragment() || ip.is_first_fragment() {
        return Some(Reason::OtherIcmp);
    }
    report.source = ip.source;
    report.destination = ip.destination;
    report.total_length = ip.total_length;
    report.ttl = ip.ttl;
    report.tos = ip.tos;
    report.at = at;
    let length = total - header - icmp::LENGTH;
    let to_vip = if side == Side::Out {
        None
    } else {
        vip::by_address::<F>(config, ip.destination)
    };
    report.vip = to_vip.map_or(0, |vip| vip.number);
    read_quote(frame, env, config, report, (side, to_vip.is_some(), length))
}

/// Finds out whose packet is quoted; or the reason why the error is not translated.
#[inline(always)]
fn read_quote<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    report: &mut Report,
    (side, to_vip, length): (Side, bool, usize),
) -> Option<Reason> {
    if length < ipv4::LENGTH {
        // Too short to show whose packet it is, to the kernel as well. The VIP and the server show
        // that it is handled; anything else is between other hosts.
        return Some(
            if to_vip || vip::by_server::<F>(config, report.source).is_some() {
                Reason::IcmpMalformed
            } else {
                Reason::OtherIcmp
            },
        );
    }
    let Some(quoted) = ipv4::Header::read(frame, report.quote()) else {
        return Some(Reason::IcmpMalformed);
    };
    if to_vip && vip::by_server::<F>(config, quoted.source).is_some() {
        return Some(Reason::IcmpSpoofed);
    }
    // An error comes to the VIP that sent the packet, and to no other one.
    if to_vip && quoted.source == report.destination {
        report.peer = quoted.destination;
    } else if side != Side::Wan
        && let Some(vip) = vip::by_server::<F>(config, quoted.destination)
    {
        report.direction = Direction::Outbound;
        report.peer = quoted.source;
        report.vip = vip.number;
    } else {
        return Some(Reason::OtherIcmp);
    }
    let Some(header) = quoted.header_length() else {
        return Some(Reason::IcmpMalformed);
    };
    report.quote_header = header;
    if let Some(reason) = refused_by_list(env, config, (report.vip, report.peer)) {
        return Some(reason);
    }
    read_transport(frame, env, config, report, (&quoted, length))
}

/// Reads the quoted transport header: only UDP or TCP with a port of the service, and ESP, are handled.
#[inline(always)]
fn read_transport<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    report: &mut Report,
    (quoted, length): (&ipv4::Header, usize),
) -> Option<Reason> {
    let at = (report.quote() + report.quote_header) & OFFSET_MASK;
    let has_ports = quoted.protocol.has_ports();
    if quoted.protocol == Protocol::ICMP && !quoted.is_later_fragment() {
        let kind = Kind::read(frame, at);
        return Some(match kind {
            Some(kind) if kind.is_error() => Reason::IcmpNested,
            Some(_) | None => Reason::OtherIcmp,
        });
    }
    if !has_ports && quoted.protocol != Protocol::ESP {
        return Some(Reason::OtherIcmp);
    }
    if has_ports && quoted.is_later_fragment() {
        return quote::refuse_fragment(env, config, report, quoted);
    }
    if length < report.quote_header + icmp::QUOTED {
        return Some(Reason::IcmpMalformed);
    }
    if has_ports {
        let Some((source, destination)) = tcp::ports(frame, at) else {
            return Some(Reason::IcmpMalformed);
        };
        let service_port = match report.direction {
            Direction::Inbound => source,
            Direction::Outbound => destination,
        };
        let is_tcp = quoted.protocol.is_tcp_not_udp();
        if !is_service(is_tcp, service_port) {
            return Some(Reason::OtherIcmp);
        }
        report.is_tcp = is_tcp;
        let checksum = checksum_offset(is_tcp);
        // Of TCP an error need not quote it. Without a branch: 1 if it does.
        let missing = length.wrapping_sub(report.quote_header + checksum + 2);
        let is_quoted = core::hint::black_box(!missing) >> (usize::BITS - 1);
        report.checksum_at = (at + checksum) * is_quoted;
        report.ports = host_peer::ports(destination, source);
    }
    None
}

/// Refuses a handled error that must not be passed on.
#[inline(never)]
fn refuse<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    report: &Report,
) -> Option<Reason> {
    let inbound = report.direction == Direction::Inbound;
    if inbound && is_bogus::<E>(report.source, config) {
        return Some(Reason::BogusSource);
    }
    // An error goes to the sender of the packet that it quotes.
    if !inbound && (report.destination != report.peer || is_no_host(report.peer)) {
        return Some(Reason::OtherIcmp);
    }
    let length = usize::from(report.total_length) + ethernet::LENGTH - report.at;
    if frame.sum(report.at, length) != Some(VALID_SUM)
        || frame.sum(report.quote(), report.quote_header) != Some(VALID_SUM)
    {
        return Some(Reason::IcmpMalformed);
    }
    let is_local = vip::by_number::<F>(config, report.vip).server_is_local != 0;
    let ttl_exceeded = report.ttl <= 1 && E::HOOK == Hook::Tc && !(inbound && is_local);
    let origin = Origin::Reporter(report.direction, report.source);
    let of_peer = (
        vip::service::<E>(config, vip::by_number::<E>(config, report.vip)),
        report.peer,
    );
    if ttl_exceeded || !rate_limit::allow(env, config, of_peer, origin, env.jiffies()) {
        return Some(Reason::IcmpLimited);
    }
    if E::HOOK == Hook::Egress {
        return None;
    }
    let inside = inbound && is_inside(env, config, report.vip, report.source);
    inside
        .then_some(Reason::InsideSource)
        .or_else(|| refuse_options(frame))
}

/// The WAN by which an error leaves: that of its VIP, as for every packet with this source
/// ([`owning_wan`]).
// A step of its own: two look-ups of one function would have their structures on the stack at once.
#[inline(never)]
fn wan_of_vip<E: Env>(env: &E, config: &Config, report: &Report) -> u32 {
    let vip = vip::by_number::<E>(config, report.vip);
    let addresses = (vip.address, report.destination);
    let header = (Protocol::ICMP.number(), report.tos);
    let query = FibQuery::without_ports(addresses, header, FibQuery::ANY_LENGTH);
    owning_wan(env, config, vip, query)
}

/// Asks the FIB for the next hop of an error with its translated addresses. Unless the FIB
/// says otherwise, the next hop is the host's own stack.
#[inline(never)]
fn find_next_hop<E: Env>(env: &E, config: &Config, report: &mut Report) -> Option<Reason> {
    let inbound = report.direction == Direction::Inbound;
    let vip = vip::by_number::<E>(config, report.vip);
    if E::HOOK == Hook::Egress || (inbound && vip.server_is_local != 0) {
        return None;
    }
    let addresses = if inbound {
        (report.source, vip.server)
    } else {
        (vip.address, report.destination)
    };
    let header = (Protocol::ICMP.number(), report.tos);
    let query = FibQuery {
        // One WAN has all VIPs.
        egress: if inbound || config.wans[1] == 0 {
            0
        } else {
            wan_of_vip(env, config, report)
        },
        ..FibQuery::without_ports(addresses, header, report.total_length)
    };
    report.hop = match hop_for_tc(env, env.fib_lookup(&query)) {
        Ok(hop) => hop,
        // No error is sent about an error that is too long.
        Err(FibResult::TooBig(_)) if inbound => return None,
        Err(FibResult::TooBig(_)) => return Some(Reason::IcmpLimited),
        Err(routed) => return Some(fib_refusal(report.direction, routed)),
    };
    (!may_leave_by(config, report.direction, report.hop.ifindex)).then_some(Reason::NotByWan)
}

/// Translates both headers and all checksums in place. Outbound the source becomes the VIP: an inside
/// address means nothing outside (RFC 5508 section 4.2 REQ-5). False: the frame is too short.
// Out of line: the offsets are read back from memory, so that the verifier follows this once.
#[inline(never)]
fn translate<F: Frame + ?Sized>(frame: &mut F, config: &Config, report: &Report) -> bool {
    let service = vip::by_number::<F>(config, report.vip);
    let (vip, server) = (
        F::opaque_address(service.address),
        F::opaque_address(service.server),
    );
    let (outer_at, outer_old, outer_new, inner_at, inner_old, inner_new) = match report.direction {
        Direction::Inbound => (
            ethernet::LENGTH + ipv4::DESTINATION,
            vip,
            server,
            ipv4::SOURCE,
            vip,
            server,
        ),
        Direction::Outbound => (
            ethernet::LENGTH + ipv4::SOURCE,
            report.source,
            vip,
            ipv4::DESTINATION,
            server,
            vip,
        ),
    };
    let quote = report.quote() & OFFSET_MASK;
    let address = Delta::new().replace4(inner_old, inner_new);
    let inner_checksum = quote + ipv4::CHECKSUM;
    let Some(changed) = update_field(frame, inner_checksum, |field| address.ip_field(field)) else {
        return false;
    };
    let mut message = address.replace2(changed.0, changed.1);
    if report.checksum_at != 0 {
        let at = report.checksum_at & OFFSET_MASK;
        let change = |field| address.field(report.is_tcp, field);
        let Some(changed) = update_field(frame, at, change) else {
            return false;
        };
        message = message.replace2(changed.0, changed.1);
    }
    if frame
        .with_bytes_mut(quote + inner_at, |place| *place = inner_new)
        .is_none()
    {
        return false;
    }
    let at = (report.at & OFFSET_MASK) + icmp::CHECKSUM;
    if update_field(frame, at, |field| message.ip_field(field)).is_none() {
        return false;
    }
    let protocol = Protocol::ICMP.number();
    let ttl = report.ttl.wrapping_sub(u8::from(!report.hop.is_stack()));
    let delta = Delta::new()
        .replace4(outer_old, outer_new)
        .replace2([report.ttl, protocol], [ttl, protocol]);
    if frame
        .with_bytes_mut::<4, _>(outer_at, |place| *place = outer_new)
        .is_none()
    {
        return false;
    }
    if update_field(frame, ethernet::LENGTH + ipv4::CHECKSUM, |field| {
        delta.ip_field(field)
    })
    .is_none()
    {
        return false;
    }
    let Some(place) = frame.array_mut::<1>(ethernet::LENGTH + ipv4::TTL) else {
        return false;
    };
    *place = [ttl];
    true
}
