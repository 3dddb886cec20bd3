//! Checks that a linked file is a BPF object which still carries its types, and leaves out what only a debugger reads.

use anyhow::{Context as _, Result, bail};
use object::build::elf::{Builder, Section, SectionData};
use object::elf::SHT_STRTAB;
use object::{Architecture, File, Object as _, ObjectSection as _};

/// Type information, and the same for functions and lines of source.
const TYPES: [&str; 2] = [".BTF", ".BTF.ext"];

/// Fails unless the bytes are a 64-bit little-endian BPF object with type information.
fn check_bpf_object(bytes: &[u8]) -> Result<()> {
    let file = File::parse(bytes).context("failed to read it as an object file")?;
    if file.architecture() != Architecture::Bpf {
        bail!("its architecture is {:?}, not BPF", file.architecture());
    }
    if !file.is_64() || !file.is_little_endian() {
        bail!("it is not a 64-bit little-endian object");
    }
    for name in TYPES {
        let Some(section) = file.section_by_name(name) else {
            bail!("it has no {name} section: the linker dropped the debug information");
        };
        let data = section.data();
        if data
            .with_context(|| format!("failed to read its {name} section"))?
            .is_empty()
        {
            bail!("its {name} section is empty");
        }
    }
    Ok(())
}

/// What the linker has made, as it is put into place: a BPF object, without what only a debugger reads if it becomes part
/// of `ikenat`.
pub(crate) fn accept(linked: Vec<u8>, is_embedded: bool) -> Result<Vec<u8>> {
    let bytes = if is_embedded {
        without_debug(&linked)?
    } else {
        linked
    };
    check_bpf_object(&bytes)?;
    Ok(bytes)
}

/// The object without what only a debugger reads (DWARF), from which the linker has made BTF. It is
/// five sixths of the file, which is part of `ikenat`.
fn without_debug(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut object = Builder::read(bytes).context("failed to read it as an object file")?;
    for section in &mut object.sections {
        let name = section.name.as_slice();
        let name = name.strip_prefix(b".rel").unwrap_or(name);
        section.delete = name.starts_with(b".debug_");
    }
    object.delete_orphans();
    // LLVM has one string table for the names of sections and of symbols, and this writer needs two.
    let has_names = |section: &Section<'_>| matches!(section.data, SectionData::SectionString);
    if !object.sections.iter().any(has_names) {
        let names = object.sections.add();
        names.name = b".shstrtab".as_slice().into();
        names.sh_type = SHT_STRTAB;
        names.data = SectionData::SectionString;
    }
    let mut stripped = Vec::new();
    object
        .write(&mut stripped)
        .context("failed to write it without its debug information")?;
    Ok(stripped)
}

#[cfg(test)]
mod tests {
    use object::elf::{ELFCLASS64, ELFDATA2LSB, EM_BPF, EM_X86_64, EV_CURRENT};

    use super::*;

    const HEADER: usize = 64;

    /// An object with a section for each name, which holds its own name, and the table of names.
    fn made_up(machine: u16, names: &[&str]) -> Vec<u8> {
        let mut strings = vec![0];
        let mut headers = vec![vec![0; HEADER]];
        let mut section = |name: usize, kind: u32, from: usize, size: usize| {
            let mut header = vec![0; HEADER];
            header[..4].copy_from_slice(&u32::try_from(name).expect("short").to_le_bytes());
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&(HEADER + from).to_le_bytes());
            header[32..40].copy_from_slice(&size.to_le_bytes());
            headers.push(header);
        };
        for name in names {
            section(strings.len(), 1, strings.len(), name.len());
            strings.extend(name.bytes().chain([0]));
        }
        section(0, SHT_STRTAB, 0, strings.len());
        let mut bytes = vec![0; HEADER];
        bytes[..4].copy_from_slice(b"\x7fELF");
        bytes[4..7].copy_from_slice(&[ELFCLASS64, ELFDATA2LSB, EV_CURRENT]);
        bytes[16] = 1;
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[20] = EV_CURRENT;
        strings.resize(strings.len().next_multiple_of(8), 0);
        bytes[40..48].copy_from_slice(&(HEADER + strings.len()).to_le_bytes());
        bytes[52] = 64;
        bytes[58] = 64;
        let count = u8::try_from(headers.len()).expect("a handful");
        (bytes[60], bytes[62]) = (count, count - 1);
        [bytes, strings, headers.concat()].concat()
    }

    #[test]
    fn types_are_found_and_missed() {
        check_bpf_object(&made_up(EM_BPF, &TYPES)).expect("an object with types");
        for (object, expected) in [
            (made_up(EM_BPF, &[".BTX", ".BTF.ext"]), "no .BTF section"),
            (made_up(EM_BPF, &[".BTF"]), "no .BTF.ext section"),
            (made_up(EM_X86_64, &TYPES), "X86_64"),
            (b"!<arch>\n".to_vec(), "failed to read"),
        ] {
            let error = check_bpf_object(&object).expect_err(expected);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn only_what_a_debugger_reads_is_left_out() {
        let kept = [".text", ".BTF", ".rel.BTF", ".BTF.ext", ".debugger"];
        let all = [&kept[..], &[".debug_info", ".rel.debug_info", ".debug_str"]].concat();
        let stripped = without_debug(&made_up(EM_BPF, &all)).expect("an object");
        check_bpf_object(&stripped).expect("it has its types");
        let object = File::parse(stripped.as_slice()).expect("an object file");
        for section in object.sections() {
            let name = section.name().expect("a name");
            let data = section.data().expect("data");
            assert!(name.is_empty() || name.as_bytes() == data, "{name}");
        }
        let names = object
            .sections()
            .map(|section| section.name().expect("a name"));
        let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
        assert_eq!(names, kept);
    }

    #[test]
    fn a_truncated_object_is_an_error_at_every_length() {
        let whole = made_up(EM_BPF, &TYPES);
        for length in 0..whole.len() {
            check_bpf_object(&whole[..length]).expect_err("truncated");
        }
    }
}
