//! Generated second packets of known flows on the host, on gateways with all kinds of links. Path,
//! verdict, bytes and counters are predicted from the fields that were generated.

use crate::Named;
use crate::second::{self, OnHost};
use crate::table::second::{Esp, Path, REMEMBERED, Second, before, first_of, sent_fast, total};
use crate::table::{Arms, from_client, from_server, peer, translated};
use anyhow::{Result, ensure};
use ikenat_tests::bpf::tables::Hop;
use ikenat_tests::lab::frames::{Body, Checksum, DONT_FRAGMENT, Packet, protocol, timestamp};
use ikenat_tests::lab::topology::{SERVER, VIP};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::cell::Cell;
use xdp_common::Class;
use xdp_core::Side;

const CASES: u32 = 4096;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
const RESERVED_FLAG: u16 = 0x8000;
/// The MTU of every route.
const ROUTE_MTU: u64 = 1500;

/// The SPI of the second packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spi {
    Known,
    New,
    Reserved,
}

/// A second packet, and the gateway that it comes to.
#[derive(Clone, Debug)]
struct Case {
    one_armed: bool,
    outbound: bool,
    native: bool,
    spi: (u32, Spi),
    sequence: (u32, i32),
    length: usize,
    header: (u8, u8, u16, u8),
    checksum: Checksum,
    /// The checksum is the sum over the pseudo-header instead.
    partial: bool,
    off_by: u16,
    padding: usize,
    port: u16,
    hop: Hop,
    /// The link: whether checksums may be partial, and its MTU.
    link: (bool, u16),
}

/// Mostly the first value.
fn mostly<T: Clone + std::fmt::Debug + 'static>(
    usual: T,
    rest: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = T> {
    prop_oneof![8 => Just(usual), 1 => rest]
}

fn cases() -> impl Strategy<Value = Case> {
    let flags = prop_oneof![
        4 => Just(0), 4 => Just(DONT_FRAGMENT), 1 => Just(MORE_FRAGMENTS), 1 => Just(RESERVED_FLAG),
        1 => 1..OFFSET / 2,
    ];
    let header = (
        mostly(64, any::<u8>()),
        any::<u8>(),
        flags,
        mostly(0, 1_u8..=10),
    );
    let spi = (
        256..u32::MAX,
        mostly(Spi::Known, select(vec![Spi::New, Spi::Reserved])),
    );
    let sequence = (any::<u32>(), mostly(1, -1000..100_000));
    let length = prop_oneof![4 => 8_usize..64, 1 => 0..8_usize, 2 => 500_usize..1600];
    let checksum = prop_oneof![
        3 => Just(Checksum::Right), 1 => Just(Checksum::Zero), 1 => any::<u16>().prop_map(Checksum::OffBy),
    ];
    let hop = mostly(
        Hop::Remembered(REMEMBERED),
        select(vec![Hop::Expired(REMEMBERED), Hop::Unknown]),
    );
    let link = (any::<bool>(), select(vec![576, 1280, 1499, 1500]));
    let gateway = (mostly(false, Just(true)), any::<bool>(), any::<bool>());
    let checksum = (checksum, mostly(false, Just(true)));
    let rest = (checksum, mostly(0, any::<u16>()), 0..20_usize);
    let state = (mostly(40_000, any::<u16>()), hop, link);
    (gateway, spi, sequence, length, header, rest, state).prop_map(
        |(
            (one_armed, outbound, native),
            spi,
            sequence,
            length,
            header,
            ((checksum, partial), off_by, padding),
            (port, hop, link),
        )| Case {
            one_armed,
            outbound,
            native,
            spi,
            sequence,
            length,
            header,
            checksum,
            partial,
            off_by,
            padding,
            port,
            hop,
            link,
        },
    )
}

/// A ones'-complement sum in 16 bits (RFC 1071).
fn folded(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}

/// The checksum field of a datagram, and the sum over its pseudo-header (RFC 768), which a sender
/// leaves in the field when its device is to finish it.
fn checksums(packet: &Packet) -> (u16, u16) {
    let mut frame = packet.build();
    frame.resize(frame.len() + 8, 0);
    let word = |at: usize| u32::from(frame[at]) << 8 | u32::from(frame[at + 1]);
    let udp = 34 + packet.options.len();
    let addresses: u32 = (26..34).step_by(2).map(word).sum();
    (
        folded(word(udp + 6)),
        folded(17 + word(udp + 4) + addresses),
    )
}

impl Case {
    const fn side(&self) -> Side {
        if self.outbound { Side::Lan } else { Side::Wan }
    }

    fn is_later_fragment(&self) -> bool {
        self.header.2 & OFFSET != 0
    }

    fn is_fragment(&self) -> bool {
        self.header.2 & (OFFSET | MORE_FRAGMENTS) != 0
    }

    /// A packet with these first eight bytes of ESP, from this port of the peer.
    fn esp(&self, spi: u32, sequence: u32, port: u16) -> Packet {
        let mut payload = [spi.to_be_bytes(), sequence.to_be_bytes()].concat();
        payload.resize(self.length.max(8), 0x5a);
        let from = if self.outbound { SERVER } else { peer(9) };
        let to = if self.outbound { peer(9) } else { VIP };
        let packet = if self.native {
            Packet::raw(from, to, protocol::ESP, payload)
        } else if self.outbound {
            Packet::udp((from, 4500), (to, port), payload)
        } else {
            Packet::udp((from, port), (to, 4500), payload)
        };
        if self.outbound {
            from_server(packet)
        } else {
            from_client(packet)
        }
    }

    /// The second packet.
    fn packet(&self) -> Packet {
        let spi = match self.spi.1 {
            Spi::Known => self.spi.0,
            Spi::New => self.spi.0 ^ 0x8000_0000 | 0x100,
            Spi::Reserved => 1 + self.spi.0 % 255,
        };
        let sequence = self.sequence.0.wrapping_add_signed(self.sequence.1);
        let mut packet = self
            .esp(spi, sequence, self.port)
            .with_checksum(self.checksum);
        let (Body::Udp { payload, .. } | Body::Tcp { payload, .. } | Body::Raw { payload, .. }) =
            &mut packet.body;
        payload.truncate(self.length);
        let words;
        (packet.ttl, packet.tos, packet.flags, words) = self.header;
        packet.options = timestamp(4 * words);
        packet.header_checksum_off_by = self.off_by;
        packet.padding = vec![0xa5; self.padding];
        if self.partial && !self.native {
            let (right, partial) = checksums(&packet.clone().with_checksum(Checksum::Right));
            packet = packet.with_checksum(Checksum::OffBy(folded(
                u32::from(partial) + u32::from(!right),
            )));
        }
        if self.is_later_fragment() {
            let header = 34 + 4 * usize::from(words);
            let end = packet.build().len() - self.padding;
            let payload = packet.build()[header..end].to_vec();
            let protocol = packet.build()[23];
            packet.body = Body::Raw { protocol, payload };
        }
        packet
    }

    /// Whether the UDP checksum is the sum over the pseudo-header.
    fn is_partial(&self, packet: &Packet) -> bool {
        let possible = self.link.0 && !self.native && !self.is_later_fragment();
        let (field, partial) = checksums(packet);
        possible && field == partial
    }

    /// Every condition of the fast path.
    fn path(&self, packet: &Packet) -> Path {
        let (ttl, _, flags, words) = self.header;
        let fast = self.spi.1 == Spi::Known
            && self.hop == Hop::Remembered(REMEMBERED)
            && self.length >= 8
            && ttl > 1
            && words == 0
            && flags & !DONT_FRAGMENT == 0
            && total(packet) <= u64::from(self.link.1)
            // Ethernet, IPv4, UDP and ESP without data: what the fast path loads at once.
            && packet.build().len() >= 50
            && !self.is_partial(packet);
        if fast { Path::Fast } else { Path::General }
    }

    /// The verdict, and whether the known flow counts the packet.
    fn verdict(&self, packet: &Packet) -> (String, bool) {
        let known = self.esp(self.spi.0, 0, self.port);
        let esp = Esp::of(&known, self.side());
        let direction = esp.direction.name();
        if self.is_fragment() && !self.is_later_fragment() && self.native && self.length < 8 {
            return ("dropped fragment-tiny".to_owned(), false);
        } else if self.is_partial(packet) {
            return ("slow checksum-partial".to_owned(), false);
        } else if self.header.0 <= 1 {
            return ("slow ttl-expired".to_owned(), false);
        } else if self.is_later_fragment() && !self.native && !self.outbound {
            return ("slow fragment-undecided".to_owned(), false);
        } else if total(packet) > ROUTE_MTU && self.path(packet) == Path::General {
            return ("slow too-big".to_owned(), false);
        }
        let (class, untracked) = match self.spi.1 {
            _ if self.is_later_fragment() => (Class::Fragment, " untracked"),
            _ if self.length < 8 => (Class::Other, ""),
            Spi::Reserved => (esp.class, " untracked"),
            Spi::Known | Spi::New => (esp.class, ""),
        };
        let in_flow = class.is_esp() && self.spi.1 == Spi::Known;
        (
            format!("forward {} {direction}{untracked}", class.name()),
            in_flow,
        )
    }

    /// The row.
    fn second(&self) -> Second {
        let side = self.side();
        let packet = self.packet();
        let mut first = first_of(&self.esp(self.spi.0, 0, 40_000), side);
        let (Body::Udp { payload, .. } | Body::Tcp { payload, .. } | Body::Raw { payload, .. }) =
            &mut first.body;
        payload[4..8].copy_from_slice(&self.sequence.0.to_be_bytes());
        let path = self.path(&packet);
        let bytes = total(&packet);
        let (verdict, in_flow) = self.verdict(&packet);
        let counted = Esp::of(&first, side).counted(total(&first));
        let row = Second {
            name: String::new(),
            side,
            before: before(&first, side),
            hop: self.hop,
            input: packet.build(),
            path,
            output: if path == Path::Fast {
                sent_fast(&packet, side)
            } else if verdict.starts_with("forward") {
                translated(&packet, side).build()
            } else {
                packet.build()
            },
            flow: Some(if in_flow {
                counted.after(Esp::of(&packet, side), bytes, path)
            } else {
                counted
            }),
            verdict,
            bytes,
        };
        if self.one_armed { row.one_armed() } else { row }
    }

    fn run(&self) -> Result<Path> {
        let arms = if self.one_armed { Arms::One } else { Arms::Two };
        let mut gateway = OnHost::new(arms);
        (gateway.config.wan_partial, gateway.config.lan_partial) =
            (self.link.0.into(), self.link.0.into());
        gateway.config = gateway.config.seal();
        gateway.egress_mtu = self.link.1;
        second::run(&mut gateway, &self.second())
    }
}

/// Runs the generated packets; a failure names the smallest case that fails.
pub(crate) fn whole() -> Named {
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let (fast, all) = (Cell::new(0), Cell::new(0));
    let result = runner.run(&cases(), |case| {
        let path = case
            .run()
            .map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        fast.set(fast.get() + u32::from(path == Path::Fast));
        all.set(all.get() + 1);
        Ok(())
    });
    let general = all.get() - fast.get();
    let check = || {
        result?;
        println!(
            "generated: the fast path took {} packets, the general path {general}",
            fast.get()
        );
        ensure!(
            fast.get().min(general) >= CASES / 5,
            "the fast path took {} packets, the general path {general}",
            fast.get()
        );
        Ok(())
    };
    ("host: generated second packets".to_owned(), check())
}
