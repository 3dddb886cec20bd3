//! The keyed hash of all tables.
//!
//! Vector multiply-shift (Dietzfelbinger 1996; Thorup, "High Speed Hashing for Integers and
//! Strings", 2015, section 3.5): a sum of 32-bit words, each multiplied by a secret 64-bit number.
//! Two keys that are chosen without the secret collide with probability 2^-32 at most, and the cost
//! is one multiplication per word. A finisher spreads the sum over all bits.

use xdp_common::Secret;
use xdp_common::slot::Key;

/// Hashes `N` words under the secret, for a table that only root can read: where entries are, and the
/// digests in them, show the part of the secret that made them. `N` may be at most 6.
#[inline(always)]
pub fn digest<const N: usize>(secret: &Secret, words: [u32; N]) -> u64 {
    sum_of::<0, N>(secret, words)
}

/// The same for an entry of HOSTPEER, which the members of a group can read: under words of the secret
/// that no other table uses.
#[inline(always)]
pub fn host_peer_digest(secret: &Secret, vip: u16, peer: [u8; 4], ports: u32) -> u64 {
    sum_of::<10, 3>(secret, [u32::from_ne_bytes(peer), ports, vip.into()])
}

/// Hashes one word for a choice among few, by a multiplication alone and under a word of the secret that
/// nothing else uses.
#[inline(always)]
pub const fn short_digest(secret: &Secret, word: u32) -> u32 {
    (secret[9].wrapping_mul(word as u64) >> 32) as u32
}

/// The finished sum, with the words of the secret from `FIRST` on, one more than there are words to hash.
#[inline(always)]
fn sum_of<const FIRST: usize, const N: usize>(secret: &Secret, words: [u32; N]) -> u64 {
    let mut sum = secret[FIRST];
    let mut i = 0;
    while i < N {
        sum = sum.wrapping_add(secret[FIRST + 1 + i].wrapping_mul(u64::from(words[i])));
        i += 1;
    }
    // The finisher of MurmurHash3: a bijection, so it adds no collision.
    sum ^= sum >> 33;
    sum = sum.wrapping_mul(0xff51_afd7_ed55_8ccd);
    sum ^= sum >> 33;
    sum = sum.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    sum ^ (sum >> 33)
}

/// Hashes the word of a key: a peer's IPv4 address and an SPI. Flows that differ only in their kind or
/// service have the same hash.
///
/// NH (Black, Halevi, Krawczyk, Krovetz and Rogaway, "UMAC", 1999, section 4): the product of two
/// sums; two keys that are chosen without the secret collide with probability 2^-32 at most. The
/// finisher is a bijection. Without all three of its steps, ascending addresses and SPIs fill some
/// buckets more than others (ten of 65,535 keys without a slot at half load, where two are
/// expected). It costs two multiplications, where the sum above would need six of its own and two
/// for its finisher.
#[inline(always)]
pub const fn pair(secret: &Secret, word: u64) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "NH takes 32-bit keys")]
    let (a, b) = (
        ((word >> 32) as u32).wrapping_add(secret[14] as u32),
        (word as u32).wrapping_add(secret[15] as u32),
    );
    let product = (a as u64).wrapping_mul(b as u64);
    let mixed = (product ^ (product >> 32)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 32)
}

/// Hashes a key; that of a session with its service in place of the SPI, since a peer may have a session
/// with each of many services.
#[inline(always)]
pub const fn digest_key(secret: &Secret, key: &Key) -> u64 {
    pair(secret, key.word ^ (key.service_of_session() as u64) << 32)
}
