//! What the directory of pins records of tc filters: the program of each filter as a pin, and each
//! clsact that ikenat added as a directory. The kernel itself does not record which filters and
//! qdiscs are ikenat's.

use crate::bpffs::layout::{CLSACT, Instance, remove_file};
use crate::bpffs::pin_names::NEW;
use crate::error::{Error, Result, causes};
use crate::failpoints::{Step, pass};
use aya::programs::{ProgramInfo, SchedClassifier};
use std::path::PathBuf;
use std::{fs, io};

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
        let (aside, failed) = match self.filters_aside() {
            Ok(names) => (names, None),
            Err(error) => (Vec::new(), Some(Err(error))),
        };
        let pinned = Self::all_filter_pins().chain(aside).filter_map(|name| {
            let program = self.pinned_program(&name).transpose()?;
            Some(program.map(|program| (name, program)))
        });
        failed.into_iter().chain(pinned)
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
