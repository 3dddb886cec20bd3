//! The commands that messages name as a remedy, complete: with the options that find the instance, and
//! so that they can be pasted into a shell.

pub(crate) use crate::error::text::{quoted, quoted_path};
use std::path::Path;

/// Where the BPF file system is usually mounted; then the same as seen by process 1, because
/// `ip netns exec` mounts a new /sys over it.
pub(crate) const USUAL_BPFFS: [&str; 2] = ["/sys/fs/bpf", "/proc/1/root/sys/fs/bpf"];

/// The option, to append to a command that acts on instances in this BPF file system. Empty where
/// the command finds it by itself.
pub fn bpffs_option(bpffs: &Path) -> String {
    if USUAL_BPFFS.iter().any(|usual| Path::new(usual) == bpffs) {
        return String::new();
    }
    format!(" --bpffs {}", quoted_path(bpffs))
}

/// The same for an instance whose pins are in this directory.
pub(crate) fn bpffs_option_of(directory: &Path) -> String {
    directory
        .ancestors()
        .nth(2)
        .map_or_else(String::new, bpffs_option)
}

/// The command that removes the instance whose pins are in this directory, and no other.
pub fn unload_command(directory: &Path) -> String {
    let name = directory.file_name().unwrap_or_default();
    format!(
        "ikenat unload --instance {}{}",
        name.display(),
        bpffs_option_of(directory)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_an_unusual_bpffs() {
        let command = |bpffs: &str| unload_command(&Path::new(bpffs).join("ikenat/office-2"));
        const USUAL: &str = "ikenat unload --instance office-2";
        assert_eq!(command("/sys/fs/bpf"), USUAL);
        assert_eq!(command("/proc/1/root/sys/fs/bpf"), USUAL);
        assert_eq!(command("/run/bpf"), format!("{USUAL} --bpffs /run/bpf"));
        // As with `--bpffs .`.
        assert_eq!(command("."), format!("{USUAL} --bpffs ."));
        assert_eq!(bpffs_option(Path::new("/run/bpf")), " --bpffs /run/bpf");
    }

    #[test]
    fn a_path_with_characters_of_the_shell_is_quoted() {
        let command = unload_command(Path::new("/run/my bpf/ikenat/default"));
        assert_eq!(
            command,
            "ikenat unload --instance default --bpffs '/run/my bpf'"
        );
    }
}
