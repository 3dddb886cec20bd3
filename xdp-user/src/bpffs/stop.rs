//! Ends the daemon of an instance, so that another process can remove the instance.

use crate::bpffs::layout::Instance;
use crate::bpffs::lock::Lock;
use crate::error::{Error, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::OwnedFd;
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
    /// The process may not be signalled, or is not gone after five seconds more.
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
        let send = |signal| {
            let action = format!("stop process {pid}, which serves {}", self.vip);
            pidfd_send_signal(&descriptor, signal)
                .map_err(|error| Error::system(action)(error.into()))
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

    /// The process that holds the lock. Its descriptor keeps the number from meaning another
    /// process, if the lock has the same owner after it was opened.
    fn holder(&self) -> Result<Option<(u32, OwnedFd)>> {
        let Some(pid) = self.owner() else {
            return Ok(None);
        };
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let Some(number) = number else {
            return Ok(None);
        };
        match pidfd_open(number, PidfdFlags::empty()) {
            Ok(descriptor) => Ok((self.owner() == Some(pid)).then_some((pid, descriptor))),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(Error::system(format!("open process {pid}"))(error.into())),
        }
    }
}
