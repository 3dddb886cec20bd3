//! `ikenat check`: every condition of this host that forwarding depends on, examined without changing
//! anything. Each condition is one small function that returns findings.
//!
//! Invariant: the codes of findings, and the field names of [`Checks`] and of what it holds, are an
//! interface for scripts. The texts of findings are not.

mod by_service;
mod capacity;
mod context;
mod device;
mod firewall;
mod kernel;
mod memory;
mod offload;
mod policy;
mod process;
mod route;
mod run_command;
mod running;
mod sysctl;
mod veth_peer;
mod vip;

use crate::bpffs::layout::{self, Instance};
use crate::config::plan::Plan;
use crate::config::settings::Settings;
use crate::dataplane::other_instances;
use crate::error::Result;
use crate::netlink::Netlink;
use crate::report::wanted_services::WantedServices;
use crate::tables::services::ServiceRecord;
use context::Context;
use serde::Serialize;

pub use capacity::TunnelNeed;
pub use run_command::run_command;
pub use running::running;

/// The answer of `check`.
#[derive(Clone, Debug, Serialize)]
pub struct Checks {
    /// One for each instance that was examined.
    pub checks: Vec<InstanceCheck>,
    /// What the number of tunnels that was asked for needs.
    pub tunnels: Option<TunnelNeed>,
}

/// One instance, running or planned.
#[derive(Clone, Debug, Serialize)]
pub struct InstanceCheck {
    /// Its name.
    pub instance: String,
    /// What it translates, of what is wanted.
    pub services: Vec<ServiceRecord>,
    /// One or more for each condition.
    pub findings: Vec<Finding>,
}

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Finding {
    /// Short name of the condition.
    pub code: &'static str,
    /// The service, if there are several and the finding is not that of all.
    pub service: Option<String>,
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
            service: None,
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

    /// Whether it is the same for all services, or about one that is wanted.
    fn is_for(&self, wanted: &WantedServices) -> bool {
        let service = self.service.as_deref();
        service.is_none_or(|name| wanted.wants(name))
    }

    fn on(mut self, interface: &str) -> Self {
        self.on = Some(interface.to_owned());
        self
    }

    fn fixes(mut self, commands: impl IntoIterator<Item = String>) -> Self {
        self.fix.extend(commands);
        self
    }

    fn fix(mut self, command: impl Into<String>) -> Self {
        self.fix.push(command.into());
        self
    }
}

/// Checks all conditions, for a number of tunnels if one is wanted, and returns the findings about the
/// wanted services and those that are the same for all. The result is an error only if the host cannot
/// be examined at all; a single condition that cannot be checked is a finding.
pub fn check(
    settings: &Settings,
    wanted: &WantedServices,
    netlink: &Netlink,
    tunnels: Option<TunnelNeed>,
) -> Result<Vec<Finding>> {
    let mut context = Context::of(settings, netlink)?;
    let mut findings = Vec::new();
    findings.extend(process::privileges());
    findings.extend(kernel::all(&context));
    findings.extend(process::bpffs(&context));
    findings.extend(memory::memory(&context));
    findings.extend(capacity::all(&context, tunnels));
    findings.extend(running::attached(&context));
    findings.extend(device::all(&context));
    findings.extend(offload::all(&context));
    findings.extend(by_service::all(&mut context));
    findings.extend(policy::all(&context, wanted));
    findings.retain(|finding| finding.is_for(wanted));
    // After `retain`: an error that is not shown does not explain why a start is refused.
    findings.extend(start(settings, netlink, &findings));
    Ok(findings)
}

/// What else `run` would refuse. An error that has been found explains the refusal better than the
/// first sentence of `run` does.
fn start(settings: &Settings, netlink: &Netlink, found: &[Finding]) -> Option<Finding> {
    if found.iter().any(|finding| finding.level == Level::Error) {
        return None;
    }
    let refused = refusal(settings, netlink).err()?;
    let reason = "`ikenat run` with these arguments would end with this message";
    Some(Finding::error("start", refused.to_string(), reason))
}

fn refusal(settings: &Settings, netlink: &Netlink) -> Result<()> {
    let plan = Plan::check(settings.clone(), netlink)?;
    let bpffs = layout::bpffs(settings.bpffs.as_deref())?;
    let instance = Instance::of(&bpffs, &settings.instance);
    instance.check_place()?;
    other_instances::check(&plan, &instance)
}

#[cfg(test)]
mod tests {
    use super::*;

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
