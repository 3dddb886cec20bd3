//! Real IKE and real ESP between two strongSwan daemons through the gateway. These tests check what
//! IPsec promises its users and what `ikenat` reports; they look at no packet.

#[path = "ike/answers.rs"]
mod answers;
#[path = "ike/forged.rs"]
mod forged;
#[path = "ike/host_peer.rs"]
mod host_peer;
#[path = "ike/large.rs"]
mod large;
#[path = "ike/mobike.rs"]
mod mobike;
#[path = "ike/services.rs"]
mod services;
#[path = "ike/tables.rs"]
mod tables;
#[path = "ike/uplinks.rs"]
mod uplinks;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::direction::Direction;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::json::{InstanceStats, Kind, Session, Spi, State};
use ikenat_tests::lab::strongswan::{Authentication, ChildSa, End, Settings, Tunnel, Version};
use ikenat_tests::lab::topology::CLIENT;
use ikenat_tests::suite::{self, Scenario};

/// The programs that a test with strongSwan needs.
const STRONGSWAN: &[&str] = &["charon-systemd", "swanctl", "openssl", "ping"];
/// Between two pings.
pub(crate) const QUICK: Duration = Duration::from_millis(10);
pub(crate) const PINGS: u32 = 50;
/// A counter is read repeatedly for this long: the last packet may still be in transit.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let scenarios = vec![
        Scenario::new("the_lab_itself_works_with_the_kernels_nat", kernel_nat),
        Scenario::new("ikev2_with_counts_as_strongswan_has_them", ikev2),
        Scenario::new("ikev1_main_mode_with_counts_as_strongswan_has_them", ikev1),
        Scenario::new("ikev2_with_certificates_in_ike_fragments", ike_fragments),
        Scenario::new("rekeying_a_child_shows_both_spis", rekey),
        Scenario::new("keepalives_are_counted", keepalives),
        Scenario::new("a_tunnel_survives_the_loss_of_the_daemon", daemon_lost),
        Scenario::new("a_ping_survives_every_firewall_change", firewall).with_programs(&[
            "charon-systemd",
            "swanctl",
            "ping",
            "iptables",
        ]),
        Scenario::new("an_attempt_that_does_not_go_on_is_half_open", half_open),
    ];
    let parts = [
        scenarios,
        forged::scenarios(),
        host_peer::scenarios(),
        large::scenarios(),
        mobike::scenarios(),
        services::scenarios(),
        uplinks::scenarios(),
    ];
    suite::run(
        parts
            .into_iter()
            .flatten()
            .map(|scenario| scenario.with_programs(STRONGSWAN))
            .collect(),
    )
}

/// Without ikenat: a failure here is a failure of the lab.
fn kernel_nat(lab: &Lab) -> Result<()> {
    lab.kernel_nat()?;
    for settings in [main_mode(), certificates()] {
        let tunnel = Tunnel::configure(lab, settings)?;
        tunnel.initiate()?;
        tunnel.ping(PINGS, QUICK)?;
        let (client, server) = (
            tunnel.installed_sa(End::Client)?,
            tunnel.installed_sa(End::Server)?,
        );
        ensure!(
            client.encapsulated && server.encapsulated,
            "ESP is not in UDP: {client:?} {server:?}"
        );
        let counts = [
            client.packets_out,
            client.packets_in,
            server.packets_out,
            server.packets_in,
        ];
        ensure!(
            counts == [u64::from(PINGS); 4],
            "strongSwan counts {client:?} and {server:?}"
        );
    }
    Ok(())
}

fn main_mode() -> Settings {
    Settings {
        version: Version::V1,
        ..Settings::default()
    }
}

fn certificates() -> Settings {
    Settings {
        authentication: Authentication::Certificates,
        fragment_size: Some(576),
        ..Settings::default()
    }
}

fn ikev2(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let tunnel = Tunnel::configure(lab, Settings::default())?;
    tunnel.initiate()?;
    tunnel.ping(PINGS, QUICK)?;
    agree(lab, &tunnel, PINGS)?;
    let session = session(&lab.stats()?)?;
    // IKE_SA_INIT goes to 500; NAT is detected, so IKE_AUTH goes to 4500.
    ensure!(
        session.state == State::Established
            && (session.natt_ike.inbound, session.natt_ike.outbound) == (1, 1)
            && session.spis == 2,
        "after IKE_SA_INIT, IKE_AUTH and pings: {session:?}"
    );
    Ok(())
}

fn ikev1(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let tunnel = Tunnel::configure(lab, main_mode())?;
    tunnel.initiate()?;
    tunnel.ping(PINGS, QUICK)?;
    agree(lab, &tunnel, PINGS)?;
    let session = session(&lab.stats()?)?;
    // The third message of main mode goes to 4500, and quick mode's two (in) and one (out).
    ensure!(
        session.state == State::Established
            && (session.natt_ike.inbound, session.natt_ike.outbound) == (3, 2),
        "after main mode, quick mode and pings: {session:?}"
    );
    Ok(())
}

fn ike_fragments(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let tunnel = Tunnel::configure(lab, certificates())?;
    tunnel.initiate()?;
    for end in [End::Client, End::Server] {
        let log = tunnel.log(end);
        ensure!(
            log.contains("reassembled fragmented IKE message"),
            "{end:?} got no IKE fragments:\n{log}"
        );
    }
    tunnel.ping(PINGS, QUICK)?;
    agree(lab, &tunnel, PINGS)?;
    let session = session(&lab.stats()?)?;
    ensure!(
        session.natt_ike.inbound >= 3 && session.natt_ike.outbound >= 3,
        "IKE_AUTH came in several fragments each way: {session:?}"
    );
    Ok(())
}

fn rekey(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let tunnel = Tunnel::configure(lab, Settings::default())?;
    tunnel.initiate()?;
    tunnel.ping(PINGS, QUICK)?;
    let old = agree(lab, &tunnel, PINGS)?;
    tunnel.rekey_child()?;
    // Both ends have deleted the old pair before the pings, so no ping can use it.
    let deadline = Instant::now() + PATIENCE;
    while tunnel.installed_sa(End::Client).is_err() || tunnel.installed_sa(End::Server).is_err() {
        ensure!(
            Instant::now() < deadline,
            "the old SA stays: {:?}",
            tunnel.child_sas(End::Client)?
        );
        std::thread::sleep(QUICK);
    }
    tunnel.ping(PINGS / 2, QUICK)?;
    let new = agree(lab, &tunnel, PINGS / 2)?;
    ensure!(
        old.spi_in != new.spi_in && old.spi_out != new.spi_out,
        "{old:?} became {new:?}"
    );
    let stats = lab.stats()?;
    for (spi, direction) in [
        (old.spi_out, Direction::Inbound),
        (old.spi_in, Direction::Outbound),
    ] {
        let entry = entry(&stats, spi, direction)?;
        ensure!(
            entry.packets == u64::from(PINGS),
            "the old SPI went on: {entry:?}"
        );
    }
    Ok(())
}

fn keepalives(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let tunnel = Tunnel::configure(
        lab,
        Settings {
            keep_alive_secs: 1,
            ..Settings::default()
        },
    )?;
    tunnel.initiate()?;
    tunnel.ping(1, QUICK)?;
    let before = session(&lab.stats()?)?.keepalive.outbound;
    // The server is the one behind the NAT: it sends one in each idle second.
    std::thread::sleep(Duration::from_millis(3500));
    let after = session(&lab.stats()?)?.keepalive;
    ensure!(
        (2..=4).contains(&(after.outbound - before)) && after.inbound == 0,
        "{before} and then {after:?} keepalives in 3.5 idle seconds"
    );
    agree(lab, &tunnel, 1)?;
    Ok(())
}

fn daemon_lost(lab: &Lab) -> Result<()> {
    let ikenat = Ikenat::start(lab)?;
    let tunnel = Tunnel::configure(lab, Settings::default())?;
    tunnel.initiate()?;
    tunnel.ping(PINGS, QUICK)?;
    ikenat.kill()?;
    tunnel.ping(PINGS, QUICK).context("the daemon is dead")?;
    tunnel.rekey_child().context("the daemon is dead")?;
    let _ikenat = Ikenat::start(lab)?;
    tunnel.ping(PINGS, QUICK).context("the daemon is back")?;
    agree(lab, &tunnel, PINGS)?;
    Ok(())
}

fn firewall(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let tunnel = Tunnel::configure(lab, Settings::default())?;
    tunnel.initiate()?;
    let changes = [
        "nft flush ruleset; iptables -F; iptables -t nat -F",
        "iptables -P FORWARD DROP",
        "iptables -t nat -A POSTROUTING -j MASQUERADE",
        "ip neighbour flush all",
    ];
    // Twice what the waiting takes: on an emulated machine the changes themselves take seconds.
    let pings = 2 * PINGS * u32::try_from(changes.len()).context("few changes")?;
    std::thread::scope(|scope| -> Result<()> {
        let ping = scope.spawn(|| tunnel.ping(pings, QUICK));
        for change in changes {
            std::thread::sleep(QUICK * PINGS * 3 / 4);
            lab.gateway.shell(change)?;
        }
        ensure!(
            !ping.is_finished(),
            "the pings ended before the last change"
        );
        ping.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    agree(lab, &tunnel, pings)?;
    Ok(())
}

fn half_open(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let tunnel = Tunnel::configure(lab, Settings::default())?;
    // The server answers, and the client does not hear it.
    lab.client.shell(
        "nft add table ip deaf
         nft 'add chain ip deaf input { type filter hook input priority 0; }'
         nft add rule ip deaf input udp sport 500 drop",
    )?;
    std::thread::scope(|scope| -> Result<()> {
        let attempt = scope.spawn(|| tunnel.initiate());
        let deadline = Instant::now() + PATIENCE;
        let seen = loop {
            let stats = lab.stats()?;
            if let Some(session) = stats.session(CLIENT) {
                break session.clone();
            }
            ensure!(
                Instant::now() < deadline,
                "no session: {:?}",
                stats.sessions
            );
            std::thread::sleep(QUICK);
        };
        ensure!(
            seen.state == State::HalfOpen,
            "the client has not heard the answer: {seen:?}"
        );
        lab.client.run("nft delete table ip deaf")?;
        attempt
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let seen = session(&lab.stats()?)?;
        ensure!(
            seen.state == State::Established,
            "the tunnel is up: {seen:?}"
        );
        Ok(())
    })
}

/// Fails unless both ends and ikenat have counted `packets` per direction; returns the client's SA.
pub(crate) fn agree(lab: &Lab, tunnel: &Tunnel, packets: u32) -> Result<ChildSa> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (client, server) = (
            tunnel.installed_sa(End::Client)?,
            tunnel.installed_sa(End::Server)?,
        );
        let stats = lab.stats()?;
        stats.check_conservation()?;
        let inbound = entry(&stats, client.spi_out, Direction::Inbound)?;
        let outbound = entry(&stats, client.spi_in, Direction::Outbound)?;
        let counts = [
            inbound.packets,
            outbound.packets,
            client.packets_out,
            client.packets_in,
            server.packets_in,
            server.packets_out,
        ];
        if counts == [u64::from(packets); 6] {
            ensure!(
                inbound.kind == Kind::EspInUdp
                    && inbound.port == Some(4500)
                    && u64::from(inbound.highest_sequence) == inbound.packets
                    && inbound.estimated_loss == 0,
                "{inbound:?}"
            );
            return Ok(client);
        }
        ensure!(
            Instant::now() < deadline,
            "{packets} each way were expected: ikenat {inbound:?} {outbound:?}, client {client:?}, server {server:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn entry(stats: &InstanceStats, spi: u32, direction: Direction) -> Result<&Spi> {
    stats.spi(CLIENT, spi, direction).with_context(|| {
        format!(
            "no single entry for SPI 0x{spi:08x} {direction:?}: {:?}",
            stats.spis
        )
    })
}

pub(crate) fn session(stats: &InstanceStats) -> Result<Session> {
    stats
        .session(CLIENT)
        .cloned()
        .with_context(|| format!("no session: {:?}", stats.sessions))
}
