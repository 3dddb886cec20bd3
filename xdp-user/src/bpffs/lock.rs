//! The lock that keeps two daemons of one instance apart, and the one that keeps two starts of any
//! instances apart while they attach.
//!
//! It is on an empty directory beside that of the pins, so that instances in two namespaces that
//! share /run do not exclude each other. Only its owner can open it: a member of a group that may
//! read the tables (`--group`) can open the directory of the pins, and could hold a lock on it for
//! ever.

use crate::bpffs::layout::{Instance, create_directory, remove_directory};
use crate::config::instance_name::LOCKS;
use crate::error::{Error, InstanceError, Result};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use std::fs::{self, File, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

impl Instance {
    /// The directory that the lock is on.
    pub(super) fn lock_directory(&self) -> PathBuf {
        let name = self.directory.file_name().unwrap_or_default();
        self.locks().join(name)
    }

    /// The directory of all locks of a BPF file system.
    pub(super) fn locks(&self) -> PathBuf {
        let parent = self.directory.parent().unwrap_or(Path::new("/"));
        parent.join(LOCKS)
    }

    /// Locks the instance, whose directory must exist. The kernel releases the lock when the
    /// process ends, for whatever cause.
    pub fn lock(&self) -> Result<Lock> {
        // A daemon that was killed holds its lock until the kernel has freed its memory.
        self.lock_within(Duration::from_millis(500))
    }

    /// The same, for a lock that another process releases before long.
    pub(super) fn lock_within(&self, patience: Duration) -> Result<Lock> {
        let place = self.lock_directory();
        let path = place.display();
        // Readers find the daemon by the inode of its lock.
        create_directory(&self.locks(), 0o711)?;
        create_directory(&place, 0o700)?;
        let directory = open(&place)?;
        if !locked_within(&directory, &place, patience, || {})? {
            return Err(Error::Locked {
                instance: self.name.clone(),
                whose: self.whose(),
            });
        }
        let directory = File::from(directory);
        if directory.metadata().is_ok_and(|meta| self.is_lock(&meta)) {
            return Ok(Lock(directory));
        }
        // An `unload` that held the lock has removed the directory.
        let gone = std::io::ErrorKind::NotFound.into();
        Err(Error::system(format!(
            "lock {path}, which was removed meanwhile; try again"
        ))(gone))
    }

    /// Keeps all other starts in this BPF file system from attaching, until it is dropped or the
    /// process dies. It is on the directory of the locks; the instance must be locked, so that
    /// this is not removed. `waiting` is called once, with the process that holds it, if one does.
    ///
    /// A start looks for other instances of its VIPs and attaches under this lock, and what it serves is
    /// recorded before it releases it. Of two that want one VIP the second one finds the record.
    pub(crate) fn lock_attaching(
        &self,
        patience: Duration,
        waiting: impl FnOnce(Option<u32>),
    ) -> Result<Lock> {
        let place = self.locks();
        let directory = open(&place)?;
        let note = || waiting(holder_of(&place));
        if locked_within(&directory, &place, patience, note)? {
            return Ok(Lock(File::from(directory)));
        }
        let holder = holder_of(&place);
        let whose = holder.map_or_else(String::new, |pid| format!(" (process {pid})"));
        let place = place.display().to_string();
        Err(InstanceError::Attaching { whose, place }.into())
    }

    /// Whether an open file is what the lock is on.
    pub(super) fn is_lock(&self, file: &Metadata) -> bool {
        let identity = |meta: &Metadata| (meta.dev(), meta.ino());
        fs::symlink_metadata(self.lock_directory())
            .is_ok_and(|found| identity(&found) == identity(file))
    }

    /// Removes the directory that the lock is on, whose lock this process holds.
    pub(super) fn remove_lock(&self) -> Result<()> {
        remove_directory(&self.lock_directory())?;
        remove_directory(&self.locks())
    }

    /// The process that holds the lock, from a line of /proc/locks:
    /// `1: FLOCK  ADVISORY  WRITE 123 00:2a:17 0 EOF`.
    pub fn owner(&self) -> Option<u32> {
        holder_of(&self.lock_directory())
    }
}

/// The process that holds the lock on a directory.
fn holder_of(place: &Path) -> Option<u32> {
    let meta = fs::symlink_metadata(place).ok()?;
    let (major, minor) = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
    let inode = format!("{major:02x}:{minor:02x}:{}", meta.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    owner_in(&locks, &inode)
}

fn open(place: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat(CWD, place, flags, Mode::empty())
        .map_err(|error| Error::system(format!("open {}", place.display()))(error.into()))
}

/// Locks a directory, or gives up when the patience has ended. `waiting` is called once if another
/// process holds the lock.
fn locked_within(
    directory: &OwnedFd,
    place: &Path,
    patience: Duration,
    waiting: impl FnOnce(),
) -> Result<bool> {
    let deadline = Instant::now() + patience;
    let mut waiting = Some(waiting);
    loop {
        match flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                if let Some(tell) = waiting.take() {
                    tell();
                }
                if Instant::now() >= deadline {
                    return Ok(false);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => {
                let action = format!("lock {}", place.display());
                return Err(Error::system(action)(error.into()));
            }
        }
    }
}

/// `inode` is the device and the inode number in the form of /proc/locks.
fn owner_in(locks: &str, inode: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let at = fields.iter().position(|field| *field == inode)?;
        (fields.get(1) == Some(&"FLOCK")).then_some(())?;
        fields.get(at.checked_sub(1)?)?.parse().ok()
    })
}

/// The lock of an instance. It is released when it is dropped or the process dies.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_lock_is_found_by_device_and_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 00:2a:17 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 12 00:2a:17 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 13 00:2b:17 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 14 00:2a:17 0 EOF\n";
        assert_eq!(owner_in(locks, "00:2a:17"), Some(14));
        assert_eq!(owner_in(locks, "00:2a:18"), None);
    }
}
