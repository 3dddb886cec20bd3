//! The four words of a way in HALF, PIN, FRAGMENT and HOSTPEER.

/// Words of a way.
pub const WORDS: usize = 4;
/// Words of a bucket: one value of the map.
pub const BUCKET_WORDS: usize = super::WAYS * WORDS;
/// Digest (bits 16-63) and tick (0-15).
pub const DIGEST: usize = 0;
/// First word of the details: the peer's address in two words; then in HALF ([`super::half`]) the
/// initiator's SPI, in FRAGMENT the end of the first fragment (bits 0-12) and bits 13-63 of the digest, in HOSTPEER
/// [`super::host_peer`]. Two CPUs may have written parts of them.
pub const DETAILS: usize = 1;
/// Words of the details.
pub const DETAILS_WORDS: usize = 3;
