//! Nanoseconds per packet of the XDP program alone (`BPF_PROG_TEST_RUN`), for what is not ours, IKE, NAT-T ESP and ESP.
//!
//! A wrapper puts the packet back before every run; its own cost, with a program behind it that only passes, is
//! subtracted. Rounds are interleaved and the median is printed with its quartiles; the counters must show that every
//! packet was forwarded, or the figure means nothing.

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunOptions};
use ikenat_tests::bpf::{Dataplane, fixture, object};
use ikenat_tests::lab::frames::{Packet, protocol};
use ikenat_tests::lab::topology::{
    CLIENT, CLIENT_MAC, LAN, LAN_MAC, SERVER, SERVER_MAC, VIP, WAN, WAN_MAC, with_lab,
};
use ikenat_tests::lab::{Lab, Options, cleanup};
use xdp_common::{Class, Config, Direction, Hook, Reason, counters};
use xdp_core::Side;

const ROUNDS: usize = 15;
const REPEAT: u32 = 200_000;

/// One kind of packet, and what must be counted for it.
struct Kind {
    name: &'static str,
    side: Side,
    frame: Vec<u8>,
    counter: usize,
    nanoseconds: Vec<f64>,
}

fn main() -> Result<()> {
    cleanup::on_interruption()?;
    with_lab(Options::default(), measure)
}

fn kinds() -> Vec<Kind> {
    let payload: Vec<u8> = [0xc1, 2, 3, 4, 0, 0, 0, 1]
        .into_iter()
        .chain([7; 60])
        .collect();
    let ike: Vec<u8> = [[0x11; 8], [0x22; 8]]
        .concat()
        .into_iter()
        .chain([7; 60])
        .collect();
    let inbound = |port, payload: &Vec<u8>| {
        let packet = Packet::udp((CLIENT, 4500), (VIP, port), payload.clone());
        let mut packet = packet.with_macs(WAN_MAC, CLIENT_MAC);
        // A frame on the wire has 60 bytes at least.
        packet.padding = vec![0; 18_usize.saturating_sub(payload.len())];
        packet.build()
    };
    let outbound = |port, payload: &Vec<u8>| {
        let packet = Packet::udp((SERVER, port), (CLIENT, 4500), payload.clone());
        packet.with_macs(LAN_MAC, SERVER_MAC).build()
    };
    let esp_in =
        Packet::raw(CLIENT, VIP, protocol::ESP, payload.clone()).with_macs(WAN_MAC, CLIENT_MAC);
    let esp_out =
        Packet::raw(SERVER, CLIENT, protocol::ESP, payload.clone()).with_macs(LAN_MAC, SERVER_MAC);
    let kind = |name, side, frame, counter| Kind {
        name,
        side,
        frame,
        counter,
        nanoseconds: Vec::new(),
    };
    let class = |direction, class| counters::class(direction, class);
    use {Class as C, Direction as D, Side as S};
    vec![
        // First, since it makes the session and the flow that the inbound ones need.
        kind(
            "NAT-T ESP out",
            S::Lan,
            outbound(4500, &payload),
            class(D::Outbound, C::EspInUdp),
        ),
        kind(
            "NAT-T ESP in",
            S::Wan,
            inbound(4500, &payload),
            class(D::Inbound, C::EspInUdp),
        ),
        kind(
            "native ESP out",
            S::Lan,
            esp_out.build(),
            class(D::Outbound, C::Esp),
        ),
        kind(
            "native ESP in",
            S::Wan,
            esp_in.build(),
            class(D::Inbound, C::Esp),
        ),
        kind(
            "IKE out",
            S::Lan,
            outbound(500, &ike),
            class(D::Outbound, C::Ike),
        ),
        kind(
            "IKE in",
            S::Wan,
            inbound(500, &ike),
            class(D::Inbound, C::Ike),
        ),
        kind(
            "keepalive in",
            S::Wan,
            inbound(4500, &vec![0xff]),
            class(D::Inbound, C::Keepalive),
        ),
        kind(
            "not ours: other port",
            S::Wan,
            inbound(53, &payload),
            counters::reason(Reason::OtherPort),
        ),
        kind(
            "not ours: not IPv4",
            S::Wan,
            not_ipv4(inbound(53, &payload)),
            counters::reason(Reason::NotIpv4),
        ),
    ]
}

fn not_ipv4(mut frame: Vec<u8>) -> Vec<u8> {
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    frame
}

/// The wrapper.
struct Wrapper {
    restore: Ebpf,
}

fn beside(name: &str) -> Result<String> {
    Ok(object()?
        .with_file_name(name)
        .to_string_lossy()
        .into_owned())
}

fn load(object: &str, program: &str) -> Result<Ebpf> {
    let mut ebpf = EbpfLoader::new().load_file(object)?;
    let xdp: &mut Xdp = ebpf
        .program_mut(program)
        .context("failed to find a program")?
        .try_into()?;
    xdp.load()?;
    Ok(ebpf)
}

impl Wrapper {
    fn load() -> Result<Self> {
        Ok(Self {
            restore: load(&beside("restore.o")?, "ikenat_restore")?,
        })
    }

    /// Nanoseconds per run of the wrapper with a program behind it.
    fn run(&mut self, next: &Xdp, ingress: u32, frame: &[u8]) -> Result<f64> {
        let mut template: Array<&mut MapData, [u8; 48]> = self
            .restore
            .map_mut("TEMPLATE")
            .context("failed to find TEMPLATE")?
            .try_into()?;
        template.set(0, <[u8; 48]>::try_from(&frame[..48])?, 0)?;
        let mut jump: ProgramArray<&mut MapData> = self
            .restore
            .map_mut("NEXT")
            .context("failed to find NEXT")?
            .try_into()?;
        jump.set(0, next.fd()?, 0)?;
        let program: &Xdp = self
            .restore
            .program("ikenat_restore")
            .context("failed to find ikenat_restore")?
            .try_into()?;
        let context: [u32; 6] = [0, u32::try_from(frame.len())?, 0, ingress, 0, 0];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.ctx_in = Some(bytemuck::cast_slice(&context));
        options.repeat = REPEAT;
        let result = program.test_run(options)?;
        Ok(result.duration.as_secs_f64() * 1e9)
    }
}

fn measure(lab: &Lab) -> Result<()> {
    let config: Config = fixture::prepare(lab)?;
    lab.gateway.enter(|| {
        let mut dataplane = Dataplane::load(&config)?;
        dataplane.attach(WAN)?;
        dataplane.attach(LAN)?;
        let mut wrapper = Wrapper::load()?;
        let pass = load(&beside("peer.o")?, "ikenat_peer")?;
        let pass: &Xdp = pass.program("ikenat_peer").context("failed to find ikenat_peer")?.try_into()?;
        let mut kinds = kinds();
        for _ in 0..ROUNDS {
            for kind in &mut kinds {
                let ingress = fixture::ingress(&config, kind.side);
                let floor = wrapper.run(pass, ingress, &kind.frame)?;
                let before = dataplane.counters(Hook::Xdp)?[kind.counter];
                let whole = wrapper.run(dataplane.program()?, ingress, &kind.frame)?;
                let counted = dataplane.counters(Hook::Xdp)?[kind.counter] - before;
                ensure!(
                    counted == u64::from(REPEAT),
                    "{}: {counted} of {REPEAT} packets were counted: the figure would mean nothing",
                    kind.name
                );
                kind.nanoseconds.push(whole - floor);
            }
        }
        println!("ns per packet beyond a program that only passes, {ROUNDS} interleaved rounds of {REPEAT}");
        println!("{:<24}{:>8}{:>10}{:>10}", "", "median", "quartile", "quartile");
        for kind in &mut kinds {
            kind.nanoseconds.sort_by(f64::total_cmp);
            let at = |share: usize| kind.nanoseconds[(ROUNDS - 1) * share / 4];
            println!("{:<24}{:>8.1}{:>10.1}{:>10.1}", kind.name, at(2), at(1), at(3));
        }
        Ok(())
    })
}
