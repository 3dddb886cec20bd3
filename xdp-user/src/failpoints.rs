//! Steps of a start at which a test can kill it or make it fail. Only binaries with the cargo feature
//! `failpoints` have them, which `cargo xtask build` gives to those for the tests. In all others, and
//! in every release, `pass` does nothing.
//!
//! `IKENAT_FAIL_AT=list` writes each step that is passed to stderr, with its number; `kill:N` kills
//! the process at the Nth step, as `kill -9` would; `stop:N` stops it there until SIGCONT;
//! `error:N` makes the Nth step fail. The tests find a new step without a list of names. N may also be the
//! name of a step (the first time that it is passed), or NAME:NUMBER, as in `error:described:2`.
//!
//! `IKENAT_OBJECT` names another object to load, for example one that the verifier refuses.
//! `IKENAT_HOLD_LOAD` names a file: while it is there, no object is loaded.
//! `IKENAT_NO_MEMBARRIER` makes membarrier(2) fail with EINVAL, as with `nohz_full=`, and
//! `IKENAT_SLOW_MEMBARRIER` makes it take so many milliseconds more, as on a busy host.

use crate::error::Result;
use std::borrow::Cow;

macro_rules! steps {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// A step. It is named by what has just been done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Step { $($(#[$doc])* $variant,)* }

        impl Step {
            /// All steps.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

steps! {
    /// The directory of the pins exists and is locked.
    Locked = "locked";
    /// What an earlier start left was examined.
    EarlierFound = "earlier-found";
    /// The tick rate of the kernel is known.
    TimeLearned = "time-learned";
    /// All maps are created and pinned, or found.
    MapsMade = "maps-made";
    /// The verifier has accepted a program.
    ProgramLoaded = "program-loaded";
    /// META is written except for its version.
    Described = "described";
    /// The version in META is written.
    VersionWritten = "version-written";
    /// The entries of an older version's tables are in the new ones.
    EntriesCopied = "entries-copied";
    /// The pin of a program of an older version is in the directory of the instance.
    ProgramMoved = "program-moved";
    /// A part of the counters of an older version's tables is in the new ones.
    CountersMoved = "counters-moved";
    /// The tables of an older version are marked as spent.
    OlderSpent = "older-spent";
    /// The directory of an older version is removed.
    OlderRemoved = "older-removed";
    /// Everything is ready to be attached.
    EgressesSet = "egresses-set";
    /// A new link holds a program, and nothing holds the link but this process.
    LinkMade = "link-made";
    /// The link is pinned beside the pin that it will replace.
    LinkPinned = "link-pinned";
    /// All that the kernel may refuse is done, beside what is attached.
    Prepared = "prepared";
    /// The program of a live link was replaced.
    LinkUpdated = "link-updated";
    /// The new pin of a link has replaced the old one.
    LinkInPlace = "link-in-place";
    /// The program of a filter is pinned beside the pin that it will replace.
    ProgramPinned = "program-pinned";
    /// The new pin of a program has replaced the old one.
    ProgramInPlace = "program-in-place";
    /// It is recorded that a clsact is added by ikenat.
    ClsactNoted = "clsact-noted";
    /// The clsact exists.
    ClsactMade = "clsact-made";
    /// The clsact has a new filter.
    FilterMade = "filter-made";
    /// A pin that loses its name is set aside, because what it pins is on another interface.
    SetAside = "set-aside";
    /// The program of a filter was replaced.
    FilterExchanged = "filter-exchanged";
    /// Every program is attached.
    AllAttached = "all-attached";
}

/// Reports that a step was done. Fails, or never returns, when a test asks for that.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn pass(_: Step) -> Result<()> {
    Ok(())
}

/// The object to load.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn object(embedded: &'static [u8]) -> Result<Cow<'static, [u8]>> {
    Ok(Cow::Borrowed(embedded))
}

/// Fails when a test wants membarrier(2) to be refused, waits when it wants it to be slow.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn membarrier() -> std::io::Result<()> {
    Ok(())
}

#[cfg(feature = "failpoints")]
pub(crate) use armed::{membarrier, object, pass};

#[cfg(feature = "failpoints")]
mod armed {
    use super::{Cow, Result, Step};
    use crate::error::Error;
    use std::io;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    const VARIABLE: &str = "IKENAT_FAIL_AT";
    static PASSED: AtomicU32 = AtomicU32::new(0);
    /// The same of each step.
    static PASSED_OF: [AtomicU32; Step::ALL.len()] = [const { AtomicU32::new(0) }; Step::ALL.len()];

    /// The object to load: the embedded one, unless a test names another. Waits while a test wants
    /// the load to last.
    pub(crate) fn object(embedded: &'static [u8]) -> Result<Cow<'static, [u8]>> {
        if let Some(path) = std::env::var_os("IKENAT_HOLD_LOAD").map(PathBuf::from)
            && path.exists()
        {
            eprintln!("failpoint: the load is held");
            while path.exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let Some(path) = std::env::var_os("IKENAT_OBJECT") else {
            return Ok(Cow::Borrowed(embedded));
        };
        let failed = Error::system(format!("read {}", path.display()));
        std::fs::read(&path).map(Cow::Owned).map_err(failed)
    }

    /// Fails when a test wants membarrier(2) to be refused, waits when it wants it to be slow.
    pub(crate) fn membarrier() -> io::Result<()> {
        if let Ok(text) = std::env::var("IKENAT_SLOW_MEMBARRIER") {
            let wait = text.parse().map_err(io::Error::other)?;
            std::thread::sleep(Duration::from_millis(wait));
        }
        match std::env::var_os("IKENAT_NO_MEMBARRIER") {
            Some(_) => Err(rustix::io::Errno::INVAL.into()),
            None => Ok(()),
        }
    }

    /// What a test asks for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Wish {
        List,
        Kill(At),
        Stop(At),
        Error(At),
    }

    /// When: at the step of this number of all, or of this number of its name.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum At {
        Number(u32),
        Named(Step, u32),
    }

    impl At {
        fn read(text: &str) -> Option<Self> {
            if let Ok(number) = text.parse() {
                return Some(Self::Number(number));
            }
            let (name, number) = text.split_once(':').unwrap_or((text, "1"));
            let step = Step::ALL.iter().find(|step| step.name() == name)?;
            Some(Self::Named(*step, number.parse().ok()?))
        }
    }

    pub(super) fn wish(text: &str) -> Option<Wish> {
        match text.split_once(':') {
            None => (text == "list").then_some(Wish::List),
            Some(("kill", at)) => At::read(at).map(Wish::Kill),
            Some(("stop", at)) => At::read(at).map(Wish::Stop),
            Some(("error", at)) => At::read(at).map(Wish::Error),
            Some(_) => None,
        }
    }

    /// Reports that a step was done. Fails, or never returns, when a test asks for that.
    pub(crate) fn pass(step: Step) -> Result<()> {
        let Ok(text) = std::env::var(VARIABLE) else {
            return Ok(());
        };
        let number = PASSED.fetch_add(1, Ordering::Relaxed) + 1;
        let of_name = PASSED_OF[step as usize].fetch_add(1, Ordering::Relaxed) + 1;
        let is_now = |at| at == At::Number(number) || at == At::Named(step, of_name);
        let failed = |why: String| {
            let action = format!("pass the step {} ({VARIABLE}={text})", step.name());
            Error::system(action)(io::Error::other(why))
        };
        match wish(&text) {
            Some(Wish::List) => eprintln!("failpoint {number}: {}", step.name()),
            Some(Wish::Kill(at)) if is_now(at) => {
                eprintln!("failpoint {number}: {}", step.name());
                let killed = rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::KILL,
                );
                return Err(failed(format!("it survived SIGKILL: {killed:?}")));
            }
            Some(Wish::Stop(at)) if is_now(at) => {
                eprintln!("failpoint {number}: {}", step.name());
                let stopped = rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::STOP,
                );
                stopped.map_err(|error| failed(error.to_string()))?;
            }
            Some(Wish::Error(at)) if is_now(at) => {
                return Err(failed("a test wants it to fail".to_owned()));
            }
            Some(Wish::Kill(_) | Wish::Stop(_) | Wish::Error(_)) => {}
            None => {
                return Err(failed(
                    "write list, kill:N, stop:N or error:N; N is a number, NAME or NAME:NUMBER"
                        .to_owned(),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "failpoints"))]
mod tests {
    use super::armed::{At, Wish, wish};
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn wishes_are_read() {
        assert_eq!(wish("list"), Some(Wish::List));
        assert_eq!(wish("kill:3"), Some(Wish::Kill(At::Number(3))));
        assert_eq!(wish("stop:4"), Some(Wish::Stop(At::Number(4))));
        assert_eq!(wish("error:12"), Some(Wish::Error(At::Number(12))));
        let described = |number| At::Named(Step::Described, number);
        assert_eq!(wish("error:described"), Some(Wish::Error(described(1))));
        assert_eq!(wish("error:described:2"), Some(Wish::Error(described(2))));
        for nonsense in ["", "kill", "kill:", "die:3", "error:x", "error:described:x"] {
            assert_eq!(wish(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn every_step_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Step::ALL.iter().map(|step| step.name()).collect();
        assert_eq!(names.len(), Step::ALL.len());
    }
}
