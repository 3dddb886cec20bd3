//! Conditions of the kernel: its version, the BPF system call, the JIT, and how programs can be attached for the slow
//! path.

use super::Finding;
use super::context::{Scene, sysctl};
use crate::dataplane::link;
use crate::netlink::namespaces;
use crate::sys::kernel_version;
use aya::programs::ProgramType;
use aya::sys::is_program_supported;
use std::fs;
use std::ops::ControlFlow;

pub(super) fn all(scene: &Scene<'_>) -> Vec<Finding> {
    vec![version(), programs(scene), jit(scene), slow_path(scene)]
}

fn version() -> Finding {
    judge_version(&kernel_version::release())
}

fn judge_version(release: &str) -> Finding {
    const CODE: &str = "kernel";
    const WHY: &str =
        "ikenat is tested on Linux 6.1 and newer; older verifiers refuse its programs";
    let found = format!("Linux {release}");
    match kernel_version::is_supported(release) {
        Some(true) => Finding::ok(CODE, found, WHY),
        Some(false) => Finding::error(CODE, found, WHY).mend("apt-get install linux-image-amd64"),
        None => Finding::unseen(CODE, format!("{found} is no version"), WHY),
    }
}

fn programs(scene: &Scene<'_>) -> Finding {
    const CODE: &str = "bpf";
    const WHY: &str = "the gateway is made of XDP and tc programs that the kernel has to load";
    if !scene.privileged {
        return Finding::unseen(
            CODE,
            "loading a program takes CAP_BPF and CAP_NET_ADMIN",
            WHY,
        );
    }
    for (kind, name) in [
        (ProgramType::Xdp, "XDP"),
        (ProgramType::SchedClassifier, "tc"),
    ] {
        match is_program_supported(kind) {
            Ok(true) => {}
            Ok(false) => {
                let found = format!("this kernel has no {name} programs");
                return Finding::error(CODE, found, WHY).mend("apt-get install linux-image-amd64");
            }
            Err(error) => {
                let why = crate::error::causes(&error);
                let found = format!("the kernel refuses to load {name} programs: {why}");
                return Finding::error(CODE, found, WHY);
            }
        }
    }
    Finding::ok(
        CODE,
        "the kernel loads XDP and tc programs; BTF is not needed",
        WHY,
    )
}

const JIT: &str = "net/core/bpf_jit_enable";

/// The sysctl exists in the first network namespace alone. A process in another one may still find some process that is
/// in the first, and look with its eyes.
fn jit_setting(scene: &Scene<'_>) -> Option<i64> {
    let mut found = sysctl(JIT);
    if found.is_some() {
        return found;
    }
    let visit = namespaces::visit(scene.netlink, |_| {
        found = sysctl(JIT);
        Ok(if found.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    });
    if let Err(error) = visit {
        tracing::debug!("not all network namespaces were looked at: {error}");
    }
    found
}

fn jit(scene: &Scene<'_>) -> Finding {
    judge_jit(jit_setting(scene))
}

fn judge_jit(setting: Option<i64>) -> Finding {
    const CODE: &str = "jit";
    const WHY: &str = "without the JIT the kernel interprets the programs, several times slower";
    match setting {
        Some(0) => Finding::warning(CODE, "net.core.bpf_jit_enable is 0", WHY)
            .mend("sysctl -w net.core.bpf_jit_enable=1"),
        Some(value) => Finding::ok(CODE, format!("net.core.bpf_jit_enable is {value}"), WHY),
        None => Finding::unseen(
            CODE,
            "net.core.bpf_jit_enable is in the host's first network namespace only; run `sysctl net.core.bpf_jit_enable` there",
            WHY,
        ),
    }
}

fn slow_path(scene: &Scene<'_>) -> Finding {
    const CODE: &str = "tc";
    const WHY: &str =
        "packets that XDP cannot send itself are translated by a program of traffic control";
    let Some(wan) = scene.wans.first().filter(|_| scene.privileged) else {
        return Finding::unseen(CODE, "it takes the capabilities and a WAN", WHY);
    };
    if link::has_tcx(wan.index) {
        return Finding::ok(CODE, "tcx", WHY);
    }
    let modules = format!("/lib/modules/{}", kernel_version::release());
    let read = |name: &str| fs::read_to_string(format!("{modules}/{name}"));
    match (read("modules.builtin"), read("modules.dep")) {
        (Ok(builtin), Ok(loadable)) => judge_clsact(&[builtin, loadable].concat()),
        (Err(error), _) | (_, Err(error)) => Finding::unseen(
            CODE,
            format!(
                "there is no tcx (Linux 6.6), and whether there is a clsact would be told by {modules}: {error}"
            ),
            WHY,
        ),
    }
}

/// From the lists of built-in and loadable modules.
fn judge_clsact(modules: &str) -> Finding {
    const WHY: &str = "packets that XDP cannot send itself are translated by a program of traffic control; without tcx (Linux 6.6) it is a filter in a clsact";
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
        return Finding::ok("tc", "no tcx; a filter in a clsact", WHY);
    }
    let found = format!("no tcx, and no kernel module {}", missing.join(" and "));
    Finding::error("tc", found, WHY).mend("apt-get install linux-image-amd64")
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
    fn a_jit_that_is_off_or_unseen_is_not_ok() {
        assert_eq!(judge_jit(Some(1)).level, Level::Ok);
        assert_eq!(judge_jit(Some(2)).level, Level::Ok);
        assert_eq!(judge_jit(None).level, Level::Warning);
        let off = judge_jit(Some(0));
        assert_eq!(off.level, Level::Warning);
        assert_eq!(off.mend, ["sysctl -w net.core.bpf_jit_enable=1"]);
    }

    #[test]
    fn a_clsact_needs_both_modules() {
        let builtin = "kernel/net/sched/sch_ingress.ko\n";
        let loadable = "kernel/net/sched/cls_bpf.ko.xz: kernel/net/sched/cls_api.ko.xz\n";
        assert_eq!(judge_clsact(&[builtin, loadable].concat()).level, Level::Ok);
        let without = judge_clsact(builtin);
        assert_eq!(without.level, Level::Error);
        assert!(without.found.contains("cls_bpf"), "{}", without.found);
        assert!(!without.found.contains("sch_ingress"), "{}", without.found);
    }
}
