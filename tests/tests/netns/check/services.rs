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
        Scenario::new("a_route_for_an_uplink_takes_no_metric_that_exists", metrics),
        Scenario::new(
            "check_follows_tables_and_routes_of_other_uplinks",
            other_routes,
        ),
        Scenario::new(
            "check_follows_the_rules_for_a_vip_that_is_routed_here",
            routed_vip,
        ),
        Scenario::new("check_names_the_macvlan_that_has_the_vip", macvlan),
        Scenario::new("check_follows_the_rules_for_a_server_on_this_host", here),
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
                "ip route append default via GATEWAY dev {WAN_2} metric 200"
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

/// The findings about routes to clients: level, message and fix of each.
fn client_routes(lab: &Lab, words: &str, expected: &[(&str, &str, &str)]) -> Result<()> {
    let (findings, _) = ask(lab, words)?;
    let found = findings.iter().filter(|one| one.code == "client-route");
    let found: Vec<(&str, &str, &str)> = found
        .map(|one| {
            let fix = one.fix.first().map_or("", String::as_str);
            (one.level.as_str(), one.message.as_str(), fix)
        })
        .collect();
    ensure!(found == expected, "{expected:#?} were expected: {found:#?}");
    Ok(())
}

/// The command that `check` proposes for an uplink.
fn append(wan: &str, metric: u32) -> String {
    format!("ip route append default via GATEWAY dev {wan} metric {metric}")
}

/// Runs it with the router of the uplink.
fn apply(lab: &Lab, command: &str, router: Ipv4Addr) -> Result<()> {
    let command = command.replace("GATEWAY", &router.to_string());
    lab.gateway.run(&command).map(drop)
}

const NO_ROUTE: &str =
    "only clients in networks with a route by a WAN receive replies from its VIPs";
const RULES_DECIDE: &str = "a default route of the main table would not change that: see `ip rule`";
const BY_FIRST: &str = "replies from its VIPs leave by wan0, whose provider may drop them";
const FIRST: (&str, &str, &str) = ("ok", "a default route leaves by wan0", "");
const SECOND: (&str, &str, &str) = ("ok", "a default route leaves by wan1", "");

/// A VIP on each uplink: each gets a default route by the fix that is proposed for it, and none undoes that
/// of another.
fn uplinks(lab: &Lab) -> Result<()> {
    let _far = second_wan(lab)?;
    let words = office().join(" ");
    let lacks = |wan, effect| format!("no default route leaves by {wan}; {effect}");
    let (first_fix, second_fix) = (append(WAN, 100), append(WAN_2, 200));
    let none = [WAN, WAN_2].map(|wan| lacks(wan, NO_ROUTE));
    let expected = [
        ("warning", none[0].as_str(), first_fix.as_str()),
        ("warning", &none[1], &second_fix),
    ];
    client_routes(lab, &words, &expected)?;
    apply(lab, &first_fix, CLIENT)?;
    let second_lacks = lacks(WAN_2, BY_FIRST);
    let expected = [FIRST, ("warning", &second_lacks, &second_fix)];
    client_routes(lab, &words, &expected)?;
    // A start logs it too, and says nothing of the first.
    let said =
        format!("{WAN_2}: no default route leaves by it; {BY_FIRST}; add one with `{second_fix}`");
    let log = log_of_a_start(lab)?;
    ensure!(
        log.contains(&said) && log.matches("no default route").count() == 1,
        "{log}"
    );
    // A rule that refuses what leaves from its VIP comes before any route.
    let refuse = format!("from {WAN_2_ADDRESS} prohibit");
    lab.gateway.run(&format!("ip rule add pref 900 {refuse}"))?;
    let refused = format!("{}; {RULES_DECIDE}", lacks(WAN_2, NO_ROUTE));
    client_routes(lab, &words, &[FIRST, ("warning", &refused, "")])?;
    let said = format!("{WAN_2}: no default route leaves by it; {NO_ROUTE}; {RULES_DECIDE}");
    let log = log_of_a_start(lab)?;
    ensure!(
        log.contains(&said) && !log.contains("add one with"),
        "{log}"
    );
    lab.gateway.run(&format!("ip rule del pref 900 {refuse}"))?;
    apply(lab, &second_fix, FAR_CLIENT)?;
    client_routes(lab, &words, &[FIRST, SECOND])?;
    let log = log_of_a_start(lab)?;
    ensure!(!log.contains("no default route"), "{log}");
    Ok(())
}

fn log_of_a_start(lab: &Lab) -> Result<String> {
    let ikenat = start_office(lab)?;
    let log = ikenat.log();
    ikenat.kill()?;
    Ok(log)
}

/// The metric of the fix may exist, of a route by another interface. What the host itself sends keeps its
/// route.
fn metrics(lab: &Lab) -> Result<()> {
    let _far = second_wan(lab)?;
    let words = office().join(" ");
    for metric in [0, 200, 1024] {
        let existing = format!("default via {CLIENT} dev {WAN} metric {metric}");
        lab.gateway.run(&format!("ip route add {existing}"))?;
        let lacks = format!("no default route leaves by {WAN_2}; {BY_FIRST}");
        let fix = append(WAN_2, (metric + 1).max(200));
        client_routes(lab, &words, &[FIRST, ("warning", &lacks, &fix)])?;
        apply(lab, &fix, FAR_CLIENT).with_context(|| format!("beside metric {metric}"))?;
        client_routes(lab, &words, &[FIRST, SECOND])?;
        let own = lab.gateway.run("ip route get 192.0.2.1")?;
        ensure!(own.contains(&format!("dev {WAN} ")), "{metric}: {own}");
        lab.gateway
            .shell(&format!("ip route del {existing}; ip route del default"))?;
    }
    Ok(())
}

/// A table for the VIP is such a route too. What the host sends by a LAN is not translated, whatever other
/// routes there are; and replies may leave by a WAN that has no VIP.
fn other_routes(lab: &Lab) -> Result<()> {
    let _far = second_wan(lab)?;
    lab.gateway.shell(&format!(
        "ip route add default via {FAR_CLIENT} dev {WAN_2} table 102
         ip rule add from {WAN_2_ADDRESS} lookup 102
         ip route add default via {SERVER} dev {LAN}"
    ))?;
    let by_lan = "the default route leaves by lan0, which is not a WAN";
    let replace = format!("ip route replace default via GATEWAY dev {WAN}");
    let expected = [("warning", by_lan, replace.as_str()), SECOND];
    client_routes(lab, &office().join(" "), &expected)?;
    lab.gateway.shell(&format!(
        "ip route del default dev {LAN}; ip rule del from {WAN_2_ADDRESS} lookup 102
         ip route add default via {FAR_CLIENT} dev {WAN_2}"
    ))?;
    let words = format!("--wan {WAN} --wan {WAN_2} --lan {LAN} --vip {VIP} --server {SERVER}");
    client_routes(
        lab,
        &words,
        &[("ok", "the default route leaves by wan1", "")],
    )
}

/// The rules for a VIP that a router sends here, as docs/deployment.md has them.
fn routed_vip(lab: &Lab) -> Result<()> {
    const ROUTED: &str = "203.0.114.7";
    let _far = second_wan(lab)?;
    let words = format!("--wan {WAN} --wan {WAN_2} --lan {LAN} --vip {ROUTED} --server {SERVER}");
    let none = "no default route: only clients in networks with a route by a WAN receive replies";
    let fix = format!("ip route replace default via GATEWAY dev {WAN}");
    client_routes(lab, &words, &[("warning", none, &fix)])?;
    lab.gateway.shell(&format!(
        "ip route add default via {FAR_CLIENT} dev {WAN_2} table 102
         ip rule add pref 1000 from {ROUTED} lookup main suppress_prefixlength 0
         ip rule add pref 1001 from {ROUTED} lookup 102"
    ))?;
    let by_second = [("ok", "the default route leaves by wan1", "")];
    client_routes(lab, &words, &by_second)?;
    // They come before the route of all others, also if that leaves by a LAN.
    lab.gateway
        .run(&format!("ip route add default via {SERVER} dev {LAN}"))?;
    client_routes(lab, &words, &by_second)?;
    lab.gateway.run("ip rule del pref 1001")?;
    let by_lan = "the default route leaves by lan0, which is not a WAN";
    client_routes(lab, &words, &[("warning", by_lan, &fix)])?;
    // Where another table decides, or a rule alone, a route of the main one would be no remedy.
    lab.gateway.shell(&format!(
        "ip route add default dev {LAN} table 103; ip rule add pref 900 from {ROUTED} lookup 103"
    ))?;
    let by_table = format!("{by_lan}; {RULES_DECIDE}");
    client_routes(lab, &words, &[("warning", &by_table, "")])?;
    lab.gateway.shell(&format!(
        "ip rule del pref 900; ip rule add pref 900 from {ROUTED} unreachable"
    ))?;
    let refused = format!("{none}; {RULES_DECIDE}");
    client_routes(lab, &words, &[("warning", &refused, "")])?;
    lab.gateway.run("ip rule del pref 900")?;
    // So it is with a VIP in the network of a WAN.
    let near = "198.51.102.77";
    lab.gateway.shell(&format!(
        "ip route del default; ip route add default via {CLIENT} dev {WAN}
         ip rule add pref 1001 from {near} lookup 102"
    ))?;
    let service = format!("--service a:{VIP},{near}={SERVER}");
    let words = format!("--wan {WAN} --wan {WAN_2} --lan {LAN} {service}");
    client_routes(lab, &words, &[FIRST, SECOND])
}

/// A macvlan on top of the second uplink has its VIP, as VRRP has it.
fn macvlan(lab: &Lab) -> Result<()> {
    const MACVLAN: &str = "vrrp.51";
    let _far = second_wan(lab)?;
    lab.gateway.shell(&format!(
        "ip link add {MACVLAN} link {WAN_2} address 00:00:5e:00:01:33 type macvlan mode private
         ip address del {WAN_2_ADDRESS}/24 dev {WAN_2}; ip address add 198.51.102.2/24 dev {WAN_2}
         ip address add {WAN_2_ADDRESS}/32 dev {MACVLAN}; ip link set {MACVLAN} up
         ip route add default via {CLIENT} dev {WAN}"
    ))?;
    let words = office().join(" ");
    let lacks = format!("no default route leaves by {MACVLAN}; {BY_FIRST}");
    let fix = format!("ip route append default via GATEWAY dev {MACVLAN} onlink metric 200");
    client_routes(lab, &words, &[FIRST, ("warning", &lacks, &fix)])?;
    // The dataplane asks by the macvlan: a route by the WAN beneath, behind that of the other one, is none.
    let beneath = format!("default via {FAR_CLIENT} dev {WAN_2} metric 300");
    lab.gateway.run(&format!("ip route add {beneath}"))?;
    client_routes(lab, &words, &[FIRST, ("warning", &lacks, &fix)])?;
    let log = log_of_a_start(lab)?;
    let said =
        format!("{MACVLAN}: no default route leaves by it; {BY_FIRST}; add one with `{fix}`");
    ensure!(log.contains(&said), "{log}");
    apply(lab, &fix, FAR_CLIENT)?;
    let by_macvlan = ("ok", "a default route leaves by vrrp.51", "");
    client_routes(lab, &words, &[FIRST, by_macvlan])?;
    // If the plain route leaves by the WAN beneath, the provider is the right one.
    lab.gateway.shell(&format!(
        "ip route del default dev {MACVLAN}; ip route del {beneath}
         ip route add default via {FAR_CLIENT} dev {WAN_2} table 102
         ip rule add from {WAN_2_ADDRESS} lookup 102"
    ))?;
    client_routes(lab, &words, &[FIRST, SECOND])
}

/// The kernel finds the route of a server on this host by the server's address: it has the VIP as its source
/// only afterwards, when ikenat's program on egress has translated it.
fn here(lab: &Lab) -> Result<()> {
    let _far = second_wan(lab)?;
    lab.gateway.shell(&format!(
        "ip address add {HERE}/32 dev lo; ip route add default via {CLIENT} dev {WAN}
         ip route add default via {FAR_CLIENT} dev {WAN_2} table 102
         ip rule add pref 1000 from {VIP} lookup 102"
    ))?;
    let words = format!("--wan {WAN} --wan {WAN_2} --lan {LAN} --vip {VIP} --server {HERE}");
    let by = |wan| format!("the default route leaves by {wan}");
    client_routes(lab, &words, &[("ok", &by(WAN), "")])?;
    lab.gateway.shell(&format!(
        "ip rule del pref 1000; ip rule add pref 1000 from {HERE} lookup 102"
    ))?;
    client_routes(lab, &words, &[("ok", &by(WAN_2), "")])
}
