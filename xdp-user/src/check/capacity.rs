//! Checks how many tunnels the tables are large enough for, and how full those of a running
//! instance are.

use super::context::Context;
use super::memory::{MEBI, need};
use super::{Finding, run_command};
use crate::config::settings::{Settings, Sizes};
use crate::tables::usage::{FillLevel, TABLES};
use serde::Serialize;

const CODE: &str = "capacity";
const REASON: &str = "a tunnel has four SPIs during a rekey; what finds no room in the tables is forwarded, but not counted";

/// What a number of tunnels needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TunnelNeed {
    /// The number.
    pub tunnels: u32,
    /// For `--flow-slots`.
    pub flow_slots: u32,
    /// For `--session-slots`.
    pub session_slots: u32,
    /// Memory of all tables.
    pub bytes: u64,
}

impl TunnelNeed {
    /// Computes it; `None` when no tables are large enough.
    pub fn of(tunnels: u32) -> Option<Self> {
        let sizes = Sizes::for_tunnels(tunnels)?;
        Some(Self {
            tunnels,
            flow_slots: sizes.flow_slots,
            session_slots: sizes.session_slots,
            bytes: need(&sizes).unwrap_or_default(),
        })
    }

    const fn sizes(self) -> Sizes {
        Sizes {
            flow_slots: self.flow_slots,
            session_slots: self.session_slots,
        }
    }

    /// In words.
    pub fn text(&self) -> String {
        format!(
            "{} tunnels need --flow-slots {} --session-slots {}: {} MiB of memory",
            self.tunnels,
            self.flow_slots,
            self.session_slots,
            self.bytes.div_ceil(MEBI)
        )
    }
}

pub(super) fn all(context: &Context<'_>, wanted: Option<TunnelNeed>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = wanted
        .map(|wanted| enough(context, wanted))
        .into_iter()
        .collect();
    findings.extend(in_use(context));
    findings
}

fn enough(context: &Context<'_>, wanted: TunnelNeed) -> Finding {
    let sizes = context.settings.sizes;
    if sizes.tunnels() >= wanted.tunnels {
        let message = format!(
            "{}; the tables have room for {}",
            wanted.text(),
            sizes.tunnels()
        );
        return Finding::ok(CODE, message, REASON);
    }
    let message = format!(
        "{}; the tables have room for {} only",
        wanted.text(),
        sizes.tunnels()
    );
    resize(
        context,
        Finding::warning(CODE, message, REASON),
        wanted.sizes(),
    )
}

/// The commands that start with other sizes. Those of live tables cannot change.
fn resize(context: &Context<'_>, finding: Finding, sizes: Sizes) -> Finding {
    let finding = match &context.instance {
        Some((instance, _)) => finding.fix(instance.unload_command()),
        None => finding,
    };
    finding.fix(run_command(&Settings {
        sizes,
        ..context.settings.clone()
    }))
}

fn in_use(context: &Context<'_>) -> Vec<Finding> {
    let Some((_, Some(overview))) = &context.instance else {
        let tunnels = context.settings.sizes.tunnels();
        let message = format!("the tables have room for {tunnels} tunnels");
        return vec![Finding::ok(CODE, message, REASON)];
    };
    let mut findings = Vec::new();
    for (table, of) in TABLES.into_iter().zip([true, false]) {
        let used = overview.tables.iter().find(|used| used.name == table.name);
        let Some(used) = used else {
            continue;
        };
        let message = format!(
            "{}: {} of {} {} are in use",
            table.name, used.entries, used.limit, table.entries
        );
        if FillLevel::of(used.entries, used.limit) == FillLevel::Normal {
            findings.push(Finding::ok(CODE, message, REASON));
            continue;
        }
        let mut sizes = context.settings.sizes;
        let slots = if of {
            &mut sizes.flow_slots
        } else {
            &mut sizes.session_slots
        };
        *slots = slots.saturating_mul(2);
        findings.push(resize(
            context,
            Finding::warning(CODE, message, REASON),
            sizes,
        ));
    }
    findings
}
