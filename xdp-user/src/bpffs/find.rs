//! Finds the instances of a BPF file system: all, by name, or by the VIP that they serve.

use crate::bpffs::layout::{DIRECTORY, Instance};
use crate::bpffs::owner::Location;
use crate::bpffs::trust;
use crate::config::instance_name;
use crate::error::{Error, Result};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Which instances are wanted. An instance has to match all that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// The one of this name.
    pub name: Option<String>,
    /// The one that serves this VIP.
    pub vip: Option<Ipv4Addr>,
}

/// The instances that are wanted, sorted by name.
pub fn instances(bpffs: &Path, wanted: &Selector) -> Result<Vec<Instance>> {
    let directory = bpffs.join(DIRECTORY);
    if !trust::base(bpffs)? {
        return Ok(Vec::new());
    }
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::not_readable(&directory, error)),
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| instance_name::existing(entry.ok()?.file_name().to_str()?).ok())
        .filter(|found| wanted.name.as_ref().is_none_or(|name| name == found))
        .collect();
    names.sort_unstable();
    let mut found: Vec<Instance> = names.iter().map(|name| Instance::of(bpffs, name)).collect();
    found.iter().try_for_each(Instance::check_place)?;
    if let Some(vip) = wanted.vip {
        let serves = |instance: &Instance| instance.vips().contains(&IpAddr::V4(vip));
        // Any of those that are closed to this user may be the one: reading it says so.
        if found.iter().any(serves) {
            found.retain(serves);
        } else {
            found.retain(Instance::is_closed);
        }
    }
    Ok(found)
}

impl Instance {
    /// The VIP of an instance of an older version, which named directories after VIPs.
    pub fn older_vip(&self) -> Option<Ipv4Addr> {
        instance_name::vip_of_older(&self.name)
    }

    /// The VIPs that it serves, as far as that is known: not while it starts for the first time.
    pub fn vips(&self) -> Vec<IpAddr> {
        match self.older_vip() {
            Some(vip) => vec![vip.into()],
            None => Location::of(self).map_or_else(Vec::new, |location| location.vips),
        }
    }

    /// Whether this user may not enter its directory.
    fn is_closed(&self) -> bool {
        let found = fs::symlink_metadata(self.pin("META"));
        found.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }

    /// The option that selects it alone.
    pub(crate) fn selector(&self) -> String {
        match self.older_vip() {
            Some(vip) => format!("--vip {vip}"),
            None => format!("--instance {}", self.name),
        }
    }

    /// The name, with the VIPs as far as they are known: `default (203.0.113.1)`.
    pub fn name_and_vips(&self) -> String {
        let vips: Vec<String> = self.vips().iter().map(IpAddr::to_string).collect();
        if vips.is_empty() {
            self.name.clone()
        } else {
            format!("{} ({})", self.name, vips.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A directory that is removed at the end.
    struct Directory(PathBuf);

    impl Drop for Directory {
        fn drop(&mut self) {
            _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn instances_are_the_directories_with_a_name() {
        let name = format!("ikenat-find-{}", std::process::id());
        let root = Directory(std::env::temp_dir().join(name));
        for name in ["office-2", "203_0_113_1", "default", "locks", "a.b"] {
            fs::create_dir_all(root.0.join(DIRECTORY).join(name)).expect("a directory");
        }
        let names = |wanted: &Selector| -> Vec<String> {
            let found = instances(&root.0, wanted).expect("readable");
            found.into_iter().map(|instance| instance.name).collect()
        };
        let all = Selector::default();
        assert_eq!(names(&all), ["203_0_113_1", "default", "office-2"]);
        let by_name = Selector {
            name: Some("office-2".to_owned()),
            ..Selector::default()
        };
        assert_eq!(names(&by_name), ["office-2"]);
        // The VIP of an older version is in the name of its directory.
        let by_vip = Selector {
            vip: Some(Ipv4Addr::new(203, 0, 113, 1)),
            ..Selector::default()
        };
        assert_eq!(names(&by_vip), ["203_0_113_1"]);
    }
}
