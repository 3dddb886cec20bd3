//! `ikenat check`: every condition of this host that forwarding depends on, examined without changing
//! anything. Each condition is one small function that returns findings.
//!
//! Invariant: the codes and the field names of [`Finding`] are an interface for scripts. Its texts
//! are not.

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
use context::Context;
use serde::Serialize;

pub use running::running;

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The condition is met.
    Ok,
    /// ikenat works, but not for every packet or not at full speed; or the condition could not be
    /// checked.
    Warning,
    /// ikenat does not work.
    Error,
}

/// The result of checking one condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Short name of the condition.
    pub code: &'static str,
    /// The interface, if the condition is about one.
    pub on: Option<String>,
    /// Its severity.
    pub level: Level,
    /// What was observed.
    pub message: String,
    /// Why the condition matters.
    pub reason: String,
    /// The commands that fix it, in this order.
    pub fix: Vec<String>,
}

impl Finding {
    fn new(level: Level, code: &'static str, message: impl Into<String>, reason: &str) -> Self {
        Self {
            code,
            on: None,
            level,
            message: message.into(),
            reason: reason.to_owned(),
            fix: Vec::new(),
        }
    }

    fn ok(code: &'static str, message: impl Into<String>, reason: &str) -> Self {
        Self::new(Level::Ok, code, message, reason)
    }

    fn warning(code: &'static str, message: impl Into<String>, reason: &str) -> Self {
        Self::new(Level::Warning, code, message, reason)
    }

    fn error(code: &'static str, message: impl Into<String>, reason: &str) -> Self {
        Self::new(Level::Error, code, message, reason)
    }

    /// A condition that could not be checked is a warning, never OK.
    fn not_checked(code: &'static str, cause: impl std::fmt::Display, reason: &str) -> Self {
        Self::warning(code, format!("not checked: {cause}"), reason)
    }

    fn on(mut self, interface: &str) -> Self {
        self.on = Some(interface.to_owned());
        self
    }

    fn fix(mut self, command: impl Into<String>) -> Self {
        self.fix.push(command.into());
        self
    }
}

/// The command line that starts ikenat with these settings, for a fix.
fn run_command(settings: &Settings) -> String {
    let mut words = vec!["ikenat run".to_owned()];
    words.extend(settings.wans.iter().map(|name| format!("--wan {name}")));
    words.extend(settings.lans.iter().map(|name| format!("--lan {name}")));
    words.push(format!(
        "--vip {} --server {}",
        settings.vip, settings.server
    ));
    let generic = |side| settings.modes.of(side) == Mode::Generic;
    match (generic(Side::Wan), generic(Side::Lan)) {
        (false, false) => {}
        (true, true) => words.push("--mode generic".to_owned()),
        (true, false) => words.push("--wan-mode generic".to_owned()),
        (false, true) => words.push("--lan-mode generic".to_owned()),
    }
    if settings.dry_run {
        words.push("--dry-run".to_owned());
    }
    if let Some(bpffs) = &settings.bpffs {
        words.push(format!("--bpffs {}", bpffs.display()));
    }
    words.join(" ")
}

/// Checks all conditions. The result is an error only if the host cannot be examined at all; a single
/// condition that cannot be checked is a finding.
pub fn check(settings: &Settings, netlink: &Netlink) -> Result<Vec<Finding>> {
    let context = Context::of(settings, netlink)?;
    let mut findings = Vec::new();
    findings.extend(process::privileges());
    findings.extend(kernel::all(&context));
    findings.extend(process::bpffs(&context));
    findings.extend(memory::memory(&context));
    findings.extend(running::attached(&context));
    findings.extend(device::all(&context));
    findings.extend(offload::all(&context));
    findings.extend(sysctl::all(&context));
    findings.extend(vip::all(&context));
    findings.extend(route::all(&context));
    findings.extend(firewall::all(&context));
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
        let mut settings = Settings::new(vip, Ipv4Addr::new(192, 168, 0, 1));
        settings.wans = vec!["eth1".to_owned(), "eth2".to_owned()];
        settings.lans = vec!["eth0".to_owned()];
        let usual =
            "ikenat run --wan eth1 --wan eth2 --lan eth0 --vip 203.0.113.1 --server 192.168.0.1";
        assert_eq!(run_command(&settings), usual);
        settings.modes.lan = Mode::Generic;
        settings.dry_run = true;
        assert_eq!(
            run_command(&settings),
            format!("{usual} --lan-mode generic --dry-run")
        );
        settings.modes.wan = Mode::Generic;
        settings.dry_run = false;
        settings.bpffs = Some(PathBuf::from("/bpf"));
        assert_eq!(
            run_command(&settings),
            format!("{usual} --mode generic --bpffs /bpf")
        );
    }

    #[test]
    fn an_error_is_worse_than_a_warning() {
        assert!(Level::Error > Level::Warning && Level::Warning > Level::Ok);
        let finding = Finding::not_checked("nft", "nft is not installed", "a reason").on("eth0");
        assert_eq!(finding.level, Level::Warning);
        assert_eq!(finding.message, "not checked: nft is not installed");
        let text = serde_json::to_string(&finding).expect("serializable");
        assert!(text.contains(r#""level":"warning""#) && text.contains(r#""on":"eth0""#));
    }
}
