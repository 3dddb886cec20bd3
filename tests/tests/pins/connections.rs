//! Connections of TCP (RFC 9329): each is answered from the VIP that it was made to, whatever else the
//! peer, or a stranger in its name, sends.

use super::*;

/// A segment of the peer to a VIP.
fn segment(vip: Ipv4Addr, port: u16) -> Packet {
    Packet::tcp((PEER, port), (vip, 4500), []).with_macs(WAN_MAC, CLIENT_MAC)
}

/// What the server sends in this connection.
fn answer(port: u16) -> Packet {
    Packet::tcp((SERVER, 4500), (PEER, port), [1; 8])
}

#[test]
fn a_connection_is_answered_from_the_vip_that_it_was_made_to() {
    Uplinks::both(|mut uplinks| {
        let send = |uplinks: &Uplinks, vip, port| {
            let (word, ..) = uplinks.run(Side::Wan, segment(vip, port).build());
            assert!(word.starts_with("forward tcp in"), "{word}");
        };
        // Two clients behind one address, and one connection each.
        send(&uplinks, VIP_2, 40_001);
        send(&uplinks, VIP, 40_002);
        assert_eq!(uplinks.vip_of(&answer(40_001)), VIP_2);
        assert_eq!(uplinks.vip_of(&answer(40_002)), VIP);
        // What is known of UDP is another matter.
        uplinks.handshake(VIP, 0x11);
        assert_eq!(uplinks.vip_of(&answer(40_001)), VIP_2);
        uplinks.handshake(VIP_2, 0x12);
        assert_eq!(uplinks.vip_of(&answer(40_002)), VIP);
        // Both sides are silent for two hours.
        uplinks.now += 7200 * TICK;
        assert_eq!(uplinks.vip_of(&answer(40_001)), VIP_2);
        // What is lost with the table comes back with the next segment.
        uplinks.forget();
        assert_eq!(uplinks.vip_of(&answer(40_001)), VIP);
        send(&uplinks, VIP_2, 40_001);
        assert_eq!(uplinks.vip_of(&answer(40_001)), VIP_2);
    });
}

#[test]
fn a_forged_segment_moves_no_peer_and_no_other_connection() {
    Uplinks::both(|uplinks| {
        let forge = |vip, port| uplinks.run(Side::Wan, segment(vip, port).build());
        forge(VIP_2, 40_001);
        uplinks.peer_sends(VIP_2, 500, &ike(0x11, Message::InitRequest));
        forge(VIP, 40_003);
        assert_eq!(uplinks.vip_of(&answer(40_001)), VIP_2);
        // A message of an SA that is not known goes where the peer is.
        let other = ike(0x77, Message::ServerRequest);
        assert_eq!(uplinks.server_sends(500, &other), VIP_2);
        uplinks.handshake(VIP_2, 0x12);
        forge(VIP, 40_004);
        assert_eq!(uplinks.server_sends(4500, &esp(0xee00_0001, 1)), VIP_2);
        // Whoever forges the peer's port as well moves the connection until the peer sends again.
        forge(VIP, 40_001);
        forge(VIP_2, 40_001);
        assert_eq!(uplinks.vip_of(&answer(40_001)), VIP_2);
    });
}

/// RFC 6335 section 6: port 0 is reserved. Such a segment says nothing about the peer itself, whose entry
/// has no port.
#[test]
fn a_segment_from_port_0_is_malformed() {
    Uplinks::both(|uplinks| {
        uplinks.peer_sends(VIP_2, 500, &ike(0x11, Message::InitRequest));
        let (word, ..) = uplinks.run(Side::Wan, segment(VIP, 0).build());
        assert_eq!(word, "punted malformed");
        let answer = answer(0).with_macs(LAN_MAC, SERVER_MAC);
        let (word, ..) = uplinks.run(Side::Lan, answer.build());
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
    for (vip, port) in [(VIP_2, 40_001), (VIP, 40_002)] {
        uplinks.run(Side::Wan, segment(vip, port).build());
    }
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
