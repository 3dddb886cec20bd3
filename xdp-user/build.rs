//! Puts the eBPF object where the library can embed it. Compiles nothing: `cargo xtask build` does,
//! with another compiler. Knows where the object lies and which sources it is made from, no more.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The crates that end in the object. xtask/src/build.rs has the same list.
const SOURCES: [&str; 3] = ["xdp-ebpf", "xdp-core", "xdp-common"];

/// The object, and that for a loader without CAP_PERFMON.
const NAME: &str = "ikenat.o";
const BESIDE: &str = "ikenat-without-perfmon.o";

/// Names another object, for one that was built elsewhere, with the second one beside it. Their age is not checked.
const OBJECT_VARIABLE: &str = "IKENAT_BPF_OBJECT";

fn main() {
    if let Err(sentence) = embed() {
        println!("cargo::error={sentence}");
    }
}

fn embed() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run cargo")?);
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("run this with cargo")?);
    let root = package
        .parent()
        .ok_or("xdp-user lies outside its workspace")?;
    println!("cargo::rerun-if-env-changed={OBJECT_VARIABLE}");
    let object = match env::var_os(OBJECT_VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => fresh_object(root, &out)?,
    };
    println!("cargo::rerun-if-changed={}", object.display());
    let beside = object.with_file_name(BESIDE);
    println!("cargo::rerun-if-changed={}", beside.display());
    for (from, name) in [(&object, NAME), (&beside, BESIDE)] {
        fs::copy(from, out.join(name)).map_err(|error| {
            format!("failed to copy the eBPF object {}: {error}", from.display())
        })?;
    }
    Ok(())
}

/// The object of `cargo xtask build`, unless a source is newer.
fn fresh_object(root: &Path, out: &Path) -> Result<PathBuf, String> {
    let object = find_object(root, out).ok_or(
        "the eBPF objects target/bpf/ikenat.o and ikenat-without-perfmon.o are missing, or one of them is: run `cargo xtask build`, which compiles them",
    )?;
    let built = modified(&object)?.min(modified(&object.with_file_name(BESIDE))?);
    for name in SOURCES {
        for part in ["src", "Cargo.toml"] {
            let path = root.join(name).join(part);
            println!("cargo::rerun-if-changed={}", path.display());
            if let Some(newer) = newer_than(built, &path)? {
                return Err(format!(
                    "the eBPF object {} is older than {}: run `cargo xtask build`",
                    object.display(),
                    newer.display()
                ));
            }
        }
    }
    Ok(object)
}

/// OUT_DIR lies in the target directory, wherever that was put; only a separate build directory
/// lies elsewhere.
fn find_object(root: &Path, out: &Path) -> Option<PathBuf> {
    let below_target = out
        .ancestors()
        .take_while(|dir| *dir != root)
        .map(Path::to_path_buf);
    let named = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    below_target
        .chain(named)
        .chain([root.join("target")])
        .map(|target| target.join("bpf").join(NAME))
        .find(|object| object.is_file() && object.with_file_name(BESIDE).is_file())
}

/// A file at or below `path` that changed after `built`.
fn newer_than(built: SystemTime, path: &Path) -> Result<Option<PathBuf>, String> {
    if !path.is_dir() {
        return Ok((modified(path)? > built).then(|| path.to_path_buf()));
    }
    let entries = fs::read_dir(path)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .map_err(|error| format!("failed to list {}: {error}", path.display()))?;
    for entry in entries {
        if let Some(newer) = newer_than(built, &entry.path())? {
            return Ok(Some(newer));
        }
    }
    Ok(None)
}

fn modified(path: &Path) -> Result<SystemTime, String> {
    fs::metadata(path)
        .and_then(|meta| meta.modified())
        .map_err(|error| format!("failed to look at {}: {error}", path.display()))
}
