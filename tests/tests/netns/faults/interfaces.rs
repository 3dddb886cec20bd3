//! States of an interface at a start or when a packet arrives: used by another program, with a
//! smaller MTU than before, or gone with its network namespace.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::frames::{Captured, Packet, protocol};
use ikenat_tests::lab::ikenat::{Ikenat, binary, usual_arguments};
use ikenat_tests::lab::load::Load;
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::topology::{LAN, PEER, SERVER, VIP, WAN};
use ikenat_tests::lab::wire::{Wire, at_client, at_server, esp, from_client, from_server};
use ikenat_tests::suite::Scenario;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use xdp_common::cpu::egress_mtu;

use super::neighbours::lan_egress;
use crate::support::{
    PROGRAMS, attachments, everything_crosses, no_loss, patience, peer_object, pins, tenth_rate,
    timed_command,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool"];
    vec![
        Scenario::new("a_dispatcher_of_libxdp_is_named_and_left_alone", dispatcher)
            .with_programs(TOOLS),
        Scenario::new("an_mtu_that_changes_is_followed", mtu).alone(),
        Scenario::new("mtus_that_change_in_a_row_are_followed_at_once", mtus).alone(),
        Scenario::new("a_server_that_changes_has_all_live_flows_at_once", server),
        Scenario::new(
            "a_namespace_that_is_destroyed_leaves_pins_that_a_start_heals",
            namespace,
        )
        .with_programs(TOOLS),
    ]
}

/// The program that passes everything, under another name: the name overwrites an unused string of
/// the object.
fn renamed_peer(lab: &Lab, name: &str) -> Result<PathBuf> {
    let path = peer_object()?;
    let mut bytes = fs::read(&path).with_context(|| format!("failed to read {path}"))?;
    let file = object::File::parse(bytes.as_slice()).context("failed to parse the object")?;
    let strings = file.section_by_name(".strtab").context("no .strtab")?;
    let (start, size) = strings.file_range().context("an empty .strtab")?;
    let strings = usize::try_from(start)?..usize::try_from(start + size)?;
    let old = file
        .symbols()
        .find(|symbol| symbol.name() == Ok("ikenat_peer"))
        .context("no ikenat_peer")?;
    // An entry of the symbol table: 24 bytes, of which the first four say where its name begins.
    let table = file.section_by_name(".symtab").context("no .symtab")?;
    let (table, _) = table.file_range().context("an empty .symtab")?;
    let entry = usize::try_from(table)? + old.index().0 * 24;
    let at = |wanted: &[u8]| {
        let all = &bytes[strings.clone()];
        all.windows(wanted.len()).position(|found| found == wanted)
    };
    let free = at(b".debug_abbrev\0").or_else(|| at(b".debug_frame\0"));
    let free = free.context("no string to overwrite")?;
    ensure!(name.len() < ".debug_abbrev".len() + 2, "{name} is too long");
    // The new string is one byte longer than the old one: its terminator replaces the first letter
    // of the next string.
    let to = strings.start + free;
    bytes[to..to + name.len()].copy_from_slice(name.as_bytes());
    bytes[to + name.len()] = 0;
    bytes[entry..entry + 4].copy_from_slice(&u32::try_from(free)?.to_le_bytes());
    let renamed = lab.directory().join("renamed.o");
    fs::write(&renamed, bytes).context("failed to write an object")?;
    Ok(renamed)
}

fn dispatcher(lab: &Lab) -> Result<()> {
    let object = renamed_peer(lab, "xdp_dispatcher")?;
    for interface in [WAN, LAN] {
        lab.gateway.run(&format!(
            "unshare --mount ip link set dev {interface} xdpdrv obj {} sec xdp",
            object.display()
        ))?;
        let before = attachments(lab)?;
        ensure!(before.contains("xdp_dispatcher"), "{before}");
        let mut command = timed_command(lab, &usual_arguments())?;
        let output = command.arg("--bpffs").arg(lab.bpffs()).output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        let unload = format!("xdp-loader unload {interface} --all");
        for word in [interface, "`xdp_dispatcher`", &unload] {
            ensure!(text.contains(word), "{word:?} is not in: {text}");
        }
        ensure!(output.status.code() == Some(1), "{text}");
        ensure!(attachments(lab)? == before, "it was touched");
        ensure!(pins(&lab.bpffs())?.is_empty(), "pins are left");
        lab.gateway
            .run(&format!("ip link set dev {interface} xdp off"))?;
    }
    let _ikenat = Ikenat::start(lab)?;
    everything_crosses(lab)
}

/// A restart names another server while a flow of the fast path lives: the flow's next packet goes
/// to the new server, and packets from the new server leave with the VIP. Packets from the old
/// server are no longer handled. (The kernel's conntrack would keep the flow on the old server.)
fn server(lab: &Lab) -> Result<()> {
    const OTHER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 2);
    lab.server
        .run(&format!("ip address add {OTHER}/24 dev {PEER}"))?;
    let ikenat = Ikenat::start(lab)?;
    let wire = Wire::open(lab)?;
    for sequence in 1..=5 {
        wire.inbound(&from_client(4500, 4500, esp(0xC000_0007, sequence, 40)))?;
        wire.outbound(&from_server(4500, 4500, esp(0xC000_0008, sequence, 40)))?;
    }
    ikenat.kill()?;
    let mut words = usual_arguments();
    let place = words.iter().position(|word| *word == SERVER.to_string());
    words[place.context("no server among the arguments")?] = OTHER.to_string();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let _ikenat = Ikenat::run(lab, &lab.gateway, "ikenat", &words)?;
    let log = fs::read_to_string(lab.log("ikenat"))?;
    let said = format!("service default: server {SERVER} -> {OTHER}");
    ensure!(log.contains(&said), "{log}");
    let inbound = from_client(4500, 4500, esp(0xC000_0007, 6, 40));
    let mut wanted = at_server(&inbound);
    wanted.destination = OTHER;
    wire.inbound_frames(&[inbound.build()], &[wanted.build()])?;
    let mut outbound = from_server(4500, 4500, esp(0xC000_0008, 6, 40));
    let wanted = at_client(&outbound);
    outbound.source = OTHER;
    wire.outbound_frames(&[outbound.build()], &[wanted.build()])
}

/// ESP of 1,400 bytes that must not be fragmented.
fn large(sequence: u32) -> Packet {
    const DONT_FRAGMENT: u16 = 0x4000;
    let mut packet = from_client(4500, 4500, esp(0xC000_0001, sequence, 1372));
    packet.flags = DONT_FRAGMENT;
    packet
}

/// A packet arrives, translated, among those of the load.
fn crosses(wire: &Wire, packet: &Packet) -> Result<()> {
    let wanted = at_server(packet).build();
    wire.server.drain()?;
    wire.client.send(&packet.build())?;
    let came = wire
        .server
        .find(Duration::from_secs(2), |frame| frame == wanted)?;
    came.map(drop).context("it did not arrive as it must")
}

fn mtu(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    let wire = Wire::open(lab)?;
    crosses(&wire, &large(1)).context("at 1,500 bytes")?;
    lab.gateway.run(&format!("ip link set {LAN} mtu 1300"))?;
    followed(lab, 1300, Instant::now() + patience(Duration::from_secs(2)))?;
    wire.server.drain()?;
    wire.client.drain()?;
    wire.client.send(&large(10).build())?;
    let error = wire.client.find(Duration::from_secs(2), |frame| {
        Captured::read(frame).is_ok_and(|ip| {
            ip.protocol == protocol::ICMP && ip.source == VIP && ip.body[..2] == [3, 4]
        })
    })?;
    let error = Captured::read(&error.context("no ICMP error names the new MTU")?)?;
    ensure!(error.body[6..8] == 1300_u16.to_be_bytes(), "{error:?}");
    let wanted = at_server(&large(10)).build();
    let came = wire.server.find(Duration::from_millis(500), |frame| {
        frame.len() > 1314 || frame == wanted
    })?;
    ensure!(came.is_none(), "a packet that is too large was sent");
    load.flows().context("what fits goes on")?;
    lab.gateway.run(&format!("ip link set {LAN} mtu 1500"))?;
    followed(lab, 1500, Instant::now() + patience(Duration::from_secs(2)))?;
    crosses(&wire, &large(11)).context("at 1,500 bytes again")?;
    load.flows()?;
    no_loss(&without_foreign(
        load.losses("the MTU of the LAN lowered and raised")?,
    ))
}

/// Waits until the dataplane has this MTU of the LAN.
pub(crate) fn followed(lab: &Lab, mtu: u16, deadline: Instant) -> Result<()> {
    while egress_mtu(lan_egress(lab)?) != mtu {
        ensure!(
            Instant::now() < deadline,
            "the MTU of {mtu} is not followed in time"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The daemon is notified of each change. One that looked four times a second would need ten seconds
/// for these, because each change comes right after it has followed the one before.
fn mtus(lab: &Lab) -> Result<()> {
    const CHANGES: usize = 40;
    let _ikenat = Ikenat::start(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    load.flows()?;
    let began = Instant::now();
    let deadline = began + patience(Duration::from_secs(5));
    for mtu in (1300..).take(CHANGES) {
        lab.gateway.run(&format!("ip link set {LAN} mtu {mtu}"))?;
        followed(lab, mtu, deadline)
            .with_context(|| format!("of {CHANGES} MTUs in a row, from 1300 on"))?;
    }
    println!("{CHANGES} MTUs in a row: {:.2?}", began.elapsed());
    load.flows()?;
    no_loss(&load.losses("the MTU of the LAN changes in a row")?)
}

/// The receivers of the load also saw the large packets, which are not of it.
fn without_foreign(
    mut losses: [ikenat_tests::lab::load::Loss; 2],
) -> [ikenat_tests::lab::load::Loss; 2] {
    for loss in &mut losses {
        loss.foreign = 0;
    }
    losses
}

fn namespace(lab: &Lab) -> Result<()> {
    // A second gateway for this test: the same names and addresses in another namespace.
    let other = Lab::new(ikenat_tests::lab::Options::default())?;
    let start = |lab_of_pins: &Lab, gateway: &Lab, log: &str| -> Result<Process> {
        let mut command = gateway.gateway.command(binary()?);
        command
            .args(usual_arguments())
            .arg("--bpffs")
            .arg(lab_of_pins.bpffs());
        let mut process = Process::spawn(&mut command, lab.log(log))?;
        process.wait_for_log("ready: translating", Duration::from_secs(30))?;
        Ok(process)
    };
    let mut daemon = start(lab, &other, "ikenat-other")?;
    everything_crosses(&other)?;
    // While the daemon runs, it holds its namespace. No other start may take over the instance.
    let name = other.gateway.name().to_owned();
    execute(std::process::Command::new("ip").args(["netns", "delete", &name]))?;
    ensure!(
        lab.status()?.attached.iter().all(|one| one.alive),
        "it went while its daemon lived"
    );
    daemon.kill()?;
    drop(other);
    // The kernel takes a namespace apart in the background.
    let began = Instant::now();
    let dead = || -> Result<bool> {
        let attached = lab.status()?.attached;
        Ok(attached.len() == PROGRAMS && attached.iter().all(|one| !one.alive))
    };
    while !dead()? {
        ensure!(
            began.elapsed() < Duration::from_secs(20),
            "its programs live: {:?}",
            lab.status()?.attached
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let shown = execute(&mut lab.ikenat(&["status"])?)?;
    ensure!(shown.matches("DEAD").count() == PROGRAMS, "{shown}");
    let ikenat = Ikenat::start(lab).context("in a namespace that lives")?;
    let attached = lab.status()?.attached;
    ensure!(
        attached.len() == PROGRAMS && attached.iter().all(|one| one.alive),
        "{attached:?}"
    );
    everything_crosses(lab)?;
    ikenat.kill()?;
    lab.unload()?;
    ensure!(pins(&lab.bpffs())?.is_empty(), "pins are left");
    Ok(())
}
