//! Who may read an instance: root, and the members of one group. Their `stats` and `status` need no
//! capability.

use crate::bpffs::layout::Instance;
use crate::config::settings::Sizes;
use crate::error::{Error, Result, word};
use crate::tables::secret::SECRET;
use nix::unistd::Group;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

/// The number of a group, by its number or its name, which NSS looks up: in /etc/group, and also in
/// LDAP and the like if the C library is glibc.
pub fn group(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    match Group::from_name(text) {
        Ok(Some(found)) => Ok(found.gid.as_raw()),
        Ok(None) => Err(format!(
            "there is no group {text}; add it with `groupadd {text}`, or give its number"
        )),
        Err(error) => Err(format!(
            "failed to look up the group {text} ({}); give its number",
            word(&error.into())
        )),
    }
}

/// The maps that only their owner may read, whatever the group: the key of the tables' hash, and those
/// in which digests or places of entries show much of it. Whoever knows it can choose addresses that
/// overwrite the entries of others.
pub const CLOSED: [&str; 5] = [SECRET, "HALF", "PIN", "FRAGMENT", "LIMIT"];

impl Instance {
    /// Lets one group read the tables, and no one else. Links stay closed: a user who can open a
    /// link can detach it. Some maps stay closed too.
    pub(crate) fn grant_read(&self, group: Option<u32>, sizes: &Sizes) -> Result<()> {
        let (number, mode) = match group {
            Some(number) => (number, 0o640),
            None => (rustix::process::getegid().as_raw(), 0o600),
        };
        let give = |path: &Path, mode: u32| -> Result<()> {
            let given = chown(path, None, Some(number))
                .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)));
            given.map_err(|error| Error::Group {
                path: path.to_path_buf(),
                group: number,
                why: word(&error),
            })
        };
        for layout in sizes.layouts()? {
            let is_closed = CLOSED.contains(&layout.name);
            let mode = if is_closed { 0o600 } else { mode };
            give(&self.pin(layout.name), mode)?;
        }
        give(&self.directory, 0o750)?;
        if group.is_some()
            && let Some(parent) = self.directory.parent()
        {
            // Instances may have different groups. This directory shows nothing but names.
            fs::set_permissions(parent, Permissions::from_mode(0o755)).map_err(Error::system(
                format!("open {} to others", parent.display()),
            ))?;
        }
        Ok(())
    }

    /// The parent directory that members of a group may not enter: systemd mounts /sys/fs/bpf for
    /// root alone.
    pub fn closed_to(&self, group: u32) -> Option<PathBuf> {
        let is_closed = |path: &&Path| {
            fs::metadata(path).is_ok_and(|meta| {
                let bit = if meta.gid() == group { 0o010 } else { 0o001 };
                meta.mode() & bit == 0
            })
        };
        let found = self.directory.ancestors().skip(1).find(is_closed)?;
        Some(found.to_path_buf())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_given_by_name() {
        assert_eq!(group("root"), Ok(0));
    }

    #[test]
    fn a_group_is_given_by_number() {
        assert_eq!(group("1042"), Ok(1042));
    }

    #[test]
    fn an_unknown_group_is_named_with_the_remedy() {
        let error = group("no-such-group").expect_err("there is none");
        for part in ["no-such-group", "`groupadd no-such-group`", "number"] {
            assert!(error.contains(part), "{error}");
        }
        group("no\0such").expect_err("not a name");
    }
}
