//! Checks whether the tables fit into the available memory of the host and of this process's control
//! group.

use super::context::Context;
use super::{Finding, run_command};
use crate::config::settings::{Settings, Sizes};
use std::fs;
use std::path::{Path, PathBuf};
use xdp_common::limits;

pub(super) const MEBI: u64 = 1 << 20;
/// Memory that a start needs temporarily besides the tables, for the verifier and for itself. Measured
/// were 64 MiB (Linux 6.18, two interfaces), 47 of them the kernel's, nearly all of the verifier.
const START: u64 = 80 * MEBI;
/// The smallest table that `run` accepts.
const SMALLEST: u32 = *limits::SLOTS.start();

/// Bytes of all tables.
pub(super) fn need(sizes: &Sizes) -> Option<u64> {
    let layouts = sizes.layouts().ok()?;
    let bytes = layouts
        .iter()
        .map(|layout| layout.value_size as u64 * u64::from(layout.max_entries));
    Some(bytes.sum())
}

pub(super) fn memory(context: &Context<'_>) -> Vec<Finding> {
    const CODE: &str = "memory";
    const REASON: &str = "all tables are allocated at the start; without enough memory the kernel refuses them or kills the process";
    let Some(need) = need(&context.settings.sizes) else {
        return vec![Finding::not_checked(
            CODE,
            "the number of CPUs is unknown",
            REASON,
        )];
    };
    if context
        .instance
        .as_ref()
        .is_some_and(|(_, tables)| tables.is_some())
    {
        let message = format!("the tables exist and use {} MiB", need / MEBI);
        return vec![Finding::ok(CODE, message, REASON)];
    }
    let Some(available) = available_memory() else {
        return vec![Finding::not_checked(
            CODE,
            "/proc/meminfo has no MemAvailable",
            REASON,
        )];
    };
    vec![judge(context, need, available, REASON)]
}

fn judge(context: &Context<'_>, need: u64, available: u64, reason: &str) -> Finding {
    const CODE: &str = "memory";
    let message = format!(
        "the tables need {} MiB, and a start {} MiB more temporarily; {} MiB are available",
        need / MEBI,
        START / MEBI,
        available / MEBI
    );
    // At most half of it, so that other programs have the rest.
    let most = (available / 2).min(available.saturating_sub(START));
    let finding = if need + START > available {
        Finding::error(CODE, message, reason)
    } else if need > most {
        Finding::warning(CODE, message, reason)
    } else {
        return Finding::ok(CODE, message, reason);
    };
    let Some(sizes) = fitting(context.settings.sizes, most) else {
        return finding;
    };
    finding.fix(run_command(&Settings {
        sizes,
        ..context.settings.clone()
    }))
}

/// The sizes, halved until the tables need no more than `most`; `None` if the smallest need more.
fn fitting(mut sizes: Sizes, most: u64) -> Option<Sizes> {
    while need(&sizes).is_some_and(|need| need > most)
        && (sizes.flow_slots > SMALLEST || sizes.session_slots > SMALLEST)
    {
        sizes.flow_slots = (sizes.flow_slots / 2).max(SMALLEST);
        sizes.session_slots = (sizes.session_slots / 2).max(SMALLEST);
    }
    need(&sizes)
        .is_some_and(|need| need <= most)
        .then_some(sizes)
}

/// Memory available to the host, or to the most limited control group of this process.
fn available_memory() -> Option<u64> {
    let host = mem_available(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let directories = directories(&groups, &mounts);
    let tightest = directories
        .iter()
        .filter_map(|path| available_to(path))
        .min();
    Some(tightest.map_or(host, |group| group.min(host)))
}

fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The directories of a process's memory control groups and of their ancestors.
fn directories(groups: &str, mounts: &str) -> Vec<PathBuf> {
    let mut message = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let unified = controllers.is_empty();
        if !unified && !controllers.split(',').any(|name| name == "memory") {
            continue;
        }
        for root in mounts_of(mounts, unified) {
            let path = root.join(group.trim_start_matches('/'));
            let above = path.ancestors().take_while(|path| path.starts_with(&root));
            message.extend(above.map(Path::to_path_buf));
        }
    }
    message
}

/// All mount points of the hierarchy. One that is hidden by another mount has no files to read.
fn mounts_of(mounts: &str, unified: bool) -> Vec<PathBuf> {
    let root = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, path, kind, options, ..] = fields[..] else {
            return None;
        };
        let fits = match kind {
            "cgroup2" => unified,
            "cgroup" => !unified && options.split(',').any(|option| option == "memory"),
            _ => false,
        };
        fits.then(|| PathBuf::from(path))
    };
    mounts.lines().filter_map(root).collect()
}

/// Memory that a group can still allocate: its limit minus its use, where file cache that the kernel
/// can reclaim does not count as used.
fn available_to(directory: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
    let number = |name: &str| -> Option<u64> { read(name)?.trim().parse().ok() };
    // `max` does not parse and means no limit. Version 1 has a very large number instead.
    let limit = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    let statistics = read("memory.stat").unwrap_or_default();
    let field = |name: &str| -> Option<u64> {
        let line = statistics
            .lines()
            .find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    // Active cache as well: the pages of a program that runs are, also those of this one.
    let cached =
        |name: &str| field(&format!("total_{name} ")).or_else(|| field(&format!("{name} ")));
    let cached = ["inactive_file", "active_file"].map(|name| cached(name).unwrap_or_default());
    Some(limit.saturating_sub(used.saturating_sub(cached.iter().sum())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        let text = "MemTotal:       100 kB\nMemAvailable:   24055808 kB\n";
        assert_eq!(mem_available(text), Some(24_055_808 * 1024));
        assert_eq!(mem_available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn both_kinds_of_control_groups_are_found_with_all_above_them() {
        let old = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n";
        let message = directories("5:cpu:/x\n4:memory:/a/b\n", old);
        let paths = [
            "/sys/fs/cgroup/memory/a/b",
            "/sys/fs/cgroup/memory/a",
            "/sys/fs/cgroup/memory",
        ];
        assert_eq!(message, paths.map(PathBuf::from));
        let new = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        let message = directories("0::/system.slice/x.service\n", new);
        assert_eq!(message.len(), 3);
        assert_eq!(
            message[0],
            Path::new("/sys/fs/cgroup/system.slice/x.service")
        );
        let hidden =
            format!("{new}tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /other cgroup2 rw 0 0\n");
        let message = directories("0::/x.service\n", &hidden);
        assert!(message.contains(&PathBuf::from("/other/x.service")));
    }

    #[test]
    fn reclaimable_cache_of_a_group_is_available() {
        let directory = std::env::temp_dir().join(format!("ikenat-cgroup-{}", std::process::id()));
        fs::create_dir(&directory).expect("a directory of this test's own");
        let write = |name: &str, text: &str| fs::write(directory.join(name), text).expect("a file");
        write("memory.max", "max\n");
        write("memory.current", "900\n");
        write(
            "memory.stat",
            "anon 500\nactive_file 50\ninactive_file 250\n",
        );
        let unlimited = available_to(&directory);
        write("memory.max", "1000\n");
        let limited = available_to(&directory);
        fs::remove_dir_all(&directory).expect("the directory is there");
        assert_eq!((unlimited, limited), (None, Some(400)));
    }

    #[test]
    fn the_sizes_that_are_proposed_fit() {
        let asked = Sizes {
            flow_slots: 1 << 24,
            session_slots: 1 << 20,
        };
        let most = 64 * MEBI;
        assert!(fitting(asked, MEBI / 4).is_none());
        let fitting = fitting(asked, most).expect("sizes that fit");
        assert!(need(&fitting).expect("a number") <= most);
        assert!(fitting.flow_slots.is_power_of_two() && fitting.flow_slots >= SMALLEST);
        let double = Sizes {
            flow_slots: fitting.flow_slots * 2,
            session_slots: fitting.session_slots * 2,
        };
        assert!(need(&double).expect("a number") > most);
    }
}
