//! The two backends that attach the tc programs, tcx links and clsact filters, and which of them an
//! instance uses. It never changes while an instance is attached, whatever the kernel supports.

use crate::bpffs::layout::Instance;
use crate::config::interfaces::HookPoint;
use crate::config::plan::Plan;
use crate::config::settings::Tc;
use crate::dataplane::bpf_query;
use crate::error::{Error, Result};
use xdp_common::Hook;

/// How the tc programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcBackend {
    /// By pinned tcx links (Linux 6.6 and newer).
    Tcx,
    /// As filters in a clsact qdisc.
    Clsact,
}

impl TcBackend {
    /// The name that `status` and the log print.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }

    /// The backend in use, by the pins of the instance; `None` when nothing is attached.
    fn in_use(instance: &Instance) -> Result<Option<Self>> {
        for hook_point in HookPoint::all().filter(|one| one.hook == Hook::Tc) {
            let pins = instance.pins_of_link(hook_point)?;
            if pins.iter().any(|pin| instance.pin(pin).exists()) {
                return Ok(Some(Self::Tcx));
            }
        }
        Ok(instance.has_filters()?.then_some(Self::Clsact))
    }

    /// Returns the backend that was asked for, if the kernel has it. With `auto`, the backend in
    /// use is kept: programs attached by both at once would count every packet twice.
    pub(crate) fn choose(plan: &Plan, instance: &Instance) -> Result<Self> {
        let asked = match plan.settings.tc {
            Tc::Auto => None,
            Tc::Tcx => Some(Self::Tcx),
            Tc::Clsact => Some(Self::Clsact),
        };
        let has_tcx = plan
            .wans
            .iter()
            .find(|wan| wan.exists())
            .is_some_and(|wan| bpf_query::has_tcx(wan.index));
        if asked == Some(Self::Tcx) && !has_tcx {
            return Err(Error::NoTcx);
        }
        match (Self::in_use(instance)?, asked) {
            (Some(in_use), Some(asked)) if in_use != asked => Err(Error::OtherTcBackend {
                instance: instance.name.clone(),
                current: in_use.name(),
                unload: instance.unload_command(),
            }),
            (Some(in_use), _) => Ok(in_use),
            (None, Some(asked)) => Ok(asked),
            (None, None) if has_tcx => Ok(Self::Tcx),
            (None, None) => Ok(Self::Clsact),
        }
    }
}

/// The name of a hook, as `status` and the log print it.
pub const fn hook_name(hook: Hook, tc_backend: TcBackend) -> &'static str {
    match hook {
        Hook::Xdp => "xdp",
        Hook::Tc | Hook::Egress => tc_backend.name(),
    }
}
