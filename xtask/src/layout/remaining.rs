//! Files that do not keep to the rules yet, each with its number of findings. The numbers only fall:
//! whoever improves a file writes the new number here, or removes the line at zero.

use super::Finding;

/// Path and number of findings.
pub(super) const FILES: [(&str, usize); 2] = [
    ("xdp-common/src/meta.rs", 3),
    ("xdp-user/src/tables/retired.rs", 2),
];

/// Takes out the findings of files that have as many as the list says. A file that has another
/// number keeps all of its findings, and one more that names the list.
pub(super) fn subtract(found: Vec<Finding>, list: &[(&str, usize)]) -> Vec<Finding> {
    const LIST: &str = "xtask/src/layout/remaining.rs";
    let count = |path: &str| found.iter().filter(|one| one.path == path).count();
    let mut wrong: Vec<Finding> = list
        .iter()
        .filter(|(path, most)| count(path) != *most)
        .map(|(path, most)| {
            let now = count(path);
            let text = if now > *most {
                format!("{path} has {now} findings, and {most} were accepted: fix the new ones")
            } else {
                format!("{path} has {now} findings, and {most} are accepted: write {now} here")
            };
            Finding::new(LIST, 1, text)
        })
        .collect();
    let accepted = |path: &str| {
        list.iter()
            .any(|(name, most)| *name == path && count(path) == *most)
    };
    wrong.extend(found.iter().filter(|one| !accepted(&one.path)).cloned());
    wrong.sort();
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_only_fall() {
        let found = |paths: &[&str]| -> Vec<Finding> {
            let one = |path: &&str| Finding::new(path, 1, "x".to_owned());
            paths.iter().map(one).collect()
        };
        let list = [("a.rs", 2)];
        assert!(subtract(found(&["a.rs", "a.rs"]), &list).is_empty());
        // One more: all three, and the sentence about the list.
        assert_eq!(subtract(found(&["a.rs", "a.rs", "a.rs"]), &list).len(), 4);
        // One less: the list is out of date.
        let less = subtract(found(&["a.rs"]), &list);
        assert!(
            less.iter()
                .any(|one| one.to_string().contains("write 1 here"))
        );
        assert_eq!(subtract(found(&["b.rs"]), &[]).len(), 1);
    }
}
