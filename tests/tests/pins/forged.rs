//! What somebody who forges the address of an established peer, or has an IKE SA of its own, does not reach.

use super::*;

/// Somebody else, behind the same gateway.
const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);

/// The first messages of an IKE SA that a stranger begins at a VIP, with its own address.
fn stranger_begins(gateway: &Uplinks, initiator: u8, vip: Ipv4Addr, first: [Message; 2]) {
    let request = Packet::udp((STRANGER, 500), (vip, 500), ike(initiator, first[0]));
    let (word, ..) = gateway.run(Side::Wan, request.with_macs(WAN_MAC, CLIENT_MAC).build());
    assert!(word.starts_with("forward ike in"), "{word}");
    let reply = Packet::udp((SERVER, 500), (STRANGER, 500), ike(initiator, first[1]));
    assert_eq!(gateway.vip_of(&reply), vip);
}

/// The first two messages, and what the server answers under encryption before the peer has shown who it is.
const HANDSHAKES: [([Message; 2], [Message; 2]); 4] = [
    (
        [Message::InitRequest, Message::InitResponse],
        [Message::AuthRequest, Message::AuthResponse],
    ),
    // RFC 2409 section 5.4: messages 1, 2, 5 and 6 of main mode.
    (
        [Message::Isakmp(2, 1, 0), Message::Isakmp(2, 1, 0)],
        [Message::Isakmp(2, 5, 1), Message::Isakmp(2, 5, 1)],
    ),
    // The server refuses message 5 in an informational exchange.
    (
        [Message::Isakmp(2, 1, 0), Message::Isakmp(2, 1, 0)],
        [Message::Isakmp(2, 5, 1), Message::Isakmp(5, 8, 1)],
    ),
    // Messages 1 and 2 of aggressive mode, and of XAUTH.
    (
        [Message::Isakmp(4, 1, 0), Message::Isakmp(4, 1, 0)],
        [Message::Isakmp(6, 8, 1), Message::Isakmp(6, 8, 1)],
    ),
];

/// The server answers IKE_AUTH at the address that it comes from, whoever has begun the IKE SA, and a
/// refusal is encrypted, too.
#[test]
fn an_sa_that_a_stranger_has_begun_moves_no_peer() {
    let informational = [Message::Request(1), Message::Response(1)];
    let cases =
        HANDSHAKES.map(|(first, second)| [(first, second, false), (first, informational, true)]);
    for (first, [request, reply], has_session) in cases.into_iter().flatten() {
        Uplinks::both(|gateway| {
            gateway.handshake(VIP, 1);
            if has_session {
                stranger_has_session(&gateway, VIP_2);
            }
            stranger_begins(&gateway, 9, VIP_2, first);
            gateway.peer_sends(VIP_2, 4500, &natt(9, request));
            assert_eq!(gateway.server_sends(4500, &natt(9, reply)), VIP_2);
            assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP);
            assert_eq!(gateway.server_sends(4500, &esp(0x1001, 1)), VIP);
            gateway.exchange(VIP, 1);
        });
    }
}

/// A stranger who has a session, as everybody gets one that goes on with what the server has answered.
fn stranger_has_session(gateway: &Uplinks, vip: Ipv4Addr) {
    stranger_begins(gateway, 8, vip, HANDSHAKES[0].0);
    let request = Packet::udp((STRANGER, 4500), (vip, 4500), natt(8, Message::AuthRequest));
    let (word, ..) = gateway.run(Side::Wan, request.with_macs(WAN_MAC, CLIENT_MAC).build());
    assert_eq!(word, "forward natt-ike in");
    let refused = natt(8, Message::AuthResponse);
    let refused = Packet::udp((SERVER, 4500), (STRANGER, 4500), refused);
    assert_eq!(gateway.vip_of(&refused), vip);
}

/// The server repeats its reply to whoever repeats the first message, also at another address. So the
/// stranger sees the responder's SPI, and what it forges with it is answered under encryption; an informational
/// request too, though it has not shown who it is. Whichever address comes first.
#[test]
fn an_sa_that_was_begun_at_two_addresses_moves_no_peer() {
    let informational = [Message::Request(1), Message::Response(1)];
    for (first, second) in HANDSHAKES {
        for [request, reply] in [second, informational] {
            for (is_stranger_first, has_session) in
                [(true, false), (false, false), (true, true), (false, true)]
            {
                Uplinks::both(|gateway| {
                    gateway.handshake(VIP, 1);
                    if has_session {
                        stranger_has_session(&gateway, VIP_2);
                    }
                    let as_peer = || {
                        gateway.peer_sends(VIP_2, 500, &ike(9, first[0]));
                        assert_eq!(gateway.server_sends(500, &ike(9, first[1])), VIP_2);
                    };
                    if is_stranger_first {
                        stranger_begins(&gateway, 9, VIP_2, first);
                        as_peer();
                    } else {
                        as_peer();
                        stranger_begins(&gateway, 9, VIP_2, first);
                    }
                    for _ in 0..2 {
                        gateway.peer_sends(VIP_2, 4500, &natt(9, request));
                        assert_eq!(gateway.server_sends(4500, &natt(9, reply)), VIP_2);
                        assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP);
                        assert_eq!(gateway.server_sends(4500, &esp(0x1001, 1)), VIP);
                        // Once more in the peer's name.
                        as_peer();
                    }
                    gateway.exchange(VIP, 1);
                });
            }
        }
    }
}

/// An IKE SA of which nothing is remembered moves a peer by any encrypted exchange, that of IKEv1 by which a
/// peer shows that it lives, too (RFC 3706).
#[test]
fn an_old_sa_moves_a_peer() {
    for [request, reply] in [
        [Message::Request(7), Message::Response(7)],
        [Message::Isakmp(5, 8, 1), Message::Isakmp(5, 8, 1)],
        [Message::Isakmp(32, 8, 1), Message::Isakmp(32, 8, 1)],
    ] {
        Uplinks::both(|gateway| {
            gateway.handshake(VIP, 1);
            gateway.peer_sends(VIP_2, 4500, &natt(2, request));
            assert_eq!(gateway.server_sends(4500, &natt(2, reply)), VIP_2);
            assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP_2);
        });
    }
}

/// A server may begin an IKE SA itself: its messages go where the peer has answered in that SA.
#[test]
fn an_sa_that_the_server_begins_stays_at_the_vip_of_the_answer() {
    Uplinks::both(|gateway| {
        let first = natt(5, Message::InitRequest);
        assert_eq!(gateway.server_sends(4500, &first), VIP);
        gateway.peer_sends(VIP_2, 4500, &natt(5, Message::InitResponse));
        gateway.peer_sends(VIP, 4500, &KEEPALIVE);
        let auth = natt(5, Message::AuthRequest);
        assert_eq!(gateway.server_sends(4500, &auth), VIP_2);
    });
}

/// The peer itself moves with an IKE SA that it has begun.
#[test]
fn a_peer_moves_with_an_sa_that_it_has_begun() {
    for (first, [request, reply]) in HANDSHAKES {
        Uplinks::both(|gateway| {
            gateway.handshake(VIP, 1);
            gateway.peer_sends(VIP_2, 500, &ike(2, first[0]));
            assert_eq!(gateway.server_sends(500, &ike(2, first[1])), VIP_2);
            assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP);
            gateway.peer_sends(VIP_2, 4500, &natt(2, request));
            assert_eq!(gateway.server_sends(4500, &natt(2, reply)), VIP_2);
            assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP_2);
            assert_eq!(gateway.server_sends(4500, &esp(0x1001, 1)), VIP_2);
        });
    }
}

/// Whoever knows the initiator's SPI sends a message with it to another VIP: what the server asks of its
/// own accord still goes to the peer, and so does the answer to the peer's next request.
#[test]
fn a_forged_message_of_the_sa_takes_no_answer_away() {
    Uplinks::both(|gateway| {
        gateway.handshake(VIP, 1);
        for forged in [Message::Request(77), Message::InitRequest] {
            gateway.peer_sends(VIP_2, 4500, &natt(1, forged));
            for request in [Message::ServerRequest, Message::RekeyedRequest] {
                assert_eq!(gateway.server_sends(4500, &natt(1, request)), VIP);
            }
            // An answer before IKE_AUTH would prove something only if the server had begun here lately.
            let early = natt(3, Message::AuthResponse);
            gateway.peer_sends(VIP_2, 4500, &natt(3, Message::AuthRequest));
            assert_eq!(gateway.server_sends(4500, &early), VIP_2);
            assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP);
            gateway.exchange(VIP, 1);
            assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP);
        }
    });
}

/// What leaves from the first VIP since nothing is known of the peer goes astray alone: the peer's next
/// packet shows its VIP, and the next answer leaves from there, at once.
#[test]
fn a_guess_holds_for_one_packet() {
    Uplinks::both(|mut gateway| {
        gateway.handshake(VIP_2, 1);
        assert_eq!(gateway.server_sends(4500, &esp(0x1001, 1)), VIP_2);
        for _ in 0..2 {
            gateway.forget();
            for sequence in [2, 3] {
                assert_eq!(gateway.server_sends(4500, &esp(0x1001, sequence)), VIP);
            }
            assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP);
            gateway.peer_sends(VIP_2, 4500, &esp(0x2001, 2));
            assert_eq!(gateway.server_sends(4500, &esp(0x1001, 4)), VIP_2);
            assert_eq!(gateway.server_sends(4500, &KEEPALIVE), VIP_2);
        }
    });
}
