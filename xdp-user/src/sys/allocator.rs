//! How the C library's allocator treats large blocks.

/// Blocks from this size on are mappings of their own, which go back to the kernel when they are
/// freed.
#[cfg(target_env = "gnu")]
const MAPPED: libc::c_int = 64 << 10;

/// Lets large blocks go back to the kernel when they are freed, for a process that lives long.
///
/// glibc raises the size from which it maps a block each time such a block is freed (mallopt(3),
/// `M_MMAP_THRESHOLD`). What a start needs for a moment, the object and the kernel's types, then lies
/// between what it keeps: 30 MiB of memory instead of 5 for as long as the daemon runs.
#[cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "mallopt(3) has no safe form")
)]
pub(crate) fn return_large_blocks() {
    // SAFETY: sets a parameter of the allocator, under its lock. Without it the process only uses more
    // memory, so the result does not matter.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
    }
}
