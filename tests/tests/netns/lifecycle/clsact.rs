//! The slow path as a filter in a clsact qdisc, as on kernels before 6.6: it stays without the
//! daemon, is replaced without a gap, leaves the filters of others alone and is removed without a
//! trace. On newer kernels `--tc clsact` requests it.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::kernel::kernel_is_at_least;
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::{Ikenat, usual_arguments};
use ikenat_tests::lab::netns::{Namespace, execute};
use ikenat_tests::lab::topology::{LAN, WAN};
use ikenat_tests::suite::Scenario;

use crate::support::{
    arguments_with, attachments, count, everything_crosses, force_slow_path, ikenat_egress_filters,
    ikenat_filters, log_of, nothing_is_left, one_filter_each, pins, refused, timed_command,
    unload_command,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    const TOOLS: &[&str] = &["tc", "bpftool"];
    let test = |name, test| Scenario::new(name, test).with_programs(TOOLS);
    vec![
        test(
            "a_clsact_filter_does_what_tcx_does_and_unload_removes_it",
            whole_life,
        ),
        test("a_clsact_that_was_there_stays", existing),
        test(
            "a_clsact_that_ikenat_added_stays_while_others_use_it",
            used_by_others,
        ),
        test(
            "a_foreign_filter_at_ikenats_priority_is_named_and_left_alone",
            in_our_place,
        ),
        test(
            "an_ingress_qdisc_on_the_wan_is_named_and_left_alone",
            ingress_qdisc,
        ),
        test("a_removed_filter_is_put_back", put_back),
        test("the_tc_backend_stays_as_it_was", way_stays),
        test("a_filter_follows_to_another_interface", moved),
        test("a_filter_returns_to_a_recreated_interface", remade),
        test("a_filter_without_pins_is_taken_over", orphan),
        test("a_start_that_fails_leaves_no_filter", failed_start),
        test(
            "unload_finds_a_filter_by_its_tables_alone",
            no_pins_of_filters,
        ),
    ]
}

const CLSACT: [&str; 2] = ["--tc", "clsact"];
/// cBPF that matches nothing, so that what comes after it sees the packet.
const FOREIGN: &str = "bpf bytecode '1,6 0 0 0,'";

fn filters(place: &Namespace, interface: &str) -> Result<String> {
    place.run(&format!("tc filter show dev {interface} ingress"))
}

/// What `status` shows for the slow path: WAN, LAN and what leaves by the WAN.
fn slow_hooks(lab: &Lab) -> Result<Vec<String>> {
    let attached = lab.status()?.attached;
    let slow: Vec<_> = attached.iter().filter(|one| one.hook != "xdp").collect();
    let places: Vec<_> = slow
        .iter()
        .map(|one| (one.interface.as_str(), one.mode.as_str()))
        .collect();
    ensure!(
        places == [(WAN, "ingress"), (LAN, "ingress"), (WAN, "egress")],
        "status shows {places:?}"
    );
    Ok(slow.into_iter().map(|one| one.hook.clone()).collect())
}

fn whole_life(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    force_slow_path(lab)?;
    let ikenat = Ikenat::start_with(lab, &CLSACT)?;
    one_filter_each(lab)?;
    everything_crosses(lab)?;
    ensure!(
        count(lab, "tc", "esp-in-udp-in")? > 0 && count(lab, "xdp", "esp-in-udp-in")? == 0,
        "the slow path was not taken"
    );
    ensure!(
        slow_hooks(lab)? == ["clsact"; 3],
        "status shows {:?}",
        slow_hooks(lab)?
    );
    // The same from inside, where the filters need not be looked for.
    let mut inside = lab.gateway.command(ikenat_tests::lab::ikenat::binary()?);
    let inside = execute(inside.args(["status", "--bpffs"]).arg(lab.bpffs()))?;
    ensure!(
        inside.matches("clsact").count() == 3 && !inside.contains("DEAD"),
        "{inside}"
    );
    ikenat.kill()?;
    everything_crosses(lab).context("without the daemon")?;
    one_filter_each(lab)?;
    let outside = execute(&mut lab.ikenat(&["status"])?)?;
    ensure!(!outside.contains("DEAD"), "{outside}");
    // From outside of the gateway's namespace, as from any shell.
    lab.unload()?;
    nothing_is_left(lab, &before)?;
    lab.unload().context("a second unload")
}

fn existing(lab: &Lab) -> Result<()> {
    lab.gateway.shell(&format!(
        "tc qdisc add dev {WAN} clsact
         tc filter add dev {WAN} ingress pref 1 {FOREIGN}
         tc filter add dev {WAN} egress pref 1 handle 0x1ce {FOREIGN}
         tc filter add dev {WAN} ingress pref 7 {FOREIGN}
         tc qdisc add dev {LAN} ingress
         tc filter add dev {LAN} parent ffff: pref 1 {FOREIGN}"
    ))?;
    let everything = || -> Result<String> {
        let mut text = attachments(lab)?;
        for interface in [WAN, LAN] {
            text.push_str(&filters(&lab.gateway, interface)?);
        }
        text.push_str(
            &lab.gateway
                .run(&format!("tc filter show dev {WAN} egress"))?,
        );
        // The kernel has two names for the block of an ingress qdisc and shows the one from the
        // latest request.
        Ok(text.replace("parent ffff: ", ""))
    };
    let before = everything()?;
    let ikenat = Ikenat::start_with(lab, &CLSACT)?;
    one_filter_each(lab)?;
    everything_crosses(lab)?;
    ikenat.kill()?;
    let _again = Ikenat::start_with(lab, &CLSACT)?;
    one_filter_each(lab)?;
    everything_crosses(lab)?;
    execute(&mut lab.ikenat(&["unload", "--force"])?)?;
    let after = everything()?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}

fn used_by_others(lab: &Lab) -> Result<()> {
    let ikenat = Ikenat::start_with(lab, &CLSACT)?;
    lab.gateway
        .shell(&format!("tc filter add dev {WAN} egress pref 10 {FOREIGN}"))?;
    ikenat.kill()?;
    lab.unload()?;
    let qdiscs = lab.gateway.run("tc qdisc show")?;
    ensure!(qdiscs.matches("clsact").count() == 1, "{qdiscs}");
    let egress = lab
        .gateway
        .run(&format!("tc filter show dev {WAN} egress"))?;
    ensure!(egress.contains("pref 10"), "{egress}");
    ensure!(ikenat_filters(lab, WAN)? + ikenat_filters(lab, LAN)? == 0);
    Ok(())
}

fn in_our_place(lab: &Lab) -> Result<()> {
    for (interface, block) in [(WAN, "ingress"), (LAN, "ingress"), (WAN, "egress")] {
        // The very same handle, and a priority that has room for another protocol only.
        for filter in [
            format!("pref 5 handle 0x1ce {FOREIGN}"),
            format!("protocol ip pref 5 {FOREIGN}"),
        ] {
            lab.gateway.shell(&format!(
                "tc qdisc add dev {interface} clsact
                 tc filter add dev {interface} {block} {filter}"
            ))?;
            let names = [
                interface,
                "priority 5",
                &format!("tc filter del dev {interface} {block}"),
            ];
            stays_as_it_was(lab, interface, &names)
                .with_context(|| format!("{filter} on {interface} {block}"))?;
            lab.gateway
                .run(&format!("tc qdisc del dev {interface} clsact"))?;
        }
    }
    Ok(())
}

/// A start is refused, and every filter of an interface is as it was before.
fn stays_as_it_was(lab: &Lab, interface: &str, names: &[&str]) -> Result<()> {
    let everything = || -> Result<String> {
        let egress = format!("tc filter show dev {interface} egress");
        let both = filters(&lab.gateway, interface)? + &lab.gateway.run(&egress)?;
        // What the kernel calls the block of an ingress qdisc depends on the latest question.
        Ok(both.replace("parent ffff: ", "").replace("ingress ", ""))
    };
    let before = everything()?;
    let mut command = timed_command(lab, &usual_arguments())?;
    command.args(CLSACT).arg("--bpffs").arg(lab.bpffs());
    refused(lab, command, names)?;
    let after = everything()?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}

/// An ingress qdisc has no egress block: a request for an egress filter puts it among the ingress
/// filters.
fn ingress_qdisc(lab: &Lab) -> Result<()> {
    lab.gateway.shell(&format!(
        "tc qdisc add dev {WAN} ingress
         tc filter add dev {WAN} parent ffff: pref 1 {FOREIGN}"
    ))?;
    stays_as_it_was(lab, WAN, &[WAN, "`ingress` qdisc", "clsact"])
}

fn put_back(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    force_slow_path(lab)?;
    let ikenat = Ikenat::start_with(lab, &CLSACT)?;
    lab.gateway.shell(&format!(
        "tc qdisc del dev {WAN} clsact; tc filter del dev {LAN} ingress"
    ))?;
    removed_is_put_back(lab)?;
    // What goes out alone.
    lab.gateway
        .run(&format!("tc filter del dev {WAN} egress"))?;
    removed_is_put_back(lab)?;
    everything_crosses(lab)?;
    ikenat.kill()?;
    lab.unload()?;
    nothing_is_left(lab, &before)
}

fn removed_is_put_back(lab: &Lab) -> Result<()> {
    let began = Instant::now();
    while one_filter_each(lab).is_err() && began.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(50));
    }
    one_filter_each(lab).context("5 s after they were removed")
}

fn way_stays(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    Ikenat::start_with(lab, &CLSACT)?.kill()?;
    // Asked for nothing, it stays as it is, also where the kernel has tcx.
    Ikenat::start(lab)?.kill()?;
    one_filter_each(lab)?;
    ensure!(slow_hooks(lab)? == ["clsact"; 3]);
    let log = log_of(lab, WAN, &["--tc", "tcx"])?;
    let has_tcx = kernel_is_at_least((6, 6))?;
    let unload = unload_command(lab, "default");
    let expected = if has_tcx { &unload } else { "6.6" };
    ensure!(log.contains(expected) && !log.contains("ready"), "{log}");
    one_filter_each(lab)?;
    lab.unload()?;
    nothing_is_left(lab, &before)?;
    if has_tcx {
        Ikenat::start(lab)?.kill()?;
        ensure!(slow_hooks(lab)? == ["tcx"; 3], "{:?}", slow_hooks(lab)?);
        let log = log_of(lab, WAN, &CLSACT)?;
        ensure!(log.contains("attached by tcx"), "{log}");
        lab.unload()?;
        nothing_is_left(lab, &before)?;
    }
    Ok(())
}

const OTHER: &str = "x0";

fn add_another(lab: &Lab) -> Result<()> {
    lab.gateway.shell(&format!(
        "ip link add {OTHER} type veth peer name x1
         ip link set {OTHER} up; ip link set x1 up"
    ))?;
    Ok(())
}

fn moved(lab: &Lab) -> Result<()> {
    add_another(lab)?;
    let before = attachments(lab)?;
    let log = log_of(lab, OTHER, &CLSACT)?;
    ensure!(log.contains("ready"), "{log}");
    ensure!(ikenat_filters(lab, OTHER)? == 1 && ikenat_filters(lab, LAN)? == 1);
    let log = log_of(lab, WAN, &[])?;
    ensure!(
        log.contains("ready") && log.contains("clsact re-attached"),
        "{log}"
    );
    one_filter_each(lab)?;
    ensure!(ikenat_egress_filters(lab, OTHER)? == 0, "egress of {OTHER}");
    let left = lab.gateway.run(&format!("tc qdisc show dev {OTHER}"))?;
    ensure!(!left.contains("clsact"), "{left}");
    lab.unload()?;
    nothing_is_left(lab, &before)
}

fn remade(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    add_another(lab)?;
    let log = log_of(lab, OTHER, &CLSACT)?;
    ensure!(log.contains("ready"), "{log}");
    lab.gateway.run(&format!("ip link del {OTHER}"))?;
    let dead = execute(&mut lab.ikenat(&["status"])?)?;
    ensure!(dead.matches("DEAD").count() == 3, "{dead}");
    add_another(lab)?;
    let log = log_of(lab, OTHER, &[])?;
    ensure!(log.contains("clsact re-attached"), "{log}");
    let alive = execute(&mut lab.ikenat(&["status"])?)?;
    ensure!(!alive.contains("DEAD"), "{alive}");
    ensure!(ikenat_filters(lab, OTHER)? == 1 && ikenat_filters(lab, LAN)? == 1);
    lab.unload()?;
    lab.gateway.run(&format!("ip link del {OTHER}"))?;
    nothing_is_left(lab, &before)
}

/// All pins in the bpffs are removed: links go with their pins, filters do not.
fn orphan(lab: &Lab) -> Result<()> {
    let backends: &[&[&str]] = &[&CLSACT, &[]];
    for backend in backends {
        Ikenat::start_with(lab, &CLSACT)?.kill()?;
        fs::remove_dir_all(lab.bpffs().join("ikenat")).context("failed to remove the pins")?;
        // The kernel takes the links down in the background.
        let has_xdp =
            || -> Result<bool> { Ok(lab.gateway.run("ip -details link show")?.contains("xdp")) };
        let began = Instant::now();
        while has_xdp()? && began.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(20));
        }
        one_filter_each(lab).context("this test needs an orphan")?;
        let ikenat = Ikenat::start_with(lab, backend)?;
        let expected = slow_hooks(lab)?;
        let filters = usize::from(expected == ["clsact"; 3]);
        for interface in [WAN, LAN] {
            let found = ikenat_filters(lab, interface)?;
            ensure!(found == filters, "{found} filters beside {expected:?}");
        }
        let found = ikenat_egress_filters(lab, WAN)?;
        ensure!(
            found == filters,
            "{found} egress filters beside {expected:?}"
        );
        everything_crosses(lab)?;
        ikenat.kill()?;
        lab.unload()?;
        ensure!(ikenat_filters(lab, WAN)? + ikenat_filters(lab, LAN)? == 0);
        ensure!(pins(&lab.bpffs())?.is_empty());
    }
    Ok(())
}

/// The slow path is attached before XDP is refused.
fn failed_start(lab: &Lab) -> Result<()> {
    // A bridge has no native XDP.
    lab.gateway.shell(
        "ip link add br0 type bridge; ip link set br0 up; ip address add 198.51.100.1/24 dev br0",
    )?;
    let mut command = timed_command(lab, &arguments_with("--wan", "br0"))?;
    command.args(CLSACT).arg("--bpffs").arg(lab.bpffs());
    refused(lab, command, &["br0", "--mode generic"])
}

/// A pin was removed by hand.
fn no_pins_of_filters(lab: &Lab) -> Result<()> {
    let before = attachments(lab)?;
    Ikenat::start_with(lab, &CLSACT)?.kill()?;
    let instance = lab.bpffs().join("ikenat/default");
    fs::remove_file(instance.join("filter-tc-lan")).context("failed to remove a pin")?;
    lab.unload()?;
    nothing_is_left(lab, &before)
}
