//! The pins: the BPF file system, and one directory for each instance in it.

use crate::bpffs::pin_names::NEW;
use crate::bpffs::trust::{self, other_owner};
use crate::config::commands::{USUAL_BPFFS, bpffs_option, unload_command};
use crate::config::interfaces::HookPoint;
use crate::config::settings::Sizes;
use crate::error::{Error, InstanceError, Result, causes, is_denied};
use aya::maps::MapInfo;
use rustix::fs::{CWD, Mode, OFlags, openat, statfs};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// `BPF_FS_MAGIC`.
const MAGIC: u64 = 0xcafe_4a11;
/// The directory of ikenat in it.
pub(crate) const DIRECTORY: &str = "ikenat";

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| u64::try_from(fs.f_type).is_ok_and(|kind| kind == MAGIC))
}

/// The BPF file system: the one that was named, else the usual one.
pub fn bpffs(named: Option<&Path>) -> Result<PathBuf> {
    let looked = match named {
        Some(path) => vec![path.to_path_buf()],
        None => USUAL_BPFFS.map(PathBuf::from).to_vec(),
    };
    match looked.iter().find(|path| is_bpffs(path)) {
        Some(path) => Ok(path.clone()),
        None => Err(Error::NoBpffs {
            looked: looked[0].display().to_string(),
        }),
    }
}

/// Prefix of the record of a clsact that ikenat has added; namespace and interface index follow.
pub(crate) const CLSACT: &str = "clsact-";

/// A tracepoint with a program that counts what is lost after the redirect.
pub(crate) struct LossPoint {
    /// The tracepoint.
    pub(crate) tracepoint: &'static str,
    /// The name of its program in the object.
    pub(crate) program: &'static str,
}

impl LossPoint {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [
        Self {
            tracepoint: "xdp_devmap_xmit",
            program: "ikenat_lost_bulk",
        },
        Self {
            tracepoint: "xdp_redirect_err",
            program: "ikenat_lost_refused",
        },
        Self {
            tracepoint: "xdp_exception",
            program: "ikenat_lost_generic",
        },
    ];

    /// The name of the pin of its link.
    pub(crate) fn pin(&self) -> String {
        format!("loss-{}", self.tracepoint)
    }
}

/// The directory of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Where its pins are.
    pub directory: PathBuf,
    /// The BPF file system by its name, when `directory` is a path through a descriptor.
    named: Option<PathBuf>,
}

impl Instance {
    /// The instance of a name, whether it exists or not.
    pub fn of(bpffs: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            directory: bpffs.join(DIRECTORY).join(name),
            named: None,
        }
    }

    /// The BPF file system that it is in.
    pub(crate) fn bpffs(&self) -> &Path {
        let mut above = self.directory.ancestors();
        above.nth(2).unwrap_or(Path::new("/"))
    }

    /// The path of a pin.
    pub fn pin(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Creates the directory, for root and its group only.
    pub fn create(&self) -> Result<()> {
        // A bpffs is often writable for all users: another user may have created the directory
        // before.
        let above = self.directory.parent();
        for path in above.into_iter().chain([self.directory.as_path()]) {
            create_directory(path, 0o750)?;
        }
        Ok(())
    }

    /// The same instance by an open descriptor of its BPF file system, for as long as that is held:
    /// the path to it may need a capability that is about to be given up (`/proc/1/root`), or lead
    /// through directories of other users.
    pub fn by_descriptor(&self) -> Result<(Self, OwnedFd)> {
        let root = self.bpffs();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root_descriptor = openat(CWD, root, flags, Mode::empty())
            .map_err(|error| Error::system(format!("open {}", root.display()))(error.into()))?;
        let path = format!("/proc/self/fd/{}", root_descriptor.as_raw_fd());
        let mut instance = Self::of(Path::new(&path), &self.name);
        instance.named = Some(root.to_path_buf());
        Ok((instance, root_descriptor))
    }

    /// The command that removes it.
    pub fn unload_command(&self) -> String {
        self.named(&unload_command(&self.directory))
    }

    /// The option, to append to another command that acts on it.
    pub fn bpffs_option(&self) -> String {
        self.named(&bpffs_option(self.bpffs()))
    }

    /// A message with the paths of the pins by their names.
    pub(crate) fn named(&self, message: &str) -> String {
        match &self.named {
            Some(name) => {
                let roots = [self.bpffs(), name];
                let [root, named] = roots.map(|path| path.join(DIRECTORY).display().to_string());
                let [option, option_named] = roots.map(bpffs_option);
                message
                    .replace(&root, &named)
                    .replace(&option, &option_named)
            }
            None => message.to_owned(),
        }
    }

    /// True when any map or link is pinned.
    pub fn is_used(&self) -> bool {
        fs::read_dir(&self.directory).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// True when a link or a filter's program is pinned.
    pub fn has_programs(&self) -> Result<bool> {
        let links = self.pins_of_links()?;
        Ok(links.iter().any(|name| self.pin(name).exists()) || self.has_filters()?)
    }

    /// True when the program of a filter is pinned.
    pub fn has_filters(&self) -> Result<bool> {
        let is_pinned = Self::filter_pins().any(|name| self.pin(&name).exists());
        Ok(is_pinned || !self.filters_aside()?.is_empty())
    }

    fn foreign(&self, path: &Path, why: String) -> Error {
        Error::ForeignPin {
            path: path.to_path_buf(),
            why,
            unload: self.unload_command(),
        }
    }

    /// Refuses pinned maps that differ from those that this version would create.
    pub fn check_maps(&self, sizes: &Sizes) -> Result<()> {
        for layout in sizes.layouts()? {
            let path = self.pin(layout.name);
            if !path.exists() {
                return Err(self.foreign(&path, "it is missing".to_owned()));
            }
            if let Some(user) = other_owner(&path)? {
                return Err(self.foreign(&path, format!("it belongs to user {user}")));
            }
            let info = MapInfo::from_pin(&path).map_err(|error| {
                // The kernel lets no process open a directory as a pin.
                if path.is_dir() {
                    return self.foreign(&path, "it is a directory, not a map".to_owned());
                }
                if is_denied(&error) {
                    return closed(&path, &error);
                }
                self.foreign(&path, format!("it is not a map ({})", causes(&error)))
            })?;
            if let Some(why) = layout.difference(&info) {
                return Err(self.foreign(&path, why));
            }
        }
        Ok(())
    }

    /// Removes the pins of this instance, and returns their names. The directory stays.
    pub fn clear(&self) -> Result<Vec<String>> {
        let mut removed = self.clear_links()?;
        let sizes = Sizes {
            flow_slots: 0,
            session_slots: 0,
        };
        removed.extend(self.clear_filters()?);
        for layout in sizes.layouts()? {
            if remove_file(&self.pin(layout.name))? {
                removed.push(layout.name.to_owned());
            }
        }
        for name in self.entries()? {
            if name.starts_with(CLSACT) {
                remove_directory(&self.pin(&name))?;
            } else if name.ends_with(NEW) {
                remove_file(&self.pin(&name))?;
            }
        }
        Ok(removed)
    }

    /// Removes the pins of the links alone, which detaches them.
    pub fn clear_links(&self) -> Result<Vec<String>> {
        let links = HookPoint::all().map(HookPoint::link_pin);
        let mut removed = self.clear_named(links.chain(self.links_aside()?))?;
        removed.extend(self.clear_tracepoints()?);
        Ok(removed)
    }

    /// Removes the pins of the programs on tracepoints, which detaches these.
    pub(crate) fn clear_tracepoints(&self) -> Result<Vec<String>> {
        self.clear_named(LossPoint::ALL.iter().map(LossPoint::pin))
    }

    /// True when all programs on tracepoints are pinned: then losses are counted.
    pub(crate) fn counts_losses(&self) -> bool {
        let mut points = LossPoint::ALL.iter();
        points.all(|point| self.pin(&point.pin()).exists())
    }

    /// Removes the pins of the filters' programs, which leaves the filters themselves.
    pub(crate) fn clear_filters(&self) -> Result<Vec<String>> {
        self.clear_named(Self::filter_pins().chain(self.filters_aside()?))
    }

    fn clear_named(&self, names: impl Iterator<Item = String>) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        for name in names {
            remove_file(&self.pending_pin(&name))?;
            if remove_file(&self.pin(&name))? {
                removed.push(name);
            }
        }
        Ok(removed)
    }

    /// Removes the pins of this instance and the directory, and returns the names of the pins.
    pub fn remove(&self) -> Result<Vec<String>> {
        let removed = self.clear()?;
        remove_directory(&self.directory)?;
        self.remove_lock()?;
        if let Some(parent) = self.directory.parent() {
            remove_directory(parent)?;
        }
        Ok(removed)
    }
}

/// Creates a directory with this mode whatever the umask, or accepts one of root or of this user.
pub(super) fn create_directory(path: &Path, mode: u32) -> Result<()> {
    let created = DirBuilder::new().mode(mode).create(path);
    let created = created.and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)));
    match created {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::system(format!("create {}", path.display()))(error));
        }
        Ok(()) | Err(_) => {}
    }
    trust::created(path)
}

fn closed(path: &Path, error: &dyn std::error::Error) -> Error {
    let closed = InstanceError::ClosedPin {
        path: path.to_path_buf(),
        why: causes(error),
        user: fs::symlink_metadata(path).map_or(0, |meta| meta.uid()),
    };
    closed.into()
}

/// Removes a file. True when there was one.
pub fn remove_file(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::system(format!("remove {}", path.display()))(error)),
    }
}

/// Removes a directory if it is empty.
pub(super) fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(Error::system(format!("remove {}", path.display()))(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_an_instance_by_descriptor_name_its_file_system() {
        let held = |bpffs: &str| Instance {
            named: Some(PathBuf::from(bpffs)),
            ..Instance::of(Path::new("/proc/self/fd/7"), "office-2")
        };
        const UNLOAD: &str = "ikenat unload --instance office-2";
        for (bpffs, option) in [
            ("/sys/fs/bpf", ""),
            ("/run/bpf", " --bpffs /run/bpf"),
            ("/run/my bpf", " --bpffs '/run/my bpf'"),
        ] {
            let instance = held(bpffs);
            assert_eq!(instance.bpffs_option(), option);
            assert_eq!(instance.unload_command(), format!("{UNLOAD}{option}"));
            // As a message by the path of the directory has it.
            let message = format!(
                "remove {} with `{}`",
                instance.pin("META").display(),
                unload_command(&instance.directory)
            );
            assert_eq!(
                instance.named(&message),
                format!("remove {bpffs}/ikenat/office-2/META with `{UNLOAD}{option}`")
            );
        }
    }

    #[test]
    fn a_directory_that_is_no_bpffs_is_refused_by_name() {
        let error = bpffs(Some(Path::new("/proc")))
            .expect_err("procfs")
            .to_string();
        assert!(error.contains("/proc is not a BPF file system"), "{error}");
        assert!(error.contains("--bpffs"), "{error}");
    }
}
