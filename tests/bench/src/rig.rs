//! A lab around a gateway: a generator at the client and at the server, and a sink at both that
//! verifies what arrives.

use anyhow::{Context, Result};
use aya::programs::XdpMode;
use ikenat_tests::lab::topology::{CLIENT, CLIENT_MAC, LAN, PEER, SERVER, SERVER_MAC, WAN};
use ikenat_tests::lab::{Lab, Options};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::kinds::{self, Case, Gateway};
use crate::results::Direction;
use crate::wire::{GENERATE, KEEP_PACE, Outcome, Pacing, SINK, Wire};

/// Generator and sink for several labs, of which one sends at a time. So all use the same programs
/// at the same addresses, and the kernel's table of XDP programs (the BPF dispatcher), which calls
/// its 48 entries faster than others, does not overflow.
#[derive(Clone)]
pub struct Bench(Arc<Mutex<Wire>>);

impl Bench {
    /// Loads the programs.
    ///
    /// # Errors
    /// The kernel refuses them, or they are not built.
    pub fn new() -> Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Wire::load()?))))
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        // State that a panicking run has left is overwritten before the next one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lab with generator and sinks.
pub struct Rig {
    /// The namespaces.
    pub lab: Lab,
    bench: Bench,
    /// The number of the next packet. Sequence numbers never decrease, as with a real sender.
    next: u64,
}

impl Rig {
    /// Makes the lab. The gateway knows all neighbours and has a route to every peer.
    ///
    /// # Errors
    /// This machine has no veth, XDP or live frames.
    pub fn new(bench: &Bench) -> Result<Self> {
        let lab = Lab::new(Options::default())?;
        // For every run, the kernel adds an unattached program to its table of XDP programs, which
        // takes a tick of the timer before and one after. So the programs are attached to these
        // interfaces, on which nothing is ever sent.
        for (side, idle) in [(&lab.client, GENERATE), (&lab.server, KEEP_PACE)] {
            side.run(&format!("ip link set dev {PEER} xdp off"))?;
            side.run(&queues(PEER))?;
            side.enter(|| {
                let mut wire = bench.wire();
                attach(&mut wire, SINK, PEER, XdpMode::Driver)?;
                attach(&mut wire, idle, "lo", XdpMode::Skb)
            })?;
        }
        lab.gateway.shell(&format!(
            "ip neigh replace {SERVER} lladdr {} dev {LAN} nud permanent
             ip neigh replace {CLIENT} lladdr {} dev {WAN} nud permanent
             ip route add 10.0.0.0/8 via {CLIENT}
             {}; {}
             sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{WAN}.rp_filter=0 net.ipv4.conf.{LAN}.rp_filter=0",
            mac(SERVER_MAC),
            mac(CLIENT_MAC),
            queues(WAN),
            queues(LAN)
        ))?;
        Ok(Self {
            lab,
            bench: bench.clone(),
            next: 0,
        })
    }

    /// Runs a case: `packets` on each of its CPUs. `cable`: the generator sits on the gateway's far
    /// interface, so that no gateway is in between.
    ///
    /// # Errors
    /// The kernel refuses the run.
    pub fn run(
        &mut self,
        case: &Case,
        gateway: Gateway,
        packets: u32,
        cable: bool,
        pacing: Pacing,
    ) -> Result<Outcome> {
        let load = kinds::load(case, gateway)?;
        let (namespace, interface) = match (case.way, cable) {
            (_, false) if gateway.one_armed => (&self.lab.client, PEER),
            (Direction::Inbound, false) => (&self.lab.client, PEER),
            (Direction::Outbound, false) => (&self.lab.server, PEER),
            (Direction::Inbound, true) => (&self.lab.gateway, LAN),
            (Direction::Outbound, true) => (&self.lab.gateway, WAN),
        };
        let mut wire = self.bench.wire();
        wire.prepare(&load.send, &load.expect, self.next, pacing)?;
        let elapsed =
            namespace.enter(|| wire.send(interface, &load.frame, packets, case.cores, pacing))?;
        let outcome = wire.read(elapsed, self.next, pacing)?;
        self.next += u64::from(packets);
        Ok(outcome)
    }
}

fn attach(wire: &mut Wire, name: &str, interface: &str, mode: XdpMode) -> Result<()> {
    wire.program(name)?
        .attach(interface, mode)
        .with_context(|| format!("failed to attach {name} to {interface}"))?;
    Ok(())
}

/// The command that gives a veth a queue for each of the CPUs that send.
fn queues(interface: &str) -> String {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(2));
    format!("ethtool -L {interface} rx {cpus} tx {cpus}")
}

fn mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
