//! The signals that end the daemon.

use crate::error::{Error, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Why the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM.
    Terminated,
    /// SIGINT, which Ctrl-C sends.
    Interrupted,
    /// SIGHUP, with which a terminal ends.
    HungUp,
}

/// The signals that this process listens for.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// `None` when it was ignored before (`nohup`).
    hangup: Option<Signal>,
    /// Whether the process was started on a terminal.
    terminal: bool,
}

/// Whether this process was started with SIGHUP ignored.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(is_mask_with_hangup)
}

/// For the line of /proc/self/status with the mask of ignored signals: whether SIGHUP, which is
/// number 1, is in it.
fn is_mask_with_hangup(line: &str) -> bool {
    let mask = line.strip_prefix("SigIgn:").map(str::trim);
    mask.and_then(|mask| u64::from_str_radix(mask, 16).ok())
        .is_some_and(|mask| mask & 1 != 0)
}

impl Signals {
    /// Begins to listen. Needs the event loop. SIGHUP ends a process on a terminal: the terminal is
    /// closed. Without one it means nothing, because there is no configuration file to read again.
    pub fn listen(terminal: bool) -> Result<Self> {
        let ignored = ignores_hangup();
        let listen = |kind| signal(kind).map_err(Error::system("listen for signals"));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: (!ignored)
                .then(|| listen(SignalKind::hangup()))
                .transpose()?,
            terminal,
        })
    }

    /// Waits for a signal that ends the daemon.
    pub async fn stop(&mut self) -> Stop {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Stop::Terminated,
                _ = self.interrupt.recv() => return Stop::Interrupted,
                () = received(self.hangup.as_mut()) => {
                    if self.terminal {
                        return Stop::HungUp;
                    }
                    tracing::debug!("SIGHUP: there is no configuration file to read again");
                }
            }
        }
    }
}

/// Waits for a signal that is listened for.
async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        assert!(is_mask_with_hangup("SigIgn:\t0000000000001001"));
        assert!(!is_mask_with_hangup("SigIgn:\t0000000000001000"));
        assert!(!is_mask_with_hangup("SigCgt:\t0000000000000001"));
        assert!(!is_mask_with_hangup("SigIgn:\tx"));
    }
}
