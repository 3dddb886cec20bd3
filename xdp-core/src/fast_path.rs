//! The fast path: forwards ESP of a known flow that has a cached next hop.
//!
//! It decides nothing of its own. Everything unusual about a packet (options, fragments, a length
//! or a port that is not plain ESP's, a TTL that expires here, a checksum that may be partial, an
//! unknown SPI, a next hop that has to be looked up) goes to [`crate::process`], which handles
//! every case; and what the fast path forwards would have left that function with the same bytes
//! and the same counts. The differential test compares the two.
//!
//! It exists for its low cost: words instead of bytes, constants that the loader has computed
//! ([`DirectionConfig`]), one look-up, and no helper call but the two look-ups and the redirect.

use crate::checksum::{fold, ip_less, udp_more};
use crate::conntrack::flow;
use crate::counters;
use crate::env::{Env, NextHop, Side, Verdict};
use crate::frame::Frame;
use crate::neighbour::cached_hop;
use crate::pipeline::process;
use crate::table::hash::pair;
use crate::table::word::Word;
use crate::table::{self, Place};
use crate::vip;
use crate::wire::ipv4::Protocol;
use crate::wire::{esp, ethernet, ipv4, udp};
use xdp_common::config::DirectionConfig;
use xdp_common::limits::NATT_PORT;
use xdp_common::slot::{self, Key};
use xdp_common::vips::Translation;
use xdp_common::{Class, Config, Direction, Hook, cpu};

/// Bytes that are read: Ethernet, IPv4, UDP, ESP.
const HEAD: usize = PAYLOAD + udp::LENGTH + esp::LENGTH;
/// Offset of the IPv4 header.
const IP: usize = ethernet::LENGTH;
/// Offset of the IPv4 payload: the UDP header, or native ESP.
const PAYLOAD: usize = IP + ipv4::LENGTH;
const SOURCE: usize = IP + ipv4::SOURCE;
const DESTINATION: usize = IP + ipv4::DESTINATION;
const IP_CHECKSUM: usize = IP + ipv4::CHECKSUM;
const UDP_CHECKSUM: usize = PAYLOAD + udp::CHECKSUM;
/// Offset of the ESP header in a datagram.
const ESP_IN_UDP: usize = PAYLOAD + udp::LENGTH;
/// EtherType, version and header length of IPv4 without options: four bytes of which the last one
/// (type of service) is masked.
const TYPE: u32 = u32::from_ne_bytes([8, 0, ipv4::WITHOUT_OPTIONS, 0]);
const TYPE_MASK: u32 = u32::from_ne_bytes([0xff, 0xff, 0xff, 0]);
/// "Don't fragment", the only flag that may be set, in the word of flags, offset, TTL and protocol.
const DONT_FRAGMENT: u32 = 0x4000_0000;
/// The smallest value of that word without the flag: a TTL of two ...
const LEAST: u32 = 2 << 8;
/// ... and the largest value that is not a fragment.
const MOST: u32 = 0xffff;
const UDP: u8 = Protocol::UDP.number();
const ESP: u8 = Protocol::ESP.number();
/// Length of an IPv4 header without options, in the type of a packet's length fields.
#[expect(clippy::cast_possible_truncation, reason = "20")]
const HEADER_LENGTH: u16 = ipv4::LENGTH as u16;

/// Processes a packet: on the fast path if possible, else by [`process`].
#[inline(always)]
pub fn run<F: Frame + ?Sized, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    side: Side,
) -> Verdict {
    let fast = match (E::HOOK, side) {
        (Hook::Xdp, Side::Wan) => forward::<F, E, false>(frame, env, config),
        (Hook::Xdp, Side::Lan) => forward::<F, E, true>(frame, env, config),
        (Hook::Xdp, Side::Both) => forward_either(frame, env, config),
        (Hook::Xdp, Side::Out) | (Hook::Tc | Hook::Egress, _) => None,
    };
    fast.unwrap_or_else(|| process(frame, env, config, side))
}

/// Forwards a packet that is nothing but ESP of a known flow in one direction. `None`: it is for
/// [`process`], and nothing has been changed. Otherwise it has been counted, also in the totals of
/// its class.
#[inline(always)]
pub fn forward<F: Frame + ?Sized, E: Env, const OUTBOUND: bool>(
    frame: &mut F,
    env: &E,
    config: &Config,
) -> Option<Verdict> {
    if E::has_several(config) {
        forward_vip::<F, E, OUTBOUND, true>(frame, env, config)
    } else {
        forward_vip::<F, E, OUTBOUND, false>(frame, env, config)
    }
}

/// The same; `SEVERAL`: that VIP of several for which the packet is.
#[inline(always)]
fn forward_vip<F: Frame + ?Sized, E: Env, const OUTBOUND: bool, const SEVERAL: bool>(
    frame: &mut F,
    env: &E,
    config: &Config,
) -> Option<Verdict> {
    let direction_config = &config.directions[usize::from(OUTBOUND)];
    let length = frame.length();
    let head = frame.array_mut::<HEAD>(0)?;
    if F::get32::<{ ethernet::ETHER_TYPE }, HEAD>(head) & TYPE_MASK != TYPE {
        return None;
    }
    let address = if OUTBOUND {
        F::get32::<SOURCE, HEAD>(head)
    } else {
        F::get32::<DESTINATION, HEAD>(head)
    };
    // The first six bytes, at the upper end of the word.
    let mac = u64::from_le(F::get64::<{ ethernet::DESTINATION }, HEAD>(head)) << 16;
    let translation = if SEVERAL {
        vip::candidate(config, OUTBOUND, address)?
    } else {
        &direction_config.translation
    };
    if address != translation.old || mac != direction_config.own_mac {
        return None;
    }
    // Flags and offset, TTL, protocol. Only a word that consists of the last two is within the
    // bounds.
    let rest = u32::from_be(F::get32::<{ IP + ipv4::FLAGS }, HEAD>(head)) & !DONT_FRAGMENT;
    let total = u16::from_be(F::get16::<{ IP + ipv4::TOTAL_LENGTH }, HEAD>(head));
    if rest.wrapping_sub(LEAST) > MOST - LEAST || IP + usize::from(total) > length {
        return None;
    }
    // The byte is loaded twice: after a single load the compiler would choose between two numbers,
    // the larger one first.
    if head[IP + ipv4::PROTOCOL] == UDP {
        forward_esp::<F, E, OUTBOUND, SEVERAL, true>(head, env, config, (translation, total))
    } else if rest & 0xff == u32::from(ESP) {
        forward_esp::<F, E, OUTBOUND, SEVERAL, false>(head, env, config, (translation, total))
    } else {
        None
    }
}

/// [`forward`] on a one-armed gateway, where the source shows the direction. What the server sends to
/// the VIP is inbound, but there is no flow of either direction for it.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the same number")]
pub fn forward_either<F: Frame + ?Sized, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
) -> Option<Verdict> {
    let head = frame.array_mut::<HEAD>(0)?;
    let source = F::get32::<SOURCE, HEAD>(head);
    let of_server = if E::has_several(config) {
        vip::by_server::<E>(config, source.to_ne_bytes()).is_some()
    } else {
        source
            == config.directions[Direction::Outbound as usize]
                .translation
                .old
    };
    if !of_server {
        return forward::<F, E, false>(frame, env, config);
    }
    let mut verdict = forward::<F, E, true>(frame, env, config)?;
    if let Verdict::Forward { hop, .. } = &mut verdict {
        // Both directions would end in one load of a constant at a variable place, which the verifier
        // rejects without CAP_PERFMON.
        hop.ifindex = F::opaque(hop.ifindex.into()) as u32;
    }
    Some(verdict)
}

/// The same, once the protocol is known: ESP in UDP, or native ESP.
#[inline(always)]
fn forward_esp<
    F: Frame + ?Sized,
    E: Env,
    const OUTBOUND: bool,
    const SEVERAL: bool,
    const IN_UDP: bool,
>(
    head: &mut [u8; HEAD],
    env: &E,
    config: &Config,
    (translation, total): (&Translation, u16),
) -> Option<Verdict> {
    let direction_config = &config.directions[usize::from(OUTBOUND)];
    let direction = if OUTBOUND {
        Direction::Outbound
    } else {
        Direction::Inbound
    };
    let class = if IN_UDP { Class::EspInUdp } else { Class::Esp };
    if IN_UDP {
        if !is_natt::<F, OUTBOUND>(head, direction_config, total) {
            return None;
        }
    } else if usize::from(total) < ipv4::LENGTH + esp::LENGTH {
        return None;
    }
    let peer = if OUTBOUND {
        F::get32::<DESTINATION, HEAD>(head)
    } else {
        F::get32::<SOURCE, HEAD>(head)
    };
    let spi = u32::from_be(if IN_UDP {
        F::get32::<{ ESP_IN_UDP + esp::SPI }, HEAD>(head)
    } else {
        F::get32::<{ PAYLOAD + esp::SPI }, HEAD>(head)
    });
    // A reserved SPI never gets a flow: a value below 256 finds none.
    let peer = peer.to_ne_bytes();
    let word = slot::key_word(peer, spi);
    let key = || {
        // Without several VIPs it is number 0.
        let service_bits = if SEVERAL {
            translation.service_bits.into()
        } else {
            0
        };
        slot::flow_key_of(peer, spi, slot::flow_bits(class, direction, service_bits))
    };
    let place = Place::new(pair(&config.secret, word), config.flow_mask);
    let slot = match table::find_at(env.flows(), place.first(), key) {
        Some(found) => found,
        None => {
            // Computed a second time, hidden from the compiler, which would otherwise keep it for
            // all packets although only a few need it.
            let (config, word) = core::hint::black_box((config, word));
            let place = Place::new(pair(&config.secret, word), config.flow_mask);
            let key = || Key { word, ..key() };
            table::find_at(env.flows(), place.second(), key)?
        }
    };
    let translation = if SEVERAL && config.pinned != 0 {
        vip_of_flow::<OUTBOUND>(config, translation, slot[slot::SPI_VIP].load())?
    } else {
        translation
    };
    let block = env.cpu_block()?;
    let egress = if SEVERAL {
        block[core::hint::black_box(translation.egress_word as usize) & (cpu::COUNTERS - 1)].load()
    } else {
        block[cpu::egress_of(direction)].load()
    };
    let jiffies = env.jiffies();
    let mac = cached_hop::mac(
        slot[slot::flow::HOP].load(),
        cached_hop::stamp(translation, egress, jiffies),
    )?;
    if total > cpu::egress_mtu(egress) {
        return None;
    }
    // Not earlier: it would be one more value to keep.
    let sequence = u32::from_be(if IN_UDP {
        F::get32::<{ ESP_IN_UDP + esp::SEQUENCE }, HEAD>(head)
    } else {
        F::get32::<{ PAYLOAD + esp::SEQUENCE }, HEAD>(head)
    });
    flow::count_packet(env.flows(), slot, sequence, total, jiffies);
    rewrite::<F, OUTBOUND, IN_UDP>(head, translation, mac);
    counters::count_class(block, Hook::Xdp, (direction, class), total, true);
    Some(Verdict::Forward {
        hop: NextHop {
            ifindex: translation.egress,
        },
        direction,
        class,
        bytes: total,
        tracked: true,
    })
}

/// The translation of a flow: outbound that of the VIP that its peer uses. `None`: the packet has come to
/// another VIP than those before, or the flow's one does not exist any more.
#[inline(always)]
fn vip_of_flow<'c, const OUTBOUND: bool>(
    config: &'c Config,
    translation: &'c Translation,
    word: u64,
) -> Option<&'c Translation> {
    let number = slot::vip(word);
    if !OUTBOUND {
        return (number == translation.vip).then_some(translation);
    }
    let of_flow = vip::translation_of(config, 1, number);
    (of_flow.service_bits == translation.service_bits
        && of_flow.vip == number
        && of_flow.old == translation.old)
        .then_some(of_flow)
}

/// True for a whole datagram of UDP 4500 with room for ESP, with no checksum or a full one.
#[inline(always)]
fn is_natt<F: Frame + ?Sized, const OUTBOUND: bool>(
    head: &[u8; HEAD],
    direction_config: &DirectionConfig,
    total: u16,
) -> bool {
    if usize::from(total) < ipv4::LENGTH + udp::LENGTH + esp::LENGTH {
        return false;
    }
    // The other port and the length, which is the total length less the IPv4 header. Inbound the
    // other port is the service's, so that one comparison checks both.
    let more = u32::from_be(F::get32::<{ PAYLOAD + udp::DESTINATION }, HEAD>(head))
        .wrapping_sub(u32::from(total));
    let as_claimed = if OUTBOUND {
        F::get16::<{ PAYLOAD + udp::SOURCE }, HEAD>(head) == NATT_PORT.to_be()
            && more & 0xffff == u32::from(HEADER_LENGTH.wrapping_neg())
    } else {
        more == (u32::from(NATT_PORT) << 16) - u32::from(HEADER_LENGTH)
    };
    if !as_claimed {
        return false;
    }
    let checksum = F::get16::<UDP_CHECKSUM, HEAD>(head);
    checksum == 0 || direction_config.partial == 0 || !is_partial::<F>(head, total, checksum)
}

/// True when the checksum is the sum over the pseudo-header, as a sender leaves it to its device.
#[inline(always)]
fn is_partial<F: Frame + ?Sized>(head: &[u8; HEAD], total: u16, checksum: u16) -> bool {
    let address = |word: u32| u64::from(word >> 16) + u64::from(word & 0xffff);
    let sum = address(F::get32::<SOURCE, HEAD>(head))
        + address(F::get32::<DESTINATION, HEAD>(head))
        + u64::from(total.wrapping_sub(HEADER_LENGTH).to_be())
        + u64::from(u16::from_ne_bytes([0, UDP]));
    fold(sum) == checksum
}

/// Writes both MAC addresses, the address, the TTL and the checksums.
#[inline(always)]
fn rewrite<F: Frame + ?Sized, const OUTBOUND: bool, const IN_UDP: bool>(
    head: &mut [u8; HEAD],
    translation: &Translation,
    mac: u64,
) {
    F::put64::<{ ethernet::DESTINATION }, HEAD>(head, u64::to_le(mac | translation.source_high));
    F::put32::<{ ethernet::DESTINATION + 8 }, HEAD>(head, u32::to_le(translation.source_low));
    if OUTBOUND {
        F::put32::<SOURCE, HEAD>(head, translation.new);
    } else {
        F::put32::<DESTINATION, HEAD>(head, translation.new);
    }
    head[IP + ipv4::TTL] = head[IP + ipv4::TTL].wrapping_sub(1);
    let old = F::get16::<IP_CHECKSUM, HEAD>(head);
    F::put16::<IP_CHECKSUM, HEAD>(head, ip_less(old, translation.ip_minus));
    if IN_UDP {
        let old = F::get16::<UDP_CHECKSUM, HEAD>(head);
        if old != 0 {
            F::put16::<UDP_CHECKSUM, HEAD>(head, udp_more(old, translation.udp_plus));
        }
    }
}
