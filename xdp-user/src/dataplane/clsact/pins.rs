//! What the directory of pins records of tc filters: the program of each filter as a pin, and each
//! clsact that ikenat added as a directory. The kernel itself does not record which filters and
//! qdiscs are ikenat's.

use crate::bpffs::layout::{CLSACT, Instance, NEW, remove_file};
use crate::error::{Error, Result, causes};
use crate::failpoints::{Step, pass};
use aya::programs::{ProgramInfo, SchedClassifier};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Between the name of a pin that was set aside and the id of its program.
const ASIDE: &str = "-aside-";

impl Instance {
    /// Pins a program as the one that is about to get a name. Until it has it, that of the running
    /// program stays: without CAP_SYS_ADMIN only the pins show which filters are ikenat's.
    pub(crate) fn pin_pending(&self, name: &str, program: &mut SchedClassifier) -> Result<PathBuf> {
        let new = self.pending_pin(name);
        remove_file(&new)?;
        program.pin(&new).map_err(|error| Error::Pin {
            action: "create",
            path: new.clone(),
            why: causes(&error),
        })?;
        pass(Step::ProgramPinned)?;
        Ok(new)
    }

    /// Gives the pending pin of a program the name, if there is one: the program of an orphan has it already.
    pub(crate) fn commit_program(&self, name: &str) -> Result<()> {
        if !self.pending_pin(name).exists() {
            return Ok(());
        }
        self.commit_pin(name)?;
        pass(Step::ProgramInPlace)
    }

    /// The id of the program that was about to get a name when a start died.
    pub(crate) fn pending_program(&self, name: &str) -> Result<Option<u32>> {
        self.pinned_program(&format!("{name}{NEW}"))
    }

    /// The ids of the programs that are pinned for filters, by final and by pending pins and by those set
    /// aside: after a start that died, a filter may run any of them.
    pub(crate) fn filter_programs(&self) -> impl Iterator<Item = Result<u32>> {
        let pinned = self.pinned_filters();
        pinned.map(|pinned| pinned.map(|(_, program)| program))
    }

    /// The same, each with the name of its pin.
    pub(crate) fn pinned_filters(&self) -> impl Iterator<Item = Result<(String, u32)>> {
        let names = Self::all_filter_pins().chain(self.pins_aside());
        names.filter_map(|name| {
            let program = self.pinned_program(&name).transpose()?;
            Some(program.map(|program| (name, program)))
        })
    }

    /// Keeps the pin of a program that a filter runs while another program gets the name.
    pub(crate) fn set_aside(&self, name: &str, program: u32) -> Result<()> {
        self.rename(&self.pin(name), name, program)
    }

    /// The same of the program whose pin is pending.
    pub(crate) fn set_pending_aside(&self, name: &str, program: u32) -> Result<()> {
        self.rename(&self.pending_pin(name), name, program)
    }

    fn rename(&self, from: &Path, name: &str, program: u32) -> Result<()> {
        let to = self.pin(&format!("{name}{ASIDE}{program}"));
        fs::rename(from, to).map_err(Error::system(format!("rename {}", from.display())))
    }

    /// The names of the pins that were set aside.
    pub(crate) fn pins_aside(&self) -> Vec<String> {
        let is_aside = |name: &String| {
            let mut pins = Self::filter_pins();
            pins.any(|pin| {
                let rest = name.strip_prefix(&pin);
                rest.is_some_and(|rest| rest.starts_with(ASIDE))
            })
        };
        self.entries().filter(is_aside).collect()
    }

    fn clsact_record(&self, namespace: u64, index: u32) -> PathBuf {
        self.pin(&format!("{CLSACT}{namespace}-{index}"))
    }

    /// Records that ikenat adds the clsact of an interface. Returns true when that was recorded
    /// before.
    pub fn record_clsact(&self, namespace: u64, index: u32) -> Result<bool> {
        let path = self.clsact_record(namespace, index);
        // A directory, because a BPF file system has no regular files.
        match fs::create_dir(&path) {
            Ok(()) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(true),
            Err(error) => Err(Error::system(format!("create {}", path.display()))(error)),
        }
    }

    /// Removes the record of [`Self::record_clsact`]. Returns true when there was one.
    pub fn forget_clsact_record(&self, namespace: u64, index: u32) -> Result<bool> {
        let path = self.clsact_record(namespace, index);
        match fs::remove_dir(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::system(format!("remove {}", path.display()))(error)),
        }
    }

    /// The id of a pinned program; `None` when there is no such pin.
    pub fn pinned_program(&self, name: &str) -> Result<Option<u32>> {
        let path = self.pin(name);
        if !path.exists() {
            return Ok(None);
        }
        match ProgramInfo::from_pin(&path) {
            Ok(program) => Ok(Some(program.id())),
            Err(error) => Err(Error::Pin {
                action: "open",
                path,
                why: causes(&error),
            }),
        }
    }
}
