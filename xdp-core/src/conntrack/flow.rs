//! The FLOW table: the counters of one SPI of one peer in one direction.

use crate::conntrack::session::{has_room, new_session, note_peer, one_more, refuse, session_of};
use crate::env::Env;
use crate::packet::Packet;
use crate::sequence::{is_ahead, is_far, next_probation};
use crate::table::hash::digest_key;
use crate::table::word::Word;
use crate::table::{self, Buckets, Halves, Place, Slot};
use crate::vip::{self, Vips};
use crate::wire::esp;
use xdp_common::limits::{
    FLOW_RESERVE_SHIFT, OUTBOUND_SPIS, SEQUENCE_JUMP, SPIS_PER_OUTBOUND_SPI, SPIS_WITHOUT_OUTBOUND,
};
use xdp_common::slot::{self, Key, flow, session};
use xdp_common::{Config, Direction, Untracked, meta};

/// The key of a flow and its place in the table.
#[derive(Clone, Copy)]
pub struct FlowKey {
    key: Key,
    place: Place,
}

impl FlowKey {
    /// The key of an ESP packet; `None` for other packets, for reserved SPIs (RFC 4303 section 2.1), and
    /// between port 500 and 4500, where there is IKE without a Non-ESP Marker: no ESP, and no proof, also if
    /// it begins like a known SPI. A server that gets such a message on port 4500 answers to port 500.
    #[inline(always)]
    pub fn of<V: Vips>(packet: &Packet, config: &Config) -> Option<Self> {
        if !packet.class.is_esp() || packet.esp.spi < esp::FIRST_SPI || packet.is_unmarked_ike() {
            return None;
        }
        let (peer, spi) = (packet.peer, packet.esp.spi);
        let service = vip::service_of::<V>(config, packet.vip);
        let key = slot::flow_key(peer, spi, packet.class, packet.direction, service);
        let place = Place::new(digest_key(&config.secret, &key), config.flow_mask);
        Some(Self { key, place })
    }

    /// The flow's live slot.
    #[inline(always)]
    pub fn find<'e, E: Env>(&self, env: &'e E) -> Option<&'e Slot<E::Word>> {
        table::find(env.flows(), self.place, &self.key)
    }
}

#[inline(always)]
const fn seen_word(highest: u32, jiffies: u64) -> u64 {
    jiffies << 32 | highest as u64
}

/// Counts an ESP packet in its flow.
///
/// Packets and bytes are atomic adds. The other words are plain stores: when two CPUs process
/// packets of one SPI at the same moment, one of two neighbouring values is kept, and both were
/// true. All that changes with every packet is in the slot's hot half; the cold one is only touched in
/// rare cases. See `docs/decisions/counting-without-locks.md`.
#[inline(always)]
pub fn count_packet<B: Buckets>(
    flows: &B,
    slot: &Slot<B::Word>,
    sequence: u32,
    bytes: u16,
    jiffies: u64,
) {
    slot[flow::PACKETS].add(1);
    slot[flow::BYTES].add(u64::from(bytes));
    let highest = slot[flow::SEEN].low();
    // Above it, not far, and without a wrap: one comparison covers all of it.
    let step = u64::from(sequence).wrapping_sub(u64::from(highest));
    if step.wrapping_sub(1) < u64::from(SEQUENCE_JUMP) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the low 32 bits of jiffies are kept"
        )]
        slot[flow::SEEN].store_halves(jiffies as u32, sequence);
    } else {
        count_unusual(flows, slot, sequence, highest, jiffies);
    }
}

/// Records the sequence number of a packet that is not simply ahead of the highest one.
#[inline(never)]
fn count_unusual<B: Buckets>(
    flows: &B,
    slot: &Slot<B::Word>,
    sequence: u32,
    highest: u32,
    jiffies: u64,
) {
    let Some(cold) = flows.cold(slot[slot::NUMBER].low()) else {
        return;
    };
    let ahead = is_ahead(sequence, highest);
    let believed = if is_far(sequence, highest) {
        let packet = slot[flow::PACKETS].load();
        let next = next_probation(cold[flow::PROBATION].load(), packet, sequence);
        cold[flow::PROBATION].store(next.unwrap_or(0));
        next.is_none()
    } else {
        ahead
    };
    let now = if believed { sequence } else { highest };
    slot[flow::SEEN].store(seen_word(now, jiffies));
    if !ahead {
        cold[flow::REORDERED].add(1);
        cold[flow::LATE].store(u64::from(sequence) << 32 | u64::from(highest));
    }
    // Ahead, although the number is smaller: it has wrapped. Back in the old range: it has not.
    if believed && ahead != (sequence > highest) {
        let first = cold[flow::FIRST].load();
        let change = if ahead { 0x1_0000 } else { 0xffff_0000 };
        let wraps = first.wrapping_add(change) & 0xffff_0000;
        cold[flow::FIRST].store(first & !0xffff_0000 | wraps);
    }
}

/// Counts an ESP packet that did not take the fast path: the next hop of its flow has expired or is
/// unknown. So this is the moment to cache another one, and to check the peer's port, which a NAT
/// may have changed. True: it has.
#[inline(always)]
pub fn count_and_refresh<B: Buckets>(
    flows: &B,
    slot: &Slot<B::Word>,
    packet: &Packet,
    jiffies: u64,
    hop: u64,
) -> bool {
    count_packet(
        flows,
        slot,
        packet.esp.sequence,
        packet.total_length,
        jiffies,
    );
    let before = slot[slot::SPI_VIP].load();
    if slot::vip(before) != packet.vip {
        // The next hop was that of the other VIP.
        slot[flow::HOP].store(0);
        slot[slot::SPI_VIP].store(slot::with_vip(before, packet.vip));
    }
    if hop != 0 {
        slot[flow::HOP].store(hop);
    }
    let Some(cold) = flows.cold(slot[slot::NUMBER].low()) else {
        return false;
    };
    let first = cold[flow::FIRST].load();
    let moved = first & 0xffff != u64::from(packet.port);
    if moved {
        cold[flow::FIRST].store(first & !0xffff | u64::from(packet.port));
    }
    moved
}

/// Creates a flow for an SPI that has none, if the peer has given a proof and there is room. True:
/// the packet was counted.
#[inline(always)]
pub(super) fn admit_flow<E: Env>(
    env: &E,
    config: &Config,
    flow: FlowKey,
    packet: &Packet,
    jiffies: u64,
    hop: u64,
) -> bool {
    // ESP from the server is the proof: it shares a key with this peer.
    let proven = packet.direction == Direction::Outbound;
    let session = match session_of(
        env,
        config,
        vip::service_of::<E>(config, packet.vip),
        packet.peer,
    ) {
        None if proven => new_session(env, config, packet, jiffies),
        found => found,
    };
    let Some(session) = session else {
        return false;
    };
    if proven {
        note_peer(session, packet.class, packet.port);
    }
    let quota = Quota::of::<E::Word>(packet.direction, session[session::SPIS].load(), config);
    if quota.room <= 0 {
        return refuse(env, Untracked::SpiLimit);
    }
    if !has_room(env, meta::FLOW_ENTRIES, quota.table) {
        return refuse(env, Untracked::FlowTableFull);
    }
    let inserted = table::insert(
        env.flows(),
        flow.place,
        &flow.key,
        |Halves { hot, cold }| {
            let word = hot[slot::SPI_VIP].load();
            hot[slot::SPI_VIP].store(slot::with_vip(word, packet.vip));
            hot[flow::PACKETS].store(1);
            hot[flow::BYTES].store(u64::from(packet.total_length));
            hot[flow::SEEN].store(seen_word(packet.esp.sequence, jiffies));
            hot[flow::HOP].store(hop);
            cold[flow::FIRST_SEEN].store(jiffies);
            cold[flow::FIRST].store(u64::from(packet.esp.sequence) << 32 | u64::from(packet.port));
        },
    );
    if inserted.is_none() {
        return refuse(env, Untracked::FlowTableFull);
    }
    session[session::SPIS].add(slot::one_spi(packet.direction));
    one_more(env, meta::FLOW_ENTRIES);
    true
}

/// How many flows a peer may open: the proof pays for what may be guessed. See
/// `docs/decisions/quota-by-proof.md`.
struct Quota {
    /// How many SPIs of the direction may still be opened.
    room: i64,
    /// The most flows of all peers.
    table: u64,
}

impl Quota {
    /// The quota for one more flow. Computed without branches: the verifier would follow each one to
    /// the end of the program.
    #[inline(always)]
    fn of<W: Word>(direction: Direction, spis: u64, config: &Config) -> Self {
        // All ones for inbound.
        let inbound = W::opaque(direction as usize) as u64;
        let inbound = (inbound & 1).wrapping_sub(1);
        let inbound_spis = slot::half_of(spis, Direction::Inbound);
        let outbound_spis = slot::half_of(spis, Direction::Outbound);
        let guessed = SPIS_WITHOUT_OUTBOUND + SPIS_PER_OUTBOUND_SPI * outbound_spis;
        // All ones without one.
        let without = 0_u64.wrapping_sub(outbound_spis.wrapping_sub(1) >> 63);
        let table = u64::from(config.flow_limit);
        let reserve = table >> FLOW_RESERVE_SHIFT & inbound;
        Self {
            room: (guessed.wrapping_sub(inbound_spis) & inbound
                | OUTBOUND_SPIS.wrapping_sub(outbound_spis) & !inbound)
                .cast_signed(),
            table: table - reserve - (reserve & without),
        }
    }
}
