//! Packets that ikenat does not handle: they reach the gateway's other services unchanged.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::frames::{Packet, protocol};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::sender::socket_in;
use ikenat_tests::lab::topology::{
    CLIENT, CLIENT_MAC, GATEWAY_LAN, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN_MAC,
};
use ikenat_tests::lab::udp_pair::receive;
use ikenat_tests::lab::wire::{Wire, at_server, esp, from_client, from_server, raw_from_client};
use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "other_ports_and_protocols_of_the_vip_are_punted",
            other_ports,
        ),
        Scenario::new("frames_that_are_not_ipv4_are_punted", not_ipv4),
        Scenario::new("tagged_frames_are_punted", tagged),
        Scenario::new("malformed_packets_are_punted", malformed),
        Scenario::new("dns_of_the_gateway_is_answered", dns),
        Scenario::new("icmp_echo_to_the_vip_is_answered", echo).with_programs(&["ping"]),
        Scenario::new(
            "traffic_between_server_and_gateway_is_punted",
            server_to_gateway,
        ),
        Scenario::new(
            "other_traffic_of_the_server_is_routed_untouched",
            servers_other_traffic,
        ),
    ]
}

fn other_ports(lab: &Lab) -> Result<()> {
    const TCP: u8 = 6;
    /// GRE, AH and L2TPv3.
    const PROTOCOLS: [u8; 3] = [47, 51, 115];
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for port in [0, 1, 53, 123, 499, 501, 1194, 1701, 4499, 4501, 61_234] {
        // The destination port alone decides whether a packet is handled.
        for source in [500, 4500, 1701, 33_000] {
            let frame = from_client(source, port, esp(0xC000_0001, 1, 60)).build();
            wire.punted_on_wan(&frame)?;
        }
    }
    // A SYN, or as much of another protocol, from port 4500 to a port.
    let payload = |port: u16| {
        let [high, low] = port.to_be_bytes();
        [
            0x11, 0x94, high, low, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0,
        ]
    };
    for number in PROTOCOLS {
        wire.punted_on_wan(&raw_from_client(number, payload(4500)).build())?;
    }
    // Of TCP, port 4500 alone is the service's.
    for port in [22, 500, 4499, 4501, 61_234] {
        wire.punted_on_wan(&raw_from_client(TCP, payload(port)).build())?;
    }
    // A handled port, but another address of the gateway.
    for address in [Ipv4Addr::new(203, 0, 113, 2), GATEWAY_LAN] {
        let packet = Packet::udp((CLIENT, 4500), (address, 4500), esp(0xC000_0001, 1, 60));
        wire.punted_on_wan(&packet.with_macs(WAN_MAC, CLIENT_MAC).build())?;
    }
    Ok(())
}

fn not_ipv4(lab: &Lab) -> Result<()> {
    /// 802.2 length, ARP, MPLS, PPPoE, IPv6 and a local experiment.
    const TYPES: [u16; 6] = [0x0040, 0x0806, 0x8847, 0x8864, 0x86DD, 0x88B5];
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let handled = from_client(4500, 4500, esp(0xC000_0001, 1, 60)).build();
    for number in TYPES {
        let mut frame = handled.clone();
        frame[12..14].copy_from_slice(&number.to_be_bytes());
        wire.punted_on_wan(&frame)?;
    }
    Ok(())
}

/// The kernel removes a VLAN tag from the frame before tc sees it: the rest looks like a handled
/// packet and is not one.
fn tagged(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let handled = from_client(4500, 4500, esp(0xC000_0001, 1, 60));
    let untagged = handled.build();
    for tag in [[0x81, 0, 0, 5], [0x88, 0xA8, 0, 5], [0x81, 0, 0x60, 5]] {
        let other = from_client(4500, 4500, esp(0xC000_0001, 2, 60)).build();
        let frame = [&other[..12], &tag, &other[12..]].concat();
        // The untagged one behind it shows that the tagged one is not merely late.
        let arrives = at_server(&handled).build();
        wire.inbound_frames(&[frame, untagged.clone()], &[arrives])
            .with_context(|| format!("tag {tag:02x?}"))?;
    }
    Ok(())
}

fn malformed(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let whole = from_client(4500, 4500, esp(0xC000_0001, 1, 60)).build();
    // Cut anywhere, the total length says more than there is.
    for length in [14, 15, 33, 34, 41, 42, 50, whole.len() - 1] {
        wire.punted_on_wan(&whole[..length])
            .with_context(|| format!("cut to {length} bytes"))?;
    }
    let changes: [(&str, usize, u8); 5] = [
        ("version 5", 14, 0x55),
        ("a header of 16 bytes", 14, 0x44),
        ("a header longer than the packet", 14, 0x4F),
        ("a total length of 0", 17, 0),
        ("a total length of 20", 17, 20),
    ];
    for (what, at, value) in changes {
        let mut frame = whole.clone();
        // A header of 60 bytes has to be longer than the packet.
        if value == 0x4F {
            frame = from_client(4500, 4500, vec![0xFF]).build();
        }
        if at == 17 {
            frame[16] = 0;
        }
        frame[at] = value;
        wire.punted_on_wan(&frame).context(what)?;
    }
    Ok(())
}

fn dns(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let gateway = socket_in(&lab.gateway, SocketAddrV4::new(VIP, 53))?;
    let client = socket_in(&lab.client, SocketAddrV4::new(CLIENT, 0))?;
    for socket in [&gateway, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    }
    let mut buffer = [0; 4096];
    // The large ones are fragmented in transit.
    for length in [1, 40, 1400, 3000] {
        let query = vec![0x42; length];
        client.send_to(&query, (VIP, 53))?;
        let (size, from) = receive(&gateway, &mut buffer).context("the query did not come")?;
        ensure!(
            buffer[..size] == query && from == client.local_addr()?,
            "another query came"
        );
        gateway.send_to(&query, from)?;
        let (size, from) = receive(&client, &mut buffer).context("the answer did not come")?;
        ensure!(buffer[..size] == query && from == SocketAddrV4::new(VIP, 53).into());
    }
    Ok(())
}

fn echo(lab: &Lab) -> Result<()> {
    /// Type echo request, code, checksum, ID and sequence number.
    const REQUEST: [u8; 8] = [8, 0, 0xF7, 0xFC, 0, 1, 0, 2];
    let _ikenat = Ikenat::start(lab)?;
    lab.client
        .run(&format!("ping -n -q -c 5 -i 0.02 -W 2 {VIP}"))?;
    lab.server
        .run(&format!("ping -n -q -c 5 -i 0.02 -W 2 {GATEWAY_LAN}"))?;
    let wire = Wire::open(lab)?;
    wire.punted_on_wan(&raw_from_client(protocol::ICMP, REQUEST).build())
}

fn server_to_gateway(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let gateway = socket_in(&lab.gateway, SocketAddrV4::new(GATEWAY_LAN, 500))?;
    let server = socket_in(&lab.server, SocketAddrV4::new(SERVER, 500))?;
    for socket in [&gateway, &server] {
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    }
    let mut buffer = [0; 2048];
    server.send_to(b"to the gateway", (GATEWAY_LAN, 500))?;
    let (size, from) = receive(&gateway, &mut buffer).context("the gateway got nothing")?;
    ensure!(
        &buffer[..size] == b"to the gateway",
        "the gateway got something else"
    );
    ensure!(
        from == SocketAddrV4::new(SERVER, 500).into(),
        "the gateway got it from {from}"
    );
    gateway.send_to(b"to the server", from)?;
    let (size, from) = receive(&server, &mut buffer).context("the server got nothing")?;
    ensure!(
        &buffer[..size] == b"to the server" && from == SocketAddrV4::new(GATEWAY_LAN, 500).into()
    );

    let wire = Wire::open(lab)?;
    let to_gateway = |port| {
        Packet::udp((SERVER, port), (GATEWAY_LAN, port), esp(0xC000_0001, 1, 60))
            .with_macs(LAN_MAC, SERVER_MAC)
    };
    for port in [500, 4500] {
        wire.punted_on_lan(&to_gateway(port).build())?;
    }
    let native = Packet::raw(SERVER, GATEWAY_LAN, protocol::ESP, esp(0xC000_0001, 1, 60));
    wire.punted_on_lan(&native.with_macs(LAN_MAC, SERVER_MAC).build())
}

/// Plain routing: the source stays the server's, as before.
fn servers_other_traffic(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for port in [53, 499, 501, 1701, 4499, 4501] {
        let packet = from_server(port, 4500, esp(0xC000_0001, 1, 60));
        let mut routed = packet.clone().with_macs(CLIENT_MAC, WAN_MAC);
        routed.ttl -= 1;
        wire.outbound_frames(&[packet.build()], &[routed.build()])
            .with_context(|| format!("from port {port} of the server"))?;
    }
    Ok(())
}
