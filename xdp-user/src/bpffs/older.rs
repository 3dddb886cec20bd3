//! Directories of older versions whose tables a start takes over: which they are, that their maps are
//! as such a version makes them, their lock, and their removal.

use crate::bpffs::find::{self, Selector};
use crate::bpffs::layout::{CLSACT, Instance, remove_directory, remove_file};
use crate::bpffs::map_layout::Layout;
use crate::config::settings::Settings;
use crate::error::{Error, InstanceError, Result};
use crate::tables::mmap::{Memory, ReadOnlyWord};
use crate::tables::older::{META_WORDS, PROGRESS, VERSIONS, WORDS, block, progress};
use aya::maps::{MapInfo, MapType};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use xdp_common::meta::{FLAGS, NAMESPACE, VERSION, flag};
use xdp_common::slot;
use xdp_core::Word;

/// What META of an older version says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OlderMeta {
    version: u64,
    namespace: u64,
    flags: u64,
    progress: u64,
}

impl OlderMeta {
    fn of(instance: &Instance) -> Option<Self> {
        let memory = Memory::<ReadOnlyWord>::read(&instance.pin("META"), "META").ok()?;
        let words = memory.words();
        let word = |at: usize| words.get(at).map(Word::load);
        (words.len() == META_WORDS).then_some(())?;
        Some(Self {
            version: word(VERSION).filter(|version| VERSIONS.contains(version))?,
            namespace: word(NAMESPACE)?,
            flags: word(FLAGS)?,
            progress: word(PROGRESS)?,
        })
    }
}

/// An instance of an older version that a start takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Older {
    /// Its pins.
    pub(crate) instance: Instance,
    /// Its VIP.
    pub(crate) vip: Ipv4Addr,
    /// The version of its tables.
    pub(crate) version: u64,
    /// Everything was carried, and what is left may be removed.
    pub(crate) is_spent: bool,
}

/// The one that a start with these settings takes over in a network namespace, whether or not this host
/// lets it start now. Of a dry run, or for one, no counter is worth it.
pub(crate) fn to_take_over(own: &Instance, settings: &Settings, namespace: u64) -> Option<Older> {
    let found = find::instances(own.bpffs(), &Selector::default()).ok()?;
    found.into_iter().find_map(|instance| {
        let vip = instance.older_vip()?;
        let mut services = settings.services.iter();
        let is_served = services.any(|service| service.vips.contains(&IpAddr::V4(vip)));
        let meta = OlderMeta::of(&instance).filter(|_| is_served)?;
        let is_dry = settings.dry_run || meta.flags & flag::DRY_RUN != 0;
        (meta.namespace == namespace && !is_dry).then_some(Older {
            instance,
            vip,
            version: meta.version,
            is_spent: meta.progress >= progress::DONE,
        })
    })
}

/// The names of all pins that keep programs attached, or show whose a filter is: they may be pending.
fn program_pins() -> impl Iterator<Item = String> {
    Instance::all_link_pins().chain(Instance::all_filter_pins())
}

impl Older {
    fn refuse(&self) -> Error {
        InstanceError::OlderServes {
            vip: self.vip,
            path: self.instance.directory.clone(),
            whose: self.instance.whose(),
            bpffs: self.instance.bpffs_option(),
        }
        .into()
    }

    /// Refuses maps that no older version makes, and programs where the new instance has some already.
    pub(crate) fn check(&self, own: &Instance) -> Result<()> {
        let pins: Vec<String> = program_pins().collect();
        let has = |instance: &Instance, name: &String| instance.pin(name).exists();
        if pins
            .iter()
            .any(|name| has(&self.instance, name) && has(own, name))
        {
            return Err(self.refuse());
        }
        if self.is_spent {
            return Ok(());
        }
        let cpus = aya::util::nr_cpus().map_err(|(path, error)| {
            Error::system(format!("read the number of CPUs from {path}"))(error)
        })?;
        let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
        let tables = [
            ("FLOW", slot::WAYS * WORDS, None),
            ("SESSION", slot::WAYS * WORDS, None),
            ("META", META_WORDS, Some(1)),
            ("CPU", block::WORDS, Some(cpus)),
        ];
        for (name, words, entries) in tables {
            self.check_map(name, words, entries)?;
        }
        Ok(())
    }

    fn check_map(&self, name: &'static str, words: usize, entries: Option<u32>) -> Result<()> {
        let path = self.instance.pin(name);
        let foreign = |why: String| Error::ForeignPin {
            path: path.clone(),
            why,
            unload: self.instance.unload_command(),
        };
        let info = MapInfo::from_pin(&path)
            .map_err(|error| foreign(format!("it is not a map ({error})")))?;
        let layout = Layout {
            name,
            kind: MapType::Array,
            value_size: words * size_of::<u64>(),
            max_entries: entries.unwrap_or(info.max_entries()),
            flags: Layout::MMAPABLE,
        };
        match layout.difference(&info) {
            Some(why) => Err(foreign(why)),
            None => Ok(()),
        }
    }

    /// Locks it as its own version does, and as later ones do. Fails while its daemon runs.
    pub(crate) fn lock(&self) -> Result<OlderLock> {
        let directory = &self.instance.directory;
        let lock = self.instance.lock().map_err(|error| self.running(error))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = openat(CWD, directory, flags, Mode::empty()).map_err(|error| {
            Error::system(format!("open {}", directory.display()))(error.into())
        })?;
        match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(OlderLock(lock, opened)),
            Err(_) => {
                drop(lock);
                _ = self.instance.remove_lock();
                Err(self.still_runs())
            }
        }
    }

    fn running(&self, error: Error) -> Error {
        if matches!(error, Error::Locked { .. }) {
            self.still_runs()
        } else {
            error
        }
    }

    fn still_runs(&self) -> Error {
        InstanceError::OlderRuns {
            vip: self.vip,
            path: self.instance.directory.clone(),
        }
        .into()
    }

    /// Moves the pins of the programs, which stay attached. After each, `pass` is called.
    pub(crate) fn move_programs(
        &self,
        own: &Instance,
        mut pass: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        for name in movable(&self.instance)? {
            rename(&self.instance, own, &name)?;
            pass()?;
        }
        Ok(())
    }

    /// Moves them back.
    pub(crate) fn move_back(&self, own: &Instance) -> Result<()> {
        for name in movable(own)? {
            rename(own, &self.instance, &name)?;
        }
        Ok(())
    }

    /// Removes what is left: META last, which says that nothing of it is needed.
    pub(crate) fn remove(&self) -> Result<()> {
        for name in self.instance.entries()? {
            let path = self.instance.pin(&name);
            if name == "META" {
                continue;
            }
            if path.is_dir() {
                remove_directory(&path)?;
            } else {
                remove_file(&path)?;
            }
        }
        remove_file(&self.instance.pin("META"))?;
        self.instance.remove().map(drop)
    }
}

/// Keeps the daemon of an older version from starting.
#[derive(Debug)]
pub(crate) struct OlderLock(
    #[expect(dead_code, reason = "held for its lock")] crate::bpffs::lock::Lock,
    #[expect(dead_code, reason = "held for its lock")] OwnedFd,
);

/// What an instance has of programs and of records about them.
fn movable(instance: &Instance) -> Result<Vec<String>> {
    let mut names: Vec<String> = program_pins()
        .filter(|name| instance.pin(name).exists())
        .collect();
    names.extend(instance.links_aside()?);
    names.extend(instance.filters_aside()?);
    let entries = instance.entries()?.into_iter();
    names.extend(entries.filter(|name| name.starts_with(CLSACT)));
    Ok(names)
}

fn rename(from: &Instance, to: &Instance, name: &str) -> Result<()> {
    let old = from.pin(name);
    fs::rename(&old, to.pin(name)).map_err(Error::system(format!("move {}", old.display())))
}
