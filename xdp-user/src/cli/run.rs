//! `ikenat run`: attaches, says what it did, keeps house, and stops without detaching.

use super::address;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use ipnet::Ipv4Net;
use std::io::{self, IsTerminal as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};
use xdp_common::limits::{FLOW_SLOTS, IDLE_SECS, IDLE_SECS_MIN, SESSION_SLOTS};
use xdp_user::bpffs::permissions;
use xdp_user::config::interfaces::Side;
use xdp_user::config::peer_lists::{self, Lists};
use xdp_user::config::plan::Plan;
use xdp_user::config::settings::Sizes;
use xdp_user::config::settings::{Mode, Modes, Settings, Tc};
use xdp_user::daemon::maintenance::{
    House, each_second, follow, report_attached, report_not_ready,
};
use xdp_user::daemon::neighbour_probe::Prober;
use xdp_user::daemon::reattach::LinkMonitor;
use xdp_user::dataplane::{self, Dataplane, Logger};
use xdp_user::netlink::Netlink;
use xdp_user::netlink::monitor::ChangeMonitor;
use xdp_user::sys::capabilities;
use xdp_user::tables::expiry::Expiry;

/// Attach to the interfaces and keep house, in the foreground
///
/// Stopping is not detaching: after SIGTERM (systemctl stop, systemctl restart), a crash or a kill, the programs go on
/// translating and the next `run` takes over without losing a packet. Ctrl-C on a terminal detaches everything.
/// `ikenat unload` removes what is left.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Interface towards the clients; up to four times, and the fast path outbound leaves by the first
    #[arg(long, value_name = "IF", required = true)]
    wan: Vec<String>,
    /// Interface towards the server, up to four times; the first may be the first --wan. Left out when the server is an
    /// address of this host
    #[arg(long, value_name = "IF")]
    lan: Vec<String>,
    /// The public address that clients connect to
    #[arg(long, value_name = "A", value_parser = address)]
    vip: Ipv4Addr,
    /// The VPN server behind it; its replies must be routed through this gateway
    #[arg(long, value_name = "A", value_parser = address)]
    server: Ipv4Addr,
    /// Where XDP runs: in the driver, or in the stack, which works on any device and is slower
    #[arg(long, value_enum, default_value_t = ModeArgument::Native)]
    mode: ModeArgument,
    /// The same for the WANs alone
    #[arg(long, value_enum, value_name = "MODE")]
    wan_mode: Option<ModeArgument>,
    /// The same for the LANs alone: a bridge (docker0), a VLAN device or a tap needs generic there, while the WAN stays
    /// native
    #[arg(long, value_enum, value_name = "MODE")]
    lan_mode: Option<ModeArgument>,
    /// A peer that is this host's own (an address or a prefix): its packets are left alone, as if ikenat were not there;
    /// any number of times. The longest prefix of both lists counts
    #[arg(long, value_name = "PREFIX", value_parser = peer_lists::prefix)]
    except_peer: Vec<Ipv4Net>,
    /// A peer that is refused (an address or a prefix): its packets to our ports are dropped; any number of times
    #[arg(long, value_name = "PREFIX", value_parser = peer_lists::prefix)]
    deny: Vec<Ipv4Net>,
    /// The VIP is for IPsec alone: every UDP fragment without ports is the server's
    #[arg(long)]
    dedicated: bool,
    /// Count as if packets were translated, and leave every one alone: to try it on live traffic. A later start without
    /// it begins with new counters; a live instance cannot become a dry run
    #[arg(long)]
    dry_run: bool,
    /// How the slow path is attached: by tcx (Linux 6.6), as a filter in a clsact, or by whichever the kernel has.
    /// Programs in tcx run before those in clsact; it cannot change while an instance is attached
    #[arg(long, value_enum, default_value_t = TcArgument::Auto)]
    tc: TcArgument,
    /// The BPF file system, if it is not /sys/fs/bpf
    #[arg(long, value_name = "DIR")]
    bpffs: Option<PathBuf>,
    /// Let the members of this group read `stats` and `status`, without any capability
    #[arg(long, value_name = "NAME", value_parser = permissions::group)]
    group: Option<u32>,
    /// Slots for SPIs, a power of two; half of them can be in use, 128 bytes each
    #[arg(long, value_name = "N", default_value_t = FLOW_SLOTS, value_parser = slots)]
    flow_slots: u32,
    /// Slots for peers, a power of two; half of them can be in use, 128 bytes each
    #[arg(long, value_name = "N", default_value_t = SESSION_SLOTS, value_parser = slots)]
    session_slots: u32,
    /// Forget the counters of an SPI or peer after this much silence; never less than two minutes
    #[arg(long, value_name = "SECS", default_value_t = IDLE_SECS, value_parser = idle)]
    idle_timeout: u32,
    /// Write a line to the log when a peer becomes established
    #[arg(long)]
    log_sessions: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArgument {
    Native,
    Generic,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TcArgument {
    Auto,
    Tcx,
    Clsact,
}

impl From<ModeArgument> for Mode {
    fn from(argument: ModeArgument) -> Self {
        match argument {
            ModeArgument::Native => Self::Native,
            ModeArgument::Generic => Self::Generic,
        }
    }
}

fn slots(text: &str) -> Result<u32, String> {
    const RANGE: std::ops::RangeInclusive<u32> = 64..=1 << 24;
    match text.parse::<u32>() {
        Ok(slots) if RANGE.contains(&slots) && slots.is_power_of_two() => Ok(slots),
        Ok(_) | Err(_) => {
            Err("give a power of two from 64 to 16777216, for example 65536".to_owned())
        }
    }
}

fn idle(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(seconds) if seconds >= IDLE_SECS_MIN => Ok(seconds),
        Ok(_) => Err(format!(
            "a NAT must keep UDP for at least {IDLE_SECS_MIN} seconds (RFC 4787 REQ-5); give that or more"
        )),
        Err(_) => Err("give a number of seconds, for example 300".to_owned()),
    }
}

impl Arguments {
    pub(super) fn settings(&self) -> Settings {
        Settings {
            wans: self.wan.clone(),
            lans: self.lan.clone(),
            vip: self.vip,
            server: self.server,
            modes: Modes {
                wan: self.wan_mode.unwrap_or(self.mode).into(),
                lan: self.lan_mode.unwrap_or(self.mode).into(),
            },
            lists: Lists {
                except: self.except_peer.clone(),
                deny: self.deny.clone(),
            },
            dedicated: self.dedicated,
            dry_run: self.dry_run,
            tc: match self.tc {
                TcArgument::Auto => Tc::Auto,
                TcArgument::Tcx => Tc::Tcx,
                TcArgument::Clsact => Tc::Clsact,
            },
            sizes: Sizes {
                flow_slots: self.flow_slots,
                session_slots: self.session_slots,
            },
            idle_secs: self.idle_timeout,
            log_sessions: self.log_sessions,
            bpffs: self.bpffs.clone(),
            group: self.group,
        }
    }
}

/// Does it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let netlink = Netlink::open()?;
    let mut plan = Plan::check(arguments.settings(), &netlink)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the event loop")?;
    // Before anything is attached: a signal that comes during the start must not leave half of it.
    let mut signals = {
        let _inside = runtime.enter();
        Signals::new().context("failed to listen for signals")?
    };
    let events = ChangeMonitor::listen()?;
    let (mut running, mut loggers) = dataplane::start(&plan, &netlink)?;
    report(&plan, &running);
    if capabilities::is_hardened() {
        info!(
            "without CAP_PERFMON: the programs are those that the verifier can bound against speculation; each packet costs more (docs/privileges.md)"
        );
    }
    let path = running.instance.directory.clone();
    running.hold_pins()?;
    let kept = capabilities::give_up()?;
    debug!("capabilities that are kept: {kept:?}");
    let mut house = House {
        expiry: Expiry::new(running.clock, plan.settings.idle_secs),
        complained: Vec::new(),
        events,
        watch: LinkMonitor::default(),
        prober: Prober::default(),
        // Where it can be seen with the capabilities that are left.
        path: Some(path).filter(|path| path.exists()),
    };
    let freed = house.expiry.recover(&running.tables)?;
    if freed.flows + freed.sessions > 0 {
        info!(
            "finished what the last daemon had begun: {} SPIs and {} peers expired",
            freed.flows, freed.sessions
        );
    }
    say_ready(&plan);
    let keep_house = async {
        let mut often = tokio::time::interval(OFTEN);
        often.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                stop = signals.next() => return Ok::<_, anyhow::Error>(stop),
                _ = often.tick() => {
                    // The dataplane's own messages go to the log.
                    loggers.iter_mut().for_each(Logger::flush);
                    // An interface that is back carries packets that nobody translates.
                    if house.events.links_changed() {
                        second.reset_immediately();
                    }
                }
                _ = second.tick() => {
                    let again = follow(&mut running, &plan, &netlink, &mut house);
                    if let Some(again) = again {
                        (plan, loggers) = again;
                    }
                    each_second(&running, &plan, &netlink, &mut house)?;
                }
            }
        }
    };
    let stop = runtime.block_on(keep_house)?;
    end(running, &netlink, &plan, stop)
}

/// Why the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Terminated,
    Interrupted,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Stop {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Stop::Terminated,
                _ = self.interrupt.recv() => return Stop::Interrupted,
                _ = self.hangup.recv() => debug!("SIGHUP: there is no configuration file to read again"),
            }
        }
    }
}

/// How often changes of interfaces and the dataplane's own messages are looked for. Waiting on the ring buffer's descriptor
/// would need `unsafe`, and its messages are about sessions, not packets.
const OFTEN: Duration = Duration::from_millis(250);

fn report(plan: &Plan, running: &Dataplane) {
    report_attached(running);
    for (side, name) in [(Side::Wan, "WAN"), (Side::Lan, "LAN")] {
        if plan.settings.modes.of(side) == Mode::Generic && !plan.settings.dry_run {
            warn!(
                "generic mode was asked for on the {name}: it works on any device and is several times slower than native mode"
            );
        }
    }
    let tables = if running.reused {
        "counters go on from where they were"
    } else {
        "new tables"
    };
    info!(
        "pins are in {}; {tables}",
        running.instance.directory.display()
    );
    let (vip, server) = (plan.settings.vip, plan.settings.server);
    if let Some(earlier) = running.earlier_server.filter(|earlier| *earlier != server) {
        warn!(
            "the server of {vip} was {earlier} and is {server} now: all live tunnels go to the new one"
        );
    }
    if !plan.vip_is_local {
        warn!(
            "{vip} is no address of this host, so nobody may answer ARP for it: route it here, or `ip address add {vip}/32 dev {}`",
            plan.wans[0].name
        );
    }
    if let Some(group) = plan.settings.group
        && let Some(closed) = running.instance.closed_to(group)
    {
        warn!(
            "members of group {group} cannot get to the tables, because {0} is closed to them: `chmod o+x {0}`",
            closed.display()
        );
    }
    report_not_ready(plan, running);
}

/// The last line of a start.
fn say_ready(plan: &Plan) {
    let (vip, server) = (plan.settings.vip, plan.settings.server);
    if plan.settings.dry_run {
        warn!(
            "dry run: nothing is forwarded, every packet is left alone; `ikenat status` counts what would have been done"
        );
        info!("ready: counting what would be translated from {vip} to {server}");
    } else {
        info!("ready: translating {vip} to {server}");
    }
}

fn end(running: Dataplane, netlink: &Netlink, plan: &Plan, stop: Stop) -> Result<()> {
    let vip = plan.settings.vip;
    let terminal = io::stdin().is_terminal() || io::stderr().is_terminal();
    if stop == Stop::Interrupted && terminal {
        let removed = running.detach(netlink).context("failed to detach")?;
        info!(
            "Ctrl-C: detached everything of {vip} and removed {} pins",
            removed.len()
        );
        return Ok(());
    }
    let why = match stop {
        Stop::Terminated => "SIGTERM",
        Stop::Interrupted => "SIGINT without a terminal, treated like SIGTERM",
    };
    info!(
        "{why}: the daemon ends; the programs stay attached and go on translating {vip} (`ikenat unload` removes them)"
    );
    Ok(())
}
