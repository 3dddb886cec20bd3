//! A server on the gateway's own machine: an address on loopback or of the LAN, a container behind
//! a veth, a container behind a bridge.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::frames::icmp::{code, kind};
use ikenat_tests::lab::frames::{Captured, Icmp, Packet, protocol};
use ikenat_tests::lab::icmp_errors::{about, error_from_outside};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::links::{self, Interface};
use ikenat_tests::lab::netns::Namespace;
use ikenat_tests::lab::raw_sender::raw_sender;
use ikenat_tests::lab::sender::socket_in;
use ikenat_tests::lab::topology::{CLIENT, CLIENT_MAC, GATEWAY_LAN, PEER, VIP, WAN, WAN_MAC};
use ikenat_tests::lab::udp_pair::{Server, UdpPair};
use ikenat_tests::lab::wire::{Wire, esp, exchange, from_client, ike, marked, raw_from_client};
use ikenat_tests::lab::{Host, Lab, Options};
use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let offload = Options {
        checksum_offload: true,
        ..Options::default()
    };
    let mut all = Scenario::on_every_host("a_server_on_loopback_talks", loopback);
    all.extend(Scenario::on_every_host(
        "a_server_on_the_lan_address_talks",
        lan_address,
    ));
    all.extend(
        [
            Host::Plain,
            Host::ForwardDropConntrack,
            Host::MasqueradeAndDocker,
        ]
        .map(|host| Scenario::on_host("a_container_behind_a_bridge_talks", host, bridge)),
    );
    all.extend([
        Scenario::new("a_container_behind_a_veth_talks", veth).with_options(offload),
        Scenario::new(
            "errors_reach_and_leave_a_server_on_loopback",
            loopback_errors,
        ),
    ]);
    all
}

const SPI: u32 = 0xC321_0002;
const LOOPBACK: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// `run` for a server that is an address of this host.
fn start(lab: &Lab, server: Ipv4Addr, more: &[&str]) -> Result<Ikenat> {
    let (vip, server) = (VIP.to_string(), server.to_string());
    let mut words = vec!["run", "--wan", WAN, "--vip", &vip, "--server", &server];
    words.extend(more);
    Ikenat::run(lab, &lab.gateway, "ikenat", &words)
}

fn loopback(lab: &Lab) -> Result<()> {
    lab.gateway
        .run(&format!("ip address add {LOOPBACK}/32 dev lo"))?;
    let _ikenat = start(lab, LOOPBACK, &[])?;
    own_server(lab, LOOPBACK)
}

fn lan_address(lab: &Lab) -> Result<()> {
    let _ikenat = start(lab, GATEWAY_LAN, &[])?;
    own_server(lab, GATEWAY_LAN)
}

/// IKE and ESP both ways, whole and in fragments, and the gateway's other services beside it.
fn own_server(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    let server = Server {
        namespace: &lab.gateway,
        address,
        interface: None,
    };
    for port in [500, 4500] {
        let talk = UdpPair::open(lab, server, port)?;
        for length in [1, 2, 77, 1300, 1301, 3001] {
            talk.exchange(&esp(SPI, 1, length))
                .with_context(|| format!("port {port}, {length} bytes"))?;
        }
        talk.outbound(&marked(&ike(1, 2, exchange::IKE_AUTH, true, 5000)))
            .context("a large IKE message")?;
        // A packet for this host arrives with any TTL, as it does without ikenat.
        ttl_one(lab, &talk, port)?;
    }
    native_esp(lab, address)?;
    // Other ports of the VIP are the gateway's own.
    let own = UdpPair::open(
        lab,
        Server {
            address: VIP,
            ..server
        },
        53,
    )?;
    for length in [40, 1400] {
        own.exchange(&vec![0x42; length]).context("DNS")?;
    }
    Ok(())
}

fn ttl_one(lab: &Lab, talk: &UdpPair, port: u16) -> Result<()> {
    let wire = Wire::open(lab)?;
    let mut packet = from_client(port, port, b"the last hop".to_vec());
    packet.ttl = 1;
    wire.client.send(&packet.build())?;
    talk.server_gets(b"the last hop").context("TTL 1")
}

/// Native ESP: what comes in is looked at by the host's own rule, what goes out at the client.
fn native_esp(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    let wire = Wire::open(lab)?;
    lab.gateway.shell(&format!(
        "nft add table ip watch
         nft 'add chain ip watch input {{ type filter hook input priority -300; }}'
         nft add rule ip watch input ip saddr {CLIENT} ip daddr {address} ip protocol esp \
             @th,0,32 {SPI} @th,32,32 7 ip length 128 counter"
    ))?;
    for sequence in [7, 7, 8] {
        wire.client
            .send(&raw_from_client(protocol::ESP, esp(SPI, sequence, 100)).build())?;
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(3);
    while !lab
        .gateway
        .run("nft list table ip watch")?
        .contains("counter packets 2 ")
    {
        ensure!(
            std::time::Instant::now() < deadline,
            "ESP did not come in as sent: {}",
            lab.gateway.run("nft list table ip watch")?
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    lab.gateway.run("nft delete table ip watch")?;

    let sender = raw_sender(&lab.gateway)?;
    for length in [100, 2000] {
        let packet = Packet::raw(address, CLIENT, protocol::ESP, esp(SPI, 1, length));
        let mut wanted = packet.clone().with_macs(CLIENT_MAC, WAN_MAC);
        wanted.source = VIP;
        let cuts: &[usize] = if length > 1472 { &[1480] } else { &[] };
        wire.client.drain()?;
        for part in packet.build_fragments(cuts) {
            sender.send(&part)?;
        }
        let frames = wanted.build_fragments(cuts);
        for frame in frames {
            wire.client
                .expect(&frame, Duration::from_secs(3), |frame| {
                    frame[12..14] != [8, 0]
                })
                .context("ESP of a server on this host")?;
        }
    }
    Ok(())
}

/// Errors about the server's packets reach its sockets; its own errors leave as the VIP's.
fn loopback_errors(lab: &Lab) -> Result<()> {
    lab.gateway
        .run(&format!("ip address add {LOOPBACK}/32 dev lo"))?;
    let _ikenat = start(lab, LOOPBACK, &[])?;
    let wire = Wire::open(lab)?;
    // No socket listens on port 4500 of the server.
    let asked = from_client(4500, 4500, esp(SPI, 1, 60));
    wire.client.drain()?;
    wire.client.send(&asked.build())?;
    let frame = wire
        .client
        .find(Duration::from_secs(3), |frame| frame[12..14] == [8, 0])?
        .context("no port unreachable came")?;
    let ip = Captured::read(&frame)?;
    let came = ip.icmp().context("not ICMP")?;
    let wanted = about(&asked, &Icmp::new(kind::UNREACHABLE, code::PORT, []), 1000);
    ensure!(
        ip.source == VIP && ip.destination == CLIENT && ip.header_checksum && came == wanted,
        "wanted from {VIP}: {wanted:02x?}\n  came from {}: {came:02x?}",
        ip.source
    );

    // A small link somewhere on the path to the client.
    let socket = socket_in(&lab.gateway, SocketAddrV4::new(LOOPBACK, 4500))?;
    socket.connect((CLIENT, 4500))?;
    socket.send(&esp(SPI, 1, 1400))?;
    let seen = Packet::udp((VIP, 4500), (CLIENT, 4500), esp(SPI, 1, 1400));
    let error = about(&seen, &Icmp::fragmentation_needed(1280, []), 8);
    wire.client
        .send(&error_from_outside(Ipv4Addr::new(203, 0, 113, 2), &error).build())?;
    let deadline = std::time::Instant::now() + Duration::from_secs(3);
    let route = format!("ip route get {CLIENT} from {LOOPBACK}");
    while !lab.gateway.run(&route)?.contains("mtu 1280") {
        ensure!(
            std::time::Instant::now() < deadline,
            "the server's kernel has not learnt the MTU: {}",
            lab.gateway.run(&route)?
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A namespace with one veth, like a container: checksums are left to the device, and its end does
/// not poll.
fn container(
    lab: &Lab,
    host_name: &str,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
) -> Result<Namespace> {
    let container = lab.add_namespace("container")?;
    let port = |namespace, name, last| Interface {
        namespace,
        name,
        mac: [2, 0, 0, 0, 3, last],
    };
    links::join(port(&container, PEER, 2), port(&lab.gateway, host_name, 1))?;
    container.shell(&format!(
        "ip address add {address}/16 dev {PEER}; ip link set {PEER} up
         ip route add default via {gateway}"
    ))?;
    Ok(container)
}

fn talks(lab: &Lab, container: &Namespace, address: Ipv4Addr) -> Result<()> {
    let server = Server {
        namespace: container,
        address,
        interface: Some(PEER),
    };
    for port in [500, 4500] {
        let talk = UdpPair::open(lab, server, port)?;
        // The server speaks first: a MASQUERADE rule would take that for a connection of its own.
        talk.outbound(&esp(SPI, 1, 90))?;
        for length in [1, 2, 77, 1300, 1301, 3001] {
            talk.exchange(&esp(SPI, 1, length))
                .with_context(|| format!("port {port}, {length} bytes"))?;
        }
    }
    Ok(())
}

fn veth(lab: &Lab) -> Result<()> {
    let (address, gateway) = (Ipv4Addr::new(172, 18, 0, 2), Ipv4Addr::new(172, 18, 0, 1));
    let container = container(lab, "ctr0", address, gateway)?;
    lab.gateway.shell(&format!(
        "ip address add {gateway}/16 dev ctr0; ip link set ctr0 up"
    ))?;
    let _ikenat = start(lab, address, &["--lan", "ctr0"])?;
    talks(lab, &container, address)
}

/// On a host with Docker it is Docker's own bridge, whose MASQUERADE rule names the container.
fn bridge(lab: &Lab) -> Result<()> {
    let (address, gateway) = (Ipv4Addr::new(172, 17, 0, 2), Ipv4Addr::new(172, 17, 0, 1));
    let container = container(lab, "ctr0", address, gateway)?;
    if lab.options.host != Host::MasqueradeAndDocker {
        lab.gateway.shell(&format!(
            "ip link add docker0 type bridge; ip address add {gateway}/16 dev docker0
             ip link set docker0 up"
        ))?;
    }
    lab.gateway.run("ip link set ctr0 master docker0 up")?;
    // With br_netfilter and conntrack, the bridge reassembles the server's fragments: the result is
    // too big, and the kernel must fragment it once more. That is forwarding. (Docker's own rules
    // accept it.)
    if lab.options.host == Host::ForwardDropConntrack {
        lab.accept_forward()?;
    }
    for mode in ["--mode", "--lan-mode"] {
        let ikenat = start(lab, address, &["--lan", "docker0", mode, "generic"])?;
        talks(lab, &container, address).with_context(|| format!("{mode} generic"))?;
        ikenat.kill()?;
        lab.unload()?;
    }
    Ok(())
}
