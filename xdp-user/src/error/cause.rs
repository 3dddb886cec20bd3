//! The causes of an error: the kernel's errors as errors of this crate and as text.

use super::Error;
use std::io;
use std::path::Path;

impl Error {
    /// The error for a failed system call; `action` is what was tried.
    pub fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::System { action, source }
    }

    /// The error for a directory of pins that cannot be listed.
    pub(crate) fn not_readable(path: &Path, error: io::Error) -> Self {
        if error.kind() != io::ErrorKind::PermissionDenied {
            return Self::system(format!("list {}", path.display()))(error);
        }
        Self::NotReadable {
            path: path.to_path_buf(),
            why: word(&error),
        }
    }
}

/// The text of an error of the kernel, without the number that Rust appends.
pub fn word(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((word, _)) => word.to_owned(),
        None => text,
    }
}

/// An error and its causes in one line: aya's errors have the kernel's error as their last cause.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        let without_number = cause_text.split(" (os error").next().unwrap_or_default();
        if !text.contains(without_number) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Logs the error of a clean-up, if there is one. It is made because of another error, which is the
/// one to return. `unload` is the command that removes the instance.
pub(crate) fn log_clean_up<E: std::error::Error>(cleaned: Result<(), E>, unload: &str) {
    if let Err(error) = cleaned {
        tracing::warn!(
            "clean-up: {}; `{unload}` removes what is left",
            causes(&error)
        );
    }
}

/// The kernel's error among the causes of an error.
fn system_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e io::Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return Some(error);
        }
        next = cause.source();
    }
    None
}

/// Whether the kernel denied permission to this process.
pub(crate) fn is_denied(error: &(dyn std::error::Error + 'static)) -> bool {
    let is_denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    system_error(error).is_some_and(is_denied)
}

/// The number of the kernel's error.
pub(crate) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    system_error(error)?.raw_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_was_said_is_not_said_again() {
        let denied = || io::Error::from_raw_os_error(rustix::io::Errno::ACCESS.raw_os_error());
        let error = Error::system("list /bpf")(denied());
        assert_eq!(causes(&error), "failed to list /bpf: Permission denied");
        assert_eq!(causes(&denied()), "Permission denied (os error 13)");
    }
}
