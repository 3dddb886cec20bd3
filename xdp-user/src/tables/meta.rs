//! The words of META as values: what an instance records about itself, whether or not its daemon
//! runs.

use crate::config::instance_name;
use crate::config::interfaces::Interface;
use crate::error::{Error, InstanceError, Result};
use crate::tables::older;
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

/// Refuses tables of another version of the ABI: of those that a start takes over, it says that.
pub(crate) fn check_version(directory: &Path, instance: &str, found: u64) -> Result<()> {
    let expected = u64::from(ABI_VERSION);
    if found == expected {
        return Ok(());
    }
    if let Some(vip) = instance_name::vip_of_older(instance)
        && older::VERSIONS.contains(&found)
    {
        return Err(InstanceError::OlderTables {
            path: directory.to_path_buf(),
            version: found,
            vip,
        }
        .into());
    }
    Err(Error::ForeignPin {
        path: directory.join("META"),
        why: format!("its layout is version {found} and this ikenat has version {expected}"),
        instance: instance.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_another_version_are_refused_with_their_remedy() {
        let said = |instance: &str, version: u64| {
            let refused = check_version(Path::new("/pins"), instance, version);
            refused.expect_err("another version").to_string()
        };
        for version in 3..=6 {
            let text = said("203_0_113_1", version);
            let words = [
                "(version ",
                "start this one with the VIP 203.0.113.1",
                "takes over",
            ];
            let has_all = words.iter().all(|word| text.contains(word));
            assert!(has_all && !text.contains("start at zero"), "{text}");
        }
        for (instance, version) in [("203_0_113_1", 2), ("default", 6), ("default", 8)] {
            let text = said(instance, version);
            let words = format!("`ikenat unload --instance {instance}` and start again");
            assert!(text.contains(&words), "{text}");
        }
        let current = check_version(Path::new("/pins"), "default", ABI_VERSION.into());
        assert!(current.is_ok());
    }
}
