//! Defaults and bounds that one might want to change, each with its reason.

/// UDP port of IKE (RFC 7296 section 2).
pub const IKE_PORT: u16 = 500;
/// UDP port of IKE and ESP behind a NAT (RFC 3948 section 2.1).
pub const NATT_PORT: u16 = 4500;

/// Tunnels that the default tables are made for: 41 MiB.
pub const TUNNELS: u32 = 1 << 15;
/// SPIs of one tunnel: one in each direction, and those before the last rekey, which stay for an
/// hour.
pub const SPIS_PER_TUNNEL: u32 = 4;
/// Default number of slots of the FLOW table; half of them may be live.
pub const FLOW_SLOTS: u32 = 2 * SPIS_PER_TUNNEL * TUNNELS;
/// Default number of slots of the SESSION table; half of them may be live.
pub const SESSION_SLOTS: u32 = 2 * TUNNELS;
/// The fewest and the most slots of either table.
pub const SLOTS: core::ops::RangeInclusive<u32> = 64..=1 << 24;
/// Buckets of HALF: four entries each, of which a handshake has two; the oldest is overwritten.
pub const HALF_BUCKETS: u32 = 1 << 12;
/// Buckets of PIN: the VIPs of four peers, IKE SAs or connections each; the oldest is overwritten, but in two of the
/// four ways no proven connection by another entry.
pub const PIN_BUCKETS: u32 = 1 << 12;
/// Of these, the buckets that the connections of one peer can be in, which may be a NAT with many clients.
pub const PIN_BUCKETS_OF_PEER: u32 = 1 << 9;
/// How long the VIP of a peer without a session, or of an IKE message, is remembered (RFC 7296 section
/// 2.4: retransmissions take minutes).
pub const PIN_TICKS: u16 = 60;
/// How long the VIP of a silent connection of TCP is remembered: more than two hours, after which a host
/// asks whether the other one is still there (RFC 9293 section 3.8.4).
pub const PIN_CONNECTION_TICKS: u16 = 3 << 12;
/// Buckets of FRAGMENT: four datagrams each, of which the first fragment has passed; the oldest is
/// overwritten.
pub const FRAGMENT_BUCKETS: u32 = 1 << 10;
/// Buckets of HOSTPEER: four peers of the host itself each; the oldest is overwritten.
pub const HOST_PEER_BUCKETS: u32 = 1 << 10;
/// How long a packet of the host makes its receiver a peer of the host (RFC 4787 REQ-5).
pub const HOST_PEER_TICKS: u16 = 300;
/// Entries of NEXTHOP: (egress, gateway) pairs, not peers.
pub const NEXTHOPS: u32 = 256;

/// The most WANs of one instance, and the most LANs: their egress words share a cache line.
pub const INTERFACES: usize = 4;
/// The most services of one instance.
pub const SERVICES: usize = 256;
/// The most macvlans (interfaces with a MAC address of their own, as VRRP uses them) that are
/// known on top of one interface, and on top of all of a side.
pub const MACVLANS: usize = 8;
/// The most prefixes of `--except-peer` and `--deny` together.
pub const PREFIXES: u32 = 1024;
/// Token buckets for ICMP errors, one word each: an eighth for ikenat's own in each direction (half
/// of it for time exceeded), two for reporters on the server's side, four for reporters outside. Half
/// of each part is for peers with a session.
pub const ICMP_BUCKETS: u32 = 1 << 14;
/// The reporters of one peer share so many of these buckets: more than routers on a path, and a small
/// part of all, since any number of reporters can be forged.
pub const ICMP_BUCKETS_PER_PEER: u32 = 64;
/// ICMP errors per second that one peer is sent, or that are translated about it ...
pub const ICMP_RATE: u64 = 20;
/// ... and the most in one burst. Path MTU discovery of several tunnels must not starve, and an
/// error is at most as long as the packet that caused it (RFC 1812 section 4.3.2.8).
pub const ICMP_BURST: u64 = 20;
/// The most bytes of an ICMP error that ikenat sends (RFC 1812 section 4.3.2.3): IPv4 header, ICMP
/// header, quoted packet.
pub const ICMP_LENGTH: u16 = 576;

/// Inbound SPIs that a session may have before the server has one for the peer ...
pub const SPIS_WITHOUT_OUTBOUND: u64 = 8;
/// ... and for each SPI of the server's ESP to the peer: who sends inbound ESP chooses its SPI, but
/// only a peer makes the server open one. Old and new ones overlap during a rekey, and RFC 9611
/// opens several SAs at once, in both directions.
pub const SPIS_PER_OUTBOUND_SPI: u64 = 4;
/// SPIs of the server's ESP that a session may have. A client makes the server open as many as it likes
/// by rekeying; an office of 100 clients behind one address has 300 if they rekey every hour, and one
/// tunnel of RFC 9611 with an SA for each of 256 CPUs has 768.
pub const OUTBOUND_SPIS: u64 = 1024;
/// The last part of FLOW is kept for the server's own SPIs, and as much before it for the inbound
/// ones of peers that have one of these: an eighth each, as a shift.
pub const FLOW_RESERVE_SHIFT: u32 = 3;
/// A sequence number farther than this from the highest one (`MAX_DROPOUT` of RFC 3550 appendix A.1)
/// is believed only ...
pub const SEQUENCE_JUMP: u32 = 3000;
/// ... when so many packets in a row are of its range.
pub const SEQUENCE_AGREEING: u64 = 4;
/// Idle time after which an entry expires: the default of RFC 4787 REQ-5c.
pub const IDLE_SECS: u32 = 300;
/// The shortest idle time that may be configured (RFC 4787 REQ-5).
pub const IDLE_SECS_MIN: u32 = 120;
/// Idle time after which the flow of a silent SPI expires while its session is alive (a tunnel
/// without traffic sends DPD only).
pub const IDLE_SECS_FLOW_OF_LIVE_SESSION: u32 = 3600;
/// An inbound SPI with fewer packets than this ...
pub const PROVEN_PACKETS: u64 = 3;
/// ... expires after this time when room is short: a client that guesses SPIs must not occupy slots
/// that others need.
pub const UNPROVEN_SECS: u32 = 10;
/// How long the server's reply counts as half of the proof of establishment (RFC 7296 section 2.4:
/// retransmissions take minutes).
pub const HALF_OPEN_TICKS: u16 = 60;
/// How long HALF shows to which address the server has sent its SPI. Servers drop an IKE SA that is not
/// authenticated sooner (libreswan after 200 seconds, strongSwan after 30).
pub const UNAUTHENTICATED_TICKS: u16 = 240;
/// How long the first fragment of a datagram decides about the later ones (RFC 791 section 3.2
/// suggests 15 s and more).
pub const FRAGMENT_TICKS: u16 = 30;
/// How often one packet per next hop takes the slow path, so that the kernel keeps confirming the
/// neighbour.
pub const NEIGHBOUR_CONFIRM_TICKS: u32 = 4;
/// An entry of NEXTHOP without a packet for this many ticks is freed.
pub const NEXTHOP_IDLE_TICKS: u32 = 300;
