//! The conditions of a run: properties of the machine that determine its figures.

use anyhow::Result;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::results::Conditions;

/// Directory in which the kernel lists its mitigations of CPU vulnerabilities.
const FAULTS: &str = "/sys/devices/system/cpu/vulnerabilities";

/// The present conditions of this machine.
///
/// # Errors
/// The kernel's release cannot be read.
pub fn here(command: String, quick: bool) -> Result<Conditions> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    Ok(Conditions {
        command,
        date: date(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        ),
        commit: commit().unwrap_or_default(),
        profile: if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        }
        .to_owned(),
        kernel: ikenat_tests::kernel::release()?,
        cpu: field(&cpuinfo, "model name").unwrap_or_default().to_owned(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        mitigations: mitigations(Path::new(FAULTS)),
        virtualized: field(&cpuinfo, "flags")
            .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        quick,
    })
}

/// The first value of a field of /proc/cpuinfo.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn mitigations(directory: &Path) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path()).ok()?;
            let name = entry.file_name().into_string().ok()?;
            text.contains("Mitigation")
                .then(|| format!("{name}: {}", text.trim()))
        })
        .collect();
    found.sort_unstable();
    found
}

/// The commit of the current directory, with `-dirty` if tracked files have changed since.
fn commit() -> Option<String> {
    let git = |words: &[&str]| {
        let output = Command::new("git")
            .args(words)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    };
    let commit = git(&["rev-parse", "--short=10", "HEAD"])?;
    let changes = git(&["status", "--porcelain"])?;
    let dirty = if changes.is_empty() { "" } else { "-dirty" };
    Some(format!("{commit}{dirty}"))
}

/// Seconds since 1970 as `2026-11-24 03:18`, UTC. The civil calendar is computed by eras of 400
/// years that begin in March, so that the leap day comes last.
fn date(seconds: u64) -> String {
    const DAYS_IN_ERA: u64 = 146_097;
    // From 0000-03-01 to 1970-01-01.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / DAYS_IN_ERA, days % DAYS_IN_ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / (DAYS_IN_ERA - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let minutes = seconds / 60 % 1_440;
    format!(
        "{year}-{month:02}-{day:02} {:02}:{:02}",
        minutes / 60,
        minutes % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00"),
            (951_782_399, "2000-02-28 23:59"),
            (951_782_400, "2000-02-29 00:00"),
            (1_709_251_200, "2024-03-01 00:00"),
            (1_795_490_280, "2026-11-24 03:18"),
            (4_107_542_400, "2100-03-01 00:00"),
        ] {
            assert_eq!(date(seconds), expected);
        }
    }

    #[test]
    fn the_cpu_is_read() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu hypervisor\n";
        assert_eq!(field(text, "model name"), Some("Some CPU @ 2 GHz"));
        assert_eq!(field(text, "flags"), Some("fpu hypervisor"));
        assert_eq!(field(text, "model"), None);
    }

    #[test]
    fn this_machine_is_described() -> Result<()> {
        let here = here("x".to_owned(), true)?;
        assert!(!here.kernel.is_empty() && here.cpus > 0);
        assert!(
            here.mitigations
                .iter()
                .all(|line| line.contains("Mitigation"))
        );
        Ok(())
    }
}
