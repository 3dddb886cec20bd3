//! Who may read an instance: root, and the members of one group. Their `stats` and `status` need no
//! capability.

use crate::bpffs::layout::Instance;
use crate::config::settings::Sizes;
use crate::error::{Error, Result, word};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

/// The groups of this host. A group that is defined elsewhere, in LDAP for example, is given by its
/// number.
const GROUPS: &str = "/etc/group";

/// The number of a group, by its name or number.
pub fn group(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let groups = fs::read_to_string(GROUPS)
        .map_err(|error| format!("{GROUPS} cannot be read ({})", word(&error)))?;
    number_of(&groups, text).ok_or_else(|| {
        format!(
            "there is no such group in {GROUPS}; add it with `groupadd {text}`, or give its number"
        )
    })
}

/// Looks up a name in lines of `name:password:number:members`.
fn number_of(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(())?;
        fields.nth(1)?.parse().ok()
    })
}

impl Instance {
    /// Lets one group read the tables, and no one else. Links stay closed: a user who can open a
    /// link can detach it.
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
            give(&self.pin(layout.name), mode)?;
        }
        give(&self.directory, 0o750)?;
        if group.is_some()
            && let Some(parent) = self.directory.parent()
        {
            // Instances may have different groups. This directory shows nothing but VIPs.
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
    fn groups_have_names_and_numbers() {
        let groups = "root:x:0:\nvpn:x:1042:ann,bob\nvpn2:x:7:\n";
        assert_eq!(number_of(groups, "vpn"), Some(1042));
        assert_eq!(number_of(groups, "vp"), None);
        assert_eq!(group("1042"), Ok(1042));
        let error = group("no such group").expect_err("none");
        assert!(error.contains("/etc/group"), "{error}");
    }
}
