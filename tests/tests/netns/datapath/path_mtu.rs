//! Path MTU discovery through the gateway, observed at both ends: after one error the sender's
//! kernel has the MTU of the small link, wherever that link is, and packets of that size arrive.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::direction::Direction;
use ikenat_tests::lab::frames::icmp::{code, kind, quoted_addresses};
use ikenat_tests::lab::frames::{Captured, Checksum};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::path_mtu::{PROGRAMS, discover, learnt};
use ikenat_tests::lab::routers::{CLIENT_ROUTER, SMALL_MTU};
use ikenat_tests::lab::topology::{CLIENT, LAN, PEER, SERVER, VIP, WAN};
use ikenat_tests::lab::udp_pair::{Server, UdpPair};
use ikenat_tests::lab::{Host, Lab, Options};
use ikenat_tests::suite::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for host in [
        Host::Plain,
        Host::ForwardDropConntrack,
        Host::MasqueradeAndDocker,
    ] {
        let behind_server = Options {
            host,
            server_routers: true,
            ..Options::default()
        };
        let behind_client = Options {
            host,
            client_routers: true,
            ..Options::default()
        };
        let named = |what| format!("{what}@{}", host.name());
        all.extend([
            Scenario::new(
                named("a_small_link_on_the_gateway_is_discovered"),
                on_the_gateway,
            )
            .with_options(Options {
                host,
                ..Options::default()
            }),
            Scenario::new(
                named("a_small_link_behind_the_server_is_discovered"),
                on_the_way,
            )
            .with_options(behind_server),
            Scenario::new(
                named("a_small_link_behind_the_client_is_discovered"),
                on_the_way,
            )
            .with_options(behind_client),
        ]);
    }
    all.push(
        Scenario::new("the_lab_itself_discovers_with_the_kernels_nat", kernel_nat).with_options(
            Options {
                server_routers: true,
                ..Options::default()
            },
        ),
    );
    all.into_iter()
        .map(|scenario| scenario.with_programs(PROGRAMS))
        .collect()
}

/// Larger than the small link, smaller than all others.
const LARGE: usize = 1400;
/// What the small link carries with an IPv4 and a UDP header.
const FITS: usize = SMALL_MTU as usize - 28;

/// A sender discovers the small link: `from` is its own address, `to` the address by which it knows
/// its peer, and the error comes from `reporter`.
fn discovers(lab: &Lab, direction: Direction, reporter: Ipv4Addr) -> Result<()> {
    let (sender, from, to) = match direction {
        Direction::Inbound => (&lab.client, CLIENT, VIP),
        Direction::Outbound => (&lab.server, SERVER, CLIENT),
    };
    ensure!(learnt(sender, to)?.is_none(), "it knows already");
    let wire = PacketSocket::open(sender, PEER)?;
    let (from, to) = (SocketAddrV4::new(from, 4500), SocketAddrV4::new(to, 4500));
    discover(sender, from, to, LARGE).with_context(|| format!("{direction:?}"))?;
    ensure!(
        learnt(sender, *to.ip())? == Some(SMALL_MTU),
        "{direction:?}: {}",
        sender.run(&format!("ip route get {}", to.ip()))?
    );

    let error = |frame: &[u8]| {
        Captured::read(frame).is_ok_and(|ip| {
            ip.icmp()
                .is_some_and(|message| message.kind == kind::UNREACHABLE)
        })
    };
    let frame = wire
        .find(std::time::Duration::from_secs(1), error)?
        .context("no capture has the error")?;
    let ip = Captured::read(&frame)?;
    let message = ip.icmp().context("no error")?;
    ensure!(
        ip.source == reporter
            && ip.destination == *from.ip()
            && ip.header_checksum
            && message.code == code::FRAGMENTATION_NEEDED
            && message.mtu() == SMALL_MTU
            && message.checksum == Checksum::Right
            && quoted_addresses(&message.data)? == (*from.ip(), *to.ip()),
        "{direction:?}: from {} came {message:02x?}",
        ip.source
    );
    Ok(())
}

/// Afterwards the ends can talk, with what fits and with what does not.
fn talks(lab: &Lab) -> Result<()> {
    let talk = UdpPair::open(lab, Server::usual(lab), 4500)?;
    for length in [FITS, FITS + 1, LARGE] {
        talk.exchange(&vec![0xA5; length])
            .with_context(|| format!("{length} bytes"))?;
    }
    Ok(())
}

fn on_the_gateway(lab: &Lab) -> Result<()> {
    for (direction, egress) in [(Direction::Inbound, LAN), (Direction::Outbound, WAN)] {
        lab.gateway
            .run(&format!("ip link set {egress} mtu {SMALL_MTU}"))?;
        let ikenat = Ikenat::start(lab)?;
        discovers(lab, direction, direction.answers_from())?;
        ikenat.kill()?;
        lab.unload()?;
        lab.gateway.run(&format!("ip link set {egress} mtu 1500"))?;
    }
    let _ikenat = Ikenat::start(lab)?;
    talks(lab)
}

/// The small link is between two routers: one end receives the error from a router on its own side,
/// the other through the gateway.
fn on_the_way(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    both_discover(lab)?;
    talks(lab)
}

fn both_discover(lab: &Lab) -> Result<()> {
    let by_routers = |side: u8, far: bool| Ipv4Addr::new(10, if far { 98 } else { 99 }, side, 1);
    if lab.client_routers.is_some() {
        discovers(lab, Direction::Inbound, by_routers(1, true))?;
        // The translation leaves the reporter's address: it is outside.
        discovers(lab, Direction::Outbound, CLIENT_ROUTER)
    } else {
        discovers(lab, Direction::Outbound, by_routers(2, true))?;
        // Hosts outside must not learn the addresses inside.
        discovers(lab, Direction::Inbound, VIP)
    }
}

/// Without ikenat: a failure here is a fault of the lab. The server receives the error from a
/// router on its own side; the kernel's conntrack translates the error to the client.
fn kernel_nat(lab: &Lab) -> Result<()> {
    lab.kernel_nat()?;
    for direction in Direction::BOTH {
        let (sender, from, to) = match direction {
            Direction::Inbound => (&lab.client, CLIENT, VIP),
            Direction::Outbound => (&lab.server, SERVER, CLIENT),
        };
        discover(
            sender,
            SocketAddrV4::new(from, 4500),
            SocketAddrV4::new(to, 4500),
            LARGE,
        )?;
        ensure!(learnt(sender, to)? == Some(SMALL_MTU), "{direction:?}");
    }
    talks(lab)
}
