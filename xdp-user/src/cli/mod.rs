//! The subcommands, one file each: their arguments, and their output for people.
//!
//! Invariant: no decision about a packet or a map is made here.

pub(crate) mod check;
mod printed;
pub(crate) mod run;
mod service_filter;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod unload;

use anyhow::{Context, Result, bail};
use clap::Args;
use printed::Printed;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use xdp_user::Error;
use xdp_user::bpffs::find::{self, Selector};
use xdp_user::bpffs::layout::{self, Instance};
use xdp_user::config::{instance_name, services};
use xdp_user::error::causes;
use xdp_user::tables::services::ServiceRecord;

/// Which instances a subcommand applies to.
#[derive(Args, Clone, Debug)]
pub(crate) struct InstanceFilter {
    /// Only the instance of this name
    #[arg(long, value_name = "NAME", value_parser = instance_name::existing)]
    pub(crate) instance: Option<String>,
    /// Only the instance that serves this VIP
    #[arg(long, value_name = "A", value_parser = services::address)]
    pub(crate) vip: Option<Ipv4Addr>,
    /// The BPF file system, if it is not /sys/fs/bpf
    #[arg(long, value_name = "DIR")]
    pub(crate) bpffs: Option<PathBuf>,
}

/// Whether somebody reads what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Perhaps.
    Present,
    /// No: it has closed the pipe (`| head`), which is no error.
    Gone,
}

/// Prints text, as [`print_with`] does.
pub(crate) fn print(text: &str) -> Result<Reader> {
    print_with(|out| out.write_all(text.as_bytes()))
}

/// Prints what `write` writes. What else the process has to do, and its exit status, do not depend on
/// the reader.
pub(crate) fn print_with(
    write: impl FnOnce(&mut Printed<BufWriter<StdoutLock<'static>>>) -> io::Result<()>,
) -> Result<Reader> {
    let out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut out = Printed(out);
    match write(&mut out).and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::Present),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error).context("failed to print"),
    }
}

/// Prints an error to stderr, with its causes. (`eprintln` panics when stderr is not read.)
pub(crate) fn complain(error: &anyhow::Error) {
    let text = causes(error.as_ref());
    _ = Printed(io::stderr()).write_all(format!("ikenat: {text}\n").as_bytes());
}

impl InstanceFilter {
    fn bpffs(&self) -> Result<PathBuf> {
        layout::bpffs(self.bpffs.as_deref()).context("failed to find what is attached")
    }

    fn selector(&self) -> Selector {
        Selector {
            name: self.instance.clone(),
            vip: self.vip,
        }
    }

    /// What is selected, to append to `no ikenat`.
    fn whose(&self) -> String {
        let name = self.instance.iter();
        let name = name.map(|name| format!(" instance {name}"));
        let vip = self.vip.iter().map(|vip| format!(" for {vip}"));
        name.chain(vip).collect()
    }

    /// The instances that exist.
    fn instances(&self) -> Result<Vec<Instance>> {
        let bpffs = self.bpffs()?;
        find::instances(&bpffs, &self.selector()).context("failed to find what is attached")
    }

    /// The same; an error when there is none.
    fn some_instances(&self) -> Result<Vec<Instance>> {
        let instances = self.instances()?;
        if instances.is_empty() {
            let bpffs = self.bpffs()?;
            bail!(
                "no ikenat{} is attached under {}; start one with `ikenat run`, or name another BPF file system with --bpffs",
                self.whose(),
                bpffs.join("ikenat").display()
            );
        }
        Ok(instances)
    }

    /// What `read` makes of each instance, and the errors of those that it cannot read. An error when
    /// it can read none.
    fn read<T>(&self, mut read: impl FnMut(&Instance) -> Result<T>) -> Result<(Vec<T>, Errors)> {
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for pins in self.some_instances()? {
            match read(&pins) {
                Ok(one) => found.push(one),
                Err(error) => errors.push(error),
            }
        }
        match errors.pop() {
            Some(last) if found.is_empty() => {
                errors.iter().for_each(complain);
                Err(last)
            }
            last => {
                errors.extend(last);
                Ok((found, Errors(errors)))
            }
        }
    }
}

/// The first lines about an instance: what it translates.
pub(crate) fn heading(name: &str, services: &[ServiceRecord]) -> String {
    let lines = services
        .iter()
        .map(|service| format!("Instance {name}: {service}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// What was read of an instance.
pub(crate) fn readable<T>(pins: &Instance, read: xdp_user::Result<T>) -> Result<T> {
    match read {
        // It is a whole sentence about the instance.
        Err(error @ Error::Instance(_)) => Err(error.into()),
        read => {
            read.with_context(|| format!("failed to read the tables of the instance {}", pins.name))
        }
    }
}

/// The errors of instances beside others that were read.
#[must_use]
pub(crate) struct Errors(Vec<anyhow::Error>);

impl Errors {
    /// Prints them after the output of the others, and returns the exit status.
    pub(crate) fn report(&self) -> ExitCode {
        self.0.iter().for_each(complain);
        if self.0.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
