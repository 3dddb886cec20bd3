//! The names of instances, which are those of their directories in the BPF file system.

use crate::config::names::{LONGEST, is_name};
use std::net::Ipv4Addr;

/// The name of an instance that is given none.
pub const DEFAULT: &str = "default";
/// The directory of the locks, beside those of the instances.
pub(crate) const LOCKS: &str = "locks";

/// Reads the name of an instance that exists or will. bpffs keeps names with a dot for itself
/// (`bpf_lookup` in kernel/bpf/inode.c).
pub fn existing(text: &str) -> Result<String, String> {
    if !is_name(text, b"-_") {
        return Err(format!(
            "a name has 1 to {LONGEST} letters (a to z, A to Z), digits, `-` and `_`; write it as office-2"
        ));
    }
    if text == LOCKS {
        return Err(format!(
            "`{LOCKS}` is the directory of the locks of all instances; give another name, for example {DEFAULT}"
        ));
    }
    Ok(text.to_owned())
}

/// Reads the name of an instance to start.
pub fn new(text: &str) -> Result<String, String> {
    let name = existing(text)?;
    match vip_of_older(&name) {
        Some(vip) => Err(format!(
            "older versions of ikenat kept the instance of {vip} under this name; give another one, for example {DEFAULT}"
        )),
        None => Ok(name),
    }
}

/// The VIP of an instance of an older version, whose directory is named after it: `203_0_113_1`.
pub(crate) fn vip_of_older(name: &str) -> Option<Ipv4Addr> {
    name.replace('_', ".").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_letters_digits_hyphens_and_underscores() {
        let longest = "x".repeat(32);
        for right in ["default", "office-2", "A_b", "0", &longest] {
            assert_eq!(existing(right).as_deref(), Ok(right));
            assert_eq!(new(right).as_deref(), Ok(right));
        }
        let too_long = "x".repeat(33);
        for wrong in ["", "a.b", "a/b", "..", "a b", "büro", &too_long] {
            let error = new(wrong).expect_err(wrong);
            assert!(
                error.contains("32") && error.contains("office-2"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_directory_of_the_locks_is_no_instance() {
        let error = existing("locks").expect_err("reserved");
        assert!(
            error.contains("locks") && error.contains("another name"),
            "{error}"
        );
    }

    #[test]
    fn a_name_of_an_older_version_is_known_and_not_given_again() {
        assert_eq!(
            vip_of_older("203_0_113_1"),
            Some(Ipv4Addr::new(203, 0, 113, 1))
        );
        assert_eq!(vip_of_older("default"), None);
        assert_eq!(existing("203_0_113_1").as_deref(), Ok("203_0_113_1"));
        let error = new("203_0_113_1").expect_err("an older version's");
        assert!(error.contains("203.0.113.1"), "{error}");
    }
}
