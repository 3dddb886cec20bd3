//! Ten attackers against a thousand established tunnels: no packet of the tunnels is lost, none
//! leaves the fast path, and `stats` counts each of them, while the daemon expires entries.
//!
//! The packets go through the attached programs by `BPF_PROG_TEST_RUN`, so that no queue of the lab
//! can lose one. Each attack has a number of rounds; IKENAT_ATTACK_SECONDS=60 gives it a minute.

mod farm;
mod scripts;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::bpf::fixture;
use ikenat_tests::bpf::pinned::{Attached, From};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::direction::Direction as Listed;
use ikenat_tests::lab::frames::{Captured, DONT_FRAGMENT, Packet, protocol};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::json::State;
use ikenat_tests::lab::topology::{
    CLIENT, CLIENT_MAC, LAN, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN, WAN_MAC,
};
use ikenat_tests::lab::wire::{at_client, at_server, esp};
use ikenat_tests::suite::Scenario;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xdp_common::Direction;

use scripts::{ATTACKS, Attack, Random};

/// The seconds of each attack, instead of [`ROUNDS`].
const SECONDS: &str = "IKENAT_ATTACK_SECONDS";
const TUNNELS: u32 = 1_000;
/// Each tunnel sends so often in each direction.
const ROUNDS: u32 = 2;

const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;
const TC_REDIRECT: u32 = 7;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "ten_attackers_take_nothing_from_a_thousand_tunnels",
            attackers,
        )
        .alone()
        .with_programs(&["bpftool"]),
        Scenario::new("the_daemon_of_25_000_tunnels_has_little_to_do", farm::farm)
            .alone()
            .with_programs(&["bpftool"]),
    ]
}

/// One tunnel: every other one is native ESP.
struct Tunnel {
    peer: Ipv4Addr,
    native: bool,
    /// Inbound and outbound.
    spis: [u32; 2],
    sequence: u32,
    /// Packets and bytes that must be counted, inbound and outbound.
    counted: [(u64, u64); 2],
}

impl Tunnel {
    fn new(number: u32) -> Self {
        Self {
            peer: Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 1)) + number),
            native: number.is_multiple_of(2),
            spis: [0x1000_0000 + number, 0x2000_0000 + number],
            sequence: 0,
            counted: [(0, 0); 2],
        }
    }

    fn packet(&self, from: Ipv4Addr, to: Ipv4Addr, payload: Vec<u8>) -> Packet {
        if self.native {
            Packet::raw(from, to, protocol::ESP, payload)
        } else {
            Packet::udp((from, 4500), (to, 4500), payload)
        }
    }

    fn inbound(&self, spi: u32, sequence: u32) -> Packet {
        let packet = self.packet(self.peer, VIP, esp(spi, sequence, 60));
        packet.with_macs(WAN_MAC, CLIENT_MAC)
    }

    fn outbound(&self, spi: u32, sequence: u32) -> Packet {
        let packet = self.packet(SERVER, self.peer, esp(spi, sequence, 60));
        packet.with_macs(LAN_MAC, SERVER_MAC)
    }

    fn count(&mut self, direction: Direction, frame: &[u8]) {
        let (packets, bytes) = &mut self.counted[direction as usize];
        *packets += 1;
        *bytes += frame.len() as u64 - 14;
    }

    /// Its next packet in a direction, and what must leave.
    fn next(&self, direction: Direction) -> (From, Vec<u8>, Vec<u8>) {
        let spi = self.spis[direction as usize];
        match direction {
            Direction::Inbound => {
                let packet = self.inbound(spi, self.sequence);
                (From::Wan, packet.build(), at_server(&packet).build())
            }
            Direction::Outbound => {
                let packet = self.outbound(spi, self.sequence);
                (From::Lan, packet.build(), at_client(&packet).build())
            }
        }
    }
}

/// The gateway and its tunnels.
struct Siege<'l> {
    lab: &'l Lab,
    daemon: Pid,
    programs: Attached,
    tunnels: Vec<Tunnel>,
    /// Packets of tunnels that took the slow path.
    slow: u64,
}

impl<'l> Siege<'l> {
    fn of(lab: &'l Lab, ikenat: &Ikenat, tunnels: u32) -> Result<Self> {
        Ok(Self {
            lab,
            daemon: Pid::from_raw(ikenat.id()),
            programs: Attached::of(lab)?,
            tunnels: (0..tunnels).map(Tunnel::new).collect(),
            slow: 0,
        })
    }

    /// A packet of each tunnel in each direction.
    fn all_cross(&mut self) -> Result<()> {
        (0..self.tunnels.len()).try_for_each(|number| self.cross(number))
    }

    /// A packet of a tunnel in each direction. XDP has to forward it; where it passes it on, to have
    /// the neighbour confirmed, tc has to.
    fn cross(&mut self, number: usize) -> Result<()> {
        self.tunnels[number].sequence += 1;
        // The server begins: its ESP is the proof.
        for direction in [Direction::Outbound, Direction::Inbound] {
            let (from, sent, wanted) = self.tunnels[number].next(direction);
            let mut run = self.programs.xdp(from, &sent)?;
            // tc leaves the MAC addresses to the neighbour layer.
            let mut header = 0;
            if run.action == XDP_PASS {
                run = self.programs.tc(from, &sent)?;
                ensure!(run.action == TC_REDIRECT, "tc: action {}", run.action);
                self.slow += 1;
                header = 14;
            } else {
                ensure!(run.action == XDP_REDIRECT, "XDP: action {}", run.action);
            }
            ensure!(
                run.frame[header..] == wanted[header..],
                "{direction:?}: {:02x?} instead of {wanted:02x?}",
                run.frame
            );
            self.tunnels[number].count(direction, &sent);
        }
        Ok(())
    }

    /// A packet of an attacker, or of the server: whatever becomes of it.
    fn shoot(&self, (from, frame): (From, Vec<u8>)) -> Result<()> {
        if self.programs.xdp(from, &frame)?.action == XDP_PASS {
            self.programs.tc(from, &frame)?;
        }
        Ok(())
    }

    fn attack(&mut self, attack: &Attack, random: &mut Random, seconds: Option<u64>) -> Result<()> {
        let (began, slow) = (Instant::now(), self.slow);
        let is_over = |round| match seconds {
            Some(seconds) => began.elapsed() >= Duration::from_secs(seconds),
            None => round >= ROUNDS,
        };
        let (mut shots, mut rounds) = (0_u64, 0);
        while !is_over(rounds) {
            for number in 0..self.tunnels.len() {
                for _ in 0..attack.burst {
                    for shot in (attack.shots)(random, &mut self.tunnels[number]) {
                        self.shoot(shot)?;
                        shots += 1;
                    }
                }
                self.cross(number)?;
            }
            rounds += 1;
        }
        let (took, slow) = (began.elapsed(), self.slow - slow);
        // A packet each four seconds or so confirms a neighbour, of which there are two.
        ensure!(
            slow <= 2 * (took.as_secs() / 3 + 3),
            "{slow} packets of tunnels took the slow path in {took:.1?}"
        );
        // Flows that share a next hop lose it at one moment every eight seconds
        // (docs/decisions/hop-word.md). If that was the moment, the next one is far.
        if self.expired()? > 0.0 {
            let more = self.expired()?;
            ensure!(
                more <= 0.0,
                "{more} flows too many have no next hop: they are not on the fast path"
            );
        }
        self.learns_the_path_mtu()?;
        println!(
            "{}: {shots} packets in {took:.1?} against {} of the tunnels, of which {slow} took the slow path and 0 were lost",
            attack.name,
            u64::from(rounds) * 2 * self.tunnels.len() as u64
        );
        Ok(())
    }

    /// Without routes and neighbours, only the next hops that flows remember lead anywhere: each
    /// tunnel's do, except for those that have just expired, as each does from time to time. Returns how
    /// many more than these have expired.
    fn expired(&mut self) -> Result<f64> {
        // It may be about to invalidate all next hops, because of the last time.
        kill(self.daemon, Signal::SIGSTOP)?;
        self.all_cross()?;
        let gateway = &self.lab.gateway;
        gateway.shell(&format!(
            "ip route del default; ip route del 198.51.100.0/24; ip neigh del {SERVER} dev {LAN}; ip neigh del {CLIENT} dev {WAN}"
        ))?;
        let began = Instant::now();
        let mut expired = 0;
        for tunnel in &mut self.tunnels {
            tunnel.sequence += 1;
            for direction in Direction::ALL {
                let (from, sent, wanted) = tunnel.next(direction);
                let run = self.programs.xdp(from, &sent)?;
                if run.action == XDP_PASS {
                    expired += 1;
                    continue;
                }
                ensure!(run.action == XDP_REDIRECT && run.frame == wanted);
                tunnel.count(direction, &sent);
            }
        }
        let took = began.elapsed();
        fixture::prepare(self.lab)?;
        gateway.run(&format!("ip route replace default via {CLIENT}"))?;
        kill(self.daemon, Signal::SIGCONT)?;
        let allowed = 40.0 + 2.0 * f64::from(TUNNELS) * took.as_secs_f64() / 10.0;
        Ok(f64::from(expired) - allowed)
    }

    /// The server learns that a packet is too big for the WAN.
    fn learns_the_path_mtu(&self) -> Result<()> {
        let peer = self.tunnels[7].peer;
        let mut big = Packet::udp((SERVER, 4500), (peer, 4500), vec![0x77; 1600]);
        big.flags = DONT_FRAGMENT;
        let big = big.with_macs(LAN_MAC, SERVER_MAC).build();
        ensure!(self.programs.xdp(From::Lan, &big)?.action == XDP_PASS);
        let answered = Captured::read(&self.programs.tc(From::Lan, &big)?.frame)?;
        let mtu = answered.icmp().map(|error| error.mtu());
        ensure!(mtu == Some(1500), "the answer is {answered:?}");
        Ok(())
    }

    /// Everything that was sent is counted, for its own SPI, in order, and no stranger has a session.
    fn stats_are_right(&self) -> Result<()> {
        let stats = self.lab.stats()?;
        stats.check_conservation()?;
        let established = stats.sessions.iter();
        let established = established.filter(|session| session.state == State::Established);
        ensure!(
            established.count() == self.tunnels.len(),
            "strangers have sessions"
        );
        let mut listed = std::collections::HashMap::new();
        for spi in &stats.spis {
            listed.insert(
                (spi.peer, spi.number()?, spi.direction == Listed::Inbound),
                spi,
            );
        }
        for tunnel in &self.tunnels {
            for direction in Direction::ALL {
                let at = direction as usize;
                let key = (
                    tunnel.peer,
                    tunnel.spis[at],
                    direction == Direction::Inbound,
                );
                let spi = listed
                    .get(&key)
                    .with_context(|| format!("no line of {key:?}"))?;
                ensure!(
                    (spi.packets, spi.bytes) == tunnel.counted[at] && spi.reordered == 0,
                    "{:?} were sent, and counted is {spi:?}",
                    tunnel.counted[at]
                );
            }
        }
        Ok(())
    }
}

/// The seconds that an environment variable gives.
fn seconds_of(variable: &str) -> Result<Option<u64>> {
    let text = std::env::var(variable).ok();
    let seconds = text.map(|text| text.parse()).transpose();
    seconds.with_context(|| format!("failed to read {variable}"))
}

fn start(lab: &Lab) -> Result<Ikenat> {
    fixture::prepare(lab)?;
    lab.gateway.shell(&format!(
        "ip route replace default via {CLIENT}; sysctl -qw net.ipv4.conf.all.rp_filter=0"
    ))?;
    Ikenat::start(lab)
}

fn attackers(lab: &Lab) -> Result<()> {
    let seconds = seconds_of(SECONDS)?;
    let ikenat = start(lab)?;
    let mut siege = Siege::of(lab, &ikenat, TUNNELS)?;
    lab.gateway.enter(|| {
        siege.all_cross().context("before any attack")?;
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        for attack in &ATTACKS {
            let outcome = siege.attack(attack, &mut random, seconds);
            outcome
                .and_then(|()| siege.stats_are_right())
                .context(attack.name)?;
        }
        Ok(())
    })?;
    ensure!(!ikenat.log().contains("WARN"), "{}", ikenat.log());
    Ok(())
}
