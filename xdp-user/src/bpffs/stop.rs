//! Ends the daemon of an instance, so that another process can remove the instance.

use crate::bpffs::layout::Instance;
use crate::bpffs::lock::Lock;
use crate::error::text::printable;
use crate::error::{Error, InstanceError, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

/// What became of the process that held the lock of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// There was none.
    None,
    /// It ended when it was asked to.
    Stopped(u32),
    /// It did not, and was killed.
    Killed(u32),
    /// It is not visible from this PID namespace.
    Hidden,
}

/// How long a process may take to end. A daemon ends at once, unless it waits for a busy kernel.
const PATIENCE: Duration = Duration::from_secs(5);

impl Instance {
    /// Ends the process that holds the lock, as `systemctl stop` does, and takes the lock. One that
    /// does not end is killed, which changes nothing of what is attached. A process that cannot be
    /// seen keeps its lock.
    ///
    /// # Errors
    /// The process is no daemon of ikenat or does not hold the lock itself, it may not be signalled,
    /// or it is not gone after five seconds more.
    pub fn lock_by_force(&self) -> Result<(Option<Lock>, Holder)> {
        match self.lock() {
            Ok(lock) => return Ok((Some(lock), Holder::None)),
            Err(Error::Locked { .. }) => {}
            Err(error) => return Err(error),
        }
        let Some((pid, descriptor)) = self.holder()? else {
            // It has ended meanwhile, or its number is not known here.
            return match self.lock() {
                Ok(lock) => Ok((Some(lock), Holder::None)),
                Err(Error::Locked { .. }) => Ok((None, Holder::Hidden)),
                Err(error) => Err(error),
            };
        };
        let send = |signal| match pidfd_send_signal(&descriptor, signal) {
            // It has ended meanwhile.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => {
                let action = format!("stop process {pid}, which runs the instance {}", self.name);
                Err(Error::system(action)(error.into()))
            }
        };
        send(Signal::TERM)?;
        match self.lock_within(PATIENCE) {
            Ok(lock) => return Ok((Some(lock), Holder::Stopped(pid))),
            Err(Error::Locked { .. }) => {}
            Err(error) => return Err(error),
        }
        send(Signal::KILL)?;
        let lock = self.lock_within(PATIENCE)?;
        Ok((Some(lock), Holder::Killed(pid)))
    }

    /// The daemon that holds the lock, by a descriptor: what is found out of the process of this
    /// number afterwards is true of the descriptor's process, or that one has ended.
    fn holder(&self) -> Result<Option<(u32, OwnedFd)>> {
        let Some(pid) = self.owner() else {
            return Ok(None);
        };
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let Some(number) = number else {
            return Ok(None);
        };
        let descriptor = match pidfd_open(number, PidfdFlags::empty()) {
            Ok(descriptor) => descriptor,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => {
                return Err(Error::system(format!("open process {pid}"))(error.into()));
            }
        };
        let checked = self.check_holder(pid);
        // A process that has ended, or has released the lock, needs no further check.
        if self.owner() != Some(pid) {
            return Ok(None);
        }
        checked.map(|()| Some((pid, descriptor)))
    }

    /// /proc/locks names the process that took a lock. When that one has ended, a child may still
    /// hold it, and the number may belong to any other process.
    fn check_holder(&self, pid: u32) -> Result<()> {
        let (instance, process) = (self.name.clone(), PathBuf::from(format!("/proc/{pid}")));
        let look_at = |error| Error::system(format!("look at process {pid}"))(error);
        let name = fs::read_to_string(process.join("comm")).map_err(look_at)?;
        let name = printable(name.trim_end()).into_owned();
        let files = fs::read_dir(process.join("fd")).map_err(look_at)?;
        let mut files = files.filter_map(|file| fs::metadata(file.ok()?.path()).ok());
        if !files.any(|file| self.is_lock(&file)) {
            let place = self.named(&self.lock_directory().display().to_string());
            return Err(InstanceError::NotTheHolder {
                instance,
                pid,
                name,
                place,
            }
            .into());
        }
        // If the binary was renamed, a process of the same name is a daemon too.
        let own = fs::read_to_string("/proc/self/comm").map_err(look_at)?;
        if name != own.trim_end() && !name.starts_with("ikenat") {
            return Err(InstanceError::NotADaemon {
                instance,
                pid,
                name,
            }
            .into());
        }
        Ok(())
    }
}
