//! The words of SERVICE and VIP: which number stands for which service, and for which VIP.
//!
//! Entries of the tables outlive the programs and have these numbers, so a number keeps its meaning
//! from one start to the next: a service keeps its number as long as it has its name, and a VIP as
//! long as it is the address of any service. The number of what was removed is not used for anything
//! else until the daemon has removed all entries that have it. Only the daemon writes these maps; the
//! programs have what they need in their load-time constants.
//!
//! All words are in the byte order of the host. Bytes within words (names, addresses) are in the
//! order in which they stand in memory; those of addresses are in network order.

/// Numbers of services, from 0 on, and as many of VIPs: nine bits. Twice as many as there can be
/// current services ([`crate::limits::SERVICES`]), so that removed ones may keep
/// theirs.
pub const NUMBERS: u32 = 512;

/// The states of a number, in the low byte of the first word of a record.
pub mod state {
    /// It is free. The rest of the record is not valid.
    pub const UNUSED: u8 = 0;
    /// It is that of a current service or VIP.
    pub const IN_USE: u8 = 1;
    /// It is that of a removed one.
    pub const GOING: u8 = 2;
}

/// The flags of a service, in the first word of its record.
pub mod flag {
    /// Its VIPs are for IPsec alone (`--dedicated`).
    pub const DEDICATED: u64 = 1 << 8;
    /// Its server is an address of this host.
    pub const SERVER_IS_LOCAL: u64 = 1 << 9;
}

/// One record of SERVICE; its index is the number of the service.
pub mod service {
    /// Words of a record: one cache line.
    pub const WORDS: usize = 8;
    /// The state ([`super::state`], bits 0-7), flags ([`super::flag`], bits 8-15), the number of the
    /// first VIP (16-31), from which a peer is answered whose VIP is not known, and how many prefixes
    /// its lists have: of `--except-peer` (32-47) and of `--deny` (48-63). It is written last.
    pub const STATE: usize = 0;
    /// The name: ASCII, without a length and with zeros up to [`NAME_BYTES`].
    pub const NAME: usize = 1;
    /// Bytes of the longest name.
    pub const NAME_BYTES: usize = 32;
    /// The server's IPv4 address in the low four bytes of the word in memory; 0: there is none.
    pub const SERVER_V4: usize = NAME + NAME_BYTES / 8;
    /// The server's IPv6 address in two words; 0: there is none.
    pub const SERVER_V6: usize = SERVER_V4 + 1;
    const _: () = assert!(SERVER_V6 + 2 == WORDS);
}

/// One record of VIP; its index is the number of the VIP.
pub mod vip {
    /// Words of a record: half a cache line.
    pub const WORDS: usize = 4;
    /// The state ([`super::state`], bits 0-7), the number of its service (bits 16-31) and its place
    /// among the VIPs of that service (32-47). It is written last.
    pub const STATE: usize = 0;
    /// The address in two words: IPv6, or IPv4 as `::ffff:203.0.113.1`.
    pub const ADDRESS: usize = 1;
    const _: () = assert!(ADDRESS + 2 < WORDS);
}
