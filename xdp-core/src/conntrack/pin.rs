//! The VIP that a peer uses, of a service with several of them: the server's replies leave from it.
//!
//! It is known from, in this order: what the peer has sent with the SPI that an IKE message of the
//! server carries, unless that is a request of the server (PIN); the peer's session; what a peer without session has sent last (PIN); else it
//! is the first VIP of the service. Whatever comes from outside may be forged, so only an encrypted
//! message of the server proves a VIP: it has accepted what the peer sent there. A connection of TCP is
//! asked about first (`connection`), and its segments say nothing about the peer. See
//! `docs/decisions/pinned-vips.md`.

use crate::conntrack::session::session_of;
use crate::conntrack::{connection, fragment, proof};
use crate::env::Env;
use crate::frame::Frame;
use crate::packet::{Packet, VIP_GUESSED};
use crate::table::hash::digest;
use crate::table::recent::{self, short_tick};
use crate::table::word::Word;
use crate::vip::{self, Vips};
use crate::wire::ike;
use xdp_common::limits::PIN_BUCKETS;
use xdp_common::slot::{pin, session};
use xdp_common::{Class, Config, Direction, Vip};

/// Gives an outbound packet, the one at hand, the VIP of its peer; a segment that of its connection, which
/// [`connection::follow`] has found.
#[inline(always)]
pub fn settle<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    jiffies: u64,
    segment: usize,
) {
    let Some(mut packet) = env.load_packet().and_then(Packet::unpack) else {
        return;
    };
    let vip = vip::by_number::<E>(config, packet.vip);
    if packet.direction == Direction::Inbound || vip.several == 0 {
        return;
    }
    let number = if packet.class == Class::Fragment {
        // With its first fragment, whatever the peer has sent since.
        fragment::vip_of(env, config, &packet, jiffies)
    } else if let Some(number) = connection::found(segment) {
        Some(number)
    } else if let Some(name) = Name::of_packet(frame, vip, &packet) {
        recall(env, config, name, jiffies)
    } else {
        None
    };
    let found = match number {
        Some(number) if vip::belongs::<E>(config, number, vip.service) => number.into(),
        _ => find_vip(env, config, vip, packet.peer, jiffies),
    };
    packet.vip = number_of(found);
    packet.vip_guessed = found & VIP_GUESSED != 0;
    env.store_packet(packet.pack());
}

/// The VIP that a peer of a service uses, of which `vip` is one.
#[inline(always)]
pub(crate) fn vip_of_peer<E: Env>(
    env: &E,
    config: &Config,
    vip: &Vip,
    peer: [u8; 4],
    jiffies: u64,
) -> u16 {
    number_of(find_vip(env, config, vip, peer, jiffies))
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
const fn number_of(found: u32) -> u16 {
    found as u16
}

/// The same, with [`VIP_GUESSED`].
#[inline(never)]
fn find_vip<E: Env>(env: &E, config: &Config, vip: &Vip, peer: [u8; 4], jiffies: u64) -> u32 {
    if vip.several == 0 {
        return vip.number.into();
    }
    let session = session_of(env, config, vip.service, peer);
    let pinned = session.and_then(|session| session::pinned(session[session::PIN].load()));
    if let Some(number) = pinned
        && vip::belongs::<E>(config, number, vip.service)
    {
        return number.into();
    }
    match recall(env, config, Name::of_peer(vip, peer), jiffies) {
        Some(number) if vip::belongs::<E>(config, number, vip.service) => number.into(),
        _ => u32::from(vip.first) | VIP_GUESSED,
    }
}

/// Writes down to which VIP a peer has sent the packet at hand, which has been counted, or that the
/// server has accepted what the peer sent there.
#[inline(always)]
pub fn note<F: Frame + ?Sized, E: Env>(frame: &F, env: &E, config: &Config, jiffies: u64) {
    let Some(packet) = env.load_packet().and_then(Packet::unpack) else {
        return;
    };
    let vip = vip::by_number::<E>(config, packet.vip);
    if vip.several == 0 {
        return;
    }
    if packet.class == Class::Tcp {
        // See `connection::follow`.
        return;
    }
    let session = session_of(env, config, vip.service, packet.peer);
    let before = session.map_or(0, |session| session[session::PIN].load());
    // Zero: none. Of an `Option` the verifier refuses to read, without CAP_PERFMON, what was never written.
    let spi = initiator_spi(frame, &packet).unwrap_or(0);
    if before == session::proven_pin(packet.vip) {
        // What the peer sends where it is proven to be gets no entry: all IKE would fill the table. But
        // what an entry says, which may be forged, is corrected.
        if packet.direction == Direction::Inbound
            && spi != 0
            && let Some(entry) = Name::of_sa(vip, packet.peer, spi).find(env, config, jiffies)
        {
            let before = entry.load();
            // Not what another CPU has written in its place meanwhile.
            if pin::vip(before) != packet.vip {
                entry.replace(before, packet.vip.into());
            }
        }
        return;
    }
    let now = match packet.direction {
        Direction::Inbound => {
            if spi != 0 {
                let name = Name::of_sa(vip, packet.peer, spi);
                remember(env, config, name, packet.vip, jiffies);
            }
            if session.is_none() {
                let name = Name::of_peer(vip, packet.peer);
                remember(env, config, name, packet.vip, jiffies);
            }
            claim::<E>(config, vip, before)
        }
        Direction::Outbound => {
            if spi == 0 || !is_proof(frame, env, config, &packet, spi, jiffies) {
                return;
            }
            session::proven_pin(packet.vip)
        }
    };
    if let Some(session) = session
        && now != before
    {
        if packet.direction == Direction::Outbound {
            session[session::PIN].store(now);
        } else if !session[session::PIN].replace(before, now) {
            // Another CPU has proven a VIP meanwhile.
            return;
        }
        // It was that of the other VIP.
        session[session::HOP].store(0);
    }
}

/// What a session records after a packet that may be forged has come to a VIP: what is proven stays, unless that
/// VIP is gone.
#[inline(always)]
fn claim<V: Vips>(config: &Config, vip: &Vip, before: u64) -> u64 {
    let is_gone = session::pinned(before)
        .is_some_and(|number| !vip::belongs::<V>(config, number, vip.service));
    session::claim_pin(if is_gone { 0 } else { before }, vip.number)
}

/// Whether a message of the server in the IKE SA of this initiator proves that the peer uses the VIP that it
/// leaves from: the server has accepted what the peer has sent there.
///
/// Before an initiator has authenticated, the server answers whoever has begun the IKE SA, at any address. So a
/// message proves nothing if the server has lately sent its SPI to another address; nor if nothing is remembered
/// of that, and the exchange comes before the authentication.
#[inline(always)]
fn is_proof<F: Frame + ?Sized, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    packet: &Packet,
    spi: u64,
    jiffies: u64,
) -> bool {
    let Some(header) = ike::Header::read(frame, packet.ike_at) else {
        return false;
    };
    if !header.is_encrypted_reply() {
        return false;
    }
    let vip = vip::by_number::<E>(config, packet.vip);
    let sent = proof::was_sent_to_alone(env, config, (vip.service, &header), packet.peer, jiffies);
    sent.unwrap_or(header.follows_authentication())
        && recall(env, config, Name::of_sa(vip, packet.peer, spi), jiffies) == Some(packet.vip)
}

/// The initiator's SPI in the IKE message at hand.
#[inline(always)]
fn initiator_spi<F: Frame + ?Sized>(frame: &F, packet: &Packet) -> Option<u64> {
    let spi = read_spi(frame, packet.ike_header()? + ike::INITIATOR_SPI)?;
    (spi != 0).then_some(spi)
}

/// The SPI at this offset.
#[inline(always)]
pub(crate) fn read_spi<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<u64> {
    frame
        .with_bytes::<{ ike::SPI_LENGTH }, _>(at, |bytes| F::get64::<0, { ike::SPI_LENGTH }>(bytes))
}

/// What an entry of PIN belongs to: a peer of a service, or an IKE SA of it.
pub(crate) struct Name([u32; 4]);

impl Name {
    /// The IKE SA that decides about a packet of the server.
    #[inline(always)]
    fn of_packet<F: Frame + ?Sized>(frame: &F, vip: &Vip, packet: &Packet) -> Option<Self> {
        let spi = initiator_spi(frame, packet)?;
        // Requests of the server go where the peer is proven to be, whatever has come since.
        let is_request =
            ike::Kind::read(frame, packet.ike_at).is_some_and(ike::Kind::is_request_in_sa);
        (!is_request).then(|| Self::of_sa(vip, packet.peer, spi))
    }

    #[inline(always)]
    const fn of_peer(vip: &Vip, peer: [u8; 4]) -> Self {
        Self::of_sa(vip, peer, 0)
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
    pub(crate) const fn of_sa(vip: &Vip, peer: [u8; 4], spi: u64) -> Self {
        let peer = u32::from_ne_bytes(peer);
        Self([peer, vip.service as u32, (spi >> 32) as u32, spi as u32])
    }

    /// The digest of its entry, and the index of the bucket for it.
    #[inline(always)]
    fn place(&self, config: &Config) -> (u64, u32) {
        let digest = digest(&config.secret, self.0);
        (digest, recent::index(digest, PIN_BUCKETS - 1))
    }

    /// The third word of the details of its entry, if there is one that counts.
    #[inline(always)]
    fn find<'e, E: Env>(&self, env: &'e E, config: &Config, jiffies: u64) -> Option<&'e E::Word> {
        let (digest, index) = self.place(config);
        let bucket = env.pin_bucket(index)?;
        let tick = short_tick(config, jiffies);
        let details = self.details();
        let at = recent::find(bucket, digest, tick, pin::limit(details[0]))?;
        let is_own = bucket[at].load() == details[0] && bucket[at + 1].load() == details[1];
        is_own.then(|| &bucket[at + 2])
    }

    /// The details of its entry, which are compared as a whole, but for the VIP.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "it was a u16")]
    fn details(&self) -> [u64; 2] {
        let Self([peer, service, high, low]) = *self;
        [
            pin::owner(peer, service as u16),
            u64::from(high) << 32 | u64::from(low),
        ]
    }
}

#[inline(always)]
fn remember<E: Env>(env: &E, config: &Config, name: Name, vip: u16, jiffies: u64) {
    let (digest, index) = name.place(config);
    let [first, second] = name.details();
    let fresh = recent::named(digest, short_tick(config, jiffies));
    env.put_pin(index, fresh, [first, second, vip.into()]);
}

/// The number of the VIP that was remembered.
#[inline(always)]
pub(crate) fn recall<E: Env>(env: &E, config: &Config, name: Name, jiffies: u64) -> Option<u16> {
    let third = name.find(env, config, jiffies)?;
    Some(pin::vip(third.load()))
}
