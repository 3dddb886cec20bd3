//! The second packet of a known flow with one condition of the fast path missing; and with each
//! condition only just met.

use super::second::{Counted, Esp, Path, REMEMBERED, Second, before, first_of, sent_fast, total};
use super::*;
use ikenat_tests::bpf::tables::Hop;
use xdp_common::Class;

const MORE_FRAGMENTS: u16 = 0x2000;
/// The first of the three flags (RFC 791 section 3.1: reserved, must be zero).
const RESERVED_FLAG: u16 = 0x8000;
const MTU: usize = 1500;

/// A change of the second packet.
struct Condition {
    name: &'static str,
    hop: Hop,
    packet: Packet,
    /// Bytes that change in the input and in the output alike: NAT does not touch them.
    patch: Vec<(usize, u8)>,
    outcome: Outcome,
}

enum Outcome {
    Fast,
    /// Forwarded by the general path, and counted in the flow or not.
    General {
        verdict: String,
        in_flow: bool,
    },
    /// No byte changes.
    Left(&'static str),
}

fn payload(packet: &mut Packet) -> &mut Vec<u8> {
    let (Body::Udp { payload, .. } | Body::Tcp { payload, .. } | Body::Raw { payload, .. }) =
        &mut packet.body;
    payload
}

/// The conditions of one packet, one after the other.
struct Conditions {
    packet: Packet,
    esp: Esp,
    all: Vec<Condition>,
}

impl Conditions {
    fn add(&mut self, name: &'static str, outcome: Outcome, change: impl FnOnce(&mut Packet)) {
        let mut packet = self.packet.clone();
        // Each is another datagram, so that none is a fragment of one before.
        packet.id += u16::try_from(self.all.len()).expect("a few");
        change(&mut packet);
        self.all.push(Condition {
            name,
            hop: Hop::Remembered(REMEMBERED),
            packet,
            patch: Vec::new(),
            outcome,
        });
    }

    fn fast(&mut self, name: &'static str, change: impl FnOnce(&mut Packet)) {
        self.add(name, Outcome::Fast, change);
    }

    fn left(&mut self, name: &'static str, why: &'static str, change: impl FnOnce(&mut Packet)) {
        self.add(name, Outcome::Left(why), change);
    }

    /// Forwarded by the general path, as ESP of the flow.
    fn general(&mut self, name: &'static str, change: impl FnOnce(&mut Packet)) {
        let verdict = self.esp.forward();
        let in_flow = true;
        self.add(name, Outcome::General { verdict, in_flow }, change);
    }

    /// Forwarded by the general path, in no flow or another one.
    fn other(&mut self, name: &'static str, verdict: &str, change: impl FnOnce(&mut Packet)) {
        let verdict = format!("forward {verdict}");
        let in_flow = false;
        self.add(name, Outcome::General { verdict, in_flow }, change);
    }

    fn hop(&mut self, name: &'static str, hop: Hop) {
        self.general(name, |_| {});
        self.all.last_mut().expect("added").hop = hop;
    }

    fn patched(&mut self, patch: &[(usize, u8)]) {
        self.all.last_mut().expect("added").patch = patch.to_vec();
    }
}

/// Makes the packet this long.
fn resized(packet: &mut Packet, length: usize) {
    let more = length - usize::try_from(total(packet)).expect("a packet's length");
    payload(packet).extend(vec![0x5a; more]);
}

/// Everything that IPv4 may have.
fn ipv4(of: &mut Conditions, side: Side) {
    let direction = of.esp.direction.name();
    of.general("an IP option", |p| p.options = vec![1; 4]);
    of.general("40 bytes of IP options", |p| {
        p.options = ikenat_tests::lab::frames::timestamp(40);
    });
    of.general("the first of several fragments", |p| {
        p.flags |= MORE_FRAGMENTS;
    });
    let fragment = format!("fragment {direction} untracked");
    for (name, flags, ttl) in [
        ("a last fragment", 185, 64),
        ("a fragment at offset 8", 1, 64),
        ("a fragment at offset 8, TTL 2", 1, 2),
        ("a fragment at offset 32,768", 0x1000, 64),
    ] {
        let change = |p: &mut Packet| {
            // No header of its own: nothing of its contents is translated.
            let protocol = p.build()[23];
            let payload = p.build()[34..][..24].to_vec();
            p.body = Body::Raw { protocol, payload };
            (p.flags, p.ttl) = (flags, ttl);
        };
        // Nothing shows whether a fragment of UDP is the server's or the host's own.
        if side != Side::Lan && matches!(of.packet.body, Body::Udp { .. }) {
            of.left(name, "slow fragment-undecided", change);
        } else {
            of.other(name, &fragment, change);
        }
    }
    of.general("the reserved flag", |p| p.flags |= RESERVED_FLAG);
    of.fast("DF", |p| p.flags = DONT_FRAGMENT);
    of.left("TTL 1", "slow ttl-expired", |p| p.ttl = 1);
    of.left("TTL 0", "slow ttl-expired", |p| p.ttl = 0);
    of.fast("TTL 2", |p| p.ttl = 2);
    of.fast("TTL 255", |p| p.ttl = 255);
    of.fast("DSCP and ECN", |p| p.tos = 0xff);
    of.left("another protocol", "punted other-protocol", |p| {
        let payload = p.build()[34..].to_vec();
        p.body = Body::Raw {
            protocol: 51,
            payload,
        };
    });
    of.left("another address", "punted other-address", |p| match side {
        Side::Lan => p.source = Ipv4Addr::new(192, 168, 0, 77),
        Side::Wan | Side::Both | Side::Out => p.destination = GATEWAY_LAN,
    });
    of.left("another protocol than IPv4", "punted not-ipv4", |_| {});
    of.patched(&[(12, 0x86), (13, 0xdd)]);
    of.left("another version", "punted malformed", |_| {});
    of.patched(&[(14, 0x55)]);
}

/// MAC addresses and lengths.
fn frame(of: &mut Conditions) {
    for (at, name) in [
        "another MAC address, first byte",
        "another MAC address, second byte",
        "another MAC address, third byte",
        "another MAC address, fourth byte",
        "another MAC address, fifth byte",
        "another MAC address, last byte",
    ]
    .into_iter()
    .enumerate()
    {
        of.left(name, "punted not-our-mac", |p| p.to_mac[at] ^= 4);
    }
    of.fast("as large as the egress", |p| resized(p, MTU));
    of.left("larger than the egress", "slow too-big", |p| {
        resized(p, MTU + 1);
    });
    of.fast("a byte of padding", |p| {
        if p.padding.is_empty() {
            p.padding = vec![0xa5];
        }
    });
    let mut packet = of.packet.clone();
    packet.padding.clear();
    let beyond = u16::try_from(total(&packet) + 1).expect("small");
    of.left(
        "a total length of one byte more than there is",
        "punted malformed",
        |p| p.padding.clear(),
    );
    let [high, low] = beyond.to_be_bytes();
    of.patched(&[(16, high), (17, low)]);
}

/// The flow and its next hop.
fn state(of: &mut Conditions) {
    let esp = of.esp;
    of.hop("an expired hop", Hop::Expired(REMEMBERED));
    of.hop("an unknown hop", Hop::Unknown);
    let new = format!("{} {}", esp.class.name(), esp.direction.name());
    for (at, name) in [(0, "an unknown SPI"), (3, "the next SPI")] {
        of.other(name, &new, |p| payload(p)[at] ^= 0x10);
    }
    of.other("a reserved SPI", &format!("{new} untracked"), |p| {
        payload(p)[..4].copy_from_slice(&[0, 0, 0, 255]);
    });
    of.fast("the same number again", |p| {
        payload(p)[4..8].copy_from_slice(&esp.sequence.wrapping_sub(1).to_be_bytes());
    });
    for (name, step) in [
        ("the farthest number that is believed", 3000),
        ("a number too far ahead", 3001),
        ("a number 2^30 ahead", 1 << 30),
    ] {
        of.fast(name, |p| {
            // The second packet of a flow has the number of the first one and one more.
            let number = esp.sequence.wrapping_sub(1).wrapping_add(step);
            payload(p)[4..8].copy_from_slice(&number.to_be_bytes());
        });
    }
    of.fast("eight bytes of ESP", |p| {
        payload(p).truncate(8);
        // As Ethernet pads it.
        p.padding = vec![0; 18];
    });
    let other = format!("other {}", esp.direction.name());
    of.other("seven bytes of ESP", &other, |p| {
        payload(p).truncate(7);
        p.padding = vec![0; 19];
    });
}

/// The UDP header.
fn udp(of: &mut Conditions, side: Side) {
    let direction = of.esp.direction.name();
    let set = |p: &mut Packet, service: Option<u16>, other: Option<u16>| {
        if let Body::Udp {
            source,
            destination,
            ..
        } = &mut p.body
        {
            let (at_service, at_other) = match side {
                Side::Lan => (source, destination),
                Side::Wan | Side::Both | Side::Out => (destination, source),
            };
            *at_service = service.unwrap_or(*at_service);
            *at_other = other.unwrap_or(*at_other);
        }
    };
    for (name, port) in [
        ("port 4501", 4501),
        ("port 4499", 4499),
        ("port 404", 0x194),
        ("port 37908", 0x9414),
    ] {
        of.left(name, "punted other-port", |p| set(p, Some(port), None));
    }
    of.other("port 500", &format!("ike {direction}"), |p| {
        set(p, Some(500), None);
    });
    of.fast("another port of the peer", |p| set(p, None, Some(4500)));
    of.fast("the highest port of the peer", |p| {
        set(p, None, Some(65_535));
    });
    of.general("another port of the peer, and an expired hop", |p| {
        set(p, None, Some(4501));
    });
    of.all.last_mut().expect("added").hop = Hop::Expired(REMEMBERED);
    of.other(
        "the Non-ESP Marker",
        &format!("natt-ike {direction}"),
        |p| payload(p)[..4].fill(0),
    );
    let length = u16::try_from(total(&of.packet) - 20).expect("small");
    let patch = |length: u16| {
        let [high, low] = length.to_be_bytes();
        [(38, high), (39, low)]
    };
    of.general("a datagram shorter than the packet", |_| {});
    of.patched(&patch(length - 1));
    of.left(
        "a datagram longer than the packet",
        "punted malformed",
        |_| {},
    );
    of.patched(&patch(length + 1));
    of.left("a datagram 256 bytes longer", "punted malformed", |_| {});
    of.patched(&patch(length + 256));
    of.fast("checksum zero", |p| {
        *p = p.clone().with_checksum(Checksum::Zero);
    });
    of.left("a partial checksum", "slow checksum-partial", |_| {});
    let partial = bytes::partial_checksum(&of.packet.build());
    of.patched(&[(40, partial[0]), (41, partial[1])]);
}

impl Condition {
    /// What the flow shows after this packet.
    fn counted(&self, first: &Packet, side: Side, bytes: u64) -> Counted {
        let before = Esp::of(first, side).counted(total(first));
        let path = match self.outcome {
            Outcome::Fast => Path::Fast,
            Outcome::General { in_flow: true, .. } => Path::General,
            Outcome::General { in_flow: false, .. } | Outcome::Left(_) => return before,
        };
        before.after(Esp::of(&self.packet, side), bytes, path)
    }

    fn into_second(self, row: &Row, of: &Packet) -> Second {
        let first = first_of(of, row.side);
        let bytes = total(&self.packet);
        let (path, verdict, mut output) = match &self.outcome {
            Outcome::Fast => (
                Path::Fast,
                Esp::of(&self.packet, row.side).forward(),
                sent_fast(&self.packet, row.side),
            ),
            Outcome::General { verdict, .. } => (
                Path::General,
                verdict.clone(),
                translated(&self.packet, row.side).build(),
            ),
            Outcome::Left(verdict) => (Path::General, (*verdict).to_owned(), self.packet.build()),
        };
        let mut input = self.packet.build();
        for (at, byte) in &self.patch {
            input[*at] = *byte;
            output[*at] = *byte;
        }
        Second {
            name: format!("second: {}: {}", row.name, self.name),
            side: row.side,
            before: before(&first, row.side),
            hop: self.hop,
            input,
            path,
            verdict,
            bytes,
            output,
            flow: Some(self.counted(&first, row.side, bytes)),
        }
    }
}

/// The second packets of a row that the fast path takes, each with one condition changed.
pub(super) fn conditions(row: &Row, packet: &Packet) -> Vec<Second> {
    let mut conditions = Conditions {
        packet: packet.clone(),
        esp: Esp::of(packet, row.side),
        all: Vec::new(),
    };
    ipv4(&mut conditions, row.side);
    frame(&mut conditions);
    state(&mut conditions);
    if conditions.esp.class == Class::EspInUdp {
        udp(&mut conditions, row.side);
    }
    let all = conditions.all.into_iter();
    all.map(|condition| condition.into_second(row, packet))
        .collect()
}
