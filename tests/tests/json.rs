//! The JSON documents of `stats`, `status` and `check`, byte for byte: each has a snapshot in
//! `tests/snapshots`, and `docs/json.md` has every field of it with its type.
//!
//! The values are fixed and have every field, also those that may be null.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use ikenat_tests::json_page;
use serde::Serialize;
use xdp_common::counters::{Quantity, WORDS, class};
use xdp_common::{Class, Direction, Hook};
use xdp_user::check::{Checks, Finding, InstanceCheck, Level, TunnelNeed};
use xdp_user::report::document::Document;
use xdp_user::report::selection::Selection;
use xdp_user::report::stats::{InstanceStats, Stats};
use xdp_user::report::status::{
    HostPeerStatus, InstanceStatus, ProgramStatus, ReasonCount, Redirect, Status, TableStatus,
};
use xdp_user::tables::clock::{Clock, Moment};
use xdp_user::tables::overview::Overview;
use xdp_user::tables::retired::{Amount, RetiredTotals};
use xdp_user::tables::services::ServiceRecord;
use xdp_user::tables::snapshot::{FlowRecord, HalfOpen, SessionRecord, Snapshot};

/// Set to write the snapshots instead of comparing them.
const RENEW: &str = "IKENAT_RENEW_SNAPSHOTS";

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
const VIP_2: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2));
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 1));
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const CLIENT_2: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 8);
/// 2026-11-27 08:02:08 UTC, in seconds since 1970.
const GENERATED: u64 = 1_795_766_528;

#[test]
fn stats_are_those_of_the_snapshot() -> Result<()> {
    let snapshot = snapshot();
    let instances = vec![InstanceStats::of(
        "default",
        &snapshot,
        &Selection::default(),
        None,
    )];
    compare("stats", Stats { instances })
}

#[test]
fn status_is_that_of_the_snapshot() -> Result<()> {
    let instances = vec![with_daemon(), without_daemon()];
    compare("status", Status { instances })
}

#[test]
fn check_is_that_of_the_snapshot() -> Result<()> {
    let checks = vec![InstanceCheck {
        instance: "default".to_owned(),
        services: services(),
        findings: findings(),
    }];
    let tunnels = Some(TunnelNeed {
        tunnels: 25_000,
        flow_slots: 262_144,
        session_slots: 65_536,
        bytes: 42_696_704,
    });
    compare("check", Checks { tunnels, checks })
}

#[test]
fn the_documentation_has_every_field_with_its_type_and_no_other() -> Result<()> {
    let page = root().join("docs/json.md");
    let page =
        fs::read_to_string(&page).with_context(|| format!("failed to read {}", page.display()))?;
    for verb in ["stats", "status", "check"] {
        json_page::compare(&page, verb, &serde_json::from_str(&read(verb)?)?)?;
    }
    Ok(())
}

fn services() -> Vec<ServiceRecord> {
    vec![ServiceRecord {
        name: "office".to_owned(),
        vips: vec![VIP, VIP_2],
        servers: vec![SERVER],
        server_is_local: false,
        dedicated: true,
        except_peers: 1,
        denied: 2,
    }]
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn path(verb: &str) -> PathBuf {
    root().join(format!("tests/snapshots/{verb}.json"))
}

fn read(verb: &str) -> Result<String> {
    let path = path(verb);
    fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
}

/// Compares the document of an answer with its snapshot, or writes the snapshot.
fn compare(verb: &str, answer: impl Serialize) -> Result<()> {
    let generated = SystemTime::UNIX_EPOCH + Duration::from_secs(GENERATED);
    let mut text = Vec::new();
    Document::at(generated, answer).write_indented(&mut text)?;
    let text = String::from_utf8(text)?;
    if std::env::var_os(RENEW).is_some() {
        return fs::write(path(verb), text).context("failed to write the snapshot");
    }
    let expected = read(verb)?;
    if text == expected {
        return Ok(());
    }
    let lines = text.lines().zip(expected.lines());
    let same = lines.take_while(|(new, old)| new == old).count();
    let line = |text: &str| text.lines().nth(same).unwrap_or("the end").to_owned();
    bail!(
        "`{verb} --json` differs from tests/snapshots/{verb}.json in line {}:\n  \
         snapshot: {}\n  now:      {}\n\
         If that is meant, run `{RENEW}=1 cargo test -p ikenat-tests --test json`, look at the \
         difference, and describe it in docs/json.md and CHANGELOG.md. A field that is removed, \
         renamed or has another meaning needs another `schema` \
         (xdp-user/src/report/document.rs).",
        same + 1,
        line(&expected),
        line(&text)
    );
}

const TICK: u64 = 250;
/// A moment in jiffies.
const NOW: u64 = 100_000;

fn in_udp() -> FlowRecord {
    FlowRecord {
        peer: CLIENT,
        service: 0,
        port: 40_000,
        class: Class::EspInUdp,
        spi: 0xc123_4567,
        direction: Direction::Inbound,
        packets: 95,
        bytes: 9_500,
        first_seen: NOW - 12 * TICK - 1,
        age: 501,
        first_sequence: 1,
        last_sequence: 99,
        highest: 100,
        reordered: 1,
    }
}

fn native() -> FlowRecord {
    FlowRecord {
        peer: CLIENT_2,
        service: 0,
        port: 0,
        class: Class::Esp,
        spi: 0x100,
        direction: Direction::Outbound,
        packets: 200,
        bytes: 20_000,
        first_seen: NOW - 10 * TICK,
        age: 0,
        first_sequence: 1,
        last_sequence: 200,
        highest: 200,
        reordered: 0,
    }
}

fn snapshot() -> Snapshot {
    let mut counters = [[0; WORDS]; Hook::ALL.len()];
    let xdp = &mut counters[Hook::Xdp as usize];
    for (direction, kind, values) in [
        (Direction::Inbound, Class::EspInUdp, [111, 11_100, 5, 500]),
        (Direction::Outbound, Class::Esp, [222, 22_200, 2, 200]),
    ] {
        let quantities = [
            Quantity::Packets,
            Quantity::Bytes,
            Quantity::UntrackedPackets,
            Quantity::UntrackedBytes,
        ];
        for (quantity, value) in quantities.into_iter().zip(values) {
            xdp[class(direction, kind) + quantity as usize] = value;
        }
    }
    let mut retired = RetiredTotals::default();
    retired.esp = [amount(11, 1_100), amount(20, 2_000)];
    let clock = Moment {
        jiffies: NOW,
        monotonic: 0,
    };
    Snapshot {
        overview: Overview {
            services: services(),
            service_names: [(0, "office".to_owned())].into(),
            flags: 0,
            namespace: 1,
            generation: 81_234_567_890,
            interfaces: Vec::new(),
            absent: Vec::new(),
            counters,
            tables: Vec::new(),
            host_peers: Vec::new(),
        },
        clock: Clock::new(TICK, clock),
        now: NOW,
        flows: vec![in_udp(), native()],
        tracked: [amount(95, 9_500), amount(200, 20_000)],
        sessions: vec![SessionRecord {
            peer: CLIENT,
            service: 0,
            age: 501,
            counters: [[2, 3], [4, 5], [6, 0], [0, 0], [7, 8]],
            spis: 1,
        }],
        half_open: vec![HalfOpen {
            peer: CLIENT_2,
            age: 0,
        }],
        retired,
    }
}

const fn amount(packets: u64, bytes: u64) -> Amount {
    Amount { packets, bytes }
}

fn with_daemon() -> InstanceStatus {
    InstanceStatus {
        name: "default".to_owned(),
        services: services(),
        generation: 81_234_567_890,
        daemon: Some(4242),
        dry_run: false,
        grace_period: "membarrier",
        absent: vec!["ppp0".to_owned()],
        attached: vec![
            ProgramStatus {
                interface: "eth1".to_owned(),
                ifindex: 3,
                hook: "xdp",
                mode: "native",
                program: Some(57),
                alive: true,
                in_this_namespace: true,
            },
            ProgramStatus {
                interface: "eth0".to_owned(),
                ifindex: 0,
                hook: "tcx",
                mode: "ingress",
                program: None,
                alive: false,
                in_this_namespace: false,
            },
        ],
        left_over: left_over(),
        redirect: redirect(),
        tables: vec![TableStatus {
            name: "FLOW",
            entries: 2,
            limit: 65_536,
            bytes: 16_777_216,
            when_full: "a text for people",
        }],
        host_peers: vec![
            HostPeerStatus {
                service: "office".to_owned(),
                peer: CLIENT,
                port: Some(500),
                vip_port: Some(4500),
                last_sent_secs: 7,
            },
            HostPeerStatus {
                service: "office".to_owned(),
                peer: CLIENT_2,
                port: None,
                vip_port: None,
                last_sent_secs: 100,
            },
        ],
        reasons: vec![ReasonCount {
            hook: "xdp",
            outcome: "forwarded",
            reason: "esp-in-udp-in".to_owned(),
            count: 95,
        }],
    }
}

/// One that this user may see, and one that it may not.
fn left_over() -> Vec<ProgramStatus> {
    let of = |interface: &str, ifindex, program| ProgramStatus {
        interface: interface.to_owned(),
        ifindex,
        hook: "tcx",
        mode: "ingress",
        program,
        alive: true,
        in_this_namespace: true,
    };
    vec![of("eth2", 4, Some(58)), of("", 0, None)]
}

fn redirect() -> Vec<Redirect> {
    let of = |interface: &str, lost| Redirect {
        interface: interface.to_owned(),
        ready: true,
        lost,
    };
    vec![of("eth1", Some(12)), of("eth0", None)]
}

/// Without a daemon, and with empty lists.
fn without_daemon() -> InstanceStatus {
    InstanceStatus {
        name: "office-2".to_owned(),
        services: Vec::new(),
        generation: 81_234_999_999,
        daemon: None,
        dry_run: true,
        grace_period: "map-update",
        absent: Vec::new(),
        attached: Vec::new(),
        left_over: Vec::new(),
        redirect: Vec::new(),
        tables: Vec::new(),
        host_peers: Vec::new(),
        reasons: Vec::new(),
    }
}

fn findings() -> Vec<Finding> {
    let finding = |level, code, on: Option<&str>, fix: &[&str]| Finding {
        code,
        service: on.map(|_| "office".to_owned()),
        on: on.map(str::to_owned),
        level,
        message: "what was observed".to_owned(),
        reason: "why it matters".to_owned(),
        fix: fix.iter().map(|&command| command.to_owned()).collect(),
    };
    vec![
        finding(Level::Ok, "kernel", None, &[]),
        finding(
            Level::Warning,
            "lro",
            Some("eth1"),
            &["ethtool -K eth1 lro off"],
        ),
        finding(
            Level::Error,
            "forwarding",
            Some("eth0"),
            &[
                "sysctl -w net.ipv4.ip_forward=1",
                "sysctl -w net.ipv4.conf.eth0.forwarding=1",
            ],
        ),
    ]
}
