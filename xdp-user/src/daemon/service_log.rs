//! Log messages about services and VIPs. There may be hundreds of them: a few have a line each, and
//! many have one that names the first ones.

use crate::config::client_routes::Unrouted;
use crate::config::commands::quoted;
use crate::config::plan::Plan;
use crate::config::services::{Service, join, named};
use crate::daemon::link_change::Moved;
use crate::daemon::services;
use crate::daemon::vip_watch::VipChange;
use crate::daemon::wording::{NAMED, absent_servers, wan_of};
use crate::tables::services::ServiceRecord;
use std::net::Ipv4Addr;
use tracing::{debug, info, warn};

/// A line about each of a few, or one about many, which names the first ones; then the line about each is
/// logged at level debug.
pub(super) fn lines<T>(
    all: &[T],
    what: &str,
    name: impl Fn(&T) -> String,
    one: impl Fn(&T) -> String,
    many: impl Fn(&T, &str) -> String,
) -> Vec<String> {
    match all {
        [first, ..] if all.len() > NAMED => {
            all.iter().map(one).for_each(|line| debug!("{line}"));
            let names = all.iter().map(name).collect();
            vec![many(first, &named(names, NAMED, what))]
        }
        _ => all.iter().map(one).collect(),
    }
}

/// Logs what a start finds of its services, and changes of those of the earlier one.
pub(super) fn started(plan: &Plan, earlier: &[ServiceRecord]) {
    let changes = services::changes(earlier, &plan.settings.services);
    let lines = changes.into_iter().chain(foreign_vips(plan));
    lines.chain(absent(plan)).for_each(|line| warn!("{line}"));
}

/// The VIPs that are no addresses of this host.
fn foreign_vips(plan: &Plan) -> Vec<String> {
    let foreign = plan.vips().filter(|(_, location)| !location.is_local);
    let foreign: Vec<Ipv4Addr> = foreign.map(|(vip, _)| vip).collect();
    lines(
        &foreign,
        "VIP",
        Ipv4Addr::to_string,
        |vip| {
            format!(
                "{vip} is not an address of this host, so ARP requests for it may have no answer: route it here, or `ip address add {vip}/32 dev {}`",
                quoted(wan_of(plan, *vip))
            )
        },
        |vip, vips| {
            format!(
                "{vips} are not addresses of this host, so ARP requests for them may have no answer: route them here, or add each one, as with `ip address add {vip}/32 dev {}`",
                quoted(wan_of(plan, *vip))
            )
        },
    )
}

/// The services to whose server no LAN leads yet.
fn absent(plan: &Plan) -> Vec<String> {
    without_lan(&absent_servers(plan).collect::<Vec<_>>(), "yet")
}

/// Logs the WANs that have VIPs and lack a default route.
pub(super) fn unrouted(all: &[Unrouted]) {
    for Unrouted {
        interface,
        effect,
        fix,
    } in all
    {
        let add = |fix| format!("; add one with `{fix}`");
        let fix = fix.as_ref().map_or_else(String::new, add);
        warn!("{interface}: no default route leaves by it; {effect}{fix}");
    }
}

/// Logs the services to whose server no LAN leads any more: an exchange of programs has ended their
/// translation.
pub(super) fn stopped(old: &Plan, new: &Plan) {
    let before: Vec<&str> = absent_servers(old).map(|one| one.name.as_str()).collect();
    let stopped = absent_servers(new).filter(|one| !before.contains(&one.name.as_str()));
    let lines = without_lan(&stopped.collect::<Vec<_>>(), "any more");
    lines.iter().for_each(|line| warn!("{line}"));
}

/// What is said of services without a LAN that leads to their server: that it does not `yet`, or `any more`.
fn without_lan(services: &[&Service], since: &str) -> Vec<String> {
    const EFFECT: &str = "packets are left to this host until one has";
    lines(
        services,
        "service",
        |service| service.name.clone(),
        |service| {
            let (name, servers) = (&service.name, join(&service.servers, ", "));
            format!(
                "service {name}: no LAN has a route to its server {servers} {since}; its {EFFECT}"
            )
        },
        |_, names| {
            format!("services {names}: no LAN has a route to their servers {since}; their {EFFECT}")
        },
    )
}

/// Logs which VIPs are no addresses of this host any more, or are such again.
pub(super) fn vips(plan: &Plan, changes: &[(Ipv4Addr, VipChange)]) {
    let of = |wanted| {
        let found = changes.iter().filter(move |(_, change)| *change == wanted);
        found.map(|(vip, _)| *vip).collect::<Vec<_>>()
    };
    let lost = lines(
        &of(VipChange::Lost),
        "VIP",
        Ipv4Addr::to_string,
        |vip| {
            format!(
                "{vip}: not an address of this host any more, so ARP requests for it may have no answer; restore it with `ip address add {vip}/32 dev {}`",
                quoted(wan_of(plan, *vip))
            )
        },
        |vip, vips| {
            format!(
                "{vips}: not addresses of this host any more, so ARP requests for them may have no answer; restore each one, as with `ip address add {vip}/32 dev {}`",
                quoted(wan_of(plan, *vip))
            )
        },
    );
    lost.iter().for_each(|line| warn!("{line}"));
    let back = lines(
        &of(VipChange::Back),
        "VIP",
        Ipv4Addr::to_string,
        |vip| format!("{vip}: an address of this host again"),
        |_, vips| format!("{vips}: addresses of this host again"),
    );
    back.iter().for_each(|line| info!("{line}"));
}

/// Logs what has become of the locations of services.
pub(super) fn moved(all: &[Moved]) {
    let (mut addresses, mut vips) = (Vec::new(), Vec::new());
    for one in all {
        match one {
            Moved::LanAddress { address, server } => addresses.push((address, server)),
            Moved::Vip { vip, wan } => vips.push((vip, wan)),
        }
    }
    let addresses = lines(
        &addresses,
        "server",
        |(_, server)| server.to_string(),
        |(address, server)| {
            format!(
                "{address}: the address of this host for the server {server} now, from which the server gets ICMP errors; exchanging the programs"
            )
        },
        |(address, _), servers| {
            format!(
                "{address}: the address of this host for the first of {servers} now, and the others have another one too, from which they get ICMP errors; exchanging the programs"
            )
        },
    );
    let vips = lines(
        &vips,
        "VIP",
        |(vip, _)| vip.to_string(),
        |(vip, wan)| {
            format!(
                "{vip}: a VIP of {wan} now, by which replies from it leave; exchanging the programs"
            )
        },
        |(_, wan), vips| {
            format!(
                "{vips}: VIPs of {wan} or of another WAN now, by which replies from them leave; exchanging the programs"
            )
        },
    );
    addresses
        .iter()
        .chain(&vips)
        .for_each(|line| info!("{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text that is logged meanwhile.
    fn logged(log: impl FnOnce()) -> String {
        let file = std::env::temp_dir().join(format!("ikenat-log-{}", std::process::id()));
        let writer = std::fs::File::create_new(&file).expect("a file");
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(writer)
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let text = std::fs::read_to_string(&file).expect("the log");
        std::fs::remove_file(&file).expect("it was there");
        text
    }

    // Not a test of its own: tracing caches for each line of the log whether a subscriber wants it. A thread that
    // has none and comes there first would disable the line for the other test, too.
    fn many_have_one_line() {
        let lines = |number: usize| {
            let all: Vec<usize> = (0..number).collect();
            let name = |one: &usize| format!("s{one}");
            let (one, many) = (name, |first: &usize, names: &str| {
                format!("{first} of {names}")
            });
            lines(&all, "service", name, one, many)
        };
        assert_eq!(lines(0), Vec::<String>::new());
        assert_eq!(lines(8).len(), 8);
        let many = "0 of s0, s1, s2, s3, s4, s5, s6, s7 and 248 more services";
        assert_eq!(lines(256), [many]);
    }

    #[test]
    fn many_have_one_line_and_each_is_logged_at_level_debug() {
        many_have_one_line();
        let all: Vec<usize> = (0..9).collect();
        let text = logged(|| {
            let name = |one: &usize| format!("s{one}");
            let one = |one: &usize| format!("service s{one}: gone");
            let many = |_: &usize, names: &str| format!("services {names}: gone");
            _ = lines(&all, "service", name, one, many);
        });
        for one in all {
            let said = format!("service s{one}: gone");
            let mut lines = text.lines();
            assert!(
                lines.any(|line| line.contains("DEBUG") && line.ends_with(&said)),
                "{text}"
            );
        }
    }
}
