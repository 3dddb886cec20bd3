//! Reads an instance, also while it starts.

use crate::bpffs::layout::Instance;
use crate::error::{Error, Result};
use crate::tables::snapshot::Snapshot;

/// The tables of an instance. One without tables is being started by the process that holds its
/// lock, or was left by a start that died.
pub fn read(instance: &Instance) -> Result<Snapshot> {
    match Snapshot::take(&instance.directory, instance.vip) {
        Err(Error::Unfinished { vip }) if instance.owner().is_some() => {
            Err(Error::Starting { vip })
        }
        Err(Error::Unfinished { vip }) if instance.has_programs() => Err(Error::ForeignPin {
            path: instance.pin("META"),
            why: "it is missing".to_owned(),
            vip,
        }),
        read => read,
    }
}
