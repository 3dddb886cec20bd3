//! The NEXTHOP table: the neighbours on egress and their MAC addresses, behind a sequence number.
//!
//! An entry belongs to one (egress, gateway) as long as that is used; the daemon reads its key and
//! probes that neighbour. The daemon frees an entry in three steps: it takes the key away
//! ([`retire`]), waits one grace period for the programs that have found the key, and zeroes the
//! rest ([`free`]). So no program writes into the entry of another neighbour. A flow does not refer to it: it caches the MAC address itself
//! ([`super::cached_hop`]). Only the MAC addresses and the MTU change. Several CPUs may write them
//! at once, so they are behind a sequence number that is odd while one of them writes. A writer
//! that finds it odd leaves the entry to the other one; a reader that finds it odd has no answer.

use crate::table::word::Word;
use xdp_common::slot::nexthop::{ADDRESS, CONFIRMED, DESTINATION, KEY, SEQUENCE, SOURCE, WORDS};

/// The words of one entry.
pub type Entry<W> = [W; WORDS];

/// `AF_INET` of Linux.
const AF_INET: u32 = 2;
/// `AF_INET6`.
const AF_INET6: u32 = 10;

/// The address of a next hop: an IPv4 one, or an IPv6 one of a route `via inet6` (RFC 5549).
///
/// All fields are plain numbers and always written: the verifier requires it where one function
/// passes them to another. This is the kernel's `struct bpf_redir_neigh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Gateway {
    /// The kernel's address family.
    pub family: u32,
    /// The address in network order: the words of an IPv6 one, or an IPv4 one in the first word.
    pub words: [u32; 4],
}

impl Gateway {
    /// None.
    pub const NONE: Self = Self::v4([0; 4]);

    /// An IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn v4(address: [u8; 4]) -> Self {
        Self {
            family: AF_INET,
            words: [u32::from_ne_bytes(address), 0, 0, 0],
        }
    }

    /// An IPv6 address.
    #[must_use]
    pub const fn v6(address: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
        Self {
            family: AF_INET6,
            words: [
                u32::from_ne_bytes([a, b, c, d]),
                u32::from_ne_bytes([e, f, g, h]),
                u32::from_ne_bytes([i, j, k, l]),
                u32::from_ne_bytes([m, n, o, p]),
            ],
        }
    }

    /// An IPv6 address as two words; zero for an IPv4 one. Without a branch, for the verifier.
    #[inline(always)]
    fn v6_words<W: Word>(&self) -> [u64; 2] {
        // The families differ in this bit. Hidden from the compiler, which would make a branch of it.
        let is_v6 = W::opaque(((self.family >> 3) & 1) as usize) as u64;
        let mask = 0_u64.wrapping_sub(is_v6);
        let [a, b, c, d] = self.words;
        [
            (u64::from(a) | u64::from(b) << 32) & mask,
            (u64::from(c) | u64::from(d) << 32) & mask,
        ]
    }

    /// 32 bits of it: all of an IPv4 address.
    #[inline(always)]
    const fn fold(&self) -> u64 {
        let [a, b, c, d] = self.words;
        (a ^ b ^ c ^ d) as u64
    }
}

/// The contents of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Egress interface.
    pub ifindex: u32,
    /// The gateway, or the destination itself when it is on the link.
    pub gateway: Gateway,
    /// MAC address of the neighbour, as a word ([`xdp_common::config::mac_word`]).
    pub destination: u64,
    /// MAC address of the egress, likewise.
    pub source: u64,
    /// MTU of the route; 0 when it is not known.
    pub mtu: u16,
}

/// Number of entries that are tried for one neighbour, from [`hash`] on.
pub const PROBES: u32 = 4;

/// The key of an entry. Network order; no interface has the index 0. Two IPv6 gateways of one
/// interface may have the same one: then the entry is that of the last one, and the other is neither
/// confirmed nor probed.
#[inline(always)]
#[must_use]
pub const fn key(ifindex: u32, gateway: &Gateway) -> u64 {
    (ifindex as u64) << 32 | gateway.fold()
}

/// A hash that spreads the entries over the array.
#[inline(always)]
#[must_use]
pub const fn hash(key: u64) -> u32 {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32
}

/// The key of a retired entry. It is that of no neighbour.
pub const DYING: u64 = key(0, &Gateway::v4([1; 4]));

/// Takes an entry away from the neighbour of this key, so that no program finds it any more. Only
/// the daemon calls this. False: another neighbour has it.
pub fn retire<W: Word>(entry: &Entry<W>, key: u64) -> bool {
    entry[KEY].replace(key, DYING)
}

/// Frees a retired entry. A grace period must have passed since.
pub fn free<W: Word>(entry: &Entry<W>) {
    for word in [
        SEQUENCE,
        DESTINATION,
        SOURCE,
        CONFIRMED,
        ADDRESS,
        ADDRESS + 1,
    ] {
        entry[word].store(0);
    }
    entry[KEY].publish(0);
}

const MAC_MASK: u64 = 0xffff_ffff_ffff;

impl Neighbour {
    #[inline(always)]
    fn key(&self) -> u64 {
        key(self.ifindex, &self.gateway)
    }

    /// The first entry that is tried for it.
    #[inline(always)]
    pub fn hash(&self) -> u32 {
        hash(self.key())
    }
}

/// The gateway of an entry with this key.
#[expect(clippy::cast_possible_truncation, reason = "halves of words are meant")]
pub fn gateway<W: Word>(entry: &Entry<W>, key: u64) -> Gateway {
    let (first, second) = (entry[ADDRESS].load(), entry[ADDRESS + 1].load());
    if first == 0 && second == 0 {
        return Gateway::v4((key as u32).to_ne_bytes());
    }
    Gateway {
        family: AF_INET6,
        words: [
            first as u32,
            (first >> 32) as u32,
            second as u32,
            (second >> 32) as u32,
        ],
    }
}

/// True when the entry belongs to this neighbour. A free entry is claimed for it.
#[inline(always)]
pub fn claim<W: Word>(entry: &Entry<W>, neighbour: &Neighbour) -> bool {
    let key = neighbour.key();
    let held = entry[KEY].load();
    held == key || (held == 0 && (entry[KEY].replace(0, key) || entry[KEY].load() == key))
}

/// Writes the kernel's current answer. The entry must have been claimed for this neighbour.
#[inline(always)]
pub fn write<W: Word>(entry: &Entry<W>, neighbour: &Neighbour) {
    let destination = neighbour.destination | u64::from(neighbour.mtu) << 48;
    let source = neighbour.source;
    let sequence = entry[SEQUENCE].load();
    let same =
        entry[DESTINATION].load() == destination && entry[SOURCE].load() & MAC_MASK == source;
    if (same && sequence != 0)
        || sequence & 1 != 0
        || !entry[SEQUENCE].replace(sequence, sequence | 1)
    {
        return;
    }
    entry[DESTINATION].store(destination);
    entry[SOURCE].store(source);
    let [first, second] = neighbour.gateway.v6_words::<W>();
    entry[ADDRESS].store(first);
    entry[ADDRESS + 1].store(second);
    entry[SEQUENCE].publish((sequence | 1).wrapping_add(1));
}

/// True for one packet every `every` ticks: that one goes through the kernel's neighbour layer.
#[inline(always)]
pub fn confirmation_due<W: Word>(entry: &Entry<W>, tick: u32, every: u32) -> bool {
    let last = entry[CONFIRMED].load();
    #[expect(clippy::cast_possible_truncation, reason = "a tick is 32 bits")]
    let age = tick.wrapping_sub(last as u32);
    age >= every && entry[CONFIRMED].replace(last, u64::from(tick))
}
