//! Tests of `check` for kernel settings, table sizes, routes and neighbours, and for a running
//! instance.

use std::net::Ipv4Addr;

use super::*;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::topology::{CLIENT, GATEWAY_LAN, LAN, PEER, SERVER, WAN};
use ikenat_tests::lab::wire::{Wire, at_client, esp, from_server};

use crate::support::unload_command;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("check_names_interfaces_that_do_not_forward", forwarding),
        Scenario::new("check_names_a_strict_reverse_path_filter", reverse_path),
        Scenario::new("check_names_redirects_of_a_one_armed_gateway", redirects),
        Scenario::new("check_names_the_side_with_the_smaller_mtu", mtu),
        Scenario::new("check_names_wrong_routes_to_the_server", server_route),
        Scenario::new("check_names_a_server_that_does_not_answer_arp", neighbour)
            .with_programs(&["ping"]),
        Scenario::new(
            "check_names_a_server_that_bypasses_the_gateway",
            return_route,
        ),
        Scenario::new("check_names_a_missing_route_to_clients", client_route),
        Scenario::new(
            "check_follows_rules_by_the_lan_for_replies",
            rules_by_the_lan,
        ),
        Scenario::new("check_looks_at_what_runs", running),
        Scenario::new("check_infers_the_return_route_from_the_counters", counted)
            .with_programs(&["setpriv"]),
    ]
}

fn forwarding(lab: &Lab) -> Result<()> {
    for name in [WAN, LAN] {
        provoked_and_fixed(
            lab,
            &format!("sysctl -qw net.ipv4.conf.{name}.forwarding=0"),
            ("forwarding", Some(name)),
            "error",
            &["is 0"],
            &[&format!("sysctl -w net.ipv4.conf.{name}.forwarding=1")],
        )?;
    }
    Ok(())
}

fn reverse_path(lab: &Lab) -> Result<()> {
    let line = ("rp-filter", Some(WAN));
    provoked_and_fixed(
        lab,
        &format!("sysctl -qw net.ipv4.conf.{WAN}.rp_filter=1"),
        line,
        "warning",
        &["strict", "no default route"],
        &[&format!("sysctl -w net.ipv4.conf.{WAN}.rp_filter=2")],
    )?;
    // Where the default route leaves by the WAN, strict filtering expects what comes.
    lab.gateway.shell(&format!(
        "sysctl -qw net.ipv4.conf.{WAN}.rp_filter=0 net.ipv4.conf.all.rp_filter=1
         ip route add default via {CLIENT} dev {WAN}"
    ))?;
    expect(&check(lab)?, line, "ok", &["strict"])?;
    lab.gateway
        .run(&format!("ip route replace default via {SERVER} dev {LAN}"))?;
    expect(&check(lab)?, line, "warning", &["leaves by lan0"])?;
    Ok(())
}

fn redirects(lab: &Lab) -> Result<()> {
    let look = || question(lab, WAN, "203.0.113.1", "203.0.113.10");
    ensure!(
        about(&check(lab)?, "send-redirects", Some(WAN)).is_empty(),
        "this one has two arms"
    );
    let line = ("send-redirects", Some(WAN));
    for provoke in [
        "net.ipv4.conf.all.send_redirects=1",
        "net.ipv4.conf.wan0.send_redirects=1",
    ] {
        lab.gateway.run(&format!("sysctl -qw {provoke}"))?;
        let found = expect(&look()?, line, "warning", &["the same interface"])?;
        let commands =
            ["all", WAN].map(|name| format!("sysctl -w net.ipv4.conf.{name}.send_redirects=0"));
        ensure!(found.fix == commands, "{found:#?}");
        apply_fix(lab, &found)?;
        expect(&look()?, line, "ok", &["off"])?;
    }
    Ok(())
}

fn mtu(lab: &Lab) -> Result<()> {
    let line = ("mtu", Some(LAN));
    expect(
        &check(lab)?,
        line,
        "ok",
        &["1500 on both sides", "1422 bytes"],
    )?;
    for (name, whose) in [
        (LAN, "of clients larger than 1400"),
        (WAN, "of the server larger than 1400"),
    ] {
        provoked_and_fixed(
            lab,
            &format!("ip link set dev {name} mtu 1400"),
            line,
            "warning",
            &[whose, "fragmentation needed"],
            &[&format!("ip link set dev {name} mtu 1500")],
        )?;
    }
    Ok(())
}

fn server_route(lab: &Lab) -> Result<()> {
    let line = ("server-route", None);
    expect(&check(lab)?, line, "ok", &["by lan0"])?;
    provoked_and_fixed(
        lab,
        &format!("ip route add {SERVER} dev {WAN}"),
        line,
        "error",
        &["leaves by wan0"],
        &[&format!("ip route replace {SERVER} dev {LAN}")],
    )?;
    let far = "198.51.100.77";
    let look = || question(lab, LAN, "203.0.113.1", far);
    let found = expect(&look()?, line, "error", &["no route to 198.51.100.77"])?;
    apply_fix(lab, &found)?;
    expect(&look()?, line, "ok", &["by lan0"])?;
    lab.gateway
        .run(&format!("ip route replace {far} via {SERVER} dev {LAN}"))?;
    expect(&look()?, line, "ok", &["via 192.168.0.1"])?;
    server_on_this_host(lab)
}

/// Then there is no LAN, nothing is forwarded, and the INPUT chain decides about every packet.
fn server_on_this_host(lab: &Lab) -> Result<()> {
    let line = ("server-route", None);
    let local = GATEWAY_LAN.to_string();
    let with_lan = question(lab, LAN, "203.0.113.1", &local)?;
    let found = expect(&with_lan, line, "error", &["an address of this host"])?;
    ensure!(!found.fix[0].contains("--lan"), "{found:#?}");
    lab.gateway.shell(&format!(
        "sysctl -qw net.ipv4.conf.{WAN}.forwarding=0
         nft add table ip f; nft 'add chain ip f in {{ type filter hook input priority 0; policy drop; }}'"
    ))?;
    let look = |server: &str| -> Result<Vec<Finding>> {
        let mut command = lab.gateway.command(binary()?);
        command.args([
            "check",
            "--wan",
            WAN,
            "--vip",
            "203.0.113.1",
            "--server",
            server,
        ]);
        command.arg("--bpffs").arg(lab.bpffs());
        findings_of(command)
    };
    let findings = look(&local)?;
    expect(&findings, line, "ok", &["an address of this host"])?;
    expect(
        &findings,
        ("forwarding", Some(WAN)),
        "ok",
        &["nothing is forwarded"],
    )?;
    let found = expect(
        &findings,
        ("forward", None),
        "error",
        &["chain in of table f"],
    )?;
    apply_fix(lab, &found)?;
    expect(&look(&local)?, ("forward", None), "ok", &[])?;
    // The server is behind a LAN interface that no argument names.
    let found = expect(
        &look(&SERVER.to_string())?,
        line,
        "error",
        &["no --lan is given"],
    )?;
    ensure!(found.fix[0].contains("--lan lan0"), "{found:#?}");
    Ok(())
}

fn neighbour(lab: &Lab) -> Result<()> {
    let line = ("server-neighbour", Some(LAN));
    provoked_and_fixed(
        lab,
        &format!("ip neighbour flush dev {LAN}"),
        line,
        "warning",
        &["not resolved yet"],
        &[&format!("ping -c 1 -I {LAN} {SERVER}")],
    )?;
    let absent = Ipv4Addr::new(192, 168, 0, 77);
    lab.gateway.run(&format!(
        "ip neighbour replace {absent} dev {LAN} nud failed"
    ))?;
    let look = || question(lab, LAN, "203.0.113.1", &absent.to_string());
    let found = expect(&look()?, line, "error", &["does not answer ARP"])?;
    lab.server
        .run(&format!("ip address add {absent}/24 dev {PEER}"))?;
    apply_fix(lab, &found)?;
    expect(&look()?, line, "ok", &["is resolved"])?;
    Ok(())
}

fn return_route(lab: &Lab) -> Result<()> {
    let line = ("return-route", None);
    let fixing = format!(
        "nsenter --net={} ip route replace default via {GATEWAY_LAN}",
        lab.server.path()
    );
    lab.server.run("ip route del default")?;
    provoked_and_fixed(
        lab,
        "true",
        line,
        "error",
        &["no default route"],
        &[&fixing],
    )?;
    lab.server
        .run("ip route replace default via 192.168.0.253")?;
    provoked_and_fixed(
        lab,
        "true",
        line,
        "error",
        &["leads to 192.168.0.253"],
        &[&fixing],
    )
}

fn client_route(lab: &Lab) -> Result<()> {
    let line = ("client-route", None);
    let found = expect(&check(lab)?, line, "warning", &["no default route"])?;
    let command = "ip route replace default via GATEWAY dev wan0";
    ensure!(found.fix == [command], "{found:#?}");
    lab.gateway
        .run(&format!("ip route add default via {SERVER} dev {LAN}"))?;
    expect(
        &check(lab)?,
        line,
        "warning",
        &["leaves by lan0, which is not a WAN"],
    )?;
    // Only the address of the provider's router is left to fill in.
    lab.gateway
        .run(&command.replace("GATEWAY", &CLIENT.to_string()))?;
    expect(&check(lab)?, line, "ok", &["by wan0"])?;
    Ok(())
}

/// What the server sends comes by the LAN, so rules by that interface decide about it, whether its VIP is
/// an address of this host or not. `ip route get` cannot be asked.
fn rules_by_the_lan(lab: &Lab) -> Result<()> {
    let expect_both = |level: &str, words: &str| -> Result<()> {
        let foreign = question(lab, LAN, "203.0.113.77", &SERVER.to_string())?;
        for findings in [check(lab)?, foreign] {
            expect(&findings, ("client-route", None), level, &[words])?;
        }
        Ok(())
    };
    const BY_LAN: &str = "leaves by lan0, which is not a WAN";
    lab.gateway.shell(&format!(
        "ip route add default via {SERVER} dev {LAN}
         ip route add default via {CLIENT} dev {WAN} table 100
         ip rule add pref 90 from 203.0.113.1 iif lo unreachable"
    ))?;
    expect_both("warning", BY_LAN)?;
    lab.gateway
        .run(&format!("ip rule add pref 100 iif {LAN} lookup 100"))?;
    expect_both("ok", "the default route leaves by wan0")?;
    // There is no rule of this number yet, so the kernel goes on with the next one.
    lab.gateway
        .run(&format!("ip rule add pref 50 iif {LAN} goto 200"))?;
    expect_both("ok", "the default route leaves by wan0")?;
    lab.gateway.run("ip rule add pref 200 nop")?;
    expect_both("warning", BY_LAN)?;
    // Of two WANs, that without a VIP has what the rule leads there, and not the WAN of the VIP.
    lab.gateway.shell(&format!(
        "ip rule del pref 50; ip rule del pref 90
         ip route replace default via {CLIENT} dev {WAN}
         ip link add up1 type veth peer name far1; ip link set up1 up; ip link set far1 up
         ip address add 198.51.100.1/24 dev up1
         sysctl -qw net.ipv4.conf.up1.forwarding=1"
    ))?;
    let two_wans = || findings_of(command(lab, &["--wan", "up1"])?);
    let line = ("client-route", None);
    expect(
        &two_wans()?,
        line,
        "ok",
        &["a default route leaves by wan0"],
    )?;
    lab.gateway
        .run("ip route replace default via 198.51.100.2 dev up1 table 100")?;
    expect(
        &two_wans()?,
        line,
        "ok",
        &["the default route leaves by up1"],
    )?;
    Ok(())
}

/// Without arguments, as one asks about an instance.
fn running(lab: &Lab) -> Result<()> {
    let ikenat = Ikenat::start(lab)?;
    let findings = about_running(lab)?;
    for name in [WAN, LAN] {
        ensure!(
            about(&findings, "attached", Some(name)).len() >= 2,
            "XDP and tc: {findings:#?}"
        );
        expect(&findings, ("attached", Some(name)), "ok", &["program"])?;
        expect(
            &findings,
            ("xdp-program", Some(name)),
            "ok",
            &["of this instance"],
        )?;
    }
    expect(&findings, ("memory", None), "ok", &["exist"])?;
    ensure!(
        about(&findings, "daemon", None).is_empty(),
        "it runs: {findings:#?}"
    );
    // From outside the gateway's network namespace everything else is about another host.
    let outside = findings_of(lab.ikenat(&["check"])?)?;
    expect(
        &outside,
        ("attached", Some(WAN)),
        "error",
        &["another network namespace"],
    )?;

    ikenat.kill()?;
    let found = expect(
        &about_running(lab)?,
        ("daemon", None),
        "warning",
        &["no daemon"],
    )?;
    ensure!(
        found.fix[0].starts_with("ikenat run --wan wan0 --lan lan0 "),
        "{found:#?}"
    );
    lab.gateway.run(&format!("ip link del dev {LAN}"))?;
    let found = expect(
        &about_running(lab)?,
        ("attached", Some(LAN)),
        "error",
        &["no longer attached"],
    )?;
    ensure!(found.fix[0] == unload_command(lab, "default"), "{found:#?}");
    Ok(())
}

/// Without the right to look into the server's namespace, there are still the packets.
fn counted(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let look = || -> Result<Vec<Finding>> {
        let mut command = lab.gateway.command("setpriv");
        command.args(["--bounding-set=-all,+bpf,+net_admin", "--inh-caps=-all"]);
        command
            .arg(binary()?)
            .arg("check")
            .arg("--bpffs")
            .arg(lab.bpffs());
        findings_of(command)
    };
    let line = ("return-route", None);
    expect(&look()?, line, "warning", &["not checked"])?;
    let wire = Wire::open(lab)?;
    let packet = from_server(4500, 4500, esp(0xC000_0001, 1, 60));
    wire.outbound_frames(&[packet.build()], &[at_client(&packet).build()])?;
    expect(&look()?, line, "ok", &["have passed this gateway"])?;
    Ok(())
}
