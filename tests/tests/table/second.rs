//! The rows of the fast path: each row that carries ESP once more, as the second packet of a known
//! flow with a remembered next hop; and each of them that the fast path takes, again and again with
//! one condition missing.
//!
//! The MAC address of the remembered next hop is not the neighbour's: the bytes that leave show
//! which path a packet took.

use super::conditions::conditions;
use super::*;
use ikenat_tests::bpf::tables::Hop;
use ikenat_tests::lab::frames::Mac;
use xdp_common::slot::{Key, flow_key};
use xdp_common::{Class, Direction};

/// A MAC address that only the flow remembers.
pub(crate) const REMEMBERED: Mac = [2, 0, 0, 0x77, 0x88, 0x99];

/// What a row's packet becomes when its flow is known and its next hop remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// Sent by the fast path.
    Fast,
    /// Left to the general path, whatever that does.
    General,
}

/// A second packet.
pub(crate) struct Second {
    pub(crate) name: String,
    pub(crate) side: Side,
    /// Makes the flow known.
    pub(crate) before: Vec<(Side, Vec<u8>)>,
    /// Then the next hop of all flows becomes this.
    pub(crate) hop: Hop,
    pub(crate) input: Vec<u8>,
    pub(crate) path: Path,
    /// The verdict of XDP.
    pub(crate) verdict: String,
    /// IPv4 total length: the bytes that are counted if it is forwarded.
    pub(crate) bytes: u64,
    pub(crate) output: Vec<u8>,
    /// What the flow has counted in the end; `None`: there is no such flow.
    pub(crate) flow: Option<Counted>,
}

/// The counters of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) key: Key,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// The highest sequence number.
    pub(crate) highest: u32,
    /// Packets that were not above the highest one.
    pub(crate) reordered: u64,
    /// The highest number when the last such packet came, under its own number.
    pub(crate) late: u64,
    /// The first sequence number (bits 32-63), and the port (0-15).
    pub(crate) first: u64,
}

impl Counted {
    /// The same after one more packet of the flow.
    pub(crate) fn after(self, esp: Esp, bytes: u64, path: Path) -> Self {
        // RFC 3550 appendix A.1 (MAX_DROPOUT): a single packet of a range far ahead is not believed.
        const BELIEVED: u32 = 3000;
        let mut now = Self {
            packets: self.packets + 1,
            bytes: self.bytes + bytes,
            ..self
        };
        // RFC 1982 section 3.2: less than half of all numbers ahead is later.
        let step = esp.sequence.wrapping_sub(self.highest);
        if (1..1 << 31).contains(&step) {
            if step <= BELIEVED {
                now.highest = esp.sequence;
                // RFC 4303 section 2.2.1: the number has more bits than are sent.
                now.first += u64::from(esp.sequence < self.highest) << 16;
            }
        } else {
            now.reordered += 1;
            now.late = u64::from(esp.sequence) << 32 | u64::from(self.highest);
        }
        // RFC 7296 section 2.23: a NAT may map the peer to another port. The general path looks.
        if path == Path::General {
            now.first = now.first & !0xffff | u64::from(esp.port);
        }
        now
    }
}

/// An ESP packet's place in the tables.
#[derive(Clone, Copy)]
pub(crate) struct Esp {
    pub(crate) peer: [u8; 4],
    pub(crate) port: u16,
    pub(crate) class: Class,
    pub(crate) direction: Direction,
    pub(crate) spi: u32,
    pub(crate) sequence: u32,
}

impl Esp {
    /// Reads an ESP packet as it was built.
    pub(crate) fn of(packet: &Packet, side: Side) -> Self {
        let outbound = side == Side::Lan;
        let (class, port, payload) = match &packet.body {
            Body::Udp {
                source,
                destination,
                payload,
                ..
            } => {
                let port = if outbound { destination } else { source };
                (Class::EspInUdp, *port, payload)
            }
            Body::Tcp { .. } => unreachable!("no segment is ESP"),
            Body::Raw { payload, .. } => (Class::Esp, 0, payload),
        };
        let word = |at: usize| {
            u32::from_be_bytes([
                payload[at],
                payload[at + 1],
                payload[at + 2],
                payload[at + 3],
            ])
        };
        Self {
            peer: if outbound {
                packet.destination.octets()
            } else {
                packet.source.octets()
            },
            port,
            class,
            direction: if outbound {
                Direction::Outbound
            } else {
                Direction::Inbound
            },
            spi: word(0),
            sequence: word(4),
        }
    }

    /// What the flow shows after a packet of `bytes` with this sequence number.
    pub(crate) fn counted(self, bytes: u64) -> Counted {
        Counted {
            key: flow_key(self.peer, self.spi, self.class, self.direction, 0),
            packets: 1,
            bytes,
            highest: self.sequence,
            reordered: 0,
            late: 0,
            first: u64::from(self.sequence) << 32 | u64::from(self.port),
        }
    }

    /// The verdict on it.
    pub(crate) fn forward(self) -> String {
        format!("forward {} {}", self.class.name(), self.direction.name())
    }
}

/// IPv4 total length.
pub(crate) fn total(packet: &Packet) -> u64 {
    (packet.build().len() - packet.padding.len() - 14) as u64
}

/// The server's ESP to a peer, for an inbound flow.
pub(super) fn proof_for(peer: [u8; 4]) -> (Side, Vec<u8>) {
    let mut payload = ESP_PAYLOAD;
    payload[0] = 0xee;
    let packet = from_server(Packet::udp((SERVER, 4500), (peer.into(), 40_000), payload));
    (Side::Lan, packet.build())
}

/// The packet before this one, with nothing unusual about it.
pub(crate) fn first_of(packet: &Packet, side: Side) -> Packet {
    let esp = Esp::of(packet, side);
    let mut first = packet.clone().with_checksum(Checksum::Right);
    (first.tos, first.ttl, first.flags) = (0, 64, 0);
    (first.options, first.padding) = (Vec::new(), Vec::new());
    first.header_checksum_off_by = 0;
    let (Body::Udp { payload, .. } | Body::Tcp { payload, .. } | Body::Raw { payload, .. }) =
        &mut first.body;
    *payload = esp.spi.to_be_bytes().to_vec();
    payload.extend(esp.sequence.wrapping_sub(1).to_be_bytes());
    payload.extend([0x77; 16]);
    first
}

/// A packet of a peer, which shows which VIP it uses: else that of a service with several is a guess, for
/// which no next hop is remembered.
fn keepalive_of(peer: Ipv4Addr) -> (Side, Vec<u8>) {
    let packet = from_client(Packet::udp((peer, 4500), (VIP, 4500), [0xff]));
    (Side::Wan, packet.build())
}

/// What comes before the second packet of a flow.
pub(crate) fn before(first: &Packet, side: Side) -> Vec<(Side, Vec<u8>)> {
    let earlier = if side == Side::Lan {
        keepalive_of(first.destination)
    } else {
        proof_for(first.source.octets())
    };
    vec![earlier, (side, first.build())]
}

/// The gateway's packet, sent to the remembered next hop.
pub(crate) fn sent_fast(packet: &Packet, side: Side) -> Vec<u8> {
    let mut packet = translated(packet, side);
    packet.to_mac = REMEMBERED;
    packet.build()
}

/// A row that was built from an ESP packet and is forwarded.
fn of_packet(row: &Row, packet: &Packet, path: Path) -> Second {
    let esp = Esp::of(packet, row.side);
    let first = first_of(packet, row.side);
    let bytes = total(packet);
    // RFC 4303 section 2.1: the SPIs up to 255 are reserved.
    let known = (esp.spi > 255).then(|| {
        let counted = Esp::of(&first, row.side).counted(total(&first));
        counted.after(esp, bytes, path)
    });
    Second {
        name: format!("second: {}", row.name),
        side: row.side,
        before: before(&first, row.side),
        hop: Hop::Remembered(REMEMBERED),
        input: row.input.clone(),
        path,
        verdict: match known {
            Some(_) => esp.forward(),
            None => esp.forward() + " untracked",
        },
        bytes,
        output: match path {
            Path::Fast => sent_fast(packet, row.side),
            Path::General => translated(packet, row.side).build(),
        },
        flow: known,
    }
}

/// A row whose ESP is not forwarded by XDP: so it stays, although both flows that it might belong
/// to are known.
fn of_frame(row: &Row) -> Second {
    let at = row
        .input
        .windows(3)
        .position(|bytes| bytes == [198, 51, 100]);
    let number = at.map_or(0, |at| row.input[at + 3]);
    let (udp, native) = match row.side {
        Side::Lan => (
            outbound(number, 4500, ESP_PAYLOAD),
            from_server(Packet::raw(
                SERVER,
                peer(number),
                protocol::ESP,
                ESP_PAYLOAD,
            )),
        ),
        Side::Wan | Side::Both | Side::Out => (
            inbound(number, 4500, ESP_PAYLOAD),
            from_client(Packet::raw(peer(number), VIP, protocol::ESP, ESP_PAYLOAD)),
        ),
    };
    let firsts = [native, udp].map(|packet| first_of(&packet, row.side));
    let esp = Esp::of(&firsts[1], row.side);
    Second {
        name: format!("second: {}", row.name),
        side: row.side,
        before: firsts
            .iter()
            .flat_map(|first| before(first, row.side))
            .collect(),
        hop: Hop::Remembered(REMEMBERED),
        input: row.input.clone(),
        path: Path::General,
        verdict: row.verdict.clone(),
        bytes: 0,
        output: row.output.as_ref().unwrap_or(&row.input).clone(),
        flow: Some(esp.counted(total(&firsts[1]))),
    }
}

impl Second {
    /// The same on a one-armed gateway: the server is behind the interface of the clients.
    pub(crate) fn one_armed(mut self) -> Self {
        to_only_interface(&mut self.side, &mut self.input);
        for (side, frame) in &mut self.before {
            to_only_interface(side, frame);
        }
        if !self.verdict.starts_with("forward") {
            self.output = self.input.clone();
            return self;
        }
        self.output[6..12].copy_from_slice(&WAN_MAC);
        self
    }
}

/// All of them, for a gateway.
pub(crate) fn seconds(arms: Arms) -> Vec<Second> {
    let seconds = two_armed().into_iter();
    match arms {
        Arms::Two => seconds.collect(),
        Arms::One => seconds
            .map(|second| Second {
                name: second.name.clone() + arms.suffix(),
                ..second.one_armed()
            })
            .collect(),
    }
}

fn two_armed() -> Vec<Second> {
    let mut seconds = Vec::new();
    for row in rows() {
        // The server's packets that the host's own stack sends have no fast path.
        if row.side == Side::Out {
            continue;
        }
        if let Some((packet, path)) = &row.esp {
            seconds.push(of_packet(&row, packet, *path));
            if *path == Path::Fast {
                seconds.extend(conditions(&row, packet));
            }
        } else if !row.verdict.starts_with("forward")
            && row.input.windows(4).any(|bytes| bytes == &ESP_PAYLOAD[..4])
        {
            seconds.push(of_frame(&row));
        }
    }
    seconds
}
