//! Segments of TCP from and to a few ports of one peer, by both VIPs of its service, in any order: handshakes,
//! data, FIN and RST, of the peer and in its name.
//!
//! The ports are those whose entries share one bucket of PIN, so that they displace each other.

use crate::table::{Arms, from_client, from_server, to_only_interface};
use crate::{Random, Seed, mutate};
use anyhow::{Result, ensure};
use ikenat_tests::bpf::fixture::{self, PEER, VIP_2};
use ikenat_tests::bpf::host::{self, Tables};
use ikenat_tests::lab::frames::{Body, Packet};
use ikenat_tests::lab::topology::{SERVER, VIP};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use xdp_common::slot::{pin, recent};
use xdp_common::{Config, Hook, Reason};
use xdp_core::{Side, Verdict};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// A timestamp (RFC 7323 section 3.2).
const TIMESTAMP: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9];
const DATA: u32 = 8;
/// The first sequence number of the peer, and those of the server: the second connection from a port has another
/// one than the first.
const PEER_FIRST: u32 = 0x1000_0000;
const SERVER_FIRST: [u32; 2] = [0x7000_0000, 0xffff_fffe];
/// A bucket has four places.
const PORTS: usize = 7;

/// What the peer sends: the flags, and how much of the server it acknowledges.
const OF_PEER: [(u8, u32); 12] = [
    (SYN, 0),
    (SYN, 0),
    (ACK, 1),
    (ACK, 1),
    (ACK, 1 + DATA),
    (PSH | ACK, 1),
    (PSH | ACK, 1 + DATA),
    (FIN | ACK, 1),
    (RST, 0),
    (RST | ACK, 1),
    (SYN | FIN, 0),
    (SYN | ACK, 1),
];
/// What the server sends: the flags, and how far behind its first number.
const OF_SERVER: [(u8, u32); 8] = [
    (SYN | ACK, 0),
    (SYN | ACK, 0),
    (PSH | ACK, 1),
    (PSH | ACK, 1),
    (ACK, 1),
    (FIN | ACK, 1 + DATA),
    (RST, 1),
    (RST | ACK, 0),
];

/// The connections, and what has become of them.
pub(crate) struct Connections {
    hook: Hook,
    arms: Arms,
    /// The bucket that the ports share.
    bucket: usize,
    ports: Vec<u16>,
    /// The port of the last segment, the VIP that most segments of its connection are sent to, and the server's
    /// first number in it.
    port: u16,
    vip: Ipv4Addr,
    first: u32,
    /// The VIP by which each was proven last.
    proven: BTreeMap<u64, u16>,
    /// The proven ones in the bucket after the last segment.
    now: Vec<u64>,
    proofs: u32,
    moves: u32,
    displaced: u32,
    refused: u32,
}

impl Connections {
    pub(crate) fn new(hook: Hook, arms: Arms, config: &Config) -> Self {
        let (bucket, ports) = ports_of_one_bucket(arms, config);
        Self {
            hook,
            arms,
            bucket,
            port: ports[0],
            vip: VIP,
            first: SERVER_FIRST[0],
            ports,
            proven: BTreeMap::new(),
            now: Vec::new(),
            proofs: 0,
            moves: 0,
            displaced: 0,
            refused: 0,
        }
    }

    /// The next segment. Most are of the same connection as the one before, and a quarter is mutated.
    pub(crate) fn next(&mut self, random: &mut Random) -> Seed {
        if random.below(4) == 0 {
            self.port = self.ports[random.below(self.ports.len())];
            self.vip = [VIP, VIP_2][random.below(2)];
            self.first = SERVER_FIRST[random.below(2)];
        }
        let peer = (PEER, self.port);
        let first = self.first;
        let options: &[u8] = [&[][..], &TIMESTAMP][random.below(2)];
        let (name, mut side, mut frame) = if random.below(2) == 0 {
            let vip = if random.below(4) == 0 {
                [VIP, VIP_2][random.below(2)]
            } else {
                self.vip
            };
            let (flags, more) = OF_PEER[random.below(OF_PEER.len())];
            let numbers = [PEER_FIRST, first.wrapping_add(more)];
            let frame = segment([peer, (vip, 4500)], flags, numbers, options);
            (format!("{flags:#x} to {vip}"), Side::Wan, frame)
        } else {
            let (flags, more) = OF_SERVER[random.below(OF_SERVER.len())];
            // What refuses a SYN has no number.
            let number = if flags == RST | ACK {
                0
            } else {
                first.wrapping_add(more)
            };
            let numbers = [number, PEER_FIRST + 1];
            let frame = segment([(SERVER, 4500), peer], flags, numbers, options);
            let side = if self.hook == Hook::Egress {
                Side::Out
            } else {
                Side::Lan
            };
            (format!("{flags:#x} of the server"), side, frame)
        };
        if self.arms == Arms::One {
            to_only_interface(&mut side, &mut frame);
        }
        if random.below(4) == 0 {
            mutate(random, &mut frame);
        }
        (format!("a segment {name}, port {}", self.port), side, frame)
    }

    /// Sees what a segment has changed on the host.
    pub(crate) fn look(&mut self, tables: &Tables, verdict: Verdict) {
        self.refused += u32::from(verdict == Verdict::NotForwarded(Reason::OtherVip));
        let bucket = tables.pin(self.bucket);
        let entries = bucket.as_chunks::<{ recent::WORDS }>().0;
        for owner in &self.now {
            let is_gone = !entries.iter().any(|entry| entry[recent::DETAILS] == *owner);
            self.displaced += u32::from(is_gone);
        }
        let before = std::mem::take(&mut self.now);
        for entry in entries {
            let (owner, word) = (entry[recent::DETAILS], entry[recent::DETAILS + 2]);
            if pin::has(word, pin::PROVEN) == 0 {
                continue;
            }
            self.now.push(owner);
            self.proofs += u32::from(!before.contains(&owner));
            let last = self.proven.insert(owner, pin::vip(word));
            self.moves += u32::from(last.is_some_and(|last| last != pin::vip(word)));
        }
    }

    /// Fails if too little has happened to so many segments.
    pub(crate) fn check(&self, segments: u32) -> Result<()> {
        let counts = [self.proofs, self.moves, self.displaced, self.refused];
        let what = format!(
            "of {segments} segments {} have proven a connection, {} by another VIP than the last one from \
             its port; {} have displaced a proven one, {} were refused",
            self.proofs, self.moves, self.displaced, self.refused
        );
        println!("{}: {what}", self.hook.name());
        ensure!(
            counts.iter().all(|count| *count >= segments / 2000),
            "{what}"
        );
        Ok(())
    }
}

/// Eight bytes, or none without PSH and FIN.
fn segment(
    [from, to]: [(Ipv4Addr, u16); 2],
    wanted: u8,
    wanted_numbers: [u32; 2],
    more: &[u8],
) -> Vec<u8> {
    let data: &[u8] = if wanted & (PSH | FIN) == 0 {
        &[]
    } else {
        &[1; DATA as usize]
    };
    let mut packet = Packet::tcp(from, to, data);
    if let Body::Tcp {
        flags,
        numbers,
        options,
        ..
    } = &mut packet.body
    {
        (*flags, *numbers, *options) = (wanted, wanted_numbers, more.to_vec());
    }
    let packet = if from.0 == SERVER {
        from_server(packet)
    } else {
        from_client(packet)
    };
    packet.build()
}

/// Some of the peer's ports whose connections have one bucket, and its index: found by what the packet logic
/// does with a SYN from each.
fn ports_of_one_bucket(arms: Arms, config: &Config) -> (usize, Vec<u16>) {
    /// So few at once that none is displaced, as a rule.
    const AT_ONCE: u16 = 256;
    let fib = |_: [u8; 4], destination, length| fixture::fib(config, destination, length);
    let mut found = BTreeMap::<usize, Vec<u16>>::new();
    for first in (1..64 * AT_ONCE).step_by(AT_ONCE.into()) {
        let tables = Tables::new(config);
        for port in first..first + AT_ONCE {
            let ends = [(PEER, port), (VIP_2, 4500)];
            let (mut side, mut frame) = (Side::Wan, segment(ends, SYN, [PEER_FIRST, 0], &[]));
            if arms == Arms::One {
                to_only_interface(&mut side, &mut frame);
            }
            host::run_in(Hook::Tc, (&tables, &fib, config), side, &mut frame);
        }
        for (index, bucket) in tables.pins().iter().enumerate() {
            for entry in bucket.as_chunks::<{ recent::WORDS }>().0 {
                let [_, _, low, high, ..] = entry[recent::DETAILS].to_le_bytes();
                let port = u16::from_le_bytes([low, high]);
                if port == 0 {
                    continue;
                }
                let ports = found.entry(index).or_default();
                ports.push(port);
                if ports.len() == PORTS {
                    return (index, ports.clone());
                }
            }
        }
    }
    unreachable!("16,384 ports in 512 buckets are not spread so thin")
}
