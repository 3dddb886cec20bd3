//! ICMP errors of the server's side about what a peer has sent: each comes from the VIP to which the peer has
//! sent that (RFC 5508 section 4.2).

use super::*;

/// An error of the server about a packet of the peer, of which it quotes so much after the IPv4 header.
fn error_about(packet: &Packet, length: usize) -> Packet {
    let error = Icmp::new(kind::UNREACHABLE, code::PORT, quote(packet, length));
    Packet::icmp(SERVER, PEER, &error)
}

/// RFC 792: the header of UDP, and nothing of what is in it.
#[test]
fn an_error_of_the_servers_side_comes_from_the_vip_of_the_peer() {
    let gateway = Uplinks::new(Hook::Tc);
    gateway.handshake(VIP_2, 1);
    let sent = Packet::udp((PEER, 4500), (SERVER, 4500), [1; 40]);
    assert_eq!(gateway.vip_of(&error_about(&sent, 8)), VIP_2);
}

/// RFC 1122 section 3.2.2: hosts may quote more, and the SPI of an IKE message shows its VIP.
#[test]
fn an_error_about_ike_comes_from_the_vip_of_its_sa() {
    const ALL: usize = 8 + 4 + 8;
    let gateway = Uplinks::new(Hook::Tc);
    gateway.handshake(VIP_2, 1);
    gateway.peer_sends(VIP, 500, &ike(5, Message::InitRequest));
    gateway.peer_sends(VIP, 4500, &natt(6, Message::InitRequest));
    let vip_of = |ports, payload: Vec<u8>, length| {
        let (from, to) = ports;
        let sent = Packet::udp((PEER, from), (SERVER, to), payload);
        gateway.vip_of(&error_about(&sent, length))
    };
    let (plain, marked) = (
        || ike(5, Message::InitRequest),
        || natt(6, Message::InitRequest),
    );
    assert_eq!(vip_of((500, 500), plain(), ALL - 4), VIP);
    assert_eq!(vip_of((61_000, 4500), marked(), ALL), VIP);
    // Of the SA of the session, and of one that is not known.
    assert_eq!(
        vip_of((4500, 4500), natt(1, Message::Request(1)), ALL),
        VIP_2
    );
    assert_eq!(
        vip_of((4500, 4500), natt(9, Message::Request(1)), ALL),
        VIP_2
    );
    // Quotes without the whole SPI.
    assert_eq!(vip_of((500, 500), plain(), ALL - 5), VIP_2);
    assert_eq!(vip_of((4500, 4500), marked(), ALL - 1), VIP_2);
    // What has the same bytes there and is something else: ESP, and IKE between port 500 and 4500.
    let esp = [&[1; 4][..], &marked()[4..]].concat();
    assert_eq!(vip_of((4500, 4500), esp, ALL), VIP_2);
    assert_eq!(vip_of((500, 4500), marked(), ALL), VIP_2);
}
