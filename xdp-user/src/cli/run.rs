//! `ikenat run`: its arguments, and the daemon from the start to the signal that ends it.

use anyhow::{Context, Result};
use clap::{Args, Command, FromArgMatches as _, ValueEnum};
use ipnet::Ipv4Net;
use std::ffi::OsStr;
use std::io::{self, IsTerminal as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use xdp_common::limits::{FLOW_SLOTS, IDLE_SECS, IDLE_SECS_MIN, SESSION_SLOTS, SLOTS};
use xdp_user::bpffs::permissions;
use xdp_user::config::instance_name;
use xdp_user::config::peer_lists::{self, Lists};
use xdp_user::config::plan::Plan;
use xdp_user::config::services::{self, Service};
use xdp_user::config::settings::{Mode, Modes, Settings, Sizes, Tc};
use xdp_user::daemon::Daemon;
use xdp_user::daemon::signals::{Signals, Stop};
use xdp_user::netlink::Netlink;

/// Attach to the interfaces and maintain the tables, in the foreground
///
/// Stopping does not detach: after SIGTERM (systemctl stop, systemctl restart), a crash or a kill,
/// or when the terminal is closed, the programs go on translating, and the next `run` continues
/// without losing a packet. Ctrl-C on a terminal detaches everything. `ikenat unload` removes what is
/// left.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Interface towards the clients, up to four times
    ///
    /// Replies leave by the one that has the VIP, if it has a route to the client; otherwise, and to a client
    /// behind a WAN without a VIP, by the kernel's route. With a single VIP only the first one has the fast
    /// path outbound.
    #[arg(long, value_name = "IF", required = true)]
    wan: Vec<String>,
    /// Interface towards the server, up to four times; none when the server is this host
    ///
    /// The first one may be the first --wan.
    #[arg(long, value_name = "IF")]
    lan: Vec<String>,
    /// Name of this instance: letters, digits, `-` and `_`
    ///
    /// Several instances on one host have different names and different interfaces.
    #[arg(long, value_name = "NAME", default_value = instance_name::DEFAULT,
          value_parser = instance_name::new)]
    instance: String,
    /// Public address that clients connect to
    #[arg(long, value_name = "A", value_parser = services::address,
          required_unless_present = "service")]
    vip: Option<Ipv4Addr>,
    /// VPN server behind the VIP; its replies must be routed through this gateway
    #[arg(long, value_name = "A", value_parser = services::address,
          required_unless_present = "service")]
    server: Option<Ipv4Addr>,
    /// Public addresses and the VPN server behind them, instead of --vip and --server
    ///
    /// It may be given for each of up to 256 servers. NAME is that of the service in reports: letters,
    /// digits, `-`, `_` and `.`; without it the first VIP is the name. A server behind several VIPs
    /// answers each client from the VIP that the client uses.
    #[arg(long, value_name = "[NAME:]VIP[,VIP...]=SERVER", value_parser = ServiceArgument::given,
          conflicts_with_all = ["vip", "server"])]
    service: Vec<ServiceArgument>,
    /// Where XDP runs: in the driver (native) or in the stack (generic: any device, slower)
    #[arg(long, value_enum, default_value_t = ModeArgument::Native)]
    mode: ModeArgument,
    /// Where XDP runs on the WANs
    #[arg(long, value_enum, value_name = "MODE")]
    wan_mode: Option<ModeArgument>,
    /// Where XDP runs on the LANs
    ///
    /// A bridge (docker0), a VLAN device or a tap needs generic; the WANs stay native.
    #[arg(long, value_enum, value_name = "MODE")]
    lan_mode: Option<ModeArgument>,
    /// Address or prefix of a peer of this host itself: its packets are left alone
    ///
    /// It may be given any number of times. To these packets it is as if ikenat were not there. The
    /// longest matching prefix of --except-peer and --deny decides.
    #[arg(long, value_name = "PREFIX", value_parser = peer_lists::prefix)]
    except_peer: Vec<Ipv4Net>,
    /// Address or prefix of a refused peer: its packets to the handled ports are dropped
    ///
    /// It may be given any number of times. The longest matching prefix of --except-peer and --deny
    /// decides.
    #[arg(long, value_name = "PREFIX", value_parser = peer_lists::prefix)]
    deny: Vec<Ipv4Net>,
    /// The VIP is for IPsec alone: every UDP fragment without ports goes to the server
    #[arg(long)]
    dedicated: bool,
    /// Count as if packets were translated, but change none: a test on live traffic
    ///
    /// A later start without --dry-run begins with new counters. A live instance cannot become a
    /// dry run.
    #[arg(long)]
    dry_run: bool,
    /// How the slow path is attached: by tcx (Linux 6.6), a clsact filter, or what the kernel has
    ///
    /// Programs in tcx run before those in clsact. The choice cannot change while an instance is
    /// attached.
    #[arg(long, value_enum, default_value_t = TcArgument::Auto)]
    tc: TcArgument,
    /// The BPF file system, if it is not /sys/fs/bpf
    #[arg(long, value_name = "DIR")]
    bpffs: Option<PathBuf>,
    /// Group that may use `stats` and `status` without any capability
    #[arg(long, value_name = "NAME", value_parser = permissions::group)]
    group: Option<u32>,
    /// Slots for SPIs, 128 bytes each, a power of two; half of them can be in use
    ///
    /// A tunnel has four SPIs during a rekey. `ikenat check --tunnels N` says what N tunnels need.
    #[arg(long, value_name = "N", default_value_t = FLOW_SLOTS, value_parser = slots)]
    flow_slots: u32,
    /// Slots for peers, 128 bytes each, a power of two; half of them can be in use
    #[arg(long, value_name = "N", default_value_t = SESSION_SLOTS, value_parser = slots)]
    session_slots: u32,
    /// Seconds of silence after which the counters of an SPI or peer are removed; at least 120
    #[arg(long, value_name = "SECS", default_value_t = IDLE_SECS, value_parser = idle)]
    idle_timeout: u32,
    /// Log when a peer becomes established
    #[arg(long)]
    log_sessions: bool,
}

/// A value of `--service`.
#[derive(Clone, Debug)]
pub(super) enum ServiceArgument {
    /// VIPs and their server.
    Given(Service),
    /// A name alone, which `check` accepts.
    Named(String),
}

impl ServiceArgument {
    fn given(text: &str) -> Result<Self, String> {
        text.parse().map(Self::Given)
    }

    /// The same, or the name of a service. A name has no `=`.
    pub(super) fn given_or_named(text: &str) -> Result<Self, String> {
        if services::is_service_name(text) {
            Ok(Self::Named(text.to_owned()))
        } else {
            Self::given(text)
        }
    }

    const fn service(&self) -> Option<&Service> {
        match self {
            Self::Given(service) => Some(service),
            Self::Named(_) => None,
        }
    }
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
    match text.parse::<u32>() {
        Ok(slots) if SLOTS.contains(&slots) && slots.is_power_of_two() => Ok(slots),
        Ok(_) | Err(_) => {
            Err("give a power of two from 64 to 16777216, for example 262144".to_owned())
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
    /// The services, with the lists and switches that all of them have. None only where `check` does
    /// not require them.
    pub(super) fn services(&self) -> Vec<Service> {
        let short = self.vip.zip(self.server);
        let short = short.map(|(vip, server)| Service::new(services::DEFAULT, vip, server));
        let long = self.service.iter().filter_map(ServiceArgument::service);
        let all = short.into_iter().chain(long.cloned());
        all.map(|service| Service {
            lists: Lists {
                except: self.except_peer.clone(),
                deny: self.deny.clone(),
            },
            dedicated: self.dedicated,
            ..service
        })
        .collect()
    }

    pub(super) fn settings(&self) -> Settings {
        Settings {
            instance: self.instance.clone(),
            wans: self.wan.clone(),
            lans: self.lan.clone(),
            services: self.services(),
            modes: Modes {
                wan: self.wan_mode.unwrap_or(self.mode).into(),
                lan: self.lan_mode.unwrap_or(self.mode).into(),
            },
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
            complete: true,
        }
    }
}

/// The settings that a command line gives, with the program as its first word; `None` if it is not one of
/// `ikenat run`.
pub(super) fn parse_command_line(words: &[&OsStr]) -> Option<Settings> {
    let (verb, _) = words.get(1..)?.split_first()?;
    (*verb == "run").then_some(())?;
    let command = Arguments::augment_args(Command::new("run"));
    let matches = command.try_get_matches_from(words.get(1..)?).ok()?;
    let arguments = Arguments::from_arg_matches(&matches).ok()?;
    Some(arguments.settings())
}

/// Runs the daemon until a signal ends it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let netlink = Netlink::open()?;
    let plan = Plan::check(arguments.settings(), &netlink)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the event loop")?;
    let _entered = runtime.enter();
    // Before anything is attached, so that a signal during the start does not leave half of it.
    let terminal = io::stdin().is_terminal() || io::stderr().is_terminal();
    let mut signals = Signals::listen(terminal)?;
    let mut daemon = Daemon::start(plan, netlink)?;
    let stop = runtime.block_on(daemon.run(signals.stop()))?;
    if stop == Stop::Interrupted && terminal {
        return daemon.detach().context("failed to detach");
    }
    daemon.leave(stop);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdp_user::check::run_command;

    /// What `check` prints as a fix is read back as the settings that it was printed for.
    #[test]
    fn a_fix_can_be_pasted() {
        reads_back(
            "ikenat run --wan eth1 --lan eth0 --service a:203.0.113.1,203.0.113.2=192.168.0.1 \
             --service 203.0.113.3=192.168.0.2 --except-peer 198.51.100.7/32 --dedicated",
        );
        let text = "ikenat run --instance office-2 --wan eth1 --wan eth2 --lan eth0 \
                    --vip 203.0.113.1 --server 192.168.0.1 --lan-mode generic --except-peer 198.51.100.0/24 \
                    --deny 192.0.2.7/32 --deny 192.0.2.8/32 --dedicated --dry-run --log-sessions \
                    --tc tcx --flow-slots 131072 --session-slots 64 --idle-timeout 600 --group 50 \
                    --bpffs /bpf";
        reads_back(text);
    }

    fn reads_back(text: &str) {
        let words: Vec<&OsStr> = text.split(' ').map(OsStr::new).collect();
        let settings = parse_command_line(&words).expect("valid arguments");
        assert_eq!(run_command(&settings), text);
    }

    #[test]
    fn other_command_lines_have_no_settings() {
        for text in [
            "",
            "ikenat",
            "ikenat status",
            "ikenat run --wan eth1",
            "sh run",
        ] {
            let words: Vec<&OsStr> = text.split(' ').map(OsStr::new).collect();
            assert!(parse_command_line(&words).is_none(), "{text}");
        }
    }
}
