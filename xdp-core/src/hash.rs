//! The keyed hash of all tables.
//!
//! Vector multiply-shift (Dietzfelbinger 1996; Thorup, "High Speed Hashing for Integers and Strings", 2015, section
//! 3.5): a sum of 32-bit words, each times a secret 64-bit number. Two keys that are chosen without the secret collide
//! with probability 2^-32 at most, and it costs one multiplication a word. A finisher spreads the sum over all bits.

use xdp_common::Secret;

/// Hashes `N` words under the secret. `N` may be at most 15.
#[inline(always)]
pub fn digest<const N: usize>(secret: &Secret, words: [u32; N]) -> u64 {
    let mut sum = secret[0];
    let mut i = 0;
    while i < N {
        sum = sum.wrapping_add(secret[i + 1].wrapping_mul(u64::from(words[i])));
        i += 1;
    }
    // The finisher of MurmurHash3: a bijection, so it adds no collision.
    sum ^= sum >> 33;
    sum = sum.wrapping_mul(0xff51_afd7_ed55_8ccd);
    sum ^= sum >> 33;
    sum = sum.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    sum ^ (sum >> 33)
}

/// Hashes a key of three words.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the halves of a word are meant"
)]
pub fn digest_key(secret: &Secret, key: &xdp_common::slot::Key) -> u64 {
    digest(
        secret,
        [
            (key[0] >> 32) as u32,
            key[0] as u32,
            (key[1] >> 32) as u32,
            key[1] as u32,
            (key[2] >> 32) as u32,
            key[2] as u32,
        ],
    )
}
