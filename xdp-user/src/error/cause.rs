//! The causes of an error as text, and what the kernel's error means.

use std::io;

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
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Whether the last cause of an error is that the kernel denied permission to this process.
pub(crate) fn is_denied(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return error.kind() == io::ErrorKind::PermissionDenied;
        }
        next = cause.source();
    }
    false
}
