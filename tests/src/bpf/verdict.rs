//! What a verdict of the packet logic becomes: the actions of the hooks, and the words of the golden table.

use xdp_common::{Class, Direction, Reason};
use xdp_core::Verdict;

/// The XDP action that a verdict becomes (`enum xdp_action` in the kernel's `linux/bpf.h`).
pub fn xdp_action(verdict: Verdict) -> u32 {
    const XDP_DROP: u32 = 1;
    const XDP_PASS: u32 = 2;
    const XDP_REDIRECT: u32 = 4;
    match verdict {
        Verdict::Forward { .. } => XDP_REDIRECT,
        Verdict::Answer { .. } => XDP_DROP,
        Verdict::NotForwarded(reason) => match reason.outcome() {
            xdp_common::Outcome::Dropped | xdp_common::Outcome::Answered => XDP_DROP,
            xdp_common::Outcome::Punted | xdp_common::Outcome::Slow => XDP_PASS,
        },
    }
}

/// The action of the tc ingress program (`linux/pkt_cls.h`). In a dry run it is always the second
/// one.
pub fn tc_action(verdict: Verdict) -> u32 {
    const TC_ACT_SHOT: u32 = 2;
    const TC_ACT_UNSPEC: u32 = u32::MAX;
    const TC_ACT_REDIRECT: u32 = 7;
    match verdict {
        Verdict::Forward { hop, .. } if hop.is_stack() => TC_ACT_UNSPEC,
        Verdict::Forward { .. } | Verdict::Answer { .. } => TC_ACT_REDIRECT,
        Verdict::NotForwarded(reason) => match reason.outcome() {
            xdp_common::Outcome::Dropped | xdp_common::Outcome::Answered => TC_ACT_SHOT,
            xdp_common::Outcome::Punted | xdp_common::Outcome::Slow => TC_ACT_UNSPEC,
        },
    }
}

/// The action of the egress program, which sends nothing anywhere.
pub fn egress_action(verdict: Verdict) -> u32 {
    const TC_ACT_REDIRECT: u32 = 7;
    match tc_action(verdict) {
        TC_ACT_REDIRECT => u32::MAX,
        other => other,
    }
}

/// The name of a verdict in the golden table.
pub fn word(verdict: Verdict) -> String {
    match verdict {
        Verdict::Forward {
            class,
            direction,
            tracked,
            ..
        } => describe_forward(class, direction, tracked),
        Verdict::NotForwarded(reason) | Verdict::Answer { reason, .. } => describe_leave(reason),
    }
}

fn describe_forward(class: Class, direction: Direction, tracked: bool) -> String {
    let tracked = if tracked { "" } else { " untracked" };
    format!("forward {} {}{tracked}", class.name(), direction.name())
}

fn describe_leave(reason: Reason) -> String {
    format!("{} {}", reason.outcome().name(), reason.name())
}
