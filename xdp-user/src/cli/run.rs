//! `ikenat run`: attaches, says what it did, keeps house, and stops without detaching.

use super::address;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use ipnet::Ipv4Net;
use std::io::{self, IsTerminal as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use xdp_common::limits::{FLOW_SLOTS, IDLE_SECS, IDLE_SECS_MIN, SESSION_SLOTS};
use xdp_user::bpffs::permissions;
use xdp_user::config::peer_lists::{self, Lists};
use xdp_user::config::plan::Plan;
use xdp_user::config::settings::{Mode, Modes, Settings, Sizes, Tc};
use xdp_user::daemon::Daemon;
use xdp_user::daemon::signals::{Signals, Stop};
use xdp_user::netlink::Netlink;

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

/// Runs the daemon until a signal ends it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let netlink = Netlink::open()?;
    let plan = Plan::check(arguments.settings(), &netlink)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the event loop")?;
    // Before anything is attached: a signal that comes during the start must not leave half of it.
    let mut signals = {
        let _entered = runtime.enter();
        Signals::listen()?
    };
    let mut daemon = Daemon::start(plan, netlink)?;
    let stop = runtime.block_on(daemon.run(signals.stop()))?;
    let terminal = io::stdin().is_terminal() || io::stderr().is_terminal();
    if stop == Stop::Interrupted && terminal {
        return daemon.detach().context("failed to detach");
    }
    daemon.leave(stop);
    Ok(())
}
