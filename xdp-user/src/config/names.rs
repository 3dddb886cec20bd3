//! What the names of instances and of services have in common: a length, and the characters that need
//! no quotes in a shell.

use xdp_common::services::service;

/// Characters of the longest name.
pub(super) const LONGEST: usize = service::NAME_BYTES;

/// Whether a text is a name. `also`: the punctuation that is allowed in it.
pub(super) fn is_name(text: &str, also: &[u8]) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || also.contains(&byte);
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(is_allowed)
}
