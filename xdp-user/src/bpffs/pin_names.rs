//! The names of the pins of links and of filters' programs. Beside the usual one, `NAME`, there may be
//! `NAME-new`, which is about to replace it, and
//! `NAME-aside-ID`, of a link or program that is still on another interface because a start died while it
//! moved.

use crate::bpffs::layout::Instance;
use crate::config::interfaces::HookPoint;
use crate::error::{Error, Result};
use std::path::PathBuf;
use std::{fs, io};

/// Suffix of a pin that is about to replace the old one.
pub(crate) const NEW: &str = "-new";
/// Between the name of a pin that was set aside and the id of what it pins.
const ASIDE: &str = "-aside-";

impl Instance {
    /// The path of a pin until it may replace an old one.
    pub(crate) fn pending_pin(&self, name: &str) -> PathBuf {
        self.pin(&format!("{name}{NEW}"))
    }

    /// Replaces a pin by the new one that was created beside it.
    pub(crate) fn commit_pin(&self, name: &str) -> Result<()> {
        self.rename_pin(&format!("{name}{NEW}"), name)
    }

    /// Gives a pin another name. What had that name loses it.
    pub(crate) fn rename_pin(&self, from: &str, to: &str) -> Result<()> {
        let from = self.pin(from);
        let failed = Error::system(format!("rename {}", from.display()));
        fs::rename(&from, self.pin(to)).map_err(failed)
    }

    /// Keeps the pin of a name while another program or link gets the name. `id` is that of what it
    /// pins.
    pub(crate) fn set_aside(&self, name: &str, id: u32) -> Result<()> {
        self.rename_pin(name, &format!("{name}{ASIDE}{id}"))
    }

    /// The same of the one that is pending.
    pub(crate) fn set_pending_aside(&self, name: &str, id: u32) -> Result<()> {
        self.rename_pin(&format!("{name}{NEW}"), &format!("{name}{ASIDE}{id}"))
    }

    /// The pins with one of these names that were set aside.
    fn aside(&self, names: impl Iterator<Item = String>) -> Result<Vec<String>> {
        let prefixes: Vec<String> = names.map(|name| format!("{name}{ASIDE}")).collect();
        let is_aside = |entry: &String| prefixes.iter().any(|prefix| entry.starts_with(prefix));
        let mut entries = self.entries()?;
        entries.retain(is_aside);
        Ok(entries)
    }

    /// The names of the pins of filters' programs that were set aside.
    pub(crate) fn filters_aside(&self) -> Result<Vec<String>> {
        self.aside(Self::filter_pins())
    }

    /// The names of the pins of links that were set aside.
    pub(crate) fn links_aside(&self) -> Result<Vec<String>> {
        self.aside(HookPoint::all().map(HookPoint::link_pin))
    }

    /// The names that all pins of links can have: those of [`Self::pins_of_link`] at each hook point.
    pub(crate) fn pins_of_links(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for hook_point in HookPoint::all() {
            names.extend(self.pins_of_link(hook_point)?);
        }
        Ok(names)
    }

    /// The names that pins of links at a hook point have: the usual one, that of a pending one, and
    /// those of links that were set aside.
    pub(crate) fn pins_of_link(&self, hook_point: HookPoint) -> Result<Vec<String>> {
        let name = hook_point.link_pin();
        let mut names = vec![name.clone(), format!("{name}{NEW}")];
        names.extend(self.aside(std::iter::once(name))?);
        Ok(names)
    }

    /// The names of all pins that filters can have.
    pub(crate) fn filter_pins() -> impl Iterator<Item = String> {
        HookPoint::all().filter_map(HookPoint::filter_pin)
    }

    /// The same, and before each the name that its pin has while it is pending.
    pub(crate) fn all_filter_pins() -> impl Iterator<Item = String> {
        Self::filter_pins().flat_map(|name| [format!("{name}{NEW}"), name])
    }

    /// The names of all pins that links can have, likewise.
    pub(crate) fn all_link_pins() -> impl Iterator<Item = String> {
        let names = HookPoint::all().map(HookPoint::link_pin);
        names.flat_map(|name| [format!("{name}{NEW}"), name])
    }

    /// The names of all that is in its directory; none if there is no directory.
    pub(crate) fn entries(&self) -> Result<Vec<String>> {
        let failed = |error| Error::not_readable(&self.directory, error);
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry.map_err(failed)?.file_name().into_string());
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_that_cannot_be_listed_are_an_error_with_the_path() {
        let bpffs = std::env::temp_dir().join(format!("ikenat-pins-{}", std::process::id()));
        let instance = Instance::of(&bpffs, "default");
        assert_eq!(instance.entries().expect("no directory"), [""; 0]);
        let above = instance.directory.parent().expect("a directory above");
        fs::create_dir_all(above).expect("a directory");
        // What is no directory cannot be listed, not even by root.
        fs::write(&instance.directory, "").expect("a file");
        let listed = [instance.links_aside(), instance.filters_aside()];
        let used = instance.has_programs();
        fs::remove_dir_all(&bpffs).expect("removed");
        let path = instance.directory.display().to_string();
        let errors = listed.into_iter().map(|listed| listed.expect_err("a list"));
        for error in errors.chain([used.expect_err("an answer")]) {
            assert!(error.to_string().contains(&path), "{error}");
        }
    }
}
