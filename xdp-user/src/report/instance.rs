//! Reads an instance, also while it starts.

use crate::bpffs::layout::Instance;
use crate::error::{Error, InstanceError, Result};
use crate::tables::overview::Overview;
use crate::tables::snapshot::Snapshot;
use std::net::Ipv4Addr;

/// What an instance records about itself. One without tables is being started by the process that
/// holds its lock, or was left by a start that died.
pub fn read(instance: &Instance) -> Result<Overview> {
    explain(
        instance,
        Overview::take(&instance.directory, &instance.name),
    )
}

/// The same with its entries; of these, those of the peers that are `wanted`.
pub fn snapshot(instance: &Instance, wanted: impl Fn(Ipv4Addr) -> bool) -> Result<Snapshot> {
    explain(
        instance,
        Snapshot::take(&instance.directory, &instance.name, wanted),
    )
}

fn explain<T>(instance: &Instance, read: Result<T>) -> Result<T> {
    match read {
        Err(Error::Instance(InstanceError::Unfinished { .. })) => Err(unfinished(instance)),
        read => read,
    }
}

fn unfinished(instance: &Instance) -> Error {
    let name = instance.name.clone();
    if instance.owner().is_some() {
        return InstanceError::Starting { instance: name }.into();
    }
    if instance.has_programs().unwrap_or_default() {
        return Error::ForeignPin {
            path: instance.pin("META"),
            why: "it is missing".to_owned(),
            unload: instance.unload_command(),
        };
    }
    let unload = instance.unload_command();
    InstanceError::Unfinished {
        instance: name,
        unload,
    }
    .into()
}
