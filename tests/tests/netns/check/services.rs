//! Tests of `check` for several services and interfaces: it judges servers as `run` does, and its fixes
//! name the interface that is meant.

use std::net::Ipv4Addr;

use super::*;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::second_wan::{
    FAR_CLIENT, WAN_2, WAN_2_ADDRESS, office, second_wan, start_office,
};
use ikenat_tests::lab::topology::{CLIENT, LAN, SERVER, VIP};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("check_judges_servers_as_run_does", servers),
        Scenario::new("a_fix_names_the_interface_that_is_meant", interfaces),
        Scenario::new("check_names_an_uplink_without_a_route_to_clients", uplinks),
    ]
}

const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 1);

/// The findings about several services, and the exit status.
fn ask(lab: &Lab, words: &str) -> Result<(Vec<Finding>, Option<i32>)> {
    let mut command = lab.gateway.command(binary()?);
    command.arg("check").args(words.split_whitespace());
    command.arg("--bpffs").arg(lab.bpffs()).arg("--json");
    let output = command.output().context("failed to start ikenat")?;
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let findings = answer.checks.into_iter().flat_map(|check| check.findings);
    Ok((findings.collect(), output.status.code()))
}

/// A server on this host, one behind the LAN, and one to which no LAN leads.
fn servers(lab: &Lab) -> Result<()> {
    lab.gateway.shell(&format!(
        "ip address add {HERE}/32 dev lo; ip route replace default via {CLIENT}"
    ))?;
    let services = format!(
        "--service here:203.0.113.2={HERE} --service near:{VIP}={SERVER} --service far:203.0.113.3={FAR}"
    );
    let words = format!("--wan {WAN} --lan {LAN} {services}");
    let run = format!("run {words}");
    let run: Vec<&str> = run.split_whitespace().collect();
    let ikenat = Ikenat::run(lab, &lab.gateway, "ikenat", &run)?;
    let looks = |expected: &[(&str, &str)]| -> Result<()> {
        let (findings, status) = ask(lab, &words)?;
        let routes = findings.iter().filter(|one| one.code == "server-route");
        let routes: Vec<&Finding> = routes.collect();
        let is_expected = |(found, (level, words)): (&&Finding, &(&str, &str))| {
            found.level == *level && found.message.contains(words)
        };
        ensure!(
            routes.len() == expected.len() && routes.iter().zip(expected).all(is_expected),
            "{expected:?} were expected: {routes:#?}"
        );
        let errors: Vec<&Finding> = findings.iter().filter(|one| one.level == "error").collect();
        ensure!(errors.is_empty() && status == Some(0), "{errors:#?}");
        Ok(())
    };
    let here = ("ok", "10.77.0.1 is an address of this host");
    let left = "its packets are left to this host until a LAN has a route";
    looks(&[here, ("ok", "leaves by lan0"), ("warning", left)])?;
    // Without the LAN a start is not refused either.
    ikenat.kill()?;
    lab.gateway.run(&format!("ip link del {LAN}"))?;
    Ikenat::run(lab, &lab.gateway, "ikenat", &run)?.kill()?;
    looks(&[here, ("warning", left), ("warning", left)])?;
    let (findings, _) = ask(lab, &words)?;
    let words = ["no interface lan0; it is attached when it appears"];
    expect(&findings, ("interface", Some(LAN)), "warning", &words)?;
    // A server alone to which no LAN leads is refused.
    let alone = format!("--wan {WAN} --lan {LAN} --vip {VIP} --server {FAR}");
    let (findings, status) = ask(lab, &alone)?;
    ensure!(status == Some(1), "{status:?}");
    let words = ["which is not a LAN"];
    expect(&findings, ("server-route", None), "error", &words).map(drop)
}

/// The VIP is in the network of the second WAN, the server in that of the second LAN.
fn interfaces(lab: &Lab) -> Result<()> {
    let _far = second_wan(lab)?;
    lab.gateway.shell(&format!(
        "ip link add lan1 type veth peer name far1; ip address add 192.168.9.254/24 dev lan1
         ip link set lan1 up; ip link set far1 up
         ip route add {FAR}/32 via {CLIENT}"
    ))?;
    let vip = "198.51.102.77";
    let words =
        format!("--wan {WAN} --wan {WAN_2} --lan {LAN} --lan lan1 --vip {vip} --server {FAR}");
    let (findings, _) = ask(lab, &words)?;
    let found = expect(&findings, ("vip", None), "warning", &[])?;
    ensure!(
        found.fix == [format!("ip address add {vip}/32 dev {WAN_2}")],
        "{found:#?}"
    );
    let found = expect(&findings, ("client-route", None), "warning", &[])?;
    ensure!(
        found.fix
            == [format!(
                "ip route add default via GATEWAY dev {WAN_2} metric 200"
            )],
        "{found:#?}"
    );
    let found = expect(&findings, ("server-route", None), "error", &[])?;
    ensure!(
        found.fix == [format!("ip route replace {FAR} dev lan1")],
        "{found:#?}"
    );
    apply_fix(lab, &found)?;
    let (findings, _) = ask(lab, &words)?;
    expect(&findings, ("server-route", None), "ok", &["leaves by lan1"]).map(drop)
}

/// A VIP on each uplink, and a LAN that is none of them: each uplink gets a default route by the fix that
/// is proposed for it, and none undoes that of another.
fn uplinks(lab: &Lab) -> Result<()> {
    let _far = second_wan(lab)?;
    let office = office();
    let words = office.join(" ");
    let looks = |expected: &[(&str, &str, &str)]| -> Result<Vec<Finding>> {
        let (findings, _) = ask(lab, &words)?;
        let routes = findings
            .into_iter()
            .filter(|one| one.code == "client-route");
        let routes: Vec<Finding> = routes.collect();
        let is_expected = |(found, (level, message, fix)): (&Finding, &(&str, &str, &str))| {
            found.level == *level
                && found.message == *message
                && found.fix.iter().eq(Some(fix).filter(|fix| !fix.is_empty()))
        };
        ensure!(
            routes.len() == expected.len() && routes.iter().zip(expected).all(is_expected),
            "{expected:?} were expected: {routes:#?}"
        );
        Ok(routes)
    };
    let add = |wan, metric| format!("ip route add default via GATEWAY dev {wan} metric {metric}");
    let (first_fix, second_fix) = (add(WAN, 100), add(WAN_2, 200));
    let fix = |command: &str, router: Ipv4Addr| {
        let command = command.replace("GATEWAY", &router.to_string());
        lab.gateway.run(&command).map(drop)
    };
    let none = "only clients in networks with a route by a WAN receive replies from its VIPs";
    let [first_lacks, second_lacks] =
        [WAN, WAN_2].map(|wan| format!("no default route leaves by {wan}; {none}"));
    looks(&[
        ("warning", &first_lacks, &first_fix),
        ("warning", &second_lacks, &second_fix),
    ])?;
    fix(&first_fix, CLIENT)?;
    let first = ("ok", "a default route leaves by wan0", "");
    let by_first = "replies from its VIPs leave by wan0, whose provider may drop them";
    let second_lacks = format!("no default route leaves by {WAN_2}; {by_first}");
    looks(&[first, ("warning", &second_lacks, &second_fix)])?;
    // A start logs it too, and says nothing of the first.
    let said =
        format!("{WAN_2}: no default route leaves by it; {by_first}; add one with `{second_fix}`");
    let ikenat = start_office(lab)?;
    let log = ikenat.log();
    ensure!(
        log.contains(&said) && log.matches("no default route").count() == 1,
        "{log}"
    );
    ikenat.kill()?;
    fix(&second_fix, FAR_CLIENT)?;
    let second = ("ok", "a default route leaves by wan1", "");
    looks(&[first, second])?;
    let ikenat = start_office(lab)?;
    ensure!(
        !ikenat.log().contains("no default route"),
        "{}",
        ikenat.log()
    );
    ikenat.kill()?;
    // A table for the VIP is such a route too. What the host sends by a LAN is not translated, whatever other
    // routes there are.
    lab.gateway.shell(&format!(
        "ip route del default dev {WAN_2}
         ip route add default via {FAR_CLIENT} dev {WAN_2} table 102
         ip rule add from {WAN_2_ADDRESS} lookup 102
         ip route add default via {SERVER} dev {LAN}"
    ))?;
    let by_lan = "the default route leaves by lan0, which is not a WAN";
    let replace = format!("ip route replace default via GATEWAY dev {WAN}");
    looks(&[("warning", by_lan, &replace), second])?;
    // Replies may leave by a WAN that has no VIP.
    lab.gateway.shell(&format!(
        "ip route del default dev {LAN}; ip route del default dev {WAN}; ip rule del from {WAN_2_ADDRESS} lookup 102
         ip route add default via {FAR_CLIENT} dev {WAN_2}"
    ))?;
    let words = format!("--wan {WAN} --wan {WAN_2} --lan {LAN} --vip {VIP} --server {SERVER}");
    let (findings, _) = ask(lab, &words)?;
    let found = ["the default route leaves by wan1"];
    expect(&findings, ("client-route", None), "ok", &found).map(drop)
}
