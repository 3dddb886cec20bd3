//! What strangers can do to connections of TCP: they send in the name of the peer, or of thousands of others.

use super::connections::{ACK, FIN, PSH, RST, SERVER_ISN, SYN, answer, answer_to, segment};
use super::*;

#[test]
fn a_forged_segment_moves_no_peer_and_no_other_connection() {
    Uplinks::both(|uplinks| {
        uplinks.connect(VIP_2, 40_001);
        uplinks.peer_sends(VIP_2, 500, &ike(0x11, Message::InitRequest));
        uplinks.sends(VIP, 40_003, ACK, 0);
        assert_eq!(uplinks.answers(40_001), VIP_2);
        // A message of an SA that is not known goes where the peer is.
        let other = ike(0x77, Message::ServerRequest);
        assert_eq!(uplinks.server_sends(500, &other), VIP_2);
        uplinks.handshake(VIP_2, 0x12);
        uplinks.sends(VIP, 40_004, ACK, 0);
        assert_eq!(uplinks.server_sends(4500, &esp(0xee00_0001, 1)), VIP_2);
    });
}

/// Whoever forges the peer's address and port moves nothing. The server gets no RST of another VIP, which
/// could end the connection: not the peer's own either, if something has gone astray.
#[test]
fn a_connection_is_not_moved_nor_ended_by_the_other_vip() {
    Uplinks::both(|uplinks| {
        uplinks.connect(VIP_2, 40_001);
        for flags in [RST, RST | ACK, SYN | RST, SYN | RST | ACK, FIN | RST] {
            uplinks.is_refused(VIP, 40_001, flags);
            assert_eq!(uplinks.answers(40_001), VIP_2, "{flags:#x}");
        }
        // Nothing else is refused, and the server answers it where the connection is: a SYN, too, by an
        // acknowledgment without data (RFC 5961 section 4). To that no one sends a RST.
        for flags in [ACK, ACK | PSH, FIN | ACK, SYN | ACK, SYN | FIN, 0, SYN] {
            uplinks.sends(VIP, 40_001, flags, SERVER_ISN + 1);
            assert_eq!(uplinks.acknowledges(40_001), VIP_2, "{flags:#x}");
            assert_eq!(uplinks.answers(40_001), VIP_2, "{flags:#x}");
            uplinks.is_refused(VIP, 40_001, RST);
        }
    });
}

/// A server whose queue is full has not taken the third segment, and repeats the second one. That accepts no SYN of
/// a stranger.
#[test]
fn a_second_syn_and_ack_accepts_nothing() {
    for forged in [SYN, ACK] {
        Uplinks::both(|uplinks| {
            uplinks.connect(VIP_2, 40_001);
            uplinks.sends(VIP, 40_001, forged, 0);
            let again = answer(40_001, SYN | ACK, SERVER_ISN);
            assert_eq!(uplinks.vip_of_frame(again), VIP_2);
            uplinks.sends(VIP, 40_001, forged, 0);
            uplinks.is_refused(VIP, 40_001, RST);
            assert_eq!(uplinks.answers(40_001), VIP_2);
        });
    }
}

/// A forged FIN by the connection's own VIP: the peer goes on, and what the server ends is not over.
#[test]
fn a_forged_fin_does_not_end_what_the_peer_sends() {
    Uplinks::both(|uplinks| {
        uplinks.connect(VIP_2, 40_001);
        uplinks.sends(VIP_2, 40_001, FIN | ACK, 0);
        uplinks.sends(VIP_2, 40_001, PSH | ACK, 0);
        let end = answer(40_001, FIN | ACK, SERVER_ISN + 1);
        assert_eq!(uplinks.vip_of_frame(end), VIP_2);
        uplinks.sends(VIP, 40_001, ACK, 0);
        uplinks.is_refused(VIP, 40_001, RST);
        assert_eq!(uplinks.answers(40_001), VIP_2);
        // The peer's own.
        uplinks.sends(VIP_2, 40_001, FIN | ACK, 0);
        uplinks.sends(VIP, 40_001, ACK, 0);
        assert_eq!(uplinks.answers(40_001), VIP);
    });
}

/// Somebody with one address makes as many connections as it has ports, and 100,000 claims displace what they can.
#[test]
fn the_connections_of_one_address_displace_few_of_others() {
    let mut uplinks = Uplinks::new(Hook::Xdp);
    uplinks.without_partial();
    let others = (0..1_000).map(|number| (Ipv4Addr::from(0x1640_0000 + number), 40_001));
    for other in others.clone() {
        uplinks.connects(other, VIP_2);
    }
    for port in 1..=32_000 {
        uplinks.connect(VIP_2, port);
    }
    uplinks.is_flooded(100_000);
    let is_kept = |other| {
        let sent = answer_to(other, ACK | PSH, SERVER_ISN + 1);
        uplinks.vip_of_frame(sent) == VIP_2
    };
    let lost = others.filter(|other| !is_kept(*other)).count();
    // One part of eight, and what lies third in its bucket.
    assert!(lost < 200, "{lost}");
}

/// A RST by the connection's own VIP may be forged as well: what it ends the server shows.
#[test]
fn a_forged_rst_does_not_free_the_way_for_a_claim() {
    Uplinks::both(|uplinks| {
        uplinks.connect(VIP_2, 40_001);
        uplinks.sends(VIP_2, 40_001, RST, 0);
        uplinks.sends(VIP, 40_001, ACK, 0);
        assert_eq!(uplinks.answers(40_001), VIP_2);
        uplinks.is_refused(VIP, 40_001, RST);
        // The server has ended it: what comes now is of another one.
        let reset = answer(40_001, RST | ACK, SERVER_ISN + 9);
        assert_eq!(uplinks.vip_of_frame(reset), VIP_2);
        uplinks.sends(VIP, 40_001, RST, 0);
        uplinks.sends(VIP, 40_001, ACK, 0);
        assert_eq!(uplinks.answers(40_001), VIP);
    });
}

/// The number of a RST of the server is that of the segment which it answers (RFC 9293 section 3.10.7.1), so whoever
/// has sent that has chosen it. 40,000 of them displace no connection either.
#[test]
fn what_the_server_resets_proves_nothing() {
    let mut uplinks = Uplinks::new(Hook::Xdp);
    uplinks.without_partial();
    let ports = 50_001..50_051;
    for port in ports.clone() {
        uplinks.connect(VIP_2, port);
    }
    for port in 1..=40_000 {
        let (flags, reset, number) = match port % 2 {
            0 => (SYN, RST | ACK, 0),
            _ => (ACK, RST, 0x2222_2222),
        };
        uplinks.sends(VIP, port, flags, number);
        assert_eq!(uplinks.vip_of_frame(answer(port, reset, number)), VIP);
        uplinks.sends(VIP, port, ACK, number);
        uplinks.sends(VIP_2, port, RST, 0);
    }
    for port in ports {
        assert_eq!(uplinks.answers(port), VIP_2, "{port}");
        uplinks.is_refused(VIP, port, RST);
    }
}

/// Nor does it take away what a handshake has shown so far.
#[test]
fn a_provoked_rst_hides_no_proof() {
    Uplinks::both(|uplinks| {
        uplinks.sends(VIP_2, 40_001, SYN, 0);
        let accepted = answer(40_001, SYN | ACK, SERVER_ISN);
        assert_eq!(uplinks.vip_of_frame(accepted), VIP_2);
        let reset = answer(40_001, RST, 0x2222_2222);
        assert_eq!(uplinks.vip_of_frame(reset), VIP_2);
        uplinks.sends(VIP_2, 40_001, ACK, SERVER_ISN + 1);
        uplinks.is_refused(VIP, 40_001, RST);
    });
}

/// A RST by its own VIP, which anyone can forge, does not make a connection easier to displace.
#[test]
fn a_forged_rst_frees_no_place() {
    let mut uplinks = Uplinks::new(Hook::Xdp);
    uplinks.without_partial();
    let ports = 40_001..40_041;
    for port in ports.clone() {
        uplinks.connect(VIP_2, port);
        uplinks.sends(VIP_2, port, RST, 0);
    }
    uplinks.is_flooded(100_000);
    for port in ports {
        uplinks.is_refused(VIP, port, RST);
        assert_eq!(uplinks.answers(port), VIP_2, "{port}");
    }
}

/// What the server does not get says nothing.
#[test]
fn a_segment_that_is_refused_claims_nothing() {
    Uplinks::both(|uplinks| {
        uplinks.sends(VIP_2, 40_001, ACK, 0);
        let mut damaged = segment(VIP, 40_001, ACK, 0);
        damaged[46] = 0;
        let (word, ..) = uplinks.run(Side::Wan, damaged);
        assert_eq!(word, "punted malformed");
        assert_eq!(uplinks.answers(40_001), VIP_2);
    });
}

/// Until the peer has acknowledged what the server has sent to it, by number, nothing is proven.
#[test]
fn a_claim_is_no_proof() {
    Uplinks::both(|uplinks| {
        for number in [0, 0, SERVER_ISN + 1, SERVER_ISN + 1] {
            uplinks.sends(VIP, 40_001, ACK, number);
        }
        uplinks.sends(VIP_2, 40_001, SYN, 0);
        let accepted = answer(40_001, SYN | ACK, SERVER_ISN);
        assert_eq!(uplinks.vip_of_frame(accepted), VIP_2);
        for wrong in [0, SERVER_ISN, SERVER_ISN + 2] {
            uplinks.sends(VIP, 40_001, ACK, wrong);
            assert_eq!(uplinks.answers(40_001), VIP, "what comes last counts");
            // A RST claims nothing, nor does it prove anything.
            uplinks.sends(VIP_2, 40_001, RST, SERVER_ISN + 9);
            uplinks.sends(VIP, 40_001, RST | ACK, SERVER_ISN + 9);
            assert_eq!(uplinks.answers(40_001), VIP);
        }
        // Eight bytes from number 1 on: the right number, and no SYN is needed.
        uplinks.sends(VIP_2, 40_001, ACK, 0);
        assert_eq!(uplinks.answers(40_001), VIP_2);
        uplinks.sends(VIP_2, 40_001, ACK, SERVER_ISN + 9);
        uplinks.is_refused(VIP, 40_001, RST);
        assert_eq!(uplinks.answers(40_001), VIP_2);
    });
}

/// As many strangers as there are places, and more, all within one second; and SYNs in the peer's name.
#[test]
fn a_flood_displaces_no_proven_connection() {
    let mut uplinks = Uplinks::new(Hook::Xdp);
    uplinks.without_partial();
    let ports = 40_001..40_041;
    for port in ports.clone() {
        uplinks.connect(VIP_2, port);
    }
    uplinks.is_flooded(100_000);
    for port in 1..=u16::MAX {
        uplinks.sends(VIP, port, SYN, 0);
    }
    for port in ports {
        assert_eq!(uplinks.answers(port), VIP_2, "{port}");
    }
}

/// However many connections somebody has, what others claim finds a place; and the oldest of them gives
/// way to the next one that is proven.
#[test]
fn connections_displace_no_peers() {
    let mut uplinks = Uplinks::new(Hook::Xdp);
    uplinks.without_partial();
    for port in 1..=40_000 {
        uplinks.connect(VIP_2, port);
    }
    uplinks.now += 2 * TICK;
    for number in 0..200_u8 {
        let request = ike(number + 1, Message::InitRequest);
        uplinks.peer_sends(VIP_2, 500, &request);
        let response = ike(number + 1, Message::InitResponse);
        assert_eq!(uplinks.server_sends(500, &response), VIP_2, "{number}");
    }
    for port in 50_001..50_031 {
        uplinks.connect(VIP_2, port);
    }
    uplinks.is_flooded(100_000);
    for port in 50_001..50_031 {
        assert_eq!(uplinks.answers(port), VIP_2, "{port}");
    }
}
