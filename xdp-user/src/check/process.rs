//! Checks of this process and its environment: its capabilities, and the BPF file system.

use super::Finding;
use super::context::Context;
use crate::bpffs::layout::{self, Instance};
use crate::config::commands::{USUAL_BPFFS, quoted_path};
use crate::error::text::printable_path;
use crate::error::{Error, InstanceError};
use crate::sys::capabilities::knows_barriers;
use crate::sys::kernel_version;
use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};
use rustix::thread::{CapabilitySet, capabilities};
use std::path::Path;

pub(super) fn privileges() -> Vec<Finding> {
    const CODE: &str = "privileges";
    const REASON: &str = "loading programs needs CAP_BPF, attaching them needs CAP_NET_ADMIN";
    match capabilities(None) {
        Ok(sets) => judge(sets.effective, knows_barriers(&kernel_version::release())),
        Err(error) => vec![Finding::not_checked(CODE, error, REASON)],
    }
}

fn judge(has: CapabilitySet, barriers: bool) -> Vec<Finding> {
    const CODE: &str = "privileges";
    const REASON: &str = "loading programs needs CAP_BPF, attaching them needs CAP_NET_ADMIN";
    const USEFUL: &str = "without CAP_PERFMON the verifier adds code that bounds every address against speculation (Spectre), which makes each packet more expensive, and the programs have no names in bpftool; without CAP_SYS_ADMIN the peers of veths and other network namespaces cannot be inspected; nothing else is lost";
    const NEEDED: &str = "before Linux 6.17 the verifier refuses the programs of a process without CAP_PERFMON, because it cannot bound every address against speculation (Spectre)";
    let admin = has.contains(CapabilitySet::SYS_ADMIN);
    let list = |wanted: &[(CapabilitySet, bool, &'static str)]| -> Vec<&'static str> {
        wanted
            .iter()
            .filter(|(cap, by_admin, _)| !(has.contains(*cap) || *by_admin && admin))
            .map(|(.., name)| *name)
            .collect()
    };
    let needed = list(&[
        (CapabilitySet::BPF, true, "CAP_BPF"),
        (CapabilitySet::NET_ADMIN, false, "CAP_NET_ADMIN"),
    ]);
    let useful = list(&[(CapabilitySet::PERFMON, true, "CAP_PERFMON")]);
    let program =
        std::env::current_exe().map_or_else(|_| "ikenat".to_owned(), |path| quoted_path(&path));
    let grant = format!("setcap cap_bpf,cap_net_admin,cap_perfmon+ep {program}");
    if !needed.is_empty() {
        let message = format!("{} missing", needed.join(" and "));
        return vec![Finding::error(CODE, message, REASON).fix(grant)];
    }
    if !useful.is_empty() {
        let message = "CAP_BPF and CAP_NET_ADMIN, but no CAP_PERFMON";
        if !barriers {
            return vec![Finding::error(CODE, message, NEEDED).fix(grant)];
        }
        return vec![Finding::warning(CODE, message, USEFUL).fix(grant)];
    }
    vec![Finding::ok(
        CODE,
        "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
        REASON,
    )]
}

/// The BPF file system and ikenat's directory in it.
pub(super) fn bpffs(context: &Context<'_>) -> Vec<Finding> {
    const CODE: &str = "bpffs";
    const REASON: &str = "programs and tables are pinned there, so that they outlive the daemon and `stats` finds them";
    let Some(path) = &context.bpffs else {
        let path = context.settings.bpffs.as_deref();
        let path = path.unwrap_or(Path::new(USUAL_BPFFS[0]));
        let message = format!("{} is not a BPF file system", path.display());
        let mut finding = Finding::error(CODE, message, REASON);
        let word = quoted_path(path);
        if !path.is_dir() {
            finding = finding.fix(format!("mkdir -p {word}"));
        }
        return vec![finding.fix(format!("mount -t bpf bpf {word}"))];
    };
    let shown = path.display();
    if statvfs(path).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        let message = format!("{shown} is mounted read-only");
        let fix = format!("mount -o remount,rw {}", quoted_path(path));
        return vec![Finding::error(CODE, message, REASON).fix(fix)];
    }
    if let Some(finding) = distrusted(path, &context.settings.instance) {
        return vec![finding];
    }
    let directory = path.join(layout::DIRECTORY);
    let target = if directory.exists() {
        directory.as_path()
    } else {
        path
    };
    if access(target, Access::WRITE_OK).is_err() {
        let user = rustix::process::geteuid().as_raw();
        let message = format!("{} is not writable for user {user}", target.display());
        let fix = format!("chown {user} {}", quoted_path(target));
        return vec![Finding::error(CODE, message, REASON).fix(fix)];
    }
    vec![Finding::ok(
        CODE,
        format!("{shown} is mounted and writable"),
        REASON,
    )]
}

/// A bpffs is often writable for every user, so another user may have put something there.
fn distrusted(bpffs: &Path, instance: &str) -> Option<Finding> {
    const REASON: &str = "the owner of the directory can replace the pins in it, so ikenat uses only a directory of root or of its own user";
    match Instance::of(bpffs, instance).check_place() {
        Err(Error::Instance(InstanceError::ForeignDirectory { path, what, fix })) => {
            let message = format!("{} {what}", printable_path(&path));
            Some(Finding::error("bpffs", message, REASON).fix(fix))
        }
        Ok(()) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn what_is_missing_is_named() {
        let level = |has| judge(has, true)[0].level;
        let message = |has| judge(has, true)[0].message.clone();
        assert_eq!(level(CapabilitySet::empty()), Level::Error);
        assert_eq!(message(CapabilitySet::BPF), "CAP_NET_ADMIN missing");
        assert_eq!(message(CapabilitySet::NET_ADMIN), "CAP_BPF missing");
        let both = CapabilitySet::BPF | CapabilitySet::NET_ADMIN;
        assert_eq!(level(both), Level::Warning);
        assert_eq!(judge(both, false)[0].level, Level::Error);
        assert_eq!(level(both | CapabilitySet::PERFMON), Level::Ok);
        let admin = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
        assert_eq!(level(admin), Level::Ok);
    }
}
