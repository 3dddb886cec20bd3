//! The doctor: every condition of this host that the gateway's job depends on, looked at without touching anything.
//! Each condition is one small function that returns findings.
//!
//! It may not know how findings are printed. The names of the fields and the codes are part of the interface: scripts
//! read them.

mod context;
mod device;
mod firewall;
mod kernel;
mod memory;
mod offload;
mod process;
mod route;
mod running;
mod sysctl;
mod veth_peer;
mod vip;

use crate::config::interfaces::Side;
use crate::config::settings::{Mode, Settings};
use crate::error::Result;
use crate::netlink::Netlink;
use context::Scene;
use serde::Serialize;

pub use running::running;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// The gateway works, but not as well as it could, or not for every packet; or it could not be looked.
    Warning,
    /// The gateway does not work.
    Error,
}

/// What was found of one condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The condition's short name.
    pub code: &'static str,
    /// The interface that it is about, where it is about one.
    pub on: Option<String>,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// Why it matters.
    pub why: String,
    /// The commands that mend it, in this order.
    pub mend: Vec<String>,
}

impl Finding {
    fn new(level: Level, code: &'static str, found: impl Into<String>, why: &str) -> Self {
        Self {
            code,
            on: None,
            level,
            found: found.into(),
            why: why.to_owned(),
            mend: Vec::new(),
        }
    }

    fn ok(code: &'static str, found: impl Into<String>, why: &str) -> Self {
        Self::new(Level::Ok, code, found, why)
    }

    fn warning(code: &'static str, found: impl Into<String>, why: &str) -> Self {
        Self::new(Level::Warning, code, found, why)
    }

    fn error(code: &'static str, found: impl Into<String>, why: &str) -> Self {
        Self::new(Level::Error, code, found, why)
    }

    /// That it could not be looked is no OK.
    fn unseen(code: &'static str, what: impl std::fmt::Display, why: &str) -> Self {
        Self::warning(code, format!("cannot look: {what}"), why)
    }

    fn on(mut self, interface: &str) -> Self {
        self.on = Some(interface.to_owned());
        self
    }

    fn mend(mut self, command: impl Into<String>) -> Self {
        self.mend.push(command.into());
        self
    }
}

impl Settings {
    /// The command line that starts it.
    pub fn run(&self) -> String {
        let mut words = vec!["ikenat run".to_owned()];
        words.extend(self.wans.iter().map(|name| format!("--wan {name}")));
        words.extend(self.lans.iter().map(|name| format!("--lan {name}")));
        words.push(format!("--vip {} --server {}", self.vip, self.server));
        let generic = |side| self.modes.of(side) == Mode::Generic;
        match (generic(Side::Wan), generic(Side::Lan)) {
            (false, false) => {}
            (true, true) => words.push("--mode generic".to_owned()),
            (true, false) => words.push("--wan-mode generic".to_owned()),
            (false, true) => words.push("--lan-mode generic".to_owned()),
        }
        if self.dry_run {
            words.push("--dry-run".to_owned());
        }
        if let Some(bpffs) = &self.bpffs {
            words.push(format!("--bpffs {}", bpffs.display()));
        }
        words.join(" ")
    }
}

/// Looks at everything. An error is that nothing could be looked at; that a condition could not be is a finding.
pub fn check(subject: &Settings, netlink: &Netlink) -> Result<Vec<Finding>> {
    let scene = Scene::of(subject, netlink)?;
    let mut findings = Vec::new();
    findings.extend(process::privileges());
    findings.extend(kernel::all(&scene));
    findings.extend(process::bpffs(&scene));
    findings.extend(memory::memory(&scene));
    findings.extend(running::attached(&scene));
    findings.extend(device::all(&scene));
    findings.extend(offload::all(&scene));
    findings.extend(sysctl::all(&scene));
    findings.extend(vip::all(&scene));
    findings.extend(route::all(&scene));
    findings.extend(firewall::all(&scene));
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::path::PathBuf;

    #[test]
    fn the_command_line_is_that_of_the_subject() {
        let vip = Ipv4Addr::new(203, 0, 113, 1);
        let mut subject = Settings::new(vip, Ipv4Addr::new(192, 168, 0, 1));
        subject.wans = vec!["eth1".to_owned(), "eth2".to_owned()];
        subject.lans = vec!["eth0".to_owned()];
        let usual =
            "ikenat run --wan eth1 --wan eth2 --lan eth0 --vip 203.0.113.1 --server 192.168.0.1";
        assert_eq!(subject.run(), usual);
        subject.modes.lan = Mode::Generic;
        subject.dry_run = true;
        assert_eq!(
            subject.run(),
            format!("{usual} --lan-mode generic --dry-run")
        );
        subject.modes.wan = Mode::Generic;
        subject.dry_run = false;
        subject.bpffs = Some(PathBuf::from("/bpf"));
        assert_eq!(
            subject.run(),
            format!("{usual} --mode generic --bpffs /bpf")
        );
    }

    #[test]
    fn an_error_is_worse_than_a_warning() {
        assert!(Level::Error > Level::Warning && Level::Warning > Level::Ok);
        let finding = Finding::unseen("nft", "nft is not installed", "why").on("eth0");
        assert_eq!(finding.level, Level::Warning);
        assert_eq!(finding.found, "cannot look: nft is not installed");
        let text = serde_json::to_string(&finding).expect("serializable");
        assert!(text.contains(r#""level":"warning""#) && text.contains(r#""on":"eth0""#));
    }
}
