//! The release of the running kernel, and whether ikenat runs on it.

/// The oldest release that ikenat is tested on.
const OLDEST: (u32, u32) = (6, 1);

/// The kernel's release, as `uname -r` prints it.
pub(crate) fn release() -> String {
    let name = rustix::system::uname();
    name.release().to_string_lossy().into_owned()
}

/// Whether ikenat runs on a release. `None`: the text does not begin with two numbers.
pub(crate) fn is_supported(release: &str) -> Option<bool> {
    is_at_least(release, OLDEST)
}

/// Whether a release is `wanted` or newer, by its first two numbers.
pub(crate) fn is_at_least(release: &str, wanted: (u32, u32)) -> Option<bool> {
    let mut parts = release.split(['.', '-']);
    let version = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(version >= wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_compared_by_its_first_two_numbers() {
        for (release, supported) in [
            ("6.1.0-18-amd64", Some(true)),
            ("6.0.9", Some(false)),
            ("5.15.0", Some(false)),
            ("10.0-rc1", Some(true)),
            ("unknown", None),
        ] {
            assert_eq!(is_supported(release), supported, "{release}");
        }
    }
}
