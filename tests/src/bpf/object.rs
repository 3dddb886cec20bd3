//! Which of the two builds of the eBPF object a test loads.

use crate::kernel;
use anyhow::{Result, bail};
use std::path::PathBuf;

/// The two builds of the eBPF object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// The object for a loader with CAP_PERFMON.
    Usual,
    /// The object for a loader without CAP_PERFMON.
    WithoutPerfmon,
}

impl Object {
    /// Both objects.
    pub const ALL: [Self; 2] = [Self::Usual, Self::WithoutPerfmon];

    /// The reason why this kernel rejects it from any process, if it does.
    pub fn obstacle(self) -> Option<String> {
        let is_taken = self == Self::Usual || kernel::needs_no_perfmon().unwrap_or(false);
        (!is_taken).then(|| {
            let release = kernel::release().unwrap_or_default();
            format!("{release} takes no program without CAP_PERFMON; 6.17 does")
        })
    }

    /// The suffix of the names of tests with it.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Usual => "",
            Self::WithoutPerfmon => " (without perfmon)",
        }
    }

    /// Where `cargo xtask build` puts it.
    ///
    /// # Errors
    /// It is not there.
    pub fn path(self) -> Result<PathBuf> {
        let usual = object();
        let path = match self {
            Self::Usual => usual,
            Self::WithoutPerfmon => usual.with_file_name("ikenat-without-perfmon.o"),
        };
        if !path.exists() {
            bail!("{} is missing: run `cargo xtask build`", path.display());
        }
        Ok(path)
    }
}

fn object() -> PathBuf {
    std::env::var_os("IKENAT_BPF_OBJECT").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../target/bpf/ikenat.o"
            ))
        },
        PathBuf::from,
    )
}
