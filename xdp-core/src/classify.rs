//! Classification: which packets ikenat handles, what class each belongs to, and which are refused.
//! It changes no byte and no table.
//!
//! The order of the checks matters: a packet that is not handled must be recognised after one or
//! two comparisons.

use crate::env::{Env, Side};
use crate::frame::Frame;
use crate::packet::{Packet, is_no_host};
use crate::service;
use crate::transport::{is_partial, least_first_fragment, read_ports};
use crate::vip::{self, Found, Vips};
use crate::wire::ethernet::{self, EtherType};
use crate::wire::ipv4::{self, Protocol};
use crate::wire::{esp, udp};
use xdp_common::config::mac_word;
use xdp_common::limits::{IKE_PORT, MACVLANS, NATT_PORT};
use xdp_common::{Class, Config, Direction, Hook, Reason, config};

/// Checks EtherType, address and protocol of a frame. `SEGMENT`: it is TCP that is looked for, and
/// otherwise UDP and ESP, for which TCP is another protocol.
#[inline(always)]
fn first_look<F: Frame + ?Sized, const SEGMENT: bool>(
    frame: &F,
    config: &Config,
    side: Side,
) -> Result<(ipv4::Header, Found), Reason> {
    if !is_ipv4(frame) {
        return Err(Reason::NotIpv4);
    }
    let ip = ipv4::Header::read_outer(frame).ok_or(Reason::Malformed)?;
    let found = service::of_packet::<F>(&ip, config, side)?;
    let is_handled = if SEGMENT {
        ip.protocol == Protocol::TCP
    } else {
        ip.protocol == Protocol::UDP || ip.protocol == Protocol::ESP
    };
    if is_handled {
        Ok((ip, found))
    } else if ip.protocol == Protocol::ICMP {
        // Only tc reads what an ICMP error quotes ([`crate::icmp`]).
        Err(Reason::Icmp)
    } else {
        Err(Reason::OtherProtocol)
    }
}

/// Whether the EtherType of a frame is that of IPv4.
#[inline(always)]
pub fn is_ipv4<F: Frame + ?Sized>(frame: &F) -> bool {
    ethernet::Header::read(frame).is_some_and(|ethernet| ethernet.ether_type == EtherType::IPV4)
}

/// The reason why a frame is not handled, if its EtherType, its address, its protocol or the port
/// of plain UDP or TCP shows it. It is the reason that [`classify`] would give; frames that are
/// unusual in any respect are left to that function.
#[inline(always)]
pub fn not_handled<F: Frame + ?Sized>(frame: &F, config: &Config, side: Side) -> Option<Reason> {
    match protocol_not_handled::<F, false>(frame, config, side) {
        Some(Reason::OtherProtocol) => protocol_not_handled::<F, true>(frame, config, side),
        reason => reason,
    }
}

/// The same for TCP (`SEGMENT`), or for UDP and ESP. Twice, so that these cost nothing more for TCP.
#[inline(always)]
fn protocol_not_handled<F: Frame + ?Sized, const SEGMENT: bool>(
    frame: &F,
    config: &Config,
    side: Side,
) -> Option<Reason> {
    let (ip, (direction, _)) = match first_look::<F, SEGMENT>(frame, config, side) {
        Ok(found) => found,
        Err(Reason::Malformed) => return None,
        Err(reason) => return Some(reason),
    };
    let total = usize::from(ip.total_length);
    if ip.protocol == Protocol::ESP
        || ip.header_length() != Some(ipv4::LENGTH)
        || ip.is_later_fragment()
        // It has to be remembered, so that its later fragments are not taken for handled ones.
        || ip.is_first_fragment()
        || total < ipv4::LENGTH + udp::LENGTH
        || ethernet::LENGTH + total > frame.length()
        || !is_sent_to_interface(frame, config, side)
    {
        return None;
    }
    let header = udp::Header::read(frame, ethernet::LENGTH + ipv4::LENGTH)?;
    let service_port = match direction {
        Direction::Inbound => header.destination,
        Direction::Outbound => header.source,
    };
    let is_of_service = service_port == NATT_PORT || (!SEGMENT && service_port == IKE_PORT);
    (!is_of_service).then_some(Reason::OtherPort)
}

/// Decides whether a packet is handled. A fragment of UDP or TCP without ports is accepted here
/// ([`Class::Fragment`]); whether it belongs to a handled datagram, only the tables can show.
/// `for_us`: the result of [`is_for_us`]. TCP is asked about separately (`SEGMENT`), when the answer is
/// that the packet is of another protocol.
///
/// # Errors
/// The reason why it is punted or dropped.
#[inline(always)]
pub fn classify<F: Frame + ?Sized, const SEGMENT: bool>(
    frame: &F,
    config: &Config,
    side: Side,
    hook: Hook,
    for_us: bool,
) -> Result<Packet, Reason> {
    let (ip, found) = first_look::<F, SEGMENT>(frame, config, side)?;
    // A redirect would take a frame that was sent to another host away from its receiver.
    if !for_us {
        return Err(Reason::NotOurMac);
    }
    let header_length = ip.header_length().ok_or(Reason::Malformed)?;
    let total = usize::from(ip.total_length);
    if total < header_length || ethernet::LENGTH + total > frame.length() {
        return Err(Reason::Malformed);
    }
    let mut packet = Packet::fragment(found, service::peer_of(&ip, found), &ip);
    let at = ethernet::LENGTH + header_length;
    let length = total - header_length;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "less than the total length"
    )]
    let data = length as u16;
    packet.data = data;
    check_fragment(&packet, header_length)?;
    if !ip.is_later_fragment() {
        if SEGMENT {
            read_ports(frame, &mut packet, at)?;
        } else if ip.protocol == Protocol::ESP {
            read_esp(frame, &mut packet, at, length);
        } else {
            read_udp(frame, &mut packet, at, length)?;
            if hook == Hook::Xdp && is_partial(frame, config, side, &ip, at) {
                return Err(Reason::ChecksumPartial);
            }
        }
    }
    refuse_untranslatable::<F>(&packet, config, &ip, hook)?;
    Ok(packet)
}

/// Refuses fragments that cannot be reassembled, whatever their destination: a first fragment
/// without the fields that decide about it (RFC 1858 section 3), and a fragment that ends beyond
/// 65,535 bytes.
#[inline(always)]
fn check_fragment(packet: &Packet, header_length: usize) -> Result<(), Reason> {
    if packet.first_fragment && usize::from(packet.data) < least_first_fragment(packet.protocol) {
        return Err(Reason::FragmentTiny);
    }
    let end = header_length + usize::from(packet.offset) * 8 + usize::from(packet.data);
    if end > usize::from(u16::MAX) {
        return Err(Reason::FragmentPastEnd);
    }
    Ok(())
}

/// The first of several fragments of a datagram that is not handled, if the frame is one.
#[inline(always)]
pub fn foreign_fragment<F: Frame + ?Sized>(
    frame: &F,
    config: &Config,
    side: Side,
) -> Option<Packet> {
    let ip = ipv4::Header::read_outer(frame).filter(ipv4::Header::is_first_fragment)?;
    let found = service::of_packet::<F>(&ip, config, side).ok()?;
    Some(Packet::fragment(found, service::peer_of(&ip, found), &ip))
}

/// True for a frame that was sent to the interface that received it, or to a macvlan on top
/// of it. On egress there is nothing to check.
// Out of line, and not called by `classify`: before 6.12 the stack of both would count.
#[inline(never)]
pub fn is_for_us<F: Frame + ?Sized>(frame: &F, config: &Config, side: Side) -> bool {
    is_sent_to_interface(frame, config, side)
        || destination(frame).is_some_and(|mac| is_one_of(&config.accepted_macs, mac))
}

/// True for a frame that was sent to the MAC address of the interface that received it: to that of
/// this moment, where the kernel says so, otherwise to the one that it had when the programs were
/// loaded (or, in its place, the macvlan that most frames are sent to).
#[inline(always)]
fn is_sent_to_interface<F: Frame + ?Sized>(frame: &F, config: &Config, side: Side) -> bool {
    let [inbound, outbound] = &config.directions;
    let (lan, wan) = (F::opaque(outbound.own_mac), F::opaque(inbound.own_mac));
    let own = match side {
        Side::Lan => lan,
        Side::Wan | Side::Both => wan,
        Side::Out => return true,
    };
    match frame.is_to_host() {
        Some(is_to_host) => is_to_host,
        None => destination(frame).is_some_and(|mac| mac << 16 == own),
    }
}

/// The destination MAC address in the low six bytes.
#[inline(always)]
fn destination<F: Frame + ?Sized>(frame: &F) -> Option<u64> {
    ethernet::Header::read(frame).map(|ethernet| mac_word(ethernet.destination))
}

/// True for a frame to a group of hosts that holds a packet for the service. The host's own stack would
/// give it to a daemon on the VIP's own port, whose answer would teach a peer ([`crate::learn`]).
#[inline(never)]
pub fn is_group_frame_to_service<F: Frame + ?Sized>(
    frame: &F,
    config: &Config,
    side: Side,
) -> bool {
    let is_group = destination(frame).is_some_and(|mac| mac & 1 != 0);
    let Some(ip) = ipv4::Header::read_outer(frame).filter(|ip| !ip.is_later_fragment()) else {
        return false;
    };
    let inbound = matches!(
        service::of_packet::<F>(&ip, config, side),
        Ok((Direction::Inbound, _))
    );
    if !is_group || !inbound {
        return false;
    }
    let at = ip.header_length().map(|length| ethernet::LENGTH + length);
    let udp = at.and_then(|at| udp::Header::read(frame, at));
    let to_service = udp.is_some_and(|udp| [IKE_PORT, NATT_PORT].contains(&udp.destination));
    ip.protocol == Protocol::ESP || (ip.protocol == Protocol::UDP && to_service)
}

/// Whether a MAC address is in a list. Without a branch for each entry, which the verifier would follow
/// to the end of the program.
#[inline(always)]
fn is_one_of(macs: &[u64; MACVLANS], mac: u64) -> bool {
    if macs[0] == 0 {
        // An empty list, which the verifier knows.
        return false;
    }
    let mut found = 0;
    for one in macs {
        // Borrows from the upper half when they are equal; hidden from the compiler, which would
        // make a branch of it.
        found |= core::hint::black_box((one ^ mac).wrapping_sub(1)) >> 63;
    }
    // Zero is an empty place of the list.
    found != 0 && mac != 0
}

#[inline(always)]
fn read_esp<F: Frame + ?Sized>(frame: &F, packet: &mut Packet, at: usize, length: usize) {
    packet.class = Class::Other;
    if length >= esp::LENGTH
        && let Some(header) = esp::Header::read(frame, at)
    {
        packet.class = Class::Esp;
        packet.esp = header;
    }
}

#[inline(always)]
fn read_udp<F: Frame + ?Sized>(
    frame: &F,
    packet: &mut Packet,
    at: usize,
    length: usize,
) -> Result<(), Reason> {
    let header = udp::Header::read(frame, at).ok_or(Reason::Malformed)?;
    let (service_port, port) = match packet.direction {
        Direction::Inbound => (header.destination, header.source),
        Direction::Outbound => (header.source, header.destination),
    };
    if service_port != IKE_PORT && service_port != NATT_PORT {
        return Err(Reason::OtherPort);
    }
    let claimed = usize::from(header.length);
    // The first of several fragments holds less than the datagram; anything else must hold all of
    // it.
    if length < udp::LENGTH || claimed < udp::LENGTH || (claimed > length && !packet.first_fragment)
    {
        return Err(Reason::Malformed);
    }
    packet.port = port;
    packet.transport_at = at;
    let payload_at = at + udp::LENGTH;
    let payload = if claimed < length { claimed } else { length } - udp::LENGTH;
    if service_port == IKE_PORT {
        packet.class = Class::Ike;
        packet.ike_at = payload_at;
    } else {
        read_natt(frame, packet, payload_at, payload);
    }
    Ok(())
}

/// Distinguishes the three kinds of traffic on UDP 4500 (RFC 3948 section 2).
#[inline(always)]
fn read_natt<F: Frame + ?Sized>(frame: &F, packet: &mut Packet, at: usize, payload: usize) {
    packet.class = Class::Other;
    if payload >= esp::LENGTH {
        if let Some(header) = esp::Header::read(frame, at) {
            if header.spi.to_be_bytes() == esp::NON_ESP_MARKER {
                packet.class = Class::NattIke;
                packet.ike_at = at + esp::NON_ESP_MARKER.len();
            } else {
                packet.class = Class::EspInUdp;
                packet.esp = header;
            }
        }
    } else if payload == esp::KEEPALIVE.len()
        // Read with the UDP header before it: the verifier gives no range for a single byte at a
        // variable offset.
        && let Some(last) = frame.with_bytes::<{ udp::LENGTH + esp::KEEPALIVE.len() }, _>(packet.transport_at, |&[.., last]| last)
        && [last] == esp::KEEPALIVE
    {
        packet.class = Class::Keepalive;
    }
}

/// Refuses what must not be translated: sources that no client can have. Also refuses what XDP
/// cannot translate: packets whose TTL expires here, and packets for a server on this host.
#[inline(always)]
fn refuse_untranslatable<V: Vips + ?Sized>(
    packet: &Packet,
    config: &Config,
    ip: &ipv4::Header,
    hook: Hook,
) -> Result<(), Reason> {
    let inbound = packet.direction == Direction::Inbound;
    if inbound && is_bogus::<V>(ip.source, config) {
        return Err(Reason::BogusSource);
    }
    if hook == Hook::Xdp && inbound && vip::by_number::<V>(config, packet.vip).server_is_local != 0
    {
        return Err(Reason::ServerIsLocal);
    }
    if hook == Hook::Xdp && ip.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    Ok(())
}

/// The reason why the options of a packet are refused: a source route, or more of them than are read.
/// The host's own stack knows what to do with options that contradict themselves.
#[inline(always)]
pub fn refuse_options<F: Frame + ?Sized>(frame: &F) -> Option<Reason> {
    match ipv4::options(frame) {
        ipv4::Options::Harmless => None,
        ipv4::Options::SourceRoute => Some(Reason::SourceRoute),
        ipv4::Options::Malformed => Some(Reason::Malformed),
        ipv4::Options::TooMany => Some(Reason::ManyOptions),
    }
}

/// Sources that no client can have: those that the kernel's own input path treats as martians, class
/// E (240.0.0.0/4), and those that can only be forged: a VIP (a land attack) and a server.
#[inline(always)]
pub fn is_bogus<V: Vips + ?Sized>(source: [u8; 4], config: &Config) -> bool {
    is_no_host(source) || vip::is_of_service::<V>(config, source)
}

/// The reason why a peer's packets to and from a VIP are not forwarded, if the peer is on a list of its
/// service.
#[inline(always)]
pub(crate) fn refused_by_list<E: Env>(
    env: &E,
    config: &Config,
    (vip, peer): (u16, [u8; 4]),
) -> Option<Reason> {
    if config.lists == 0 {
        return None;
    }
    let list = vip::by_number::<E>(config, vip).list;
    if list == 0 {
        return None;
    }
    match env.peer_list(list, peer)? {
        config::EXCEPT => Some(Reason::ExceptPeer),
        config::DENY => Some(Reason::Denied),
        _ => None,
    }
}
