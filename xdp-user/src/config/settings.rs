//! What the administrator asks for, before it is compared with this host: the arguments of `run`
//! and `check` as plain values.
//!
//! A new option of `run` is an argument in `cli/run.rs` and a field of [`Settings`].

use crate::config::instance_name;
use crate::config::interfaces::Side;
use crate::config::services::{self, Service};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use xdp_common::limits;

/// How the XDP programs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the stack, on any device; slower.
    Generic,
}

impl Mode {
    /// The name in options and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// The mode of a program that is generic, or is not.
    pub(crate) const fn of(generic: bool) -> Self {
        if generic { Self::Generic } else { Self::Native }
    }
}

/// How the XDP programs run on each side: a bridge, a VLAN device or a tap has no native XDP, and
/// the other side keeps it nevertheless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes {
    /// On the WANs.
    pub wan: Mode,
    /// On the LANs.
    pub lan: Mode,
}

impl Modes {
    /// The mode of a side.
    pub const fn of(self, side: Side) -> Mode {
        match side {
            Side::Wan => self.wan,
            Side::Lan => self.lan,
        }
    }

    /// The option that changes a side alone.
    pub const fn option(side: Side) -> &'static str {
        match side {
            Side::Wan => "--wan-mode",
            Side::Lan => "--lan-mode",
        }
    }
}

/// How the tc programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tc {
    /// As an earlier start attached them; else by tcx where the kernel has it.
    Auto,
    /// By pinned tcx links.
    Tcx,
    /// As filters in a clsact.
    Clsact,
}

/// Sizes of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Slots of FLOW.
    pub flow_slots: u32,
    /// Slots of SESSION.
    pub session_slots: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            flow_slots: limits::FLOW_SLOTS,
            session_slots: limits::SESSION_SLOTS,
        }
    }
}

impl Sizes {
    /// The sizes for so many tunnels; `None` when no table is large enough.
    pub fn for_tunnels(tunnels: u32) -> Option<Self> {
        let slots = |entries: u32| {
            let slots = entries.checked_mul(2)?.checked_next_power_of_two()?;
            let slots = slots.max(*limits::SLOTS.start());
            limits::SLOTS.contains(&slots).then_some(slots)
        };
        Some(Self {
            flow_slots: slots(tunnels.checked_mul(limits::SPIS_PER_TUNNEL)?)?,
            session_slots: slots(tunnels)?,
        })
    }

    /// The tunnels that they are large enough for.
    pub fn tunnels(self) -> u32 {
        let flows = self.flow_slots / 2 / limits::SPIS_PER_TUNNEL;
        flows.min(self.session_slots / 2)
    }
}

/// Everything that the administrator asks for. `run` reads it from its arguments, and `check` from
/// the same arguments or from an instance that is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The name of the instance.
    pub instance: String,
    /// Interfaces towards the clients, the first one first.
    pub wans: Vec<String>,
    /// Interfaces towards the server, likewise; none when the server is this host.
    pub lans: Vec<String>,
    /// What is translated; not empty.
    pub services: Vec<Service>,
    /// How the XDP programs run.
    pub modes: Modes,
    /// Whether to count only, and change no packet.
    pub dry_run: bool,
    /// How the tc programs are attached.
    pub tc: Tc,
    /// Sizes of the tables.
    pub sizes: Sizes,
    /// Seconds of silence after which an entry expires.
    pub idle_secs: u32,
    /// Whether messages about sessions go to the log.
    pub log_sessions: bool,
    /// A BPF file system other than the usual one.
    pub bpffs: Option<PathBuf>,
    /// The group that may read the tables.
    pub group: Option<u32>,
    /// Whether these are all settings. The tables of an instance, which `check` reads, do not hold
    /// its lists, its idle timeout and its group.
    pub complete: bool,
}

impl Settings {
    /// The settings of a `run` that names an address on either side, and leaves everything else at
    /// its default.
    pub fn new(vip: Ipv4Addr, server: Ipv4Addr) -> Self {
        Self {
            instance: instance_name::DEFAULT.to_owned(),
            wans: Vec::new(),
            lans: Vec::new(),
            services: vec![Service::new(services::DEFAULT, vip, server)],
            modes: Modes {
                wan: Mode::Native,
                lan: Mode::Native,
            },
            dry_run: false,
            tc: Tc::Auto,
            sizes: Sizes::default(),
            idle_secs: limits::IDLE_SECS,
            log_sessions: false,
            bpffs: None,
            group: None,
            complete: true,
        }
    }

    /// The IPv4 VIPs of all services.
    pub fn vips(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.services.iter().flat_map(Service::vips_v4)
    }

    /// The IPv4 addresses of all servers.
    pub fn servers(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.services.iter().filter_map(Service::server_v4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_for_32768_tunnels() {
        assert_eq!(Sizes::default().tunnels(), 32_768);
        assert_eq!(Sizes::for_tunnels(32_768), Some(Sizes::default()));
    }

    #[test]
    fn sizes_are_enough_and_not_twice_as_much() {
        for tunnels in [1, 8, 25_000, 32_769, 500_000, 2_097_152] {
            let sizes = Sizes::for_tunnels(tunnels).expect("possible");
            assert!(sizes.tunnels() >= tunnels);
            assert!(sizes.tunnels() < 2 * tunnels || sizes.flow_slots == 64);
        }
        assert_eq!(Sizes::for_tunnels(2_097_153), None);
        assert_eq!(Sizes::for_tunnels(u32::MAX), None);
    }
}
