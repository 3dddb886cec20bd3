//! An initramfs: names, kinds and bytes, written in the "newc" form of cpio. The same contents give the same bytes, so that two boots can be equal.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Read as _, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// One name in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// With these permissions.
    Directory { mode: u32 },
    /// With what this file of the host holds.
    File { source: PathBuf, mode: u32 },
    /// With these bytes.
    Text { bytes: Vec<u8>, mode: u32 },
    /// To this target.
    Link { target: PathBuf },
}

/// The whole tree. The order of the map puts each directory before what is in it.
pub(crate) type Tree = BTreeMap<PathBuf, Entry>;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const TRAILER: &str = "TRAILER!!!";

/// Writes the tree to `path`.
pub(crate) fn write(tree: &Tree, path: &Path) -> Result<()> {
    let failed = || format!("failed to write {}", path.display());
    let file = File::create(path).with_context(failed)?;
    let mut to = BufWriter::with_capacity(1 << 20, file);
    for (number, (name, entry)) in tree.iter().enumerate() {
        let number = u32::try_from(number + 1).context("failed to number the files")?;
        let name = name.strip_prefix("/").unwrap_or(name);
        one(&mut to, number, name, entry).with_context(failed)?;
    }
    header(&mut to, 0, 0, 0, TRAILER.as_bytes()).with_context(failed)?;
    to.flush().with_context(failed)
}

fn one(to: &mut impl Write, number: u32, name: &Path, entry: &Entry) -> Result<()> {
    let name = name.as_os_str().as_encoded_bytes();
    match entry {
        Entry::Directory { mode } => header(to, number, DIRECTORY | mode, 0, name),
        Entry::Text { bytes, mode } => {
            header(to, number, REGULAR | mode, bytes.len(), name)?;
            padded(to, bytes)
        }
        Entry::Link { target } => {
            let target = target.as_os_str().as_encoded_bytes();
            header(to, number, LINK | 0o777, target.len(), name)?;
            padded(to, target)
        }
        Entry::File { source, mode } => {
            let failed = || format!("failed to read {}", source.display());
            let mut from = File::open(source).with_context(failed)?;
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).with_context(failed)?;
            header(to, number, REGULAR | mode, bytes.len(), name)?;
            padded(to, &bytes)
        }
    }
}

/// Thirteen numbers of eight hexadecimal digits, the name, a zero, and zeros up to a multiple of four.
fn header(to: &mut impl Write, number: u32, mode: u32, size: usize, name: &[u8]) -> Result<()> {
    if u32::try_from(size).is_err() {
        bail!("failed to pack a file of {size} bytes: an initramfs takes less than 4 GiB");
    }
    let length = name.len() + 1;
    // The magic, then: inode, mode, uid, gid, links, mtime, size, device (two), rdev (two), length, check.
    let head = format!(
        "070701{number:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{size:08x}{:08x}{:08x}{:08x}{:08x}{length:08x}{:08x}",
        0, 0, 1, 0, 0, 0, 0, 0, 0
    );
    let mut bytes = head.into_bytes();
    bytes.extend(name);
    bytes.push(0);
    padded(to, &bytes)
}

fn padded(to: &mut impl Write, bytes: &[u8]) -> Result<()> {
    to.write_all(bytes)?;
    let rest = bytes.len().next_multiple_of(4) - bytes.len();
    to.write_all(&[0; 3][..rest])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_aligned_and_says_its_size() {
        let mut out = Vec::new();
        let text = Entry::Text {
            bytes: b"hello".to_vec(),
            mode: 0o755,
        };
        one(&mut out, 7, Path::new("a/b"), &text).expect("written to memory");
        // 110 bytes of header and "a/b\0" end at 114; the next multiple of four is 116.
        assert_eq!(out.len(), 116 + 8);
        assert_eq!(&out[..22], b"07070100000007000081ed");
        assert_eq!(&out[54..62], b"00000005");
        assert_eq!(&out[94..102], b"00000004");
        assert_eq!(&out[110..], b"a/b\0\0\0hello\0\0\0");
    }
}
