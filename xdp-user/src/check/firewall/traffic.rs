//! Handled traffic, and the sample packets that stand for it in the model of the rules.

use super::sample::{ESP, Endpoint, NetfilterHook, SamplePacket, TCP, UDP};
use std::net::Ipv4Addr;
use xdp_common::Direction;

/// Sources and destinations of handled packets.
pub(super) struct HandledTraffic {
    pub(super) wans: Vec<String>,
    pub(super) lans: Vec<String>,
    pub(super) vip: Ipv4Addr,
    pub(super) vip_is_local: bool,
    pub(super) server: Ipv4Addr,
    pub(super) server_is_local: bool,
}

/// UDP 500, UDP 4500, TCP 4500 and ESP.
const SERVICES: [(u8, Option<u16>, &str); 4] = [
    (UDP, Some(500), "UDP 500"),
    (UDP, Some(4500), "UDP 4500"),
    (TCP, Some(4500), "TCP 4500"),
    (ESP, None, "ESP"),
];

/// A sample packet and the name of its service.
pub(super) struct Sample {
    pub(super) packet: SamplePacket,
    pub(super) service: &'static str,
}

/// The packets of one direction that a hook sees. `to_vip` means as clients send them, before ikenat
/// translates them.
pub(super) fn samples(
    traffic: &HandledTraffic,
    hook: NetfilterHook,
    direction: Direction,
    to_vip: bool,
) -> Vec<Sample> {
    let local = traffic.server_is_local;
    let server = Endpoint::Host(traffic.server, local);
    let vip = Endpoint::Host(traffic.vip, traffic.vip_is_local);
    let client = Endpoint::Client([traffic.vip, traffic.server]);
    let inbound = direction == Direction::Inbound;
    let (from, to) = if inbound {
        (&traffic.wans, &traffic.lans)
    } else {
        (&traffic.lans, &traffic.wans)
    };
    let names = |names: &[String]| -> Vec<Option<String>> {
        if names.is_empty() {
            vec![None]
        } else {
            names.iter().cloned().map(Some).collect()
        }
    };
    let has_input = hook != NetfilterHook::Output && (inbound || !local);
    let has_output = !matches!(hook, NetfilterHook::Prerouting | NetfilterHook::Input);
    let inputs = if has_input { names(from) } else { vec![None] };
    let outputs = if has_output { names(to) } else { vec![None] };
    let mut samples = Vec::new();
    for (protocol, port, service) in SERVICES {
        // The kernel forwards only what it has to fragment, and TCP forbids that (DF).
        if protocol == TCP && !local && !to_vip {
            continue;
        }
        for input in &inputs {
            for output in &outputs {
                let packet = SamplePacket {
                    input: input.clone(),
                    output: output.clone(),
                    source: if inbound { client } else { server },
                    destination: match (inbound, to_vip) {
                        (true, true) => vip,
                        (true, false) => server,
                        (false, _) => client,
                    },
                    protocol,
                    source_port: port.filter(|_| !inbound),
                    destination_port: port.filter(|_| inbound),
                };
                samples.push(Sample { packet, service });
            }
        }
    }
    samples
}
