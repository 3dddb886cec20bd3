//! The running kernel's release, and what follows from it.

use std::fs;

use anyhow::{Context, Result};

/// As `uname -r` prints it: `6.1.0-44-amd64`.
///
/// # Errors
/// /proc does not tell.
pub fn release() -> Result<String> {
    let path = "/proc/sys/kernel/osrelease";
    let release = fs::read_to_string(path).with_context(|| format!("failed to read {path}"))?;
    Ok(release.trim_end().to_owned())
}

/// Its first two numbers.
///
/// # Errors
/// It has none.
pub fn version() -> Result<(u32, u32)> {
    let release = release()?;
    let mut numbers = release.split('.').map_while(|part| part.parse().ok());
    let version = numbers.next().zip(numbers.next());
    version.with_context(|| format!("failed to read {release}"))
}

/// Whether the running kernel is at least this version.
///
/// # Errors
/// As [`version`].
pub fn kernel_is_at_least(wanted: (u32, u32)) -> Result<bool> {
    Ok(version()? >= wanted)
}

/// Whether its verifier accepts ikenat's programs from a process without CAP_PERFMON.
///
/// # Errors
/// As [`version`].
pub fn needs_no_perfmon() -> Result<bool> {
    kernel_is_at_least((6, 17))
}
