//! Looks into an object file just far enough to see that it is one for BPF and carries its types.

use anyhow::{Context as _, Result, bail};

/// The machine number of BPF in an ELF header.
const EM_BPF: u16 = 247;

/// Fails unless the bytes are a BPF object with a `.BTF` section.
pub(crate) fn check_bpf_object(bytes: &[u8]) -> Result<()> {
    if bytes.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("it is no little-endian ELF64 file");
    }
    let machine = u16_at(bytes, 0x12).context("its header is cut short")?;
    if machine != EM_BPF {
        bail!("its machine is {machine}, not BPF ({EM_BPF})");
    }
    let names = section_names(bytes).context("its section table is damaged")?;
    if !names.iter().any(|name| *name == b".BTF") {
        bail!("it has no .BTF section: the linker dropped the debug information");
    }
    Ok(())
}

fn section_names(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let table = offset_at(bytes, 0x28)?;
    let size = usize::from(u16_at(bytes, 0x3a)?);
    let count = usize::from(u16_at(bytes, 0x3c)?);
    let names = usize::from(u16_at(bytes, 0x3e)?);
    let header = |index: usize| table.checked_add(index.checked_mul(size)?);
    let strings = bytes.get(offset_at(bytes, header(names)?.checked_add(0x18)?)?..)?;
    (0..count)
        .map(|index| {
            let at = usize::try_from(u32_at(bytes, header(index)?)?).ok()?;
            strings.get(at..)?.split(|byte| *byte == 0).next()
        })
        .collect()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn offset_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header, a string table and two section headers.
    fn object(machine: u16, name: &[u8; 4]) -> Vec<u8> {
        let mut bytes = vec![0; 0x40];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[0x12..0x14].copy_from_slice(&machine.to_le_bytes());
        bytes[0x28] = 0x50;
        bytes[0x3a] = 0x40;
        bytes[0x3c] = 2;
        bytes.extend_from_slice(b"\0");
        bytes.extend_from_slice(name);
        bytes.resize(0x50 + 0x80, 0);
        bytes[0x50 + 0x18] = 0x40;
        bytes[0x90] = 1;
        bytes
    }

    #[test]
    fn btf_is_seen_and_missed() {
        check_bpf_object(&object(EM_BPF, b".BTF")).expect("an object with BTF");
        let error = check_bpf_object(&object(EM_BPF, b".BTX")).expect_err("no BTF");
        assert!(error.to_string().contains(".BTF"), "{error}");
        let error = check_bpf_object(&object(62, b".BTF")).expect_err("x86-64");
        assert!(error.to_string().contains("62"), "{error}");
    }

    #[test]
    fn a_cut_object_is_an_error_at_every_length() {
        let whole = object(EM_BPF, b".BTF");
        for length in 0..0x94 {
            check_bpf_object(&whole[..length]).expect_err("cut");
        }
    }
}
