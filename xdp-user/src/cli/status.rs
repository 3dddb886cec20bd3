//! `ikenat status`: what is attached where, how full the tables are, what became of the packets.

use super::service_filter::{ServiceFilter, select};
use super::table::{Align, SERVICE, TextTable, grouped, prepended, size};
use super::{InstanceFilter, heading, print, readable};
use anyhow::{Context, Result};
use clap::Args;
use std::process::ExitCode;
use xdp_user::dataplane::tc_backend::TcBackend;
use xdp_user::netlink::Netlink;
use xdp_user::report;
use xdp_user::report::document::Document;
use xdp_user::report::status::{HostPeerStatus, InstanceStatus, ProgramStatus, Status};
use xdp_user::tables::services::ServiceRecord;

/// Show the attached programs, the tables, and what became of all packets
///
/// Works from any shell and without the daemon.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Print one JSON document with all reasons, also those that never occurred
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    services: ServiceFilter,
    #[command(flatten)]
    which: InstanceFilter,
}

/// The most peers of this host itself that the text names.
const HOST_PEERS: usize = 20;

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let netlink = Netlink::open().context("failed to look up interfaces")?;
    let links = netlink.links().context("failed to look up interfaces")?;
    let (mut instances, errors) = arguments.which.read(|pins| {
        let overview = readable(pins, report::instance::read(pins))?;
        Ok(InstanceStatus::of(pins, &overview, &netlink, &links)?)
    })?;
    let wanted = arguments.services.wanted();
    select(&wanted, &mut instances, &errors, |one| &one.services)?;
    // Devices are those of all services.
    let redirects: Vec<bool> = instances.iter().map(has_lan_servers).collect();
    for instance in &mut instances {
        instance.keep(&wanted);
    }
    let status = Status { instances };
    if arguments.json {
        print(&Document::now(&status).indented()?)?;
    } else {
        let instances = status.instances.iter().zip(redirects);
        let text = |(instance, redirects)| text(instance, redirects, wanted.is_partial());
        let texts: Vec<String> = instances.map(text).collect();
        print(&texts.join("\n"))?;
    }
    Ok(errors.report())
}

fn text(instance: &InstanceStatus, redirects: bool, is_partial: bool) -> String {
    let daemon = match instance.daemon {
        Some(pid) => format!("the daemon is process {pid}"),
        None => {
            "no daemon runs: packets are forwarded, old entries stay (start `ikenat run` again)"
                .to_owned()
        }
    };
    let mut text = format!(
        "{}; {daemon}\n\n",
        heading(&instance.name, &instance.services)
    );
    text.push_str(&unusual(instance));
    if is_partial {
        text.push_str("Programs, tables and outcomes below are those of all services\n\n");
    }
    text.push_str(&attached(&instance.attached));
    text.push_str(&left_over(&instance.left_over));
    for name in &instance.absent {
        text.push_str(&format!(
            "{name}: no such interface; it is attached when it appears\n"
        ));
    }
    let slow = instance.redirect.iter().filter(|redirect| !redirect.ready);
    for redirect in slow.filter(|_| !instance.dry_run && redirects) {
        text.push_str(&format!(
            "{}: no XDP transmit (ndo_xdp_xmit); egress uses the tc slow path\n",
            redirect.interface
        ));
    }
    text.push_str(&lost(instance));
    text.push('\n');
    text.push_str(&tables(instance));
    text.push('\n');
    text.push_str(&host_peers(instance));
    text.push_str(&reasons(instance));
    text
}

/// What was lost after the redirect.
fn lost(instance: &InstanceStatus) -> String {
    let mut text = String::new();
    if instance.dry_run {
        return text;
    }
    if instance
        .redirect
        .iter()
        .any(|redirect| redirect.lost.is_none())
    {
        text.push_str(
            "Packets lost after the redirect are not counted: that needs CAP_PERFMON and a kernel with BTF\n",
        );
    }
    for redirect in &instance.redirect {
        if let Some(lost @ 1..) = redirect.lost {
            text.push_str(&format!(
                "{}: {} forwarded packets were lost on the way out (link down, or full transmit ring)\n",
                redirect.interface,
                grouped(lost)
            ));
        }
    }
    text
}

/// The unusual settings of an instance.
fn unusual(instance: &InstanceStatus) -> String {
    let mut text = String::new();
    if instance.dry_run {
        text.push_str(
            "DRY RUN: nothing is forwarded; `forwarded` below counts what would have been\n",
        );
    }
    text.push_str(&unusual_services(&instance.services));
    if instance.grace_period == "map-update" {
        text.push_str(
            "Old entries are removed by map updates: membarrier does not work here (nohz_full=)\n",
        );
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

/// Whether XDP redirects anything: it does not to a server on this host.
fn has_lan_servers(instance: &InstanceStatus) -> bool {
    let mut services = instance.services.iter();
    services.any(|service| !service.server_is_local)
}

/// The unusual settings of services. A line names them, unless it is that of all.
fn unusual_services(services: &[ServiceRecord]) -> String {
    let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
    for service in services {
        for line in settings_of(service) {
            match lines.iter_mut().find(|(known, _)| *known == line) {
                Some((_, names)) => names.push(&service.name),
                None => lines.push((line, vec![&service.name])),
            }
        }
    }
    let text = |(line, names): (String, Vec<&str>)| {
        if names.len() == services.len() {
            line + "\n"
        } else {
            format!("{}: {line}\n", names.join(", "))
        }
    };
    lines.into_iter().map(text).collect()
}

fn settings_of(service: &ServiceRecord) -> Vec<String> {
    let mut lines = Vec::new();
    if service.server_is_local {
        lines.push("The server is this host: no packet takes the fast path".to_owned());
    }
    if service.dedicated {
        lines.push(
            "The VIP is dedicated: UDP fragments without ports are the server's (of this host's own VPN peers: also this host's)".to_owned(),
        );
    }
    for (count, option, fate) in [
        (service.except_peers, "--except-peer", "left to this host"),
        (service.denied, "--deny", "dropped"),
    ] {
        if count > 0 {
            let prefixes = if count == 1 { "prefix" } else { "prefixes" };
            lines.push(format!(
                "{count} {prefixes} of {option}: packets from and to them are {fate}"
            ));
        }
    }
    lines
}

fn attached(attached: &[ProgramStatus]) -> String {
    if attached.is_empty() {
        return "Nothing is attached: an earlier start died half-way; `ikenat run` heals it.\n"
            .to_owned();
    }
    programs("INTERFACE", attached)
}

/// What a start has left on interfaces when it died while the instance moved.
fn left_over(left: &[ProgramStatus]) -> String {
    if left.is_empty() {
        return String::new();
    }
    format!(
        "\n{}A start that died, or that is under way, has left these beside the others; the next `ikenat run` goes on with them or detaches them, and `ikenat unload` detaches everything\n",
        programs("LEFT ON", left)
    )
}

fn programs(heading: &'static str, programs: &[ProgramStatus]) -> String {
    let mut table = TextTable::new(&[
        (heading, Align::Left),
        ("HOOK", Align::Left),
        ("MODE", Align::Left),
        ("PROGRAM", Align::Right),
        ("", Align::Left),
    ]);
    for one in programs {
        let remark = match (one.alive, one.in_this_namespace) {
            (false, _) if one.hook == TcBackend::Clsact.name() => {
                "DEAD: the interface is gone or another program has removed the filter; a running daemon re-attaches when it is back".to_owned()
            }
            (false, _) => "DEAD: the interface is gone; a running daemon re-attaches when it is back".to_owned(),
            (true, false) if one.ifindex != 0 => {
                format!("(index {} of another network namespace)", one.ifindex)
            }
            (true, _) => String::new(),
        };
        let interface = if one.interface.is_empty() {
            "?"
        } else {
            &one.interface
        };
        table.row([
            interface.to_owned(),
            one.hook.to_owned(),
            one.mode.to_owned(),
            one.program
                .map_or_else(|| "?".to_owned(), |program| program.to_string()),
            remark,
        ]);
    }
    table.text(0)
}

fn tables(instance: &InstanceStatus) -> String {
    let mut table = TextTable::new(&[
        ("TABLE", Align::Left),
        ("ENTRIES", Align::Right),
        ("LIMIT", Align::Right),
        ("MEMORY", Align::Right),
        ("WHEN FULL", Align::Left),
    ]);
    for one in &instance.tables {
        table.row([
            one.name.to_owned(),
            grouped(one.entries),
            grouped(one.limit),
            size(one.bytes),
            one.when_full.to_owned(),
        ]);
    }
    table.text(0)
}

/// The peers of this host itself; at most [`HOST_PEERS`] of them.
fn host_peers(instance: &InstanceStatus) -> String {
    let peers = &instance.host_peers;
    if peers.is_empty() {
        return String::new();
    }
    let columns = [
        ("PEER OF THIS HOST", Align::Left),
        ("PACKETS LEFT TO THIS HOST", Align::Left),
        ("LAST SENT", Align::Right),
    ];
    let shown = peers.iter().take(HOST_PEERS);
    let mut text = if instance.services.len() > 1 {
        let columns: [_; 4] = prepended(SERVICE, columns);
        let mut table = TextTable::new(&columns);
        let row = |one: &HostPeerStatus| prepended(one.service.clone(), host_peer(one));
        shown.for_each(|one| table.row::<4>(row(one)));
        table.text(0)
    } else {
        let mut table = TextTable::new(&columns);
        shown.for_each(|one| table.row(host_peer(one)));
        table.text(0)
    };
    if peers.len() > HOST_PEERS {
        let more = peers.len() - HOST_PEERS;
        text.push_str(&format!(
            "... and {more} more (`ikenat status --json` has all)\n"
        ));
    }
    text.push('\n');
    text
}

fn host_peer(one: &HostPeerStatus) -> [String; 3] {
    let packets = match (one.port, one.vip_port) {
        (Some(port), Some(vip_port)) => format!("UDP {port} to {vip_port}"),
        _ => "ESP".to_owned(),
    };
    [
        one.peer.to_string(),
        packets,
        format!("{} s ago", one.last_sent_secs),
    ]
}

fn reasons(instance: &InstanceStatus) -> String {
    let mut table = TextTable::new(&[
        ("HOOK", Align::Left),
        ("OUTCOME", Align::Left),
        ("REASON", Align::Left),
        ("PACKETS", Align::Right),
    ]);
    let seen = instance.reasons.iter().filter(|reason| reason.count > 0);
    let mut any = false;
    for reason in seen {
        any = true;
        table.row([
            reason.hook.to_owned(),
            reason.outcome.to_owned(),
            reason.reason.clone(),
            grouped(reason.count),
        ]);
    }
    if any {
        table.text(0)
    } else {
        "No packet has come in yet.\n".to_owned()
    }
}
