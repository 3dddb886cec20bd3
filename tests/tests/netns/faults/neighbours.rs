//! Neighbours and routes that change under traffic: MAC addresses with and without an announcement,
//! a neighbour that does not answer, a route that is withdrawn. The tests measure how soon the
//! gateway follows, with and without the daemon.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::load::Load;
use ikenat_tests::lab::topology::{GATEWAY_LAN, LAN, LAN_MAC, PEER, SERVER};
use ikenat_tests::suite::Scenario;
use std::sync::atomic::AtomicU64;
use xdp_common::cpu::EGRESS_LAN;
use xdp_common::slot::nexthop;
use xdp_core::Word;
use xdp_user::tables::mmap::{ReadOnlyWord, Tables};

use crate::support::{count, everything_crosses, no_loss, patience, tenth_rate, wait_for_log};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let load = |name, test| Scenario::new(name, test).alone();
    vec![
        load(
            "a_mac_change_with_an_announcement_is_followed_at_once",
            announced,
        ),
        load(
            "a_mac_change_without_an_announcement_is_followed_soon",
            silent,
        ),
        load(
            "without_the_daemon_an_announced_address_is_followed_in_seconds",
            announced_alone,
        ),
        load(
            "without_the_daemon_a_silent_address_is_followed_as_soon_as_the_kernel_asks",
            silent_alone,
        ),
        load(
            "a_neighbour_that_does_not_answer_is_found_when_it_does",
            unanswered,
        ),
        load(
            "a_route_that_is_withdrawn_and_comes_back_is_used_again",
            route,
        ),
        load("probing_neighbours_invalidates_no_next_hop", quiet),
        load(
            "a_neighbour_that_answers_broadcasts_only_is_left_alone",
            broadcasts_only,
        ),
        load("neighbours_that_are_not_used_are_released", released),
    ]
}

/// How the server announces its new MAC address.
#[derive(Clone, Copy, PartialEq)]
enum Announcement {
    /// By gratuitous ARP (RFC 5944 section 4.6). Nothing less would do: what an ordinary ARP request
    /// says of its sender is ignored by the kernel for a second (`locktime`) after each change of
    /// the entry, and the daemon's probes are such changes.
    Gratuitous,
    /// Not at all: its ARP requests are lost, and it has a static entry for its gateway.
    None,
}

fn gateway_mac() -> String {
    LAN_MAC.map(|byte| format!("{byte:02x}")).join(":")
}

/// Changes the server's MAC address under traffic in both directions, and returns the duration of
/// the outage towards the server.
fn change(lab: &Lab, label: &str, announcement: Announcement, long: Duration) -> Result<Duration> {
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    load.flows()?;
    settled(lab)?;
    const NEW: &str = "02:00:00:00:02:99";
    let change = format!("ip link set {PEER} address {NEW}");
    match announcement {
        Announcement::Gratuitous => lab.server.shell(&format!(
            "sysctl -qw net.ipv4.conf.{PEER}.arp_notify=1
             {change}"
        ))?,
        Announcement::None => lab.server.shell(&format!(
            "nft add table arp quiet
             nft 'add chain arp quiet out {{ type filter hook output priority 0; }}'
             nft add rule arp quiet out arp operation request drop
             {change}
             ip neighbour replace {GATEWAY_LAN} lladdr {} nud permanent dev {PEER}",
            gateway_mac()
        ))?,
    };
    load.flows_within(long).with_context(|| {
        lab.gateway
            .run("ip -statistics neighbour")
            .unwrap_or_default()
    })?;
    load.flows()?;
    let [inbound, outbound] = load.losses(label)?;
    ensure!(inbound.foreign + inbound.duplicates + outbound.foreign + outbound.duplicates == 0);
    ensure!(inbound.lost > 0, "the address has not changed");
    ensure!(
        outbound.outage < patience(Duration::from_secs(1)),
        "the other way was disturbed: {outbound}"
    );
    Ok(inbound.outage)
}

/// Waits until the daemon has invalidated no next hop for more than a second, after which it follows
/// the next change at once. What it hears in the first moments are changes.
pub(crate) fn settled(lab: &Lab) -> Result<()> {
    let began = Instant::now();
    loop {
        let before = lan_egress(lab)?;
        std::thread::sleep(Duration::from_millis(1500));
        if lan_egress(lab)? == before {
            return Ok(());
        }
        ensure!(
            began.elapsed() < patience(Duration::from_secs(20)),
            "next hops are invalidated again and again"
        );
    }
}

fn within(outage: Duration, bound: Duration) -> Result<()> {
    let bound = patience(bound);
    ensure!(
        outage <= bound,
        "an outage of {outage:?}, longer than {bound:?}"
    );
    Ok(())
}

fn announced(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let outage = change(
        lab,
        "MAC changed with gratuitous ARP",
        Announcement::Gratuitous,
        Duration::from_secs(10),
    )?;
    within(outage, Duration::from_secs(2))
}

fn silent(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let outage = change(
        lab,
        "MAC changed silently",
        Announcement::None,
        Duration::from_secs(10),
    )?;
    ensure!(
        fs::read_to_string(lab.log("ikenat"))?.contains(&format!("neighbour {SERVER} on")),
        "the log does not say so"
    );
    // A second until it is asked, one for its answer, and what a busy machine adds.
    within(outage, Duration::from_secs(4))
}

fn announced_alone(lab: &Lab) -> Result<()> {
    Ikenat::start(lab)?.kill()?;
    let label = "MAC changed with gratuitous ARP, no daemon";
    let outage = change(
        lab,
        label,
        Announcement::Gratuitous,
        Duration::from_secs(20),
    )?;
    // A flow uses its cached next hop for eight seconds.
    within(outage, Duration::from_secs(10))
}

/// A silent MAC change without the daemon, in the worst case: the kernel's neighbour timeouts plus
/// the lifetime of a cached next hop. With the kernel's defaults for everything else, an entry is
/// reachable for one and a half times `base_reachable_time_ms`. Then a packet must reach the kernel
/// (up to eight seconds, as long as flows use their cached next hop); the kernel waits for a
/// confirmation (`delay_first_probe_time`, five seconds) and probes three times, once a second
/// (`ucast_solicit`). Until the next lookup, flows use their cached next hop (eight seconds more).
fn silent_alone(lab: &Lab) -> Result<()> {
    lab.gateway.run(&format!(
        "sysctl -qw net.ipv4.neigh.{LAN}.base_reachable_time_ms=3000"
    ))?;
    Ikenat::start(lab)?.kill()?;
    let label = "MAC changed silently, no daemon, base_reachable_time_ms=3000";
    let outage = change(lab, label, Announcement::None, Duration::from_secs(40))?;
    within(outage, Duration::from_secs(30))
}

fn unanswered(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    lab.server.shell(&format!(
        "ip neighbour replace {GATEWAY_LAN} lladdr {} nud permanent dev {PEER}
         nft add table arp deaf
         nft 'add chain arp deaf in {{ type filter hook input priority 0; policy drop; }}'
         nft 'add chain arp deaf out {{ type filter hook output priority 0; policy drop; }}'",
        gateway_mac()
    ))?;
    wait_for_log(lab, &format!("neighbour {SERVER} on"))?;
    let began = Instant::now();
    let failed = || -> Result<bool> {
        let neighbours = lab.gateway.run(&format!("ip neighbour show {SERVER}"))?;
        // With packets that want it, it is FAILED for moments only and INCOMPLETE for the rest.
        Ok(!neighbours.contains("lladdr"))
    };
    while !failed()? {
        ensure!(
            began.elapsed() < Duration::from_secs(10),
            "it has not failed"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    // Past the three questions after which the kernel gives up.
    std::thread::sleep(Duration::from_secs(4));
    lab.server.run("nft delete table arp deaf")?;
    let outage = began.elapsed();
    load.flows_within(Duration::from_secs(5))?;
    load.flows()?;
    let [inbound, outbound] = load.losses(&format!("a neighbour FAILED for {outage:.1?}"))?;
    ensure!(count(lab, "xdp", "neighbour-unresolved")? > 0);
    // It is asked once a second while packets come.
    within(inbound.outage, outage + Duration::from_secs(3))?;
    ensure!(
        inbound.foreign + outbound.foreign == 0,
        "something came untranslated: {inbound}, {outbound}"
    );
    within(outbound.outage, Duration::from_secs(1))
}

fn route(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    load.flows()?;
    settled(lab)?;
    let route = format!("192.168.0.0/24 dev {LAN}");
    lab.gateway.run(&format!("ip route del {route}"))?;
    let began = Instant::now();
    while count(lab, "xdp", "no-route")? == 0 {
        ensure!(
            began.elapsed() < Duration::from_secs(3),
            "the withdrawn route is still used"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let noticed = began.elapsed();
    std::thread::sleep(Duration::from_secs(1));
    lab.gateway.run(&format!("ip route add {route}"))?;
    let outage = began.elapsed();
    load.flows_within(Duration::from_secs(5))?;
    load.flows()?;
    let label = format!("a route withdrawn for {outage:.1?}, noticed after {noticed:.1?}");
    let [inbound, outbound] = load.losses(&label)?;
    within(inbound.outage, outage + Duration::from_secs(1))?;
    ensure!(inbound.lost > 0, "it was not withdrawn");
    ensure!(
        inbound.foreign + outbound.foreign == 0 && outbound.lost == 0,
        "the way to the client was not touched: {inbound}, {outbound}"
    );
    Ok(())
}

/// What the dataplane knows of the LAN: the MTU, and the epoch of its next hops.
pub(crate) fn lan_egress(lab: &Lab) -> Result<u64> {
    let directory = lab.bpffs().join("ikenat/default");
    let tables = Tables::<ReadOnlyWord>::open(&directory)?;
    Ok(tables.egress(EGRESS_LAN))
}

/// Some routers ignore ARP requests that are sent to them alone.
fn broadcasts_only(lab: &Lab) -> Result<()> {
    let ikenat = Ikenat::start(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    load.flows()?;
    lab.server.shell(
        "nft add table arp deaf
         nft 'add chain arp deaf in { type filter hook input priority 0; }'
         nft add rule arp deaf in arp operation request ether daddr != ff:ff:ff:ff:ff:ff drop",
    )?;
    let began = Instant::now();
    let left_alone = format!("neighbour {SERVER} on {LAN}: answers only broadcast ARP requests");
    let reported = |text: &str| ikenat.log().matches(text).count();
    while reported(&left_alone) == 0 {
        ensure!(
            began.elapsed() < patience(Duration::from_secs(20)),
            "it is not left alone:\n{}",
            ikenat.log()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    // From here on nothing happens; before, it was resolved again each two or three seconds.
    settled(lab)?;
    let before = lan_egress(lab)?;
    std::thread::sleep(Duration::from_secs(6));
    let after = lan_egress(lab)?;
    ensure!(after == before, "next hops are still invalidated");
    let silent = format!("neighbour {SERVER} on {LAN}: no ARP reply");
    ensure!(
        (reported(&silent), reported(&left_alone)) == (1, 1),
        "each is to be said once:\n{}",
        ikenat.log()
    );
    load.flows()
}

/// All entries belong to neighbours whose last packet was ten minutes ago: a gateway whose clients
/// are neighbours, for example. The daemon makes room for those that are used.
fn released(lab: &Lab) -> Result<()> {
    const TEN_MINUTES: u64 = 600;
    let _ikenat = Ikenat::start(lab)?;
    let tables = Tables::<AtomicU64>::open(&lab.bpffs().join("ikenat/default"))?;
    everything_crosses(lab)?;
    let (entries, _) = tables.nexthop.words().as_chunks::<{ nexthop::WORDS }>();
    let used = entries
        .iter()
        .find(|entry| Word::load(&entry[nexthop::KEY]) != 0);
    let used = used.context("no neighbour has an entry")?;
    let now = Word::load(&used[nexthop::CONFIRMED]);
    for (at, entry) in entries.iter().enumerate() {
        Word::store(
            &entry[nexthop::CONFIRMED],
            now.wrapping_sub(TEN_MINUTES) & 0xffff_ffff,
        );
        Word::store(&entry[nexthop::KEY], 77 << 32 | (at as u64 + 1));
    }
    let held = || -> Result<u64> {
        let status = lab.status()?;
        let table = status.tables.iter().find(|table| table.name == "NEXTHOP");
        Ok(table.context("no NEXTHOP")?.entries)
    };
    let began = Instant::now();
    while held()? > 0 {
        ensure!(
            began.elapsed() < patience(Duration::from_secs(10)),
            "{} entries are held",
            held()?
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    load.flows()?;
    // The next hops that flows have cached are valid for eight seconds.
    let began = Instant::now();
    while held()? < 2 {
        ensure!(
            began.elapsed() < patience(Duration::from_secs(20)),
            "client and server have no entries"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    no_loss(&load.losses("entries of NEXTHOP are freed and claimed")?)
}

/// The daemon asks each second; the kernel's words about that are no news to the dataplane.
fn quiet(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    // What comes in the first moments is news.
    std::thread::sleep(Duration::from_secs(3));
    let before = (
        lan_egress(lab)?,
        lab.gateway.run("ip -statistics neighbour")?,
    );
    std::thread::sleep(Duration::from_secs(3));
    let after = (
        lan_egress(lab)?,
        lab.gateway.run("ip -statistics neighbour")?,
    );
    ensure!(before.0 == after.0 && after.0 != 0, "{before:?}, {after:?}");
    // It was asked, or the rest proves nothing: the kernel has heard of it a moment ago.
    ensure!(after.1.contains("REACHABLE"), "{}", after.1);
    load.finish()?.check_counted(&lab.stats()?)
}
