//! A link that reverses the order of fragments, as some routers with several paths do (RFC 791
//! allows any order).
//!
//! It matches the fragments of a datagram by addresses and ID; everything else passes at once.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::background::Background;
use super::capture::PacketSocket;
use super::frames::Captured;
use super::links::{self, Interface};
use super::netns::Namespace;
use super::topology::{CLIENT_MAC, PEER, WAN, WAN_MAC};

/// How often a thread checks whether it must end.
const PATIENCE: Duration = Duration::from_millis(50);

/// The wire between client and gateway. Dropping it ends its threads and removes it.
#[derive(Debug)]
pub struct FragmentReverser {
    reversed: Arc<AtomicU32>,
    // Before the namespace, which they use.
    _threads: Vec<Background<()>>,
    _namespace: Namespace,
}

impl FragmentReverser {
    /// Joins both ends to `wire` and begins.
    pub(crate) fn between(
        wire: Namespace,
        client: &Namespace,
        gateway: &Namespace,
    ) -> Result<Self> {
        const TO_CLIENT: &str = "client0";
        const TO_GATEWAY: &str = "gateway0";
        let ends = [
            (client, PEER, CLIENT_MAC, TO_CLIENT),
            (gateway, WAN, WAN_MAC, TO_GATEWAY),
        ];
        for (number, (namespace, name, mac, port)) in (1..).zip(ends) {
            let far = Interface {
                namespace: &wire,
                name: port,
                mac: [2, 0, 0, 0, 8, number],
            };
            links::join(
                Interface {
                    namespace,
                    name,
                    mac,
                },
                far,
            )?;
            // A packet copied from one wire to another must have its checksum and must not exceed
            // the MTU, so checksum and segmentation offload are off.
            links::compute_checksums(namespace, name)?;
            links::prepare_peer(&wire, port, false)?;
            wire.run(&format!("ip link set {port} up"))?;
        }
        let open = |name| PacketSocket::open(&wire, name);
        let reversed = Arc::default();
        let mut threads = Vec::new();
        for (from, to) in [(TO_CLIENT, TO_GATEWAY), (TO_GATEWAY, TO_CLIENT)] {
            let (from, to) = (open(from)?, open(to)?);
            let reversed = Arc::clone(&reversed);
            threads.push(Background::start(move |stop| {
                copy(&from, &to, stop, &reversed);
                Ok(())
            }));
        }
        Ok(Self {
            reversed,
            _threads: threads,
            _namespace: wire,
        })
    }

    /// Datagrams whose fragments it has reversed so far.
    pub fn reversed(&self) -> u32 {
        self.reversed.load(Ordering::Relaxed)
    }
}

/// Fragments that wait for the last of their datagram.
type Waiting = BTreeMap<(Ipv4Addr, Ipv4Addr, u8, u16), Vec<Vec<u8>>>;

fn copy(from: &PacketSocket, to: &PacketSocket, stop: &AtomicBool, reversed: &AtomicU32) {
    let mut waiting = Waiting::new();
    // An interface that goes down ends the wire as well.
    while !stop.load(Ordering::Relaxed) {
        let Ok(received) = from.receive(PATIENCE) else {
            return;
        };
        let passed = received.map_or(Ok(()), |frame| pass(frame, to, &mut waiting, reversed));
        if passed.is_err() {
            return;
        }
    }
}

fn pass(
    frame: Vec<u8>,
    to: &PacketSocket,
    waiting: &mut Waiting,
    reversed: &AtomicU32,
) -> Result<()> {
    let fragment = Captured::read(&frame)
        .ok()
        .and_then(|ip| Some((ip.fragment()?, ip)));
    let Some(((_, more), ip)) = fragment else {
        return to.send(&frame);
    };
    let name = (ip.source, ip.destination, ip.protocol, ip.id);
    waiting.entry(name).or_default().push(frame);
    if more {
        return Ok(());
    }
    let frames = waiting
        .remove(&name)
        .context("it has just been put there")?;
    reversed.fetch_add(1, Ordering::Relaxed);
    frames.iter().rev().try_for_each(|frame| to.send(frame))
}
