//! Loads and stores of half a word or less, each as one instruction.
//!
//! The compiler must assume the worst alignment of a packet, and would access it byte by byte.

/// Calls a macro with the class of the registers that hold 32 bits. With `-C target-cpu=v3` there
/// is a separate class. Without CAP_PERFMON the verifier rejects spilling half a register over a
/// stack slot that held a pointer, so in that build (`-C target-cpu=v2`) all registers are whole.
#[cfg(not(feature = "without-perfmon"))]
macro_rules! with_class {
    ($macro:ident!($($arguments:tt)*)) => { $macro!(wreg, $($arguments)*) };
}
#[cfg(feature = "without-perfmon")]
macro_rules! with_class {
    ($macro:ident!($($arguments:tt)*)) => { $macro!(reg, $($arguments)*) };
}

/// A load from an offset in an array, zero-extended.
macro_rules! load {
    ($class:ident, $type:literal, $bytes:ident, $at:ident) => {{
        let value: u32;
        asm!(
            concat!("{value} = *(", $type, " *)({bytes} + {at})"),
            value = out($class) value,
            bytes = in(reg) $bytes.as_ptr(),
            at = const $at,
            options(pure, readonly, nostack, preserves_flags)
        );
        value
    }};
}

/// A store to an offset in an array.
macro_rules! store {
    ($class:ident, $type:literal, $bytes:ident, $at:ident, $value:ident) => {
        asm!(
            concat!("*(", $type, " *)({bytes} + {at}) = {value}"),
            value = in($class) $value,
            bytes = in(reg) $bytes.as_mut_ptr(),
            at = const $at,
            options(nostack, preserves_flags)
        )
    };
}

pub(crate) use {load, store, with_class};
