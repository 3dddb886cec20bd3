//! The contestants, each in a lab of its own. All labs stay until the end, so that rounds can be
//! interleaved.

use anyhow::{Context, Result, ensure};
use aya::programs::XdpMode;
use aya::{Ebpf, EbpfLoader};
use ikenat_bench_abi::traffic::Onward;
use ikenat_tests::bpf::fixture::{self, Services};
use ikenat_tests::bpf::{Dataplane, Object, with_sizes};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::netns::Namespace;
use ikenat_tests::lab::topology::{CLIENT_MAC, LAN, LAN_MAC, SERVER, SERVER_MAC, WAN, WAN_MAC};
use xdp_common::{Config, limits};

use crate::kinds::{Case, Gateway};
use crate::results::{Contestant, Direction, Traffic};
use crate::rig::{Bench, Rig};
use crate::rules;
use crate::wire::{Outcome, Pacing, xdp};

/// The forwarding part of a contestant, alive as long as it is needed.
enum Middle {
    /// The kernel, or programs that iproute2 has attached.
    Kernel,
    /// Programs of the benchmark on both interfaces.
    Programs { _both: [Ebpf; 2] },
    /// The dataplane without its daemon.
    Dataplane(Box<Dataplane>),
    /// The daemon.
    Daemon { _ikenat: Ikenat },
}

/// A contestant ready to forward.
pub struct Standing {
    /// Its name.
    pub contestant: Contestant,
    // Dropped before the lab in which it runs.
    middle: Middle,
    rig: Rig,
    /// The kinds and numbers of flows that it already knows.
    known: Vec<(Traffic, u32)>,
}

/// How ikenat is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The object alone: no other process runs, so that instructions can be counted.
    Object,
    /// `ikenat run`, as a user starts it.
    Daemon,
}

impl Standing {
    /// Sets a contestant up for at most this many flows, with a generator and a sink of its own.
    ///
    /// # Errors
    /// The kernel or the machine lacks what it needs.
    pub fn new(contestant: Contestant, flows: u32, start: Start) -> Result<Self> {
        Self::on(&Bench::new()?, contestant, flows, start)
    }

    /// The same with a generator and a sink that other contestants use as well.
    ///
    /// # Errors
    /// The kernel or the machine lacks what it needs.
    pub fn on(bench: &Bench, contestant: Contestant, flows: u32, start: Start) -> Result<Self> {
        let rig = Rig::new(bench)?;
        let middle = set_up(&rig, contestant, flows, start)?;
        Ok(Self {
            contestant,
            middle,
            rig,
            known: Vec::new(),
        })
    }

    /// Its lab.
    #[must_use]
    pub const fn lab(&self) -> &Lab {
        &self.rig.lab
    }

    /// How it changes packets.
    #[must_use]
    pub const fn gateway(&self) -> Gateway {
        gateway(self.contestant)
    }

    /// Runs a case through it, `packets` on each of its CPUs.
    ///
    /// # Errors
    /// The kernel refuses the run.
    pub fn run(&mut self, case: &Case, packets: u32) -> Result<Outcome> {
        self.run_at(case, packets, Pacing::Saturation)
    }

    /// The same at a pace.
    ///
    /// # Errors
    /// The kernel refuses the run.
    pub fn run_at(&mut self, case: &Case, packets: u32, pacing: Pacing) -> Result<Outcome> {
        let cable = self.contestant == Contestant::Cable;
        self.rig.run(case, self.gateway(), packets, cable, pacing)
    }

    /// Makes the flows of a case known: first the server's ESP, which is the proof of
    /// establishment, or the client's packet, which creates the kernel's conntrack entry.
    ///
    /// # Errors
    /// The kernel refuses the run.
    pub fn warm_up(&mut self, case: &Case) -> Result<()> {
        let esp = |way| Case {
            traffic: case.traffic.establishing(),
            way,
            stamped: false,
            ..*case
        };
        // ikenat needs the server's ESP first, and loses none; it keeps an SPI after its third
        // packet. The kernel needs the client's packet; a second packet confirms a conntrack entry.
        let ways = if self.is_ikenat() {
            [(Direction::Outbound, 1), (Direction::Inbound, 3)]
        } else {
            [(Direction::Inbound, 2), (Direction::Outbound, 1)]
        };
        let flows = (case.traffic.establishing(), case.flows);
        // A million flows take a while, and stay for minutes. The kernel's entries do not.
        let is_warm = self.is_ikenat() && case.flows > 1024 && self.known.contains(&flows);
        for (way, times) in ways.into_iter().filter(|_| !is_warm) {
            let packets = case.flows.max(64) * times / case.cores;
            self.run(&esp(way), packets.next_multiple_of(64))?;
        }
        if case.traffic != case.traffic.establishing() {
            self.run(case, case.flows.max(64))?;
        }
        self.known.push(flows);
        Ok(())
    }

    /// Whether it is ikenat, in any mode.
    #[must_use]
    pub const fn is_ikenat(&self) -> bool {
        matches!(
            self.contestant,
            Contestant::Ikenat
                | Contestant::IkenatTwin
                | Contestant::IkenatGeneric
                | Contestant::IkenatOneArmed
                | Contestant::IkenatServices
        )
    }

    /// The counters of the object's XDP programs, if it runs without its daemon.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counters(&self) -> Result<Option<xdp_common::counters::Counters>> {
        match &self.middle {
            Middle::Dataplane(dataplane) => dataplane.counters(xdp_common::Hook::Xdp).map(Some),
            Middle::Kernel | Middle::Programs { .. } | Middle::Daemon { .. } => Ok(None),
        }
    }

    /// Entries of the FLOW table of a daemon.
    ///
    /// # Errors
    /// There is no daemon, or it has no such table.
    pub fn flows(&self) -> Result<u64> {
        let status = self.rig.lab.status()?;
        let flow = status
            .tables
            .iter()
            .find(|table| table.name.eq_ignore_ascii_case("flow"));
        let flow = flow.context("failed to find FLOW in the answer of `ikenat status`")?;
        Ok(flow.entries)
    }

    /// Packets that the WAN has received.
    ///
    /// # Errors
    /// `ip` does not show them.
    pub fn received(&self) -> Result<u64> {
        let gateway = &self.rig.lab.gateway;
        let text = gateway.run(&format!("ip -s -o link show {WAN}"))?;
        let (_, after) = text
            .split_once("RX:")
            .context("failed to read counters of the WAN")?;
        let word = after
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .nth(1);
        word.context("failed to read counters of the WAN")
    }
}

/// How a contestant changes packets.
const fn gateway(contestant: Contestant) -> Gateway {
    let (translates, routes) = match contestant {
        Contestant::Cable | Contestant::Noop => (false, false),
        Contestant::Forwarding => (false, true),
        Contestant::Broken
        | Contestant::Pass
        | Contestant::Ikenat
        | Contestant::IkenatTwin
        | Contestant::IkenatGeneric
        | Contestant::IkenatOneArmed
        | Contestant::IkenatServices
        | Contestant::Iptables
        | Contestant::Nft
        | Contestant::NftFlowtable
        | Contestant::Ipvs => (true, true),
    };
    Gateway {
        translates,
        routes,
        one_armed: matches!(contestant, Contestant::IkenatOneArmed),
    }
}

fn set_up(rig: &Rig, contestant: Contestant, flows: u32, start: Start) -> Result<Middle> {
    let gateway = &rig.lab.gateway;
    match contestant {
        Contestant::Cable | Contestant::Pass => {
            pass(gateway)?;
            Ok(Middle::Kernel)
        }
        Contestant::Noop => onward(gateway, "ikenat_noop"),
        Contestant::Broken => onward(gateway, "ikenat_broken"),
        Contestant::IkenatOneArmed => {
            ensure!(
                start == Start::Object,
                "a one-armed gateway is for layer A only"
            );
            let config = fixture::prepare(&rig.lab)?;
            fixture::move_server_to_wan(&rig.lab)?;
            dataplane(rig, fixture::one_armed(config), flows, XdpMode::Driver)
        }
        Contestant::IkenatServices => {
            ensure!(start == Start::Object, "256 services are for layer A only");
            let config = Services::Unpinned.of(fixture::prepare(&rig.lab)?);
            dataplane(rig, config, flows, XdpMode::Driver)
        }
        Contestant::Ikenat | Contestant::IkenatTwin | Contestant::IkenatGeneric => {
            let generic = contestant == Contestant::IkenatGeneric;
            if generic {
                polled(gateway)?;
            }
            match start {
                Start::Object => {
                    let mode = if generic {
                        XdpMode::Skb
                    } else {
                        XdpMode::Driver
                    };
                    dataplane(rig, fixture::prepare(&rig.lab)?, flows, mode)
                }
                Start::Daemon => daemon(rig, flows, generic),
            }
        }
        Contestant::Forwarding
        | Contestant::Iptables
        | Contestant::Nft
        | Contestant::NftFlowtable
        | Contestant::Ipvs => {
            polled(gateway)?;
            rules::apply(gateway, contestant, flows)?;
            Ok(Middle::Kernel)
        }
    }
}

/// A veth accepts redirected frames only if it uses NAPI: without an XDP program, GRO enables it.
fn polled(gateway: &Namespace) -> Result<()> {
    gateway.shell(&format!("ethtool -K {WAN} gro on; ethtool -K {LAN} gro on"))?;
    Ok(())
}

fn pass(gateway: &Namespace) -> Result<()> {
    let object = Object::Usual.path()?.with_file_name("peer.o");
    for interface in [WAN, LAN] {
        gateway.run(&format!(
            "unshare --mount ip link set dev {interface} xdpdrv obj {} sec xdp",
            object.display()
        ))?;
    }
    Ok(())
}

fn onward(gateway: &Namespace, name: &str) -> Result<Middle> {
    gateway.enter(|| {
        let index =
            |name| nix::net::if_::if_nametoindex(name).context("failed to find an interface");
        let mut both = [
            program(name, index(LAN)?, SERVER_MAC, LAN_MAC)?,
            program(name, index(WAN)?, CLIENT_MAC, WAN_MAC)?,
        ];
        for (ebpf, interface) in both.iter_mut().zip([WAN, LAN]) {
            xdp(ebpf, name)?
                .attach(interface, XdpMode::Driver)
                .with_context(|| format!("failed to attach {name} to {interface}"))?;
        }
        Ok(Middle::Programs { _both: both })
    })
}

fn program(name: &str, ifindex: u32, to: [u8; 6], from: [u8; 6]) -> Result<Ebpf> {
    let onward = Onward {
        ifindex,
        server: SERVER.octets(),
        macs: [to, from].concat().try_into().unwrap_or_default(),
    };
    load_with("bench.o", name, "ONWARD", &onward)
}

/// Writes a load-time constant and loads a contestant's program.
fn load_with<T: bytemuck::Pod>(file: &str, name: &str, constant: &str, value: &T) -> Result<Ebpf> {
    let mut ebpf = EbpfLoader::new()
        .override_global(constant, bytemuck::bytes_of(value), true)
        .load_file(Object::Usual.path()?.with_file_name(file))
        .with_context(|| format!("failed to load {file}"))?;
    xdp(&mut ebpf, name)?
        .load()
        .with_context(|| format!("failed to load {name}"))?;
    Ok(ebpf)
}

/// Buckets of four slots for this many flows in each direction: at most half full, and inbound flows
/// do not get the last eighth of that.
fn buckets(flows: u32) -> u32 {
    let live = 2 * flows;
    let limit = live + (live >> (limits::FLOW_RESERVE_SHIFT - 1));
    (limit * 2 / 4).max(1024).next_power_of_two()
}

fn dataplane(rig: &Rig, config: Config, flows: u32, mode: XdpMode) -> Result<Middle> {
    let config = with_sizes(config, buckets(flows), buckets(flows) / 2);
    let one_armed = config.lan_ifindex == config.wan_ifindex;
    let interfaces: &[&str] = if one_armed { &[WAN] } else { &[WAN, LAN] };
    rig.lab.gateway.enter(|| {
        let mut dataplane = Box::new(Dataplane::load(&config)?);
        for interface in interfaces {
            dataplane.attach_as(interface, mode)?;
            dataplane.attach_tc(interface)?;
        }
        Ok(Middle::Dataplane(dataplane))
    })
}

fn daemon(rig: &Rig, flows: u32, generic: bool) -> Result<Middle> {
    let flow_slots = (buckets(flows) * 4).max(limits::FLOW_SLOTS).to_string();
    let session_slots = (buckets(flows) * 2).max(limits::SESSION_SLOTS).to_string();
    let mut more = vec![
        "--flow-slots",
        &flow_slots,
        "--session-slots",
        &session_slots,
    ];
    if generic {
        more.extend(["--mode", "generic"]);
    }
    let ikenat = Ikenat::start_with(&rig.lab, &more)?;
    Ok(Middle::Daemon { _ikenat: ikenat })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_inbound_flows_have_room_beside_as_many_outbound_ones() {
        for flows in [1, 1 << 10, 1 << 16, 1 << 20] {
            let limit = buckets(flows) * 4 / 2;
            let for_inbound = limit - (limit >> limits::FLOW_RESERVE_SHIFT);
            assert!(2 * flows <= for_inbound, "{flows}: {for_inbound}");
        }
    }
}
