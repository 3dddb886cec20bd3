//! The words of META as values: what an instance records about itself, whether or not its daemon
//! runs.

use crate::config::commands::{bpffs_option_of, unload_command};
use crate::config::instance_name;
use crate::config::interfaces::Interface;
use crate::error::{Error, InstanceError, Result};
use crate::tables::older;
use std::net::Ipv4Addr;
use std::path::Path;
use xdp_common::ABI_VERSION;
use xdp_common::meta::{FLAGS, VERSION, flag};
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

/// Refuses tables of another version of the ABI, by the words of their META. Of those that a start may
/// take over, it says what the next one does.
pub(crate) fn check_version(
    directory: &Path,
    instance: &str,
    word: impl Fn(usize) -> u64,
) -> Result<()> {
    let (found, expected) = (word(VERSION), u64::from(ABI_VERSION));
    if found == expected {
        return Ok(());
    }
    if let Some(vip) = instance_name::vip_of_older(instance)
        && older::VERSIONS.contains(&found)
    {
        return Err(InstanceError::OlderTables {
            path: directory.to_path_buf(),
            version: found,
            remedy: remedy_of_older(directory, vip, word),
        }
        .into());
    }
    Err(Error::ForeignPin {
        path: directory.join("META"),
        why: format!("its layout is version {found} and this ikenat has version {expected}"),
        unload: unload_command(directory),
    })
}

/// What is to be done about tables that a start may take over.
fn remedy_of_older(directory: &Path, vip: Ipv4Addr, word: impl Fn(usize) -> u64) -> String {
    let option = bpffs_option_of(directory);
    let unload = format!("`ikenat unload --vip {vip}{option}`");
    if word(older::PROGRESS) >= older::progress::DONE {
        return format!(
            "a start has taken over all that they held, and the next one with the VIP {vip} removes what is left; {unload} does it too"
        );
    }
    if word(FLAGS) & flag::DRY_RUN != 0 {
        return format!(
            "they are of a dry run, of which no start takes anything over: stop its daemon and run {unload}"
        );
    }
    let bpffs = if option.is_empty() {
        option
    } else {
        format!(" and{option}")
    };
    format!(
        "stop its daemon and start this one with the VIP {vip}{bpffs}, without --dry-run, which takes over its sessions and counters; {unload} would remove them"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_another_version_are_refused_with_their_remedy() {
        let refused = |directory: &str, instance: &str, [version, flags, progress]: [u64; 3]| {
            let word = |at: usize| match at {
                VERSION => version,
                FLAGS => flags,
                older::PROGRESS => progress,
                _ => 0,
            };
            let refused = check_version(Path::new(directory), instance, word);
            refused.map_err(|error| error.to_string())
        };
        let said = |directory: &str, instance: &str, words: [u64; 3]| {
            refused(directory, instance, words).expect_err("another version")
        };
        const OLDER: &str = "203_0_113_1";
        let directory = |bpffs: &str| format!("{bpffs}/ikenat/{OLDER}");
        let [usual, other] = ["/sys/fs/bpf", "/run/bpf"].map(directory);
        for version in 3..=6 {
            let text = said(&usual, OLDER, [version, 0, older::progress::RETIRED]);
            let words = [
                "(version ",
                "start this one with the VIP 203.0.113.1, without --dry-run, which takes over",
                "`ikenat unload --vip 203.0.113.1`",
            ];
            let has_all = words.iter().all(|word| text.contains(word));
            assert!(has_all && !text.contains("start at zero"), "{text}");
            let text = said(&other, OLDER, [version, 0, 0]);
            let words = [
                "with the VIP 203.0.113.1 and --bpffs /run/bpf,",
                "`ikenat unload --vip 203.0.113.1 --bpffs /run/bpf`",
            ];
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
        let unload = "`ikenat unload --vip 203.0.113.1 --bpffs /run/bpf`";
        let dry = said(&other, OLDER, [6, flag::DRY_RUN, 0]);
        let spent = said(&other, OLDER, [6, 0, older::progress::DONE]);
        for (text, word) in [(dry, "of a dry run"), (spent, "has taken over all")] {
            assert!(text.contains(word) && text.contains(unload), "{text}");
            assert!(!text.contains("takes over"), "{text}");
        }
        for (instance, version) in [(OLDER, 2), ("default", 6), ("default", 8)] {
            let directory = format!("/run/bpf/ikenat/{instance}");
            let text = said(&directory, instance, [version, 0, 0]);
            let unload = format!("ikenat unload --instance {instance} --bpffs /run/bpf");
            let words = format!("`{unload}` and start again");
            assert!(text.contains(&words), "{text}");
        }
        let current = refused("/pins", "default", [ABI_VERSION.into(), 0, 0]);
        assert!(current.is_ok());
    }
}
