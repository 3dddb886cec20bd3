//! Which directories of a BPF file system are used at all. Its root is often writable for every user,
//! so what has the name of ikenat's directory may be a link to somewhere else, or another user's.
//!
//! Invariant: nothing below the file system's root is listed, locked, opened or removed before it has
//! passed here, and no symbolic link is followed.

use crate::bpffs::layout::{DIRECTORY, Instance};
use crate::config::commands::quoted_path;
use crate::error::{Error, InstanceError, Result};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Permission to write for the group or for others.
const WRITABLE: u32 = 0o022;
/// Only the owner of an entry may rename or remove it.
const STICKY: u32 = 0o1000;

/// The user of this process.
fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The owner, if that is neither root nor the user of this process.
fn other_owner_of(meta: &Metadata) -> Option<u32> {
    let user = meta.uid();
    (user != 0 && user != own_user()).then_some(user)
}

/// The owner of a file or of a link itself, if that is neither root nor the user of this process.
pub(super) fn other_owner(path: &Path) -> Result<Option<u32>> {
    Ok(look(path)?.as_ref().and_then(other_owner_of))
}

fn look(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::not_readable(path, error)),
    }
}

fn refusal(path: &Path, what: String, fix: String) -> Error {
    let path = path.to_path_buf();
    InstanceError::ForeignDirectory { path, what, fix }.into()
}

/// Whether a directory exists. Fails if it is none, or if other users than root, the one of this
/// process and `also` could exchange what is in it.
fn directory(path: &Path, also: Option<u32>) -> Result<bool> {
    let Some(meta) = look(path)? else {
        return Ok(false);
    };
    let shown = quoted_path(path);
    if !meta.is_dir() {
        let what = if meta.is_symlink() {
            let target = fs::read_link(path).unwrap_or_default();
            format!("is a symbolic link to {}", quoted_path(&target))
        } else {
            "is no directory".to_owned()
        };
        let what = format!("{what}, and ikenat creates a directory there");
        return Err(refusal(path, what, format!("rm {shown}")));
    }
    if let Some(user) = other_owner_of(&meta).filter(|user| Some(*user) != also) {
        let group = rustix::process::getegid().as_raw();
        let what = format!("belongs to user {user}, who could exchange the pins in it");
        let fix = format!("chown {}:{group} {shown}", own_user());
        return Err(refusal(path, what, fix));
    }
    if meta.mode() & WRITABLE != 0 {
        let mode = meta.mode() & 0o7777;
        let what = format!(
            "is writable for other users (mode {mode:04o}), who could exchange the pins in it"
        );
        return Err(refusal(path, what, format!("chmod go-w {shown}")));
    }
    Ok(true)
}

/// Whether ikenat has a directory in a BPF file system. Fails if it cannot be trusted.
///
/// Who owns the directory that was named as the BPF file system can exchange everything in it: naming
/// it is to trust that user.
pub(crate) fn base(bpffs: &Path) -> Result<bool> {
    let root = fs::metadata(bpffs).map_err(|error| Error::not_readable(bpffs, error))?;
    let exists = directory(&bpffs.join(DIRECTORY), Some(root.uid()))?;
    let mode = root.mode() & 0o7777;
    // Also before there is one: it would be created there.
    if mode & WRITABLE != 0 && mode & STICKY == 0 {
        let what = format!(
            "is writable for other users and not sticky (mode {mode:04o}), so they could exchange the directory {DIRECTORY} in it"
        );
        return Err(refusal(
            bpffs,
            what,
            format!("chmod +t {}", quoted_path(bpffs)),
        ));
    }
    Ok(exists)
}

impl Instance {
    /// Fails if its directory cannot be trusted: that, the one above, or something in it. One that does
    /// not exist can.
    pub fn check_place(&self) -> Result<()> {
        let root = fs::metadata(self.bpffs()).ok().map(|root| root.uid());
        if !base(self.bpffs())? {
            return Ok(());
        }
        directory(&self.locks(), root)?;
        directory(&self.lock_directory(), root)?;
        if !directory(&self.directory, root)? {
            return Ok(());
        }
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            // Who may not list it says so where that is needed.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            Err(error) => return Err(Error::not_readable(&self.directory, error)),
        };
        for entry in entries.filter_map(Result::<_, _>::ok) {
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                let path = entry.path();
                let target = fs::read_link(&path).unwrap_or_default();
                let what = format!(
                    "is a symbolic link to {}, and no pin is one",
                    quoted_path(&target)
                );
                let fix = format!("rm {}", quoted_path(&path));
                return Err(refusal(&path, what, fix));
            }
        }
        Ok(())
    }
}

/// Fails if a directory that was just created, or existed, cannot be trusted by who pins in it.
pub(super) fn created(path: &Path) -> Result<()> {
    directory(path, None).map(drop)
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
