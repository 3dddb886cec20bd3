//! The keyed hash by known values: a weaker one would put the same keys into the same tables, only
//! less evenly, and for whoever chooses the keys less unpredictably.

#![cfg(not(loom))]

use xdp_common::Secret;
use xdp_core::table::hash::{digest, pair};
use xdp_core::table::recent::index;

/// A secret that is zero but for these words.
fn secret<const N: usize>(words: [(usize, u64); N]) -> Secret {
    let mut secret = [0; 16];
    for (place, word) in words {
        secret[place] = word;
    }
    secret
}

/// Values of the finisher of MurmurHash3 (`fmix64`), computed with Python's integers.
const FINISHED: [(u64, u64); 4] = [
    (1, 0xb456_bcfc_34c2_cb2c),
    (2, 0x3abf_2a20_6506_83e7),
    (u64::MAX, 0x64b5_720b_4b82_5f21),
    (0xdead_beef_cafe_babe, 0x7082_9950_08f0_c48c),
];

#[test]
fn the_finisher_is_that_of_murmurhash3() {
    for (sum, finished) in FINISHED {
        assert_eq!(digest(&secret([(0, sum)]), []), finished, "{sum:#x}");
    }
}

/// The secret's first word is a term of the sum by itself, each other one a factor.
#[test]
fn each_word_has_a_factor_of_its_own() {
    let secret = secret([(0, 5), (1, 0x1_0000_0000), (2, u64::MAX), (15, 7)]);
    let of = |sum: u64| digest(&[sum; 16], []);
    assert_eq!(digest(&secret, [3]), of(0x3_0000_0005));
    assert_eq!(digest(&secret, [3, 1]), of(0x3_0000_0004));
    assert_eq!(digest(&secret, [0, 6]), of(u64::MAX), "it wraps");
    let mut words = [0; 15];
    words[14] = 2;
    assert_eq!(digest(&secret, words), of(19));
}

/// The product of two sums of 32 bits, mixed: computed with Python's integers.
#[test]
fn the_hash_of_a_pair_is_a_product_of_sums() {
    for (word, a, b, expected) in [
        (0x1_0000_0001, 0, 0, 0xff51_afd7_1204_231a),
        (u64::MAX, 0, 0, 0x1358_c35b_01f2_b068),
        (
            0xc633_6407_c102_0304,
            0x9e37_79b9,
            0x7f4a_7c15,
            0x39c2_6e90_526a_7c64,
        ),
    ] {
        let hash = pair(&secret([(14, a), (15, b)]), word);
        assert_eq!(hash, expected, "{word:#x}");
    }
}

/// An entry keeps the upper 48 bits of its digest: the other bits decide about its bucket, and some
/// of the kept ones, since there may be more than 2^16 buckets.
#[test]
fn every_bit_of_a_digest_decides_about_its_bucket() {
    for digest in [0, u64::MAX, 0xdead_beef_cafe_babe] {
        let all = index(digest, u32::MAX);
        for bit in 0..64 {
            let flipped = index(digest ^ 1 << bit, u32::MAX);
            assert_eq!(flipped ^ all, 1 << (bit % 32), "{digest:#x}, bit {bit}");
        }
        assert_eq!(index(digest, 0xff), all & 0xff);
        assert_eq!(index(digest, 0), 0);
    }
}
