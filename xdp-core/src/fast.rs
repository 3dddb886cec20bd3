//! The fast path: ESP of a flow that is known, with a next hop that is remembered, straight through.
//!
//! It decides nothing of its own. Whatever is unusual about a packet (options, fragments, a length or a port that is not
//! plain ESP's, a TTL that ends here, a checksum that may be partial, an unknown SPI, a next hop that has to be asked
//! for) goes to [`crate::process`], which knows every case; and what passes here would have come out there with the same
//! bytes and the same counts. The differential test holds the two against each other.
//!
//! What it costs is why it exists: words instead of bytes, constants that the loader has worked out ([`Leg`]), one
//! look-up, and no call of a helper but the two look-ups and the redirect.

use crate::Frame;
use crate::checksum::fold;
use crate::gateway::{Env, Hop, Side, Verdict, process};
use crate::hash::digest_key;
use crate::hop;
use crate::rewrite::put_macs;
use crate::table::{self, Place};
use crate::track;
use crate::wire::{esp, ipv4, udp};
use crate::word::Word;
use xdp_common::config::Leg;
use xdp_common::limits::NATT_PORT;
use xdp_common::slot::{self, flow};
use xdp_common::{Class, Config, Direction, Hook, meta};

/// Bytes that are looked at: Ethernet, IPv4, UDP, ESP.
const HEAD: usize = ipv4::AT + ipv4::LENGTH + udp::LENGTH + esp::LENGTH;
/// The same for native ESP.
const PAYLOAD: usize = ipv4::AT + ipv4::LENGTH;
/// MAC addresses and EtherType of IPv4 without options: these four bytes with the last one (type of service) masked.
const TYPE: u32 = u32::from_ne_bytes([8, 0, 0x45, 0]);
const TYPE_MASK: u32 = u32::from_ne_bytes([0xff, 0xff, 0xff, 0]);
/// Fragment offset, "more fragments" and the reserved bit: only "don't fragment" may be set.
const FRAGMENT_MASK: u32 = u32::from_le_bytes([0xbf, 0xff, 0, 0]);
/// A TTL of two or more has one of these bits.
const TTL_MASK: u32 = 0x00fe_0000;
const UDP: u32 = 17;
const ESP: u32 = 50;

/// Puts a packet through: this way if it may, else through [`process`].
#[inline(always)]
pub fn run<F: Frame + ?Sized, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    side: Side,
) -> Verdict {
    let fast = match (E::HOOK, side) {
        (Hook::Xdp, Side::Wan | Side::Both) => forward::<F, E, false>(frame, env, config),
        (Hook::Xdp, Side::Lan) => forward::<F, E, true>(frame, env, config),
        (Hook::Tc, _) => None,
    };
    fast.unwrap_or_else(|| process(frame, env, config, side))
}

/// Forwards a packet that is nothing but ESP of a known flow in one direction. `None`: it is for [`process`]; nothing has
/// happened to it.
#[inline(always)]
pub fn forward<F: Frame + ?Sized, E: Env, const OUTBOUND: bool>(
    frame: &mut F,
    env: &E,
    config: &Config,
) -> Option<Verdict> {
    let leg = &config.legs[usize::from(OUTBOUND)];
    let length = frame.length();
    let head = frame.array_mut::<HEAD>(0)?;
    if F::get32::<12, HEAD>(head) & TYPE_MASK != TYPE {
        return None;
    }
    let own = if OUTBOUND {
        F::get32::<26, HEAD>(head)
    } else {
        F::get32::<30, HEAD>(head)
    };
    // The first six bytes, at the upper end of the word.
    let mac = u64::from_le(F::get64::<0, HEAD>(head)) << 16;
    if own != leg.old || mac != leg.own_mac {
        return None;
    }
    // In the order of the bytes: flags, offset, TTL, protocol.
    let rest = u32::from_le(F::get32::<20, HEAD>(head));
    let total = u16::from_be(F::get16::<16, HEAD>(head));
    if rest & FRAGMENT_MASK != 0 || rest & TTL_MASK == 0 || ipv4::AT + usize::from(total) > length {
        return None;
    }
    match rest >> 24 {
        UDP => esp::<F, E, OUTBOUND, true>(head, env, config, total),
        ESP => esp::<F, E, OUTBOUND, false>(head, env, config, total),
        _ => None,
    }
}

/// The same, from where the protocol is known: ESP in UDP, or native ESP.
#[inline(always)]
fn esp<F: Frame + ?Sized, E: Env, const OUTBOUND: bool, const IN_UDP: bool>(
    head: &mut [u8; HEAD],
    env: &E,
    config: &Config,
    total: u16,
) -> Option<Verdict> {
    let leg = &config.legs[usize::from(OUTBOUND)];
    let direction = if OUTBOUND {
        Direction::Outbound
    } else {
        Direction::Inbound
    };
    let class = if IN_UDP { Class::EspInUdp } else { Class::Esp };
    let header = if IN_UDP {
        if !is_natt::<F, OUTBOUND>(head, leg, total) {
            return None;
        }
        F::get64::<{ PAYLOAD + 8 }, HEAD>(head)
    } else {
        if usize::from(total) < ipv4::LENGTH + esp::LENGTH {
            return None;
        }
        F::get64::<PAYLOAD, HEAD>(head)
    };
    let peer = if OUTBOUND {
        F::get32::<30, HEAD>(head)
    } else {
        F::get32::<26, HEAD>(head)
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the halves of a word are meant"
    )]
    let (spi, sequence) = (
        u32::from_be(u64::from_le(header) as u32),
        u32::from_be((u64::from_le(header) >> 32) as u32),
    );
    if spi < esp::FIRST_SPI {
        return None;
    }
    let key = slot::flow_key(peer.to_ne_bytes(), spi, class, direction);
    let place = Place::new(digest_key(&config.secret, &key), config.flow_mask);
    let slot = table::find(env.flows(), place, &key)?;
    let egress = env
        .meta(if OUTBOUND {
            meta::EGRESS_WAN
        } else {
            meta::EGRESS_LAN
        })?
        .load();
    let jiffies = env.jiffies();
    let mac = hop::mac(slot[flow::HOP].load(), hop::stamp(config, egress, jiffies))?;
    if total > meta::egress_mtu(egress) {
        return None;
    }
    track::count(slot, sequence, total, jiffies);
    rewrite::<F, OUTBOUND, IN_UDP>(head, leg, mac);
    Some(Verdict::Forward {
        hop: Hop {
            ifindex: leg.egress,
            gateway: [0; 4],
        },
        direction,
        class,
        bytes: total,
        tracked: true,
    })
}

/// True for a whole datagram of UDP 4500 with room for ESP, whose checksum is none or a full one.
#[inline(always)]
fn is_natt<F: Frame + ?Sized, const OUTBOUND: bool>(
    head: &[u8; HEAD],
    leg: &Leg,
    total: u16,
) -> bool {
    let ours = if OUTBOUND {
        F::get16::<PAYLOAD, HEAD>(head)
    } else {
        F::get16::<{ PAYLOAD + 2 }, HEAD>(head)
    };
    let claimed = u16::from_be(F::get16::<{ PAYLOAD + 4 }, HEAD>(head));
    if ours != NATT_PORT.to_be()
        || usize::from(claimed) + ipv4::LENGTH != usize::from(total)
        || usize::from(claimed) < udp::LENGTH + esp::LENGTH
    {
        return false;
    }
    let checksum = F::get16::<{ PAYLOAD + 6 }, HEAD>(head);
    checksum == 0 || leg.partial == 0 || !is_partial::<F>(head, checksum)
}

/// True when the checksum is the sum over the pseudo-header, as a sender leaves it to its device.
#[inline(always)]
fn is_partial<F: Frame + ?Sized>(head: &[u8; HEAD], checksum: u16) -> bool {
    let address = |word: u32| u64::from(word >> 16) + u64::from(word & 0xffff);
    let sum = address(F::get32::<26, HEAD>(head))
        + address(F::get32::<30, HEAD>(head))
        + u64::from(F::get16::<{ PAYLOAD + 4 }, HEAD>(head))
        + u64::from(u16::from_ne_bytes([0, 17]));
    fold(sum) == checksum
}

/// Writes both MAC addresses, the address, the TTL and the checksums.
#[inline(always)]
fn rewrite<F: Frame + ?Sized, const OUTBOUND: bool, const IN_UDP: bool>(
    head: &mut [u8; HEAD],
    leg: &Leg,
    mac: u64,
) {
    put_macs::<F, HEAD>(head, mac, leg.source_mac);
    if OUTBOUND {
        F::put32::<26, HEAD>(head, leg.new);
    } else {
        F::put32::<30, HEAD>(head, leg.new);
    }
    // TTL and protocol; the TTL is the lower byte, and not zero.
    let ttl = u16::from_le(F::get16::<22, HEAD>(head));
    F::put16::<22, HEAD>(head, u16::to_le(ttl.wrapping_sub(1)));
    let old = F::get16::<24, HEAD>(head);
    let sum = u64::from(!old) + u64::from(leg.ip_delta);
    F::put16::<24, HEAD>(head, !fold(sum));
    if IN_UDP {
        let old = F::get16::<{ PAYLOAD + 6 }, HEAD>(head);
        if old != 0 {
            let sum = u64::from(!old) + u64::from(leg.udp_delta);
            let new = match !fold(sum) {
                0 => 0xffff,
                other => other,
            };
            F::put16::<{ PAYLOAD + 6 }, HEAD>(head, new);
        }
    }
}
