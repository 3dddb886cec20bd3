//! The subcommands, one file each: their arguments, and their output for people.
//!
//! Invariant: no decision about a packet or a map is made here.

pub(crate) mod check;
pub(crate) mod run;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod unload;

use anyhow::{Context, Result, bail};
use clap::Args;
use std::io::{self, BufWriter, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use xdp_user::bpffs::layout::{self, Instance};

/// Which instances a subcommand applies to.
#[derive(Args, Clone, Debug)]
pub(crate) struct InstanceFilter {
    /// Only the instance of this VIP
    #[arg(long, value_name = "A", value_parser = address)]
    pub(crate) vip: Option<Ipv4Addr>,
    /// The BPF file system, if it is not /sys/fs/bpf
    #[arg(long, value_name = "DIR")]
    pub(crate) bpffs: Option<PathBuf>,
}

/// Prints text, as [`print_with`] does.
pub(crate) fn print(text: &str) -> Result<()> {
    print_with(|out| out.write_all(text.as_bytes()))
}

/// Prints what `write` writes. Ends the process quietly when the reader closes the pipe (`| head`):
/// that is no error.
pub(crate) fn print_with(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(error).context("failed to print"),
    }
}

/// Reads an IPv4 address; the error is a sentence.
pub(crate) fn address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| {
        "it is not an IPv4 address; write it as four numbers, for example 203.0.113.1".to_owned()
    })
}

impl InstanceFilter {
    fn bpffs(&self) -> Result<PathBuf> {
        layout::bpffs(self.bpffs.as_deref()).context("failed to find what is attached")
    }

    /// The instances that exist.
    fn instances(&self) -> Result<Vec<Instance>> {
        let bpffs = self.bpffs()?;
        layout::instances(&bpffs, self.vip).context("failed to find what is attached")
    }

    /// The same; an error when there is none.
    fn some_instances(&self) -> Result<Vec<Instance>> {
        let instances = self.instances()?;
        if instances.is_empty() {
            let bpffs = self.bpffs()?;
            let whose = self
                .vip
                .map(|vip| format!(" for {vip}"))
                .unwrap_or_default();
            bail!(
                "no ikenat{whose} is attached under {}; start one with `ikenat run`, or name another BPF file system with --bpffs",
                bpffs.join("ikenat").display()
            );
        }
        Ok(instances)
    }
}
