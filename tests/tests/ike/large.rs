//! IKE and ESP that do not fit into one packet: IKE_AUTH with certificates that the kernel must
//! fragment, with fragments in order and reversed, and tunnels over a link with an MTU of 1,280
//! bytes.

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::frames::{Captured, protocol};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::json::State;
use ikenat_tests::lab::path_mtu::learnt;
use ikenat_tests::lab::routers::SMALL_MTU;
use ikenat_tests::lab::strongswan::{
    Authentication, End, INNER_CLIENT, INNER_SERVER, Settings, Tunnel,
};
use ikenat_tests::lab::topology::{CLIENT, PEER, VIP};
use ikenat_tests::lab::transfer::transfer;
use ikenat_tests::lab::{Lab, Options};
use ikenat_tests::suite::Scenario;

use crate::{PINGS, QUICK, agree, session};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let behind_client = Options {
        client_routers: true,
        ..Options::default()
    };
    let behind_server = Options {
        server_routers: true,
        ..Options::default()
    };
    let reversing = Options {
        reversing_wire: true,
        ..Options::default()
    };
    vec![
        Scenario::new(
            "the_lab_itself_carries_10_mb_with_the_kernels_nat",
            kernel_nat,
        )
        .with_options(behind_client),
        Scenario::new("ike_auth_of_5000_bytes_arrives_in_fragments", fragmented),
        Scenario::new(
            "ike_auth_of_5000_bytes_arrives_in_reversed_fragments",
            reversed,
        )
        .with_options(reversing),
        Scenario::new("10_mb_cross_a_small_link_behind_the_client", psk_tunnel)
            .with_options(behind_client),
        Scenario::new("10_mb_cross_a_small_link_behind_the_server", psk_tunnel)
            .with_options(behind_server),
        Scenario::new(
            "10_mb_and_ike_auth_in_fragments_cross_a_small_link_behind_the_client",
            certificate_tunnel,
        )
        .with_options(behind_client),
        Scenario::new(
            "10_mb_and_ike_auth_in_fragments_cross_a_small_link_behind_the_server",
            certificate_tunnel,
        )
        .with_options(behind_server),
    ]
}

const MEGABYTES: usize = 10_000_000;
/// What IKE_AUTH is meant to exceed.
const LARGE: usize = 5000;

/// Certificates so long that IKE_AUTH has more than [`LARGE`] bytes, and no IKE fragments.
fn large_certificates() -> Settings {
    Settings {
        authentication: Authentication::Certificates,
        fragment_size: None,
        certificate_padding: 4000,
        ..Settings::default()
    }
}

/// The largest fragmented UDP datagram that came in, by its last fragments' ends.
fn largest_datagram(at: &PacketSocket) -> Result<usize> {
    let mut largest = 0;
    while let Some(frame) = at.receive(std::time::Duration::from_millis(1))? {
        let Ok(ip) = Captured::read(&frame) else {
            continue;
        };
        if let (protocol::UDP, Some((offset, false))) = (ip.protocol, ip.fragment()) {
            largest = largest.max(offset + ip.body.len());
        }
    }
    Ok(largest)
}

/// A tunnel whose IKE_AUTH has come in fragments at both ends.
fn in_fragments(lab: &Lab) -> Result<()> {
    let ends = [&lab.client, &lab.server].map(|end| PacketSocket::open(end, PEER));
    let tunnel = Tunnel::configure(lab, large_certificates())?;
    tunnel.initiate()?;
    for (end, wire) in [End::Client, End::Server].into_iter().zip(ends) {
        let largest = largest_datagram(&wire?)?;
        ensure!(
            largest > LARGE && !tunnel.log(end).contains("fragmented IKE message"),
            "the largest datagram at {end:?} had {largest} bytes:\n{}",
            tunnel.log(end)
        );
    }
    tunnel.ping(PINGS, QUICK)?;
    agree(lab, &tunnel, PINGS)?;
    let session = session(&lab.stats()?)?;
    ensure!(
        session.state == State::Established,
        "after IKE_AUTH and pings: {session:?}"
    );
    Ok(())
}

fn fragmented(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    in_fragments(lab)
}

fn reversed(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    in_fragments(lab)?;
    let reverser = lab.reverser.as_ref().context("the wire reverses nothing")?;
    ensure!(
        reverser.reversed() >= 2,
        "only {} datagrams were reversed",
        reverser.reversed()
    );
    Ok(())
}

/// Both directions through the tunnel; an end that has sent more than the small link carries has
/// learnt its MTU.
fn carries(lab: &Lab, tunnel: &Tunnel<'_>) -> Result<()> {
    tunnel.ping(5, QUICK)?;
    let (client, server) = (&lab.client, &lab.server);
    transfer((client, server), INNER_SERVER.parse()?, MEGABYTES).context("client to server")?;
    transfer((server, client), INNER_CLIENT.parse()?, MEGABYTES).context("server to client")?;
    for (end, peer) in [(client, VIP), (server, CLIENT)] {
        ensure!(
            learnt(end, peer)? == Some(SMALL_MTU),
            "{}",
            end.run(&format!("ip route get {peer}"))?
        );
    }
    Ok(())
}

fn psk_tunnel(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let tunnel = Tunnel::configure(lab, Settings::default())?;
    tunnel.initiate()?;
    carries(lab, &tunnel)?;
    lab.stats()?.check_conservation()
}

fn certificate_tunnel(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let tunnel = Tunnel::configure(lab, large_certificates())?;
    tunnel.initiate()?;
    carries(lab, &tunnel)?;
    lab.stats()?.check_conservation()
}

/// Without ikenat: a failure here is a failure of the lab.
fn kernel_nat(lab: &Lab) -> Result<()> {
    lab.kernel_nat()?;
    let tunnel = Tunnel::configure(lab, large_certificates())?;
    tunnel.initiate()?;
    carries(lab, &tunnel)
}
