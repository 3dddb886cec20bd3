//! The words of META as values: what an instance records about itself, whether or not its daemon
//! runs.

use crate::config::interfaces::Interface;
use crate::error::{Error, Result};
use std::net::Ipv4Addr;
use std::path::Path;
use xdp_common::ABI_VERSION;
use xdp_core::Word;

/// The index and the name of an interface; `None` when the instance has no such interface, or when
/// it did not exist.
pub(crate) fn index_and_name<W: Word>(meta: &[W], interface: Interface) -> Option<(u32, String)> {
    let index = u32::try_from(meta[interface.meta()].load()).ok()?;
    (index != 0).then(|| (index, name(meta, interface)))
}

/// The name of an interface that was asked for and did not exist.
pub(crate) fn absent<W: Word>(meta: &[W], interface: Interface) -> Option<String> {
    let name = name(meta, interface);
    (meta[interface.meta()].load() == 0 && !name.is_empty()).then_some(name)
}

fn name<W: Word>(meta: &[W], interface: Interface) -> String {
    let bytes: [u8; 16] =
        bytemuck::cast([1, 2].map(|at: usize| meta[interface.meta() + at].load()));
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// The IPv4 address in the low half of a word.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half of the word is meant"
)]
pub(crate) fn address(word: u64) -> Ipv4Addr {
    Ipv4Addr::from((word as u32).to_ne_bytes())
}

/// Refuses tables of another version of the ABI.
pub(crate) fn check_version(directory: &Path, instance: &str, found: u64) -> Result<()> {
    let expected = u64::from(ABI_VERSION);
    if found == expected {
        return Ok(());
    }
    Err(Error::ForeignPin {
        path: directory.join("META"),
        why: format!("its layout is version {found} and this ikenat has version {expected}"),
        instance: instance.to_owned(),
    })
}
