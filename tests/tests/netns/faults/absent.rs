//! Interfaces that do not exist at a start, and such that refuse their program when they appear: they
//! block nothing else.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::ikenat::{Ikenat, binary, usual_arguments};
use ikenat_tests::lab::load::Load;
use ikenat_tests::lab::netns::execute;
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::second_wan::{WAN_2, second_wan};
use ikenat_tests::lab::topology::{LAN, SERVER, VIP, WAN};
use ikenat_tests::lab::udp_pair::{Server, UdpPair};
use ikenat_tests::lab::wire::{Wire, at_server, cross, esp, from_client};
use ikenat_tests::suite::Scenario;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::bpffs::directory;
use super::devices::{only_the_outage, plug_in, sides};
use crate::check::{expect, findings_of, question};
use crate::failpoints::WISH;
use crate::support::{
    PROGRAMS, attachments, everything_crosses, no_loss, patience, peer_object, refused, tenth_rate,
    timed_command, wait_for_log,
};
use crate::topology::addresses::start_on;
use crate::topology::uplinks::far;

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool"];
    vec![
        Scenario::new("an_absent_uplink_is_attached_when_it_appears", uplink).alone(),
        Scenario::new(
            "an_absent_uplink_does_not_stop_the_repair_of_others",
            repair,
        )
        .alone(),
        Scenario::new(
            "a_device_that_refuses_does_not_stop_the_repair_of_others",
            one_refuses,
        )
        .alone(),
        Scenario::new(
            "a_device_that_lost_its_program_to_another_does_not_stop_the_repair_of_others",
            one_is_taken,
        )
        .with_programs(TOOLS),
        Scenario::new("no_command_names_an_absent_interface", no_command),
        Scenario::new("without_a_way_to_the_server_a_start_is_refused", no_way)
            .with_programs(TOOLS),
        Scenario::new("a_local_server_goes_on_when_the_only_lan_is_gone", no_lan)
            .with_programs(TOOLS),
        Scenario::new(
            "a_device_that_refuses_is_tried_more_and_more_rarely",
            refusing,
        ),
    ]
}

fn interfaces() -> String {
    format!("--wan {WAN} --wan {WAN_2} --lan {LAN}")
}

/// As many programs as an uplink more has.
const PROGRAMS_WITH_UPLINK: usize = PROGRAMS + 3;

fn attached(lab: &Lab, wanted: usize) -> Result<()> {
    let attached = lab.status()?.attached;
    ensure!(
        attached.len() == wanted && attached.iter().all(|one| one.alive),
        "{wanted} programs are expected: {attached:?}"
    );
    Ok(())
}

/// A packet of a client of the second WAN reaches the server.
fn crosses_from_far(lab: &Lab, far_client: &PacketSocket) -> Result<()> {
    let packet = far(from_client(4500, 4500, esp(0xC000_0009, 1, 60)));
    let wire = Wire::open(lab)?;
    let wanted = at_server(&packet).build();
    cross(far_client, &wire.server, &[packet.build()], &[wanted])
}

/// A command about an interface that does not exist would fail.
fn no_command(lab: &Lab) -> Result<()> {
    const ELSEWHERE: &str = "198.51.100.9";
    let words = format!("--wan {WAN_2} --wan {WAN} --lan {LAN}");
    let ikenat = start_on(lab, &words, ELSEWHERE.parse()?)?;
    let said = format!("`ip address add {ELSEWHERE}/32 dev {WAN}`");
    ensure!(ikenat.log().contains(&said), "{}", ikenat.log());
    drop(ikenat);
    let findings = question(lab, WAN_2, ELSEWHERE, &SERVER.to_string())?;
    let route = expect(&findings, ("server-route", None), "error", &["not a LAN"])?;
    ensure!(route.fix.is_empty(), "{route:#?}");
    Ok(())
}

fn uplink(lab: &Lab) -> Result<()> {
    let ikenat = start_on(lab, &interfaces(), VIP)?;
    let said = format!("{WAN_2}: no such interface; it is attached when one of that name appears");
    ensure!(ikenat.log().contains(&said), "{}", ikenat.log());
    attached(lab, PROGRAMS)?;
    ensure!(
        lab.status()?.absent == [WAN_2],
        "{:?}",
        lab.status()?.absent
    );
    absent_in_check(lab)?;
    everything_crosses(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    load.flows()?;
    let (_namespace, far_client) = second_wan(lab)?;
    wait_for_log(lab, "ready again")?;
    attached(lab, PROGRAMS_WITH_UPLINK)?;
    ensure!(
        lab.status()?.absent.is_empty(),
        "{:?}",
        lab.status()?.absent
    );
    load.flows()?;
    no_loss(&load.losses("a second WAN appears")?)?;
    crosses_from_far(lab, &far_client)
}

/// It is a warning, and what `check` proposes for the running instance has the absent interface too.
fn absent_in_check(lab: &Lab) -> Result<()> {
    let mut command = lab.gateway.command(binary()?);
    command.arg("check").arg("--bpffs").arg(lab.bpffs());
    let findings = findings_of(command)?;
    let words = ["attached when it appears"];
    expect(&findings, ("interface", Some(WAN_2)), "warning", &words)?;
    let wrong = findings.iter().find(|finding| finding.level == "error");
    ensure!(wrong.is_none(), "{wrong:?}");
    Ok(())
}

/// Replaces the LAN under a load: nothing is lost but what the LAN itself loses, and the programs of
/// the two interfaces that are there are attached afterwards.
fn replace_lan(lab: &Lab, beside: &str) -> Result<()> {
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    load.flows().with_context(|| beside.to_owned())?;
    let [_, side] = sides(lab);
    // Not the `ready again` of an exchange before.
    std::fs::write(lab.log("ikenat"), "")?;
    lab.gateway.run(&format!("ip link del {LAN}"))?;
    let began = Instant::now();
    wait_for_log(lab, &format!("{LAN}: interface is gone"))?;
    plug_in(lab, &side)?;
    let outage = began.elapsed();
    wait_for_log(lab, "ready again")?;
    load.flows_within(patience(Duration::from_secs(3)))?;
    let losses = load.losses(&format!("the LAN is replaced, {beside}"))?;
    only_the_outage(&losses, outage)?;
    attached(lab, PROGRAMS)
}

/// The second uplink goes, then the LAN is replaced: the LAN is attached again without the uplink, and
/// the uplink when it is back.
fn repair(lab: &Lab) -> Result<()> {
    let (namespace, far_client) = second_wan(lab)?;
    let _ikenat = start_on(lab, &interfaces(), VIP)?;
    attached(lab, PROGRAMS_WITH_UPLINK)?;
    // The far end of the wire goes with its namespace.
    drop((namespace, far_client));
    wait_for_log(lab, &format!("{WAN_2}: interface is gone"))?;
    replace_lan(lab, "one WAN is absent")?;
    everything_crosses(lab)?;
    std::fs::write(lab.log("ikenat"), "")?;
    let (_namespace, far_client) = second_wan(lab)?;
    wait_for_log(lab, "ready again")?;
    attached(lab, PROGRAMS_WITH_UPLINK)?;
    crosses_from_far(lab, &far_client)
}

/// The second uplink and the LAN are replaced, the uplink by a bridge, which has no native XDP.
fn one_refuses(lab: &Lab) -> Result<()> {
    let (namespace, far_client) = second_wan(lab)?;
    let _ikenat = start_on(lab, &interfaces(), VIP)?;
    attached(lab, PROGRAMS_WITH_UPLINK)?;
    drop((namespace, far_client));
    wait_for_log(lab, &format!("{WAN_2}: interface is gone"))?;
    lab.gateway
        .run(&format!("ip link add {WAN_2} type bridge"))?;
    wait_for_log(lab, &format!("{WAN_2} refuses native XDP"))?;
    replace_lan(lab, "one WAN refuses")?;
    ensure!(
        lab.status()?.absent == [WAN_2],
        "{:?}",
        lab.status()?.absent
    );
    everything_crosses(lab)?;
    // It is still wanted.
    std::fs::write(lab.log("ikenat"), "")?;
    lab.gateway.run(&format!("ip link del {WAN_2}"))?;
    let (_namespace, far_client) = second_wan(lab)?;
    wait_for_log(lab, "ready again")?;
    attached(lab, PROGRAMS_WITH_UPLINK)?;
    crosses_from_far(lab, &far_client)
}

/// Somebody detaches the XDP program of the second uplink and attaches another. The LAN, whose program
/// is detached too, has it again; and so has the uplink when the other program is gone.
fn one_is_taken(lab: &Lab) -> Result<()> {
    let (_namespace, far_client) = second_wan(lab)?;
    let ikenat = start_on(lab, &interfaces(), VIP)?;
    attached(lab, PROGRAMS_WITH_UPLINK)?;
    let object = peer_object()?;
    // It looks each second, and would attach its own program first.
    let daemon = Pid::from_raw(ikenat.id());
    kill(daemon, Signal::SIGSTOP)?;
    for pin in ["link-xdp-wan2", "link-xdp-lan"] {
        let pin = directory(lab).join(pin);
        execute(
            Command::new("bpftool")
                .args(["link", "detach", "pinned"])
                .arg(pin),
        )?;
    }
    lab.gateway.run(&format!(
        "unshare --mount ip link set dev {WAN_2} xdpdrv obj {object} sec xdp"
    ))?;
    kill(daemon, Signal::SIGCONT)?;
    wait_for_log(lab, "failed to re-attach")?;
    wait_for_log(lab, &format!("{WAN_2} already has an XDP program"))?;
    wait_for_log(lab, "ready again")?;
    let status = lab.status()?;
    ensure!(status.absent.is_empty(), "{:?}", status.absent);
    let dead: Vec<_> = status.attached.iter().filter(|one| !one.alive).collect();
    ensure!(
        matches!(dead[..], [one] if one.interface == WAN_2 && one.hook == "xdp"),
        "{dead:?}"
    );
    everything_crosses(lab)?;
    // By tc.
    crosses_from_far(lab, &far_client)?;
    // The LAN is replaced, and attached again beside it.
    std::fs::write(lab.log("ikenat"), "")?;
    let [_, side] = sides(lab);
    lab.gateway.run(&format!("ip link del {LAN}"))?;
    wait_for_log(lab, &format!("{LAN}: interface is gone"))?;
    plug_in(lab, &side)?;
    wait_for_log(lab, "ready again")?;
    everything_crosses(lab)?;
    crosses_from_far(lab, &far_client)?;
    std::fs::write(lab.log("ikenat"), "")?;
    lab.gateway
        .run(&format!("ip link set dev {WAN_2} xdp off"))?;
    wait_for_log(lab, "ready again")?;
    attached(lab, PROGRAMS_WITH_UPLINK)?;
    crosses_from_far(lab, &far_client)
}

fn no_way(lab: &Lab) -> Result<()> {
    let start = |words: &str, names: &[&str]| -> Result<()> {
        let (vip, server) = (VIP.to_string(), SERVER.to_string());
        let mut all = vec!["run", "--vip", &vip, "--server", &server];
        all.extend(words.split_whitespace());
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        let mut command = timed_command(lab, &all)?;
        command.arg("--bpffs").arg(lab.bpffs());
        refused(lab, command, names)
    };
    start("--wan up0 --wan up1 --lan lan0", &["no interface up0"])?;
    start("--wan wan0 --lan in0 --lan in1", &["no interface in0"])?;
    // The server is behind a LAN that exists, and is not named.
    start("--wan wan0 --lan wan0 --lan in0", &["no interface in0"])?;
    start(
        "--wan wan0 --wan up0 --lan up0 --lan lan0",
        &["up0 is both"],
    )
}

/// A server on this host beside one behind the only LAN, which goes: the WAN is attached again without
/// it, and a start needs no LAN.
fn no_lan(lab: &Lab) -> Result<()> {
    const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    let services = format!("--service here:{VIP}={HERE} --service far:203.0.113.2={SERVER}");
    let words = format!("run --wan {WAN} --lan {LAN} {services}");
    let words: Vec<&str> = words.split_whitespace().collect();
    let start = || Ikenat::run(lab, &lab.gateway, "ikenat", &words);
    lab.gateway
        .run(&format!("ip address add {HERE}/32 dev lo"))?;
    let talks = || -> Result<()> {
        let server = Server {
            namespace: &lab.gateway,
            address: HERE,
            interface: None,
        };
        UdpPair::open(lab, server, 4500)?.exchange(&esp(0xC000_0009, 1, 60))
    };
    let ikenat = start()?;
    talks()?;
    lab.gateway.run(&format!("ip link del {LAN}"))?;
    wait_for_log(lab, &format!("{LAN}: interface is gone"))?;
    let pin = directory(lab).join("link-xdp-wan");
    execute(
        Command::new("bpftool")
            .args(["link", "detach", "pinned"])
            .arg(pin),
    )?;
    wait_for_log(lab, "ready again")?;
    // XDP, tc ingress and tc egress.
    attached(lab, 3)?;
    talks().context("attached again without a LAN")?;
    ikenat.kill()?;
    let ikenat = start()?;
    let said = format!("{LAN}: no such interface; it is attached when one of that name appears");
    ensure!(ikenat.log().contains(&said), "{}", ikenat.log());
    attached(lab, 3)?;
    talks().context("started without a LAN")?;
    // The LAN comes back to both.
    let [_, side] = sides(lab);
    plug_in(lab, &side)?;
    wait_for_log(lab, "ready again")?;
    attached(lab, PROGRAMS)?;
    talks().context("with the LAN")
}

/// A bridge has no native XDP. Each attempt to attach it costs a run of the verifier.
fn refusing(lab: &Lab) -> Result<()> {
    const QUIET: Duration = Duration::from_secs(12);
    let mut command = lab.gateway.command(binary()?);
    command.args(usual_arguments()).args(["--wan", WAN_2]);
    command.arg("--bpffs").arg(lab.bpffs()).env(WISH, "list");
    let mut process = Process::spawn(&mut command, lab.log("ikenat"))?;
    process.wait_for_log("ready: translating", patience(Duration::from_secs(30)))?;
    let started = steps(&process);
    let before = attachments(lab)?;
    lab.gateway
        .run(&format!("ip link add {WAN_2} type bridge"))?;
    wait_for_log(lab, "failed to re-attach")?;
    wait_for_log(lab, &format!("{WAN_2} refuses native XDP"))?;
    let began = Instant::now();
    let first = steps(&process) - started;
    std::thread::sleep(QUIET);
    let attempts = (steps(&process) - started) / first;
    // After one, two, four and eight seconds; one a second would be twelve.
    ensure!(
        (2..=5).contains(&attempts),
        "{attempts} attempts in {:?}:\n{}",
        began.elapsed(),
        process.log()
    );
    everything_crosses(lab)?;
    // A change ends the wait, which would be eight seconds now.
    let waiting = steps(&process);
    lab.gateway.run(&format!("ip link set {WAN_2} mtu 1400"))?;
    let changed = Instant::now();
    while steps(&process) < waiting + first {
        ensure!(
            changed.elapsed() < patience(Duration::from_secs(2)),
            "a change of the device is not followed:\n{}",
            process.log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(
        process.log().matches("failed to re-attach").count() == 1,
        "the same error is logged more than once:\n{}",
        process.log()
    );
    lab.gateway.run(&format!("ip link del {WAN_2}"))?;
    ensure!(
        attachments(lab)? == before,
        "before:\n{before}\nafter:\n{}",
        attachments(lab)?
    );
    std::fs::write(lab.log("ikenat"), "")?;
    let (_namespace, far_client) = second_wan(lab)?;
    wait_for_log(lab, "ready again")?;
    attached(lab, PROGRAMS_WITH_UPLINK)?;
    crosses_from_far(lab, &far_client)
}

/// How often an object was loaded.
fn steps(process: &Process) -> usize {
    process.log().matches(": maps-made").count()
}
