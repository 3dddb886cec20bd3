//! The commands of bpf(2) that aya does not have: opening a pin for reading alone, copying an array
//! in one call, listing the programs of a tcx hook, and a map of maps with its update.

#![expect(unsafe_code, reason = "bpf(2) has no safe form")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Calls bpf(2) with the part of `union bpf_attr` that a command uses.
///
/// # Safety
/// Pointers in the attribute must refer to memory that is as large as the command requires, and
/// that lives until this returns.
unsafe fn bpf<A>(command: libc::c_int, attribute: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: the size is that of the attribute; what it points to is the caller's promise.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attribute),
            size_of::<A>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(done)
}

fn address<T>(memory: &mut [T]) -> u64 {
    memory.as_mut_ptr().expose_provenance() as u64
}

/// `BPF_OBJ_GET`.
const OBJ_GET: libc::c_int = 7;
/// `BPF_F_RDONLY`.
const READ_ONLY: u32 = 1 << 3;

#[repr(C)]
struct Get {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// Opens a pin for reading only. aya opens pins for reading and writing.
pub(crate) fn open_for_reading(path: &Path) -> io::Result<OwnedFd> {
    let mut bytes = [path.as_os_str().as_bytes(), &[0]].concat();
    let mut get = Get {
        path: address(&mut bytes),
        descriptor: 0,
        flags: READ_ONLY,
    };
    // SAFETY: the path ends with a zero.
    let descriptor = unsafe { bpf(OBJ_GET, &mut get)? };
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel has just created this descriptor, and it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// `BPF_MAP_LOOKUP_BATCH`.
const LOOKUP_BATCH: libc::c_int = 24;

#[repr(C)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    flags: [u64; 2],
}

/// Copies the values of an array into `words`, which has room for all of them. Returns how many the
/// kernel copied.
pub(crate) fn lookup_batch(
    map: BorrowedFd<'_>,
    values: usize,
    words: &mut [u64],
) -> io::Result<usize> {
    let mut keys = vec![0_u32; values];
    let mut next = [0_u32; 1];
    let mut batch = Batch {
        from: 0,
        to: address(&mut next),
        keys: address(&mut keys),
        values: address(words),
        count: u32::try_from(values).unwrap_or(u32::MAX),
        map: map.as_raw_fd().unsigned_abs(),
        flags: [0; 2],
    };
    // SAFETY: there is room for all keys and all values of the map, and for the key to go on from.
    unsafe { bpf(LOOKUP_BATCH, &mut batch)? };
    Ok(batch.count as usize)
}

/// `BPF_PROG_QUERY`.
const PROG_QUERY: libc::c_int = 16;
/// `BPF_TCX_INGRESS`; `BPF_TCX_EGRESS` is the next number.
const TCX_INGRESS: u32 = 46;

/// The part of `union bpf_attr` that `BPF_PROG_QUERY` reads and writes.
#[derive(Default)]
#[repr(C)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    padding: u32,
    rest: [u64; 4],
}

/// The ids of the programs in one of the tcx hooks of an interface. aya also opens the programs,
/// which needs CAP_SYS_ADMIN.
pub(crate) fn tcx_programs(index: u32, egress: bool) -> io::Result<Vec<u32>> {
    /// `BPF_MPROG_MAX`: more do not fit into a hook.
    const MOST: u32 = 64;
    let mut ids = [0_u32; MOST as usize];
    let mut query = Query {
        ifindex: index,
        attach_type: TCX_INGRESS + u32::from(egress),
        program_ids: address(&mut ids),
        count: MOST,
        ..Query::default()
    };
    // SAFETY: the pointer in it refers to as many ids as `count` says.
    unsafe { bpf(PROG_QUERY, &mut query)? };
    let found = ids.iter().take(query.count as usize);
    Ok(found.copied().collect())
}

/// `BPF_MAP_CREATE`.
const MAP_CREATE: libc::c_int = 0;
/// `BPF_MAP_TYPE_ARRAY`.
const ARRAY: u32 = 2;
/// `BPF_MAP_TYPE_ARRAY_OF_MAPS`.
const ARRAY_OF_MAPS: u32 = 12;

/// The part of `union bpf_attr` that `BPF_MAP_CREATE` reads here. The kernel takes the rest for
/// zero.
#[repr(C)]
struct Create {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner: u32,
}

/// Creates an array of one element of four bytes; with `inner`, an array of maps like that one.
pub(crate) fn create_array(inner: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let mut create = Create {
        kind: if inner.is_some() {
            ARRAY_OF_MAPS
        } else {
            ARRAY
        },
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        flags: 0,
        inner: inner.map_or(0, |inner| inner.as_raw_fd().unsigned_abs()),
    };
    // SAFETY: it contains no pointer.
    let descriptor = unsafe { bpf(MAP_CREATE, &mut create)? };
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel has just created this descriptor, and it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// `BPF_MAP_UPDATE_ELEM`.
const MAP_UPDATE: libc::c_int = 2;

#[repr(C)]
struct Update {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Writes `inner` into the element of an array of maps that [`create_array`] made.
pub(crate) fn set_inner(map: BorrowedFd<'_>, inner: BorrowedFd<'_>) -> io::Result<()> {
    let mut key = [0_u32];
    let mut value = [inner.as_raw_fd()];
    let mut update = Update {
        map: map.as_raw_fd().unsigned_abs(),
        padding: 0,
        key: address(&mut key),
        value: address(&mut value),
        flags: 0,
    };
    // SAFETY: key and value have the four bytes that both kinds of array need.
    unsafe { bpf(MAP_UPDATE, &mut update)? };
    Ok(())
}
