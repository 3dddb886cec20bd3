//! Offsets of fields in the kernel's structures, from its type information (BTF).
//!
//! aya reads BTF too, but does not give the members of a structure to others.

use std::fs;

/// Where the kernel has its own.
const KERNEL: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const STRUCT: u32 = 4;
const UNION: u32 = 5;

/// Words that follow the first three of a type: fixed ones, and those of each of its parts.
const fn more_words(kind: u32) -> (usize, usize) {
    match kind {
        // Integer, variable, declaration tag.
        1 | 14 | 17 => (1, 0),
        // Array.
        3 => (3, 0),
        // Structure, union, section, enumeration of 64 bits.
        STRUCT | UNION | 15 | 19 => (0, 3),
        // Enumeration, prototype.
        6 | 13 => (0, 2),
        _ => (0, 0),
    }
}

/// The types of a kernel.
#[derive(Debug)]
pub(crate) struct Btf {
    /// The words of each type; type 1 is the first.
    types: Vec<Vec<u32>>,
    names: Vec<u8>,
}

impl Btf {
    /// Those of the running kernel; `None` when it has none, or in a form that is not known.
    pub(crate) fn of_kernel() -> Option<Self> {
        Self::parse(&fs::read(KERNEL).ok()?)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<4>();
        let word = |at: usize| words.get(at).copied().map(u32::from_ne_bytes);
        let [low, high, ..] = *words.first()?;
        if u16::from_ne_bytes([low, high]) != MAGIC {
            return None;
        }
        let number = |at| word(at).and_then(|word| usize::try_from(word).ok());
        let [header, type_at, type_length, name_at, name_length] =
            [1, 2, 3, 4, 5].map(|at| number(at).unwrap_or(usize::MAX));
        let part = |at: usize, length: usize| {
            let from = header.checked_add(at)?;
            bytes.get(from..from.checked_add(length)?)
        };
        let names = part(name_at, name_length)?.to_vec();
        let (words, _) = part(type_at, type_length)?.as_chunks::<4>();
        let mut rest: &[[u8; 4]] = words;
        let mut types = Vec::new();
        while let [_, info, ..] = *rest {
            let info = u32::from_ne_bytes(info);
            let (fixed, each) = more_words(info >> 24 & 0x1f);
            let length = 3 + fixed + each * usize::try_from(info & 0xffff).ok()?;
            let (this, after) = rest.split_at_checked(length)?;
            types.push(this.iter().copied().map(u32::from_ne_bytes).collect());
            rest = after;
        }
        Some(Self { types, names })
    }

    fn name(&self, at: u32) -> Option<&[u8]> {
        self.names
            .get(usize::try_from(at).ok()?..)?
            .split(|byte| *byte == 0)
            .next()
    }

    /// The offset of a field in a structure, in bytes.
    pub(crate) fn offset(&self, structure: &str, field: &str) -> Option<u32> {
        let mut all = self.types.iter();
        let found = all.find(|words| {
            let [name, info, ..] = words.as_slice() else {
                return false;
            };
            info >> 24 & 0x1f == STRUCT && self.name(*name) == Some(structure.as_bytes())
        })?;
        Some(self.bits(found, field)? / 8)
    }

    /// The offset of a field in bits. Fields of anonymous parts are fields of the whole.
    fn bits(&self, words: &[u32], field: &str) -> Option<u32> {
        let [_, info, _, members @ ..] = words else {
            return None;
        };
        if !matches!(info >> 24 & 0x1f, STRUCT | UNION) {
            return None;
        }
        // With this flag the offset shares its word with the size of a bit field.
        let mask = if info >> 31 == 0 { u32::MAX } else { 0xff_ffff };
        let (members, _) = members.as_chunks::<3>();
        members.iter().find_map(|[name, kind, offset]| {
            let offset = offset & mask;
            let name = self.name(*name)?;
            if name == field.as_bytes() {
                return Some(offset);
            }
            if !name.is_empty() {
                return None;
            }
            let inner = self
                .types
                .get(usize::try_from(*kind).ok()?.checked_sub(1)?)?;
            Some(offset + self.bits(inner, field)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { u32 first; union { u32 inner; u32 other; }; u32 flag : 3; }`.
    fn sample() -> Vec<u8> {
        let names = b"\0u32\0outer\0first\0inner\0other\0flag\0";
        let info = |kind: u32, parts: u32, flag: u32| flag << 31 | kind << 24 | parts;
        let types = [
            &[1, info(1, 0, 0), 4, 32][..],
            &[0, info(UNION, 2, 0), 4, 17, 1, 0, 23, 1, 0],
            &[
                5,
                info(STRUCT, 3, 1),
                12,
                11,
                1,
                0,
                0,
                2,
                32,
                29,
                1,
                3 << 24 | 64,
            ],
        ]
        .concat();
        let size = |bytes: usize| u32::try_from(bytes).expect("it is small");
        let header = [
            24,
            0,
            size(4 * types.len()),
            size(4 * types.len()),
            size(names.len()),
        ];
        let mut bytes = [MAGIC.to_ne_bytes(), [1, 0]].concat();
        bytes.extend(header.into_iter().chain(types).flat_map(u32::to_ne_bytes));
        bytes.extend(names);
        bytes
    }

    #[test]
    fn fields_are_found_also_inside_anonymous_parts() {
        let btf = Btf::parse(&sample()).expect("well-formed");
        let offsets = ["first", "inner", "other", "flag", "nothing"];
        let offsets = offsets.map(|field| btf.offset("outer", field));
        assert_eq!(offsets, [Some(0), Some(4), Some(4), Some(8), None]);
        assert_eq!(btf.offset("u32", "first"), None);
    }

    #[test]
    fn what_is_no_btf_or_is_cut_off_has_no_fields() {
        let whole = sample();
        assert!(Btf::parse(&[]).is_none() && Btf::parse(&[0; 64]).is_none());
        for length in 0..whole.len() {
            // No panic, and no invented offset.
            let btf = Btf::parse(&whole[..length]);
            assert!(btf.is_none(), "{length} bytes");
        }
    }

    #[test]
    fn the_kernels_own_types_are_read_where_it_has_them() {
        if fs::metadata(KERNEL).is_ok() {
            let btf = Btf::of_kernel().expect("well-formed");
            assert!(btf.offset("net_device", "ifindex").is_some_and(|at| at > 0));
        }
    }
}
