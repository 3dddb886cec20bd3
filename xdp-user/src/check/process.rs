//! Conditions of this process and its surroundings: what it may do, and where it can pin.

use super::Finding;
use super::context::Scene;
use crate::bpffs::layout;
use crate::sys::capabilities::knows_barriers;
use crate::sys::kernel_version;
use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};
use rustix::thread::{CapabilitySet, capabilities};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// One finding for what is needed, and one for what is useful.
pub(super) fn privileges() -> Vec<Finding> {
    const CODE: &str = "privileges";
    const WHY: &str = "CAP_BPF loads programs, CAP_NET_ADMIN attaches them";
    match capabilities(None) {
        Ok(sets) => judge(sets.effective, knows_barriers(&kernel_version::release())),
        Err(error) => vec![Finding::unseen(CODE, error, WHY)],
    }
}

fn judge(has: CapabilitySet, barriers: bool) -> Vec<Finding> {
    const CODE: &str = "privileges";
    const WHY: &str = "CAP_BPF loads programs, CAP_NET_ADMIN attaches them";
    const USEFUL: &str = "without CAP_PERFMON the verifier has to bound every address against speculation (Spectre): the programs are built so that it can, and it adds code, which makes each packet dearer, and they have no names in bpftool; without CAP_SYS_ADMIN the far ends of veths and other network namespaces cannot be looked at. Nothing else is lost";
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
    let program = std::env::current_exe()
        .map_or_else(|_| "ikenat".to_owned(), |path| path.display().to_string());
    let grant = format!("setcap cap_bpf,cap_net_admin,cap_perfmon+ep {program}");
    if !needed.is_empty() {
        let found = format!("{} missing", needed.join(" and "));
        return vec![Finding::error(CODE, found, WHY).mend(grant)];
    }
    if !useful.is_empty() {
        let found = "CAP_BPF and CAP_NET_ADMIN, but no CAP_PERFMON";
        if !barriers {
            return vec![Finding::error(CODE, found, NEEDED).mend(grant)];
        }
        return vec![Finding::warning(CODE, found, USEFUL).mend(grant)];
    }
    vec![Finding::ok(
        CODE,
        "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
        WHY,
    )]
}

/// The BPF file system and our directory in it.
pub(super) fn bpffs(scene: &Scene<'_>) -> Vec<Finding> {
    const CODE: &str = "bpffs";
    const WHY: &str =
        "programs and tables are pinned there; so they outlive the daemon, and `stats` finds them";
    let Some(path) = &scene.bpffs else {
        let looked = scene.subject.bpffs.as_deref();
        let looked = looked.unwrap_or(Path::new("/sys/fs/bpf")).display();
        let found = format!("{looked} is not a BPF file system");
        let mut finding = Finding::error(CODE, found, WHY);
        if !Path::new(&looked.to_string()).is_dir() {
            finding = finding.mend(format!("mkdir -p {looked}"));
        }
        return vec![finding.mend(format!("mount -t bpf bpf {looked}"))];
    };
    let shown = path.display();
    if statvfs(path).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        let found = format!("{shown} is mounted read-only");
        let mend = format!("mount -o remount,rw {shown}");
        return vec![Finding::error(CODE, found, WHY).mend(mend)];
    }
    let ours = path.join(layout::OURS);
    let target = if ours.exists() { ours.as_path() } else { path };
    if let Some(finding) = owner(target) {
        return vec![finding];
    }
    if access(target, Access::WRITE_OK).is_err() {
        let user = rustix::process::geteuid().as_raw();
        let found = format!("{} is not writable for user {user}", target.display());
        let mend = format!("chown {user} {}", target.display());
        return vec![Finding::error(CODE, found, WHY).mend(mend)];
    }
    vec![Finding::ok(
        CODE,
        format!("{shown} is there and writable"),
        WHY,
    )]
}

/// A bpffs is often writable for everybody, so somebody else may have been there first.
fn owner(path: &Path) -> Option<Finding> {
    const WHY: &str = "who owns the directory can exchange the pins in it: ikenat uses none that belong to somebody else";
    let meta = fs::symlink_metadata(path).ok()?;
    let user = rustix::process::geteuid().as_raw();
    let ours = path.ends_with(layout::OURS);
    if !ours || meta.uid() == 0 || meta.uid() == user {
        return None;
    }
    let found = format!("{} belongs to user {}", path.display(), meta.uid());
    Some(Finding::error("bpffs", found, WHY).mend(format!("chown {user} {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn what_is_missing_is_named() {
        let level = |has| judge(has, true)[0].level;
        let found = |has| judge(has, true)[0].found.clone();
        assert_eq!(level(CapabilitySet::empty()), Level::Error);
        assert_eq!(found(CapabilitySet::BPF), "CAP_NET_ADMIN missing");
        assert_eq!(found(CapabilitySet::NET_ADMIN), "CAP_BPF missing");
        let both = CapabilitySet::BPF | CapabilitySet::NET_ADMIN;
        assert_eq!(level(both), Level::Warning);
        assert_eq!(judge(both, false)[0].level, Level::Error);
        assert_eq!(level(both | CapabilitySet::PERFMON), Level::Ok);
        let admin = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
        assert_eq!(level(admin), Level::Ok);
    }
}
