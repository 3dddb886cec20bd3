//! Whether the tables fit into the memory that is left, to the host and to this process' control group.

use super::Finding;
use super::context::Scene;
use crate::config::settings::Sizes;
use std::fs;
use std::path::{Path, PathBuf};

const MEBI: u64 = 1 << 20;
/// What a start takes besides the tables, for a moment: the verifier's memory and its own. 53 MiB were measured (Linux 6.18,
/// two interfaces), of which the verifier had 25.
const START: u64 = 64 * MEBI;
/// The smallest table that `run` takes.
const SMALLEST: u32 = 64;

fn need(sizes: &Sizes) -> Option<u64> {
    let layouts = sizes.layouts().ok()?;
    let bytes = layouts
        .iter()
        .map(|layout| layout.value_size as u64 * u64::from(layout.max_entries));
    Some(bytes.sum())
}

pub(super) fn memory(scene: &Scene<'_>) -> Vec<Finding> {
    const CODE: &str = "memory";
    const WHY: &str = "all tables are allocated at the start; where there is not enough, the kernel refuses them or ends the process";
    let Some(need) = need(&scene.subject.sizes) else {
        return vec![Finding::unseen(CODE, "the number of CPUs is unknown", WHY)];
    };
    if scene
        .instance
        .as_ref()
        .is_some_and(|(_, tables)| tables.is_some())
    {
        let found = format!("the tables exist and hold {} MiB", need / MEBI);
        return vec![Finding::ok(CODE, found, WHY)];
    }
    let Some(left) = left() else {
        return vec![Finding::unseen(CODE, "/proc/meminfo does not tell", WHY)];
    };
    vec![judge(scene, need, left, WHY)]
}

fn judge(scene: &Scene<'_>, need: u64, left: u64, why: &str) -> Finding {
    const CODE: &str = "memory";
    let found = format!(
        "the tables take {} MiB, and a start {} MiB for a moment, of {} MiB that are left",
        need / MEBI,
        START / MEBI,
        left / MEBI
    );
    // Half of it is for others.
    let most = (left / 2).min(left.saturating_sub(START));
    let finding = if need + START > left {
        Finding::error(CODE, found, why)
    } else if need > most {
        Finding::warning(CODE, found, why)
    } else {
        return Finding::ok(CODE, found, why);
    };
    let Some(sizes) = fitting(scene.subject.sizes, most) else {
        return finding;
    };
    finding.mend(format!(
        "{} --flow-slots {} --session-slots {}",
        scene.subject.run(),
        sizes.flow_slots,
        sizes.session_slots
    ))
}

/// The same sizes, halved until they take no more than that; `None` where the smallest take more.
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

/// What is left to the host, or to the tightest of the control groups that this process is in.
fn left() -> Option<u64> {
    let host = available(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let directories = directories(&groups, &mounts);
    let tightest = directories.iter().filter_map(|path| left_to(path)).min();
    Some(tightest.map_or(host, |group| group.min(host)))
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The directories of a process' groups and of all above them, where memory can be limited.
fn directories(groups: &str, mounts: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
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
            found.extend(above.map(Path::to_path_buf));
        }
    }
    found
}

/// All of them: one that another mount hides has no files to read.
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

/// What a group may still take: its limit less what it has, without the cached files that it would give back.
fn left_to(directory: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
    let number = |name: &str| -> Option<u64> { read(name)?.trim().parse().ok() };
    // `max` is no number: then there is no limit. The older kind writes a very large number.
    let limit = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    let statistics = read("memory.stat").unwrap_or_default();
    let field = |name: &str| -> Option<u64> {
        let line = statistics
            .lines()
            .find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    let cached = field("total_inactive_file ")
        .or_else(|| field("inactive_file "))
        .unwrap_or_default();
    Some(limit.saturating_sub(used.saturating_sub(cached)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        let text = "MemTotal:       100 kB\nMemAvailable:   24055808 kB\n";
        assert_eq!(available(text), Some(24_055_808 * 1024));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn both_kinds_of_control_groups_are_found_with_all_above_them() {
        let old = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n";
        let found = directories("5:cpu:/x\n4:memory:/a/b\n", old);
        let paths = [
            "/sys/fs/cgroup/memory/a/b",
            "/sys/fs/cgroup/memory/a",
            "/sys/fs/cgroup/memory",
        ];
        assert_eq!(found, paths.map(PathBuf::from));
        let new = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        let found = directories("0::/system.slice/x.service\n", new);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], Path::new("/sys/fs/cgroup/system.slice/x.service"));
        let hidden =
            format!("{new}tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /other cgroup2 rw 0 0\n");
        let found = directories("0::/x.service\n", &hidden);
        assert!(found.contains(&PathBuf::from("/other/x.service")));
    }

    #[test]
    fn a_group_gives_its_cached_files_back() {
        let directory = std::env::temp_dir().join(format!("ikenat-cgroup-{}", std::process::id()));
        fs::create_dir(&directory).expect("a directory of this test's own");
        let write = |name: &str, text: &str| fs::write(directory.join(name), text).expect("a file");
        write("memory.max", "max\n");
        write("memory.current", "900\n");
        write("memory.stat", "anon 500\ninactive_file 300\n");
        let unlimited = left_to(&directory);
        write("memory.max", "1000\n");
        let limited = left_to(&directory);
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
