//! The VPN peers of the gateway itself and of other hosts behind it: what comes from them to the
//! server's ports goes to whoever talks with them, and not to the server.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::frames::icmp::{code, kind};
use ikenat_tests::lab::frames::{Icmp, Packet, protocol};
use ikenat_tests::lab::icmp_errors::{Peers, about, error_from_outside};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::raw_sender::raw_sender;
use ikenat_tests::lab::topology::{
    CLIENT, CLIENT_MAC, LAN_MAC, PEER, SERVER, SERVER_MAC, VIP, WAN, WAN_MAC,
};
use ikenat_tests::lab::udp_pair::{Server, UdpPair};
use ikenat_tests::lab::wire::{
    Wire, at_client, esp, exchange, from_client, from_server, ike, marked, raw_from_client,
    with_client,
};
use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut all: Vec<Scenario> = vec![
        Scenario::new("a_lan_hosts_vpn_gets_its_answers", lan_host),
        Scenario::new("a_lan_hosts_large_answers_stay_whole", large_answers),
        Scenario::new("an_error_about_a_lan_hosts_vpn_reaches_it", errors),
        Scenario::new("a_far_address_is_a_client_and_a_peer_of_a_lan_host", both),
    ];
    let all_with_iptables = all.into_iter().map(|one| one.with_programs(&["iptables"]));
    all = all_with_iptables.collect();
    all.push(Scenario::new(
        "the_gateways_own_vpn_gets_its_answers",
        gateway,
    ));
    all
}

/// A company gateway.
pub(super) const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Another host on the LAN.
const LAN_HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 2);
pub(super) const SPI: u32 = 0xC5A0_0001;
pub(super) const OTHER_SPI: u32 = 0xC5A0_0002;

/// The LAN host, whose address the gateway translates, and a route to its peer.
pub(crate) fn prepare(lab: &Lab) -> Result<()> {
    lab.server
        .run(&format!("ip address add {LAN_HOST}/24 dev {PEER}"))?;
    lab.gateway.shell(&format!(
        "ip route add 198.51.100.0/24 via {CLIENT}
         iptables -t nat -A POSTROUTING -o {WAN} -s 192.168.0.0/24 -j MASQUERADE"
    ))?;
    Ok(())
}

/// A packet of the LAN host.
pub(super) fn from_lan_host(port: u16, payload: impl Into<Vec<u8>>) -> Packet {
    Packet::udp((LAN_HOST, port), (FAR, port), payload).with_macs(LAN_MAC, SERVER_MAC)
}

/// A packet of its peer to the VIP.
pub(super) fn from_far(port: u16, payload: impl Into<Vec<u8>>) -> Packet {
    Packet::udp((FAR, port), (VIP, port), payload).with_macs(WAN_MAC, CLIENT_MAC)
}

/// The same at the LAN host.
fn at_lan_host(packet: &Packet) -> Packet {
    let mut packet = packet.clone().with_macs(SERVER_MAC, LAN_MAC);
    packet.destination = LAN_HOST;
    packet.ttl -= 1;
    packet
}

pub(super) fn native(from: Ipv4Addr, to: Ipv4Addr, spi: u32) -> Packet {
    Packet::raw(from, to, protocol::ESP, esp(spi, 1, 60))
}

fn native_from_lan_host(spi: u32) -> Packet {
    native(LAN_HOST, FAR, spi).with_macs(LAN_MAC, SERVER_MAC)
}

fn native_from_far(spi: u32) -> Packet {
    native(FAR, VIP, spi).with_macs(WAN_MAC, CLIENT_MAC)
}

/// The LAN host's packet reaches its peer with the VIP, and the answer the LAN host.
pub(super) fn talk(wire: &Wire, request: &Packet, answer: &Packet) -> Result<()> {
    wire.outbound(request)?;
    answered(wire, answer)
}

/// What the peer sends reaches the LAN host.
pub(super) fn answered(wire: &Wire, answer: &Packet) -> Result<()> {
    wire.inbound_frames(&[answer.build()], &[at_lan_host(answer).build()])
}

/// A tunnel from its first message on.
pub(crate) fn tunnel(wire: &Wire) -> Result<()> {
    let init = ike(7, 0, exchange::IKE_SA_INIT, false, 200);
    let response = ike(7, 8, exchange::IKE_SA_INIT, true, 200);
    let auth = marked(&ike(7, 8, exchange::IKE_AUTH, false, 200));
    let accepted = marked(&ike(7, 8, exchange::IKE_AUTH, true, 200));
    talk(wire, &from_lan_host(500, init), &from_far(500, response)).context("IKE_SA_INIT")?;
    talk(wire, &from_lan_host(4500, auth), &from_far(4500, accepted)).context("IKE_AUTH")?;
    for sequence in 1..4 {
        let (there, back) = (esp(SPI, sequence, 60), esp(OTHER_SPI, sequence, 60));
        talk(wire, &from_lan_host(4500, there), &from_far(4500, back)).context("ESP in UDP")?;
    }
    talk(
        wire,
        &native_from_lan_host(SPI),
        &native_from_far(OTHER_SPI),
    )
    .context("native ESP")
}

fn lan_host(lab: &Lab) -> Result<()> {
    prepare(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    tunnel(&wire)?;
    // Clients of the server are not affected.
    wire.inbound(&from_client(
        500,
        500,
        ike(1, 0, exchange::IKE_SA_INIT, false, 200),
    ))?;
    wire.inbound(&raw_from_client(protocol::ESP, esp(SPI, 1, 60)))?;
    let status = lab.status()?;
    let mut found: Vec<_> = status
        .host_peers
        .iter()
        .map(|one| (one.peer, one.port, one.vip_port))
        .collect();
    found.sort_unstable();
    let expected = [None, Some(500), Some(4500)].map(|port| (FAR, port, port));
    ensure!(found == expected, "{found:?} instead of {expected:?}");
    ensure!(
        status.count("punted", "host-peer") >= 6,
        "{}",
        status.given()
    );
    let text = lab.ikenat(&["status"])?.output()?.stdout;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for line in [
        "PEER OF THIS HOST PACKETS LEFT TO THIS HOST LAST SENT",
        "198.51.100.1 UDP 4500 to 4500 0 s ago",
        "198.51.100.1 ESP 0 s ago",
    ] {
        let found = lines.iter().any(|one| one.replace(" 1 s", " 0 s") == line);
        ensure!(found, "{line:?} is not in:\n{text}");
    }
    Ok(())
}

/// The fragments of an answer go where the first one goes.
fn large_answers(lab: &Lab) -> Result<()> {
    prepare(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    let auth = marked(&ike(7, 8, exchange::IKE_AUTH, false, 200));
    wire.outbound(&from_lan_host(4500, auth))?;
    wire.outbound(&native_from_lan_host(SPI))?;
    let large = [
        from_far(4500, marked(&ike(7, 8, exchange::IKE_AUTH, true, 2000))),
        Packet::raw(FAR, VIP, protocol::ESP, esp(OTHER_SPI, 1, 2000))
            .with_macs(WAN_MAC, CLIENT_MAC),
    ];
    for (id, mut packet) in (1..).zip(large) {
        packet.id = id;
        // The kernel reassembles them and cuts the packet where it was cut before.
        wire.inbound_frames(
            &packet.build_fragments(&[800, 1600]),
            &at_lan_host(&packet).build_fragments(&[800, 1600]),
        )
        .with_context(|| format!("packet {id}"))?;
    }
    Ok(())
}

fn errors(lab: &Lab) -> Result<()> {
    prepare(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for request in [
        from_lan_host(500, ike(7, 0, exchange::IKE_SA_INIT, false, 200)),
        from_lan_host(4500, esp(SPI, 1, 60)),
    ] {
        wire.outbound(&request)?;
        let unreachable = Icmp::new(kind::UNREACHABLE, code::PORT, []);
        let error = error_from_outside(FAR, &about(&at_client(&request), &unreachable, 8));
        let mut sent = request.clone();
        sent.ttl -= 1;
        let expected = at_lan_host(&error).with_icmp(&about(&sent, &unreachable, 8));
        wire.inbound_frames(&[error.build()], &[expected.build()])?;
    }
    Ok(())
}

/// The gateway's own IKE and ESP.
fn gateway(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let own = Server {
        namespace: &lab.gateway,
        address: VIP,
        interface: None,
    };
    for port in [500, 4500] {
        let pair = UdpPair::open(lab, own, port)?;
        for length in [40, 1400, 3000] {
            pair.outbound(&vec![0x42; length])?;
            pair.inbound(&vec![0x43; length])
                .with_context(|| format!("{length} bytes to port {port}"))?;
        }
    }
    let wire = Wire::open(lab)?;
    raw_sender(&lab.gateway)?.send(&native(VIP, CLIENT, SPI).build())?;
    wire.punted_on_wan(&raw_from_client(protocol::ESP, esp(OTHER_SPI, 1, 60)).build())?;
    // Another peer's ESP is the server's.
    let mut peers = Peers::route(lab)?;
    let stranger = raw_from_client(protocol::ESP, esp(OTHER_SPI, 1, 60));
    wire.inbound(&with_client(stranger, peers.fresh()))
}

/// Ports and SPIs tell them apart.
fn both(lab: &Lab) -> Result<()> {
    /// The port that a NAT in front of the client of the server has chosen.
    const CLIENTS: u16 = 1028;
    /// SK (RFC 7296 section 3.14): the first payload of what is encrypted.
    const ENCRYPTED: u8 = 46;
    prepare(lab)?;
    let _ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    tunnel(&wire)?;
    let to_server = |payload: Vec<u8>| {
        Packet::udp((FAR, CLIENTS), (VIP, 4500), payload).with_macs(WAN_MAC, CLIENT_MAC)
    };
    let to_client = |port, payload| with_client(from_server(4500, port, payload), FAR);
    let auth = marked(&ike(1, 2, exchange::IKE_AUTH, false, 200));
    for sequence in 1..4 {
        wire.inbound(&to_server(auth.clone()))
            .context("IKE of the client")?;
        wire.outbound(&to_client(CLIENTS, esp(0xC111_0001, sequence, 60)))?;
        wire.inbound(&to_server(esp(0xC111_0002, sequence, 60)))?;
        answered(&wire, &from_far(4500, esp(OTHER_SPI, sequence, 60)))
            .context("beside a client")?;
    }
    // Native ESP: the server's SPI is known before the LAN host sends any.
    wire.outbound(&native(SERVER, FAR, 0xC111_0003).with_macs(LAN_MAC, SERVER_MAC))?;
    let unknown = native_from_far(OTHER_SPI);
    let mut at_server = unknown.clone().with_macs(SERVER_MAC, LAN_MAC);
    at_server.destination = SERVER;
    at_server.ttl -= 1;
    wire.inbound_frames(
        &[unknown.build()],
        &[at_server.build(), at_lan_host(&unknown).build()],
    )
    .context("an unknown SPI goes to both")?;
    // The same port: the session of the server has it first.
    let mut accepted = ike(1, 2, exchange::IKE_AUTH, true, 200);
    accepted[16] = ENCRYPTED;
    let accepted = marked(&accepted);
    wire.outbound(&to_client(4500, accepted))?;
    wire.inbound(&from_far(
        4500,
        marked(&ike(1, 2, exchange::IKE_AUTH, false, 200)),
    ))
    .context("a session with the same port")
}
