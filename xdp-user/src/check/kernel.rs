//! Checks of the kernel: its version, BPF program types, the JIT compiler, and what the slow path needs.

use super::Finding;
use super::context::{Context, sysctl};
use crate::dataplane::bpf_query;
use crate::netlink::namespaces;
use crate::sys::distribution::{Software, install};
use crate::sys::kernel_version;
use crate::tables::grace::GracePeriod;
use aya::programs::ProgramType;
use aya::sys::is_program_supported;
use std::fs;
use std::ops::ControlFlow;

pub(super) fn all(context: &Context<'_>) -> Vec<Finding> {
    vec![
        version(),
        preemption(),
        programs(context),
        jit(context),
        slow_path(context),
        grace_period(context),
    ]
}

fn grace_period(context: &Context<'_>) -> Finding {
    const CODE: &str = "grace-period";
    const REASON: &str = "before the daemon removes an old entry it waits for the programs that are running, by membarrier or by the update of a map of maps";
    match GracePeriod::choose() {
        Ok(GracePeriod::Membarrier) => Finding::ok(CODE, "membarrier works", REASON),
        Ok(GracePeriod::MapUpdate { why, .. }) => {
            let message = format!("membarrier fails ({why}), and the update of a map works");
            Finding::ok(CODE, message, REASON)
        }
        Err(error) if context.privileged => Finding::error(CODE, error.to_string(), REASON),
        Err(error) => Finding::not_checked(CODE, error, REASON),
    }
}

fn version() -> Finding {
    judge_version(&kernel_version::release())
}

fn judge_version(release: &str) -> Finding {
    const CODE: &str = "kernel";
    const REASON: &str =
        "ikenat is tested on Linux 6.1 and newer; older verifiers refuse its programs";
    let message = format!("Linux {release}");
    match kernel_version::is_supported(release) {
        Some(true) => Finding::ok(CODE, message, REASON),
        Some(false) => Finding::error(CODE, message, REASON).fixes(install(Software::Kernel)),
        None => Finding::not_checked(CODE, format!("{message} is not a version number"), REASON),
    }
}

fn preemption() -> Finding {
    // The file exists with PREEMPT_RT alone; from Linux 6.12 on the version says it too.
    let file = fs::read_to_string("/sys/kernel/realtime").unwrap_or_default();
    let version = rustix::system::uname()
        .version()
        .to_string_lossy()
        .into_owned();
    judge_preemption(&file, &version)
}

fn judge_preemption(realtime: &str, version: &str) -> Finding {
    const CODE: &str = "preemption";
    const REASON: &str = "ikenat is not tested with PREEMPT_RT, where a program may be interrupted by another one on its CPU, and both have the same scratch memory and counters: packets may be damaged or counted wrongly";
    let is_realtime = realtime.trim() == "1" || version.split_whitespace().any(is_rt);
    if is_realtime {
        let message = "the kernel is built with PREEMPT_RT, which is not supported";
        return Finding::warning(CODE, message, REASON).fixes(install(Software::Kernel));
    }
    Finding::ok(CODE, "the kernel is built without PREEMPT_RT", REASON)
}

fn is_rt(word: &str) -> bool {
    word == "PREEMPT_RT"
}

fn programs(context: &Context<'_>) -> Finding {
    const CODE: &str = "bpf";
    const REASON: &str = "ikenat consists of XDP and tc programs that the kernel must load";
    if !context.privileged {
        return Finding::not_checked(
            CODE,
            "loading a program needs CAP_BPF and CAP_NET_ADMIN",
            REASON,
        );
    }
    for (kind, name) in [
        (ProgramType::Xdp, "XDP"),
        (ProgramType::SchedClassifier, "tc"),
    ] {
        match is_program_supported(kind) {
            Ok(true) => {}
            Ok(false) => {
                let message = format!("this kernel does not support {name} programs");
                return Finding::error(CODE, message, REASON).fixes(install(Software::Kernel));
            }
            Err(error) => {
                let reason = crate::error::causes(&error);
                let message = format!("the kernel refuses to load {name} programs: {reason}");
                return Finding::error(CODE, message, REASON);
            }
        }
    }
    Finding::ok(
        CODE,
        "the kernel loads XDP and tc programs; BTF is not needed",
        REASON,
    )
}

const JIT: &str = "net/core/bpf_jit_enable";

/// The sysctl exists only in the initial network namespace. If this process is in another one, it is
/// read through a process that is in the initial one.
fn jit_setting(context: &Context<'_>) -> Option<i64> {
    let mut message = sysctl(JIT);
    if message.is_some() {
        return message;
    }
    let visit = namespaces::visit(context.netlink, |_| {
        message = sysctl(JIT);
        Ok(if message.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    });
    if let Err(error) = visit {
        tracing::debug!(
            "network namespaces: not all network namespaces could be inspected: {error}"
        );
    }
    message
}

fn jit(context: &Context<'_>) -> Finding {
    judge_jit(jit_setting(context))
}

fn judge_jit(setting: Option<i64>) -> Finding {
    const CODE: &str = "jit";
    const REASON: &str =
        "without the JIT compiler the kernel interprets the programs, several times slower";
    match setting {
        Some(0) => Finding::warning(CODE, "net.core.bpf_jit_enable is 0", REASON)
            .fix("sysctl -w net.core.bpf_jit_enable=1"),
        Some(value) => Finding::ok(CODE, format!("net.core.bpf_jit_enable is {value}"), REASON),
        None => Finding::not_checked(
            CODE,
            "net.core.bpf_jit_enable exists only in the initial network namespace; run `sysctl net.core.bpf_jit_enable` there",
            REASON,
        ),
    }
}

fn slow_path(context: &Context<'_>) -> Finding {
    const CODE: &str = "tc";
    const REASON: &str =
        "packets that XDP cannot transmit are translated by a tc program (the slow path)";
    let Some(wan) = context.wans.first().filter(|_| context.privileged) else {
        return Finding::not_checked(
            CODE,
            "needs CAP_BPF, CAP_NET_ADMIN and an existing WAN",
            REASON,
        );
    };
    if bpf_query::has_tcx(wan.index) {
        return Finding::ok(CODE, "the kernel supports tcx", REASON);
    }
    let modules = format!("/lib/modules/{}", kernel_version::release());
    let read = |name: &str| fs::read_to_string(format!("{modules}/{name}"));
    match (read("modules.builtin"), read("modules.dep")) {
        (Ok(builtin), Ok(loadable)) => judge_clsact(&[builtin, loadable].concat()),
        (Err(error), _) | (_, Err(error)) => Finding::not_checked(
            CODE,
            format!(
                "no tcx (Linux 6.6), and {modules} does not show whether clsact exists: {error}"
            ),
            REASON,
        ),
    }
}

/// `modules` lists the built-in and the loadable modules.
fn judge_clsact(modules: &str) -> Finding {
    const REASON: &str = "packets that XDP cannot transmit are translated by a tc program (the slow path); without tcx (Linux 6.6) it is a filter in a clsact";
    let has = |name: &str| {
        modules.lines().any(|line| {
            let path = line.split(':').next().unwrap_or_default();
            let file = path.rsplit('/').next().unwrap_or_default();
            file.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(".ko"))
        })
    };
    let missing: Vec<&str> = ["sch_ingress", "cls_bpf"]
        .into_iter()
        .filter(|name| !has(name))
        .collect();
    if missing.is_empty() {
        return Finding::ok(
            "tc",
            "no tcx; the kernel supports a filter in a clsact",
            REASON,
        );
    }
    let message = format!("no tcx, and no kernel module {}", missing.join(" and "));
    Finding::error("tc", message, REASON).fixes(install(Software::Kernel))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn versions_are_compared_as_numbers() {
        let level = |release| judge_version(release).level;
        assert_eq!(level("6.1.0-56-amd64"), Level::Ok);
        assert_eq!(level("6.18-rc1"), Level::Ok);
        assert_eq!(level("10.0.0"), Level::Ok);
        assert_eq!(level("5.15.0-100-generic"), Level::Error);
        assert_eq!(level("2.6.61-56-amd64"), Level::Error);
        assert_eq!(level("nonsense"), Level::Warning);
    }

    #[test]
    fn a_realtime_kernel_is_not_supported() {
        let level = |file, version| judge_preemption(file, version).level;
        let debian = "#1 SMP PREEMPT_DYNAMIC Debian 6.12.48-1 (2025-09-20)";
        assert_eq!(level("", debian), Level::Ok);
        let realtime = "#1 SMP PREEMPT_RT Debian 6.12.48-1 (2025-09-20)";
        assert_eq!(level("", realtime), Level::Warning);
        assert_eq!(level("1\n", debian), Level::Warning);
        let found = judge_preemption("", realtime);
        assert!(found.message.contains("not supported"), "{}", found.message);
    }

    #[test]
    fn a_jit_that_is_off_or_unknown_is_not_ok() {
        assert_eq!(judge_jit(Some(1)).level, Level::Ok);
        assert_eq!(judge_jit(Some(2)).level, Level::Ok);
        assert_eq!(judge_jit(None).level, Level::Warning);
        let off = judge_jit(Some(0));
        assert_eq!(off.level, Level::Warning);
        assert_eq!(off.fix, ["sysctl -w net.core.bpf_jit_enable=1"]);
    }

    #[test]
    fn a_clsact_needs_both_modules() {
        let builtin = "kernel/net/sched/sch_ingress.ko\n";
        let loadable = "kernel/net/sched/cls_bpf.ko.xz: kernel/net/sched/cls_api.ko.xz\n";
        assert_eq!(judge_clsact(&[builtin, loadable].concat()).level, Level::Ok);
        let without = judge_clsact(builtin);
        assert_eq!(without.level, Level::Error);
        assert!(without.message.contains("cls_bpf"), "{}", without.message);
        assert!(
            !without.message.contains("sch_ingress"),
            "{}",
            without.message
        );
    }
}
