//! Connections of TCP (RFC 9329): each is answered from the VIP that it was made to, whatever else the
//! peer, or a stranger in its name, sends.

use super::*;
use xdp_common::limits::PIN_CONNECTION_TICKS;

/// Flags (RFC 9293 section 3.1).
pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
/// The first sequence number of the server in each connection, whoever asks.
pub(super) const SERVER_ISN: u32 = 0x7000_0000;

/// A timestamp (RFC 7323 section 3.2), as the kernel's TCP sends in each segment.
const OPTIONS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9];

/// A segment from and to the port 4500 of one side: eight bytes, or none without PSH and FIN.
pub(super) fn numbered(
    [from, to]: [(Ipv4Addr, u16); 2],
    flags: u8,
    sequence: u32,
    acknowledgment: u32,
) -> Vec<u8> {
    let data: &[u8] = if flags & (PSH | FIN) == 0 {
        &[]
    } else {
        &[1; 8]
    };
    let [from_mac, to_mac] = if from.0 == SERVER {
        [SERVER_MAC, LAN_MAC]
    } else {
        [CLIENT_MAC, WAN_MAC]
    };
    let packet = Packet::tcp(from, to, [&OPTIONS, data].concat());
    let mut frame = packet.with_macs(to_mac, from_mac).build();
    frame[38..42].copy_from_slice(&sequence.to_be_bytes());
    frame[42..46].copy_from_slice(&acknowledgment.to_be_bytes());
    frame[46] = 0x80;
    frame[47] = flags;
    frame
}

/// A segment of the peer, or of a stranger in its name, to a VIP.
pub(super) fn segment(vip: Ipv4Addr, port: u16, flags: u8, acknowledgment: u32) -> Vec<u8> {
    segment_of((PEER, port), vip, flags, acknowledgment)
}

/// A segment of somebody.
fn segment_of(from: (Ipv4Addr, u16), vip: Ipv4Addr, flags: u8, acknowledgment: u32) -> Vec<u8> {
    numbered([from, (vip, 4500)], flags, 0x1000_0000, acknowledgment)
}

/// What the server sends in a connection from this number on.
pub(super) fn answer(port: u16, flags: u8, sequence: u32) -> Vec<u8> {
    answer_to((PEER, port), flags, sequence)
}

/// What it sends to somebody.
pub(super) fn answer_to(to: (Ipv4Addr, u16), flags: u8, sequence: u32) -> Vec<u8> {
    numbered([(SERVER, 4500), to], flags, sequence, 0x1000_0001)
}

impl Uplinks {
    /// The peer's side sends a segment, which the server gets.
    pub(super) fn sends(&self, vip: Ipv4Addr, port: u16, flags: u8, acknowledgment: u32) {
        self.gets(segment(vip, port, flags, acknowledgment));
    }

    fn gets(&self, frame: Vec<u8>) {
        let (word, frame, _) = self.run(Side::Wan, frame);
        assert!(word.starts_with("forward tcp in"), "{word}");
        assert_eq!(frame[30..34], SERVER.octets(), "the server gets it");
    }

    /// A segment of the peer's side that the server must not get.
    pub(super) fn is_refused(&self, vip: Ipv4Addr, port: u16, flags: u8) {
        let frame = segment(vip, port, flags, SERVER_ISN + 1);
        let (word, after, _) = self.run(Side::Wan, frame.clone());
        assert_eq!(word, "dropped other-vip", "{vip} {flags:#x}");
        assert_eq!(after, frame, "it is as it was");
    }

    /// The VIP of what the server sends in an established connection, from number 1 of it on.
    pub(super) fn answers(&self, port: u16) -> Ipv4Addr {
        self.vip_of_frame(answer(port, ACK | PSH, SERVER_ISN + 1))
    }

    /// That of an acknowledgment without data.
    pub(super) fn acknowledges(&self, port: u16) -> Ipv4Addr {
        self.vip_of_frame(answer(port, ACK, SERVER_ISN + 1))
    }

    /// The three segments that establish a connection (RFC 9293 section 3.5).
    pub(super) fn connect(&self, vip: Ipv4Addr, port: u16) {
        self.connects((PEER, port), vip);
    }

    /// The same of somebody.
    pub(super) fn connects(&self, peer: (Ipv4Addr, u16), vip: Ipv4Addr) {
        self.connects_from(peer, vip, SERVER_ISN);
    }

    /// And with another first number of the server, which a new connection has (RFC 9293 section 3.4.1).
    fn connects_from(&self, peer: (Ipv4Addr, u16), vip: Ipv4Addr, first: u32) {
        self.gets(segment_of(peer, vip, SYN, 0));
        let accepted = answer_to(peer, SYN | ACK, first);
        assert_eq!(self.vip_of_frame(accepted), vip);
        self.gets(segment_of(peer, vip, ACK, first + 1));
    }

    /// One checksum in 65,535 looks like a partial one.
    pub(super) fn without_partial(&mut self) {
        (self.config.wan_partial, self.config.lan_partial) = (0, 0);
    }

    /// So many others send to the server: half of them SYN, half IKE.
    pub(super) fn is_flooded(&self, count: u32) {
        for number in 0..count {
            let source = Ipv4Addr::from(0x1440_0000 + number);
            let packet = if number % 2 == 0 {
                numbered([(source, 7), (VIP, 4500)], SYN, number, 0)
            } else {
                let packet = Packet::udp((source, 500), (VIP, 500), ike(1, Message::InitRequest));
                packet.with_macs(WAN_MAC, CLIENT_MAC).build()
            };
            let (word, ..) = self.run(Side::Wan, packet);
            assert!(word.starts_with("forward"), "{word}");
        }
    }
}

#[test]
fn a_connection_is_answered_from_the_vip_that_it_was_made_to() {
    Uplinks::both(|mut uplinks| {
        // Two clients behind one address, and one connection each.
        uplinks.connect(VIP_2, 40_001);
        uplinks.connect(VIP, 40_002);
        assert_eq!(uplinks.answers(40_001), VIP_2);
        assert_eq!(uplinks.answers(40_002), VIP);
        // What is known of UDP is another matter.
        uplinks.handshake(VIP, 0x11);
        assert_eq!(uplinks.answers(40_001), VIP_2);
        uplinks.handshake(VIP_2, 0x12);
        assert_eq!(uplinks.answers(40_002), VIP);
        // Both sides are silent for two hours.
        uplinks.now += 7200 * TICK;
        assert_eq!(uplinks.answers(40_001), VIP_2);
        // What is lost with the table comes back with the next segment.
        uplinks.forget();
        assert_eq!(uplinks.answers(40_001), VIP);
        uplinks.sends(VIP_2, 40_001, ACK, 0);
        assert_eq!(uplinks.answers(40_001), VIP_2);
    });
}

/// Its entry moves to where no claim displaces it, and leaves none behind.
#[test]
fn a_proven_connection_has_one_entry() {
    Uplinks::both(|uplinks| {
        for number in 1..=16 {
            uplinks.connect(VIP_2, 40_000 + number);
            assert_eq!(uplinks.tables.pins_in_use(), usize::from(number));
        }
    });
}

/// A RST ends the connection: what it says of the peer is not what the entry is kept for.
#[test]
fn a_rst_keeps_no_entry() {
    Uplinks::both(|mut uplinks| {
        let limit = u64::from(PIN_CONNECTION_TICKS) * TICK;
        for (flags, vip) in [(ACK, VIP_2), (RST, VIP)] {
            uplinks.connect(VIP_2, 40_001);
            uplinks.now += limit * 3 / 4;
            uplinks.sends(VIP_2, 40_001, flags, 0);
            uplinks.now += limit / 2;
            assert_eq!(uplinks.answers(40_001), vip, "{flags:#x}");
        }
    });
}

/// What its time is that of: the peer's segments by its own VIP. What strangers send to the other VIP, and the
/// server to a peer that is gone, keeps no entry.
#[test]
fn only_the_peer_by_its_own_vip_keeps_an_entry() {
    let limit = u64::from(PIN_CONNECTION_TICKS) * TICK;
    let connected = |mut uplinks: Uplinks, keep: &dyn Fn(&Uplinks), vip| {
        uplinks.connect(VIP_2, 40_001);
        uplinks.now += limit * 3 / 4;
        keep(&uplinks);
        uplinks.now += limit / 2;
        assert_eq!(uplinks.answers(40_001), vip);
    };
    for flags in [ACK, PSH | ACK, FIN | ACK, SYN] {
        Uplinks::both(|uplinks| {
            connected(uplinks, &|it| it.sends(VIP_2, 40_001, flags, 0), VIP_2);
        });
        Uplinks::both(|uplinks| connected(uplinks, &|it| it.sends(VIP, 40_001, flags, 0), VIP));
    }
    Uplinks::both(|uplinks| {
        connected(uplinks, &|it| assert_eq!(it.answers(40_001), VIP_2), VIP);
    });
}

/// A connection by a VIP that is gone gives way, and refuses nothing.
#[test]
fn a_vip_that_is_gone_has_no_connections() {
    Uplinks::both(|mut uplinks| {
        uplinks.connect(VIP_2, 40_001);
        uplinks.is_refused(VIP, 40_001, RST);
        uplinks.config.vips.vips[1].address = [0; 4];
        uplinks.sends(VIP, 40_001, RST, 0);
        assert_eq!(uplinks.answers(40_001), VIP);
    });
}

/// A connection is over when both sides have sent a FIN (RFC 9293 section 3.6).
#[test]
fn a_connection_that_both_have_ended_is_proven_no_more() {
    for peer_first in [true, false] {
        Uplinks::both(|uplinks| {
            uplinks.connect(VIP_2, 40_001);
            let peer = || uplinks.sends(VIP_2, 40_001, FIN | ACK, SERVER_ISN + 1);
            if peer_first {
                peer();
            }
            let ended = answer(40_001, FIN | ACK, SERVER_ISN + 1);
            uplinks.is_refused(VIP, 40_001, RST);
            assert_eq!(uplinks.vip_of_frame(ended), VIP_2);
            if !peer_first {
                uplinks.is_refused(VIP, 40_001, RST);
                peer();
            }
            // What is acknowledged now proves nothing.
            assert_eq!(uplinks.answers(40_001), VIP_2);
            uplinks.sends(VIP_2, 40_001, ACK, SERVER_ISN + 9);
            uplinks.sends(VIP, 40_001, RST, 0);
            assert_eq!(uplinks.answers(40_001), VIP_2);
            uplinks.sends(VIP, 40_001, ACK, 0);
            assert_eq!(uplinks.answers(40_001), VIP);
        });
    }
}

/// A port of the peer may be used for the next connection at once, and by another VIP.
#[test]
fn a_new_connection_from_the_same_port_is_answered_where_it_was_made() {
    Uplinks::both(|uplinks| {
        for (vip, first) in [VIP_2, VIP, VIP, VIP_2].into_iter().zip(1..) {
            uplinks.connects_from((PEER, 40_001), vip, first << 16);
            assert_eq!(uplinks.answers(40_001), vip);
        }
        // The last SYN counts, whoever has sent one before.
        uplinks.sends(VIP, 40_001, SYN, 0);
        uplinks.connect(VIP_2, 40_001);
        assert_eq!(uplinks.answers(40_001), VIP_2);
    });
}

/// The server refuses a connection, or still has an earlier one of which nothing is proven.
#[test]
fn a_syn_is_answered_where_it_came_from() {
    Uplinks::both(|uplinks| {
        uplinks.connect(VIP_2, 40_001);
        uplinks.sends(VIP, 40_001, SYN, 0);
        let refused = |sequence| answer(40_001, RST | ACK, sequence);
        assert_eq!(uplinks.vip_of_frame(refused(0)), VIP);

        uplinks.sends(VIP_2, 40_002, ACK, 0);
        uplinks.sends(VIP, 40_002, SYN, 0);
        assert_eq!(uplinks.answers(40_002), VIP_2, "data is no answer");
        assert_eq!(uplinks.acknowledges(40_002), VIP);
        uplinks.sends(VIP_2, 40_002, ACK, 0);
        assert_eq!(uplinks.acknowledges(40_002), VIP_2, "the peer is there");
    });
}

/// The clock of one CPU may be a tick ahead of that of another one.
#[test]
fn what_another_cpu_has_just_written_is_young() {
    Uplinks::both(|mut uplinks| {
        uplinks.connect(VIP_2, 40_001);
        uplinks.peer_sends(VIP_2, 500, &ike(1, Message::InitRequest));
        uplinks.now -= TICK;
        assert_eq!(uplinks.answers(40_001), VIP_2);
        uplinks.is_refused(VIP, 40_001, RST);
        let response = ike(1, Message::InitResponse);
        assert_eq!(uplinks.server_sends(500, &response), VIP_2);
    });
}

/// RFC 6335 section 6: port 0 is reserved. Such a segment says nothing about the peer itself, whose entry
/// has no port.
#[test]
fn a_segment_from_port_0_is_malformed() {
    Uplinks::both(|uplinks| {
        uplinks.peer_sends(VIP_2, 500, &ike(0x11, Message::InitRequest));
        let (word, ..) = uplinks.run(Side::Wan, segment(VIP, 0, SYN, 0));
        assert_eq!(word, "punted malformed");
        let (word, ..) = uplinks.run(Side::Lan, answer(0, ACK | PSH, SERVER_ISN + 1));
        assert_eq!(word, "punted malformed");
        let other = ike(0x77, Message::ServerRequest);
        assert_eq!(uplinks.server_sends(500, &other), VIP_2);
    });
}

/// RFC 5508 section 4.2: an error about a segment comes from the VIP of its connection, whatever VIP the
/// peer uses otherwise.
#[test]
fn an_error_about_a_segment_comes_from_the_vip_of_its_connection() {
    let uplinks = Uplinks::new(Hook::Tc);
    uplinks.connect(VIP_2, 40_001);
    uplinks.connect(VIP, 40_002);
    let error = |port| {
        let quoted = quote(&Packet::tcp((PEER, port), (SERVER, 4500), [1; 8]), 8);
        let error = Icmp::new(kind::UNREACHABLE, code::PORT, quoted);
        Packet::icmp(SERVER, PEER, &error)
    };
    for of_peer in [VIP, VIP_2] {
        uplinks.handshake(of_peer, 0x11);
        assert_eq!(uplinks.vip_of(&error(40_001)), VIP_2);
        assert_eq!(uplinks.vip_of(&error(40_002)), VIP);
        // Of a connection that is not known.
        assert_eq!(uplinks.vip_of(&error(40_003)), of_peer);
    }
}
