//! Tests of which directories are used, in a directory that stands for a BPF file system.

use super::*;
use crate::bpffs::find::{self, Selector};
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

/// Two file systems in a directory that is removed at the end: one, and what a link may lead to.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

impl Place {
    fn new(name: &str) -> Self {
        let name = format!("ikenat-trust-{name}-{}", std::process::id());
        let place = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(place.bpffs()).expect("a directory");
        let victim = place.victim().join("default");
        fs::create_dir_all(&victim).expect("a directory");
        fs::write(victim.join("META"), "precious").expect("a file");
        place
    }

    fn bpffs(&self) -> PathBuf {
        self.0.join("bpffs")
    }

    fn victim(&self) -> PathBuf {
        self.0.join("victim")
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    }

    /// What each way to the instances says, which must be one sentence.
    fn refused(&self, words: &[&str]) {
        let instance = Instance::of(&self.bpffs(), "default");
        let found = [
            find::instances(&self.bpffs(), &Selector::default()).map(drop),
            instance.check_place(),
        ];
        for found in found {
            let text = found.expect_err("refused").to_string();
            assert!(!text.contains(char::is_control), "{text:?}");
            for word in words {
                assert!(text.contains(word), "{word:?} is not in: {text}");
            }
        }
        let precious = self.victim().join("default/META");
        assert_eq!(fs::read_to_string(precious).expect("kept"), "precious");
    }
}

#[test]
fn a_link_in_place_of_the_directory_is_not_followed() {
    let place = Place::new("base");
    let base = place.bpffs().join(DIRECTORY);
    symlink(place.victim(), &base).expect("a link");
    let fix = format!("`rm {}`", base.display());
    place.refused(&["symbolic link to", "victim", &fix]);
}

#[test]
fn a_link_in_place_of_an_instance_or_of_the_locks_is_not_followed() {
    let place = Place::new("instance");
    let base = place.bpffs().join(DIRECTORY);
    fs::create_dir(&base).expect("a directory");
    Place::set_mode(&base, 0o755);
    let own = base.join("default");
    symlink(place.victim().join("default"), &own).expect("a link");
    place.refused(&["symbolic link to", &format!("`rm {}`", own.display())]);
    fs::remove_file(&own).expect("a link");
    // Nothing but the locks is left, whose links are found as soon as there is an instance.
    let locks = base.join("locks");
    symlink(place.victim(), &locks).expect("a link");
    let error = Instance::of(&place.bpffs(), "default").lock();
    let error = error.expect_err("a link").to_string();
    assert!(error.contains("symbolic link to"), "{error}");
    fs::create_dir(&own).expect("a directory");
    place.refused(&["symbolic link to", &format!("`rm {}`", locks.display())]);
}

/// Whoever may make a link there chooses where it leads, and the administrator reads it.
#[test]
fn where_a_link_leads_is_no_order_to_the_terminal() {
    let place = Place::new("terminal");
    let base = place.bpffs().join(DIRECTORY);
    let target = "x\u{1b}]0;owned\u{7}\nikenat: all is well\u{9b}2J";
    let shown = r"symbolic link to $'x\033]0;owned\007\012ikenat: all is well\302\2332J', and";
    symlink(target, &base).expect("a link");
    place.refused(&[shown]);
    fs::remove_file(&base).expect("a link");
    let own = base.join("default");
    fs::create_dir_all(&own).expect("a directory");
    symlink(target, own.join("META")).expect("a link");
    place.refused(&[shown, "no pin is one"]);
}

#[test]
fn a_pin_that_is_a_link_is_not_opened() {
    let place = Place::new("pin");
    let own = place.bpffs().join(DIRECTORY).join("default");
    fs::create_dir_all(&own).expect("a directory");
    let pin = own.join("filter-wan0-ingress");
    symlink(place.victim().join("default/META"), &pin).expect("a link");
    place.refused(&["no pin is one", &format!("`rm {}`", pin.display())]);
}

#[test]
fn a_directory_that_others_may_write_is_refused() {
    let place = Place::new("mode");
    let base = place.bpffs().join(DIRECTORY);
    let own = base.join("default");
    fs::create_dir_all(&own).expect("a directory");
    Place::set_mode(&own, 0o770);
    place.refused(&["mode 0770", &format!("`chmod go-w {}`", own.display())]);
    Place::set_mode(&own, 0o750);
    Place::set_mode(&base, 0o757);
    place.refused(&["mode 0757", &format!("`chmod go-w {}`", base.display())]);
    // The modes that a start gives.
    for mode in [0o750, 0o755] {
        Place::set_mode(&base, mode);
        let found = find::instances(&place.bpffs(), &Selector::default());
        assert_eq!(found.expect("readable").len(), 1);
    }
    // The usual mode of a BPF file system, and without the sticky bit.
    Place::set_mode(&place.bpffs(), 0o1777);
    base_is_trusted(&place);
    Place::set_mode(&place.bpffs(), 0o777);
    place.refused(&[
        "not sticky",
        &format!("`chmod +t {}`", place.bpffs().display()),
    ]);
    // Also before there is anything: a start would create it there.
    fs::remove_dir_all(&base).expect("removed");
    place.refused(&["not sticky"]);
}

fn base_is_trusted(place: &Place) {
    assert!(base(&place.bpffs()).expect("trusted"));
}

#[test]
fn a_file_is_no_directory() {
    let place = Place::new("file");
    let base = place.bpffs().join(DIRECTORY);
    fs::write(&base, "").expect("a file");
    place.refused(&["is no directory", &format!("`rm {}`", base.display())]);
}
