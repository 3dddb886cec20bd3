//! `cargo xtask build`: the eBPF objects, then the binaries. The objects go
//! to `target/bpf`.

use std::{fs, path::Path, process::Command, time::SystemTime};

use anyhow::{Context as _, Result, bail};

use crate::{elf, setup::Toolchain, shell, workspace::Workspace};

/// One way to build xdp-ebpf.
pub(crate) struct Variant {
    /// Its target directory. Other flags would rebuild everything in that of another.
    directory: &'static str,
    /// The instructions that may be used.
    cpu: &'static str,
    /// What selects it among the features, for cargo.
    features: &'static [&'static str],
    /// What it makes.
    objects: &'static [Object],
}

/// A binary of xdp-ebpf, and what becomes of it.
struct Object {
    /// The binary.
    binary: &'static str,
    /// Its file in `target/bpf`.
    file: &'static str,
    /// The crates that it is made of.
    sources: &'static [&'static str],
    /// It becomes part of `ikenat`.
    is_embedded: bool,
}

impl Object {
    const fn new(binary: &'static str, file: &'static str) -> Self {
        Self {
            binary,
            file,
            sources: &SOURCES,
            is_embedded: false,
        }
    }

    const fn embedded(binary: &'static str, file: &'static str) -> Self {
        Self {
            is_embedded: true,
            ..Self::new(binary, file)
        }
    }

    const fn of_benchmark(binary: &'static str, file: &'static str) -> Self {
        Self {
            sources: &BENCHMARK_SOURCES,
            ..Self::new(binary, file)
        }
    }
}

/// The dataplane, and what tests and benchmarks need.
const USUAL: Variant = Variant {
    directory: "ebpf",
    cpu: "v3",
    features: &[],
    objects: &[
        Object::of_benchmark("bench", "bench.o"),
        Object::embedded("ikenat", "ikenat.o"),
        Object::new("peer", "peer.o"),
        Object::of_benchmark("restore", "restore.o"),
        Object::of_benchmark("yardstick", "yardstick.o"),
    ],
};

/// The dataplane for a loader without CAP_PERFMON (xdp-ebpf/Cargo.toml says what is different). Without half registers: they
/// are put away in half a word of the stack, which the verifier refuses where a pointer was.
const WITHOUT_PERFMON: Variant = Variant {
    directory: "ebpf-without-perfmon",
    cpu: "v2",
    features: &["--features", "without-perfmon"],
    objects: &[Object::embedded("ikenat", "ikenat-without-perfmon.o")],
};

/// All of them.
pub(crate) const VARIANTS: [&Variant; 2] = [&USUAL, &WITHOUT_PERFMON];

/// The crates that the dataplane is made of. xdp-user/build.rs has the same list.
const SOURCES: [&str; 3] = ["xdp-ebpf", "xdp-core", "xdp-common"];

/// The crates that the benchmark's programs are made of.
const BENCHMARK_SOURCES: [&str; 4] = ["xdp-ebpf", "xdp-core", "xdp-common", "tests/bench/abi"];

/// The only BPF target: the supported machines are little-endian.
const TARGET: &str = "bpfel-unknown-none";

/// The profile of the objects, in the root Cargo.toml; and the directory of what cargo builds with it.
const PROFILE: &str = "bpf";

/// Builds the objects and copies them to `target/bpf`.
pub(crate) fn objects(workspace: &Workspace, tools: &Toolchain) -> Result<()> {
    for variant in VARIANTS {
        objects_of(workspace, tools, variant)?;
    }
    Ok(())
}

fn objects_of(workspace: &Workspace, tools: &Toolchain, variant: &Variant) -> Result<()> {
    let newest = || -> Result<Vec<SystemTime>> {
        let objects = variant.objects.iter();
        objects
            .map(|object| newest_source(workspace, object.sources))
            .collect()
    };
    let before = newest()?;
    let mut cargo = bpf_cargo(workspace, tools, variant, "cargo");
    cargo.arg("build");
    bpf_package(&mut cargo, variant);
    shell::run(&mut cargo).context("failed to compile the eBPF programs")?;
    let times = before.into_iter().zip(newest()?);
    for (object, (sources, after)) in variant.objects.iter().zip(times) {
        let stamp = Stamp {
            sources,
            // A source that was edited during the build belongs to the next one: then the object keeps
            // the time of what it was made from, and xdp-user sees that it is old.
            edited: after != sources,
        };
        let built = workspace
            .target(variant.directory)
            .join(TARGET)
            .join(PROFILE)
            .join(object.binary);
        let bytes =
            fs::read(&built).with_context(|| format!("failed to read {}", built.display()))?;
        let bytes = elf::accept(bytes, object.is_embedded)
            .with_context(|| format!("failed to accept {} as a BPF object", built.display()))?;
        put(&workspace.target("bpf").join(object.file), &bytes, &stamp)?;
    }
    Ok(())
}

/// The feature that lets tests disturb a start. Each build for tests has it, so that none replaces the
/// binary of another, and a release never has.
pub(crate) const FAILPOINTS: [&str; 2] = ["--features", "xdp-user/failpoints"];

/// Builds the binaries for the host, and says where `ikenat` is.
pub(crate) fn binaries(workspace: &Workspace, release: bool) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "-p", "xdp-user", "-p", "ikenat-tests", "--bins"]);
    if release {
        cargo.arg("--release");
    } else {
        cargo.args(FAILPOINTS);
    }
    shell::run(&mut cargo)?;
    let profile = if release { "release" } else { "debug" };
    let ikenat = workspace.target(profile).join("ikenat");
    let bytes =
        fs::read(&ikenat).with_context(|| format!("failed to read {}", ikenat.display()))?;
    let hooks = hooks(&bytes);
    match (release, hooks.is_empty()) {
        (true, false) => bail!(
            "{} obeys {}, which only tests need: leave the feature failpoints out",
            ikenat.display(),
            hooks.join(" and ")
        ),
        (false, true) => bail!(
            "{} has no failpoints, which the tests need",
            ikenat.display()
        ),
        _ => {}
    }
    println!("build: {}", ikenat.display());
    Ok(())
}

/// The variables by which a test disturbs a start, as far as a binary knows them.
fn hooks(binary: &[u8]) -> Vec<&'static str> {
    let knows = |name: &&str| {
        let mut windows = binary.windows(name.len());
        windows.any(|window| window == name.as_bytes())
    };
    HOOKS.into_iter().filter(knows).collect()
}

const HOOKS: [&str; 2] = ["IKENAT_FAIL_AT", "IKENAT_OBJECT"];

/// A cargo program of the eBPF toolchain with the flags and the target directory of the objects.
pub(crate) fn bpf_cargo(
    workspace: &Workspace,
    tools: &Toolchain,
    variant: &Variant,
    program: &str,
) -> Command {
    let mut linker = std::ffi::OsString::from("-Clinker=");
    linker.push(&tools.linker.path);
    let mut flags = std::ffi::OsString::from(format!(
        // aya-ebpf reads the layout of pt_regs from this, like its own build helper sets it.
        "--cfg=bpf_target_arch=\"{}\"\x1f-Ctarget-cpu={}\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf\x1f",
        std::env::consts::ARCH,
        variant.cpu
    ));
    // Otherwise every memset is a call of a loop over bytes: 40 bytes in 200 instructions instead of five.
    flags.push("-Clink-arg=--disable-expand-memcpy-in-order\x1f");
    flags.push(linker);
    let mut command = tools.compiler.command(workspace, program);
    command
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env("CARGO_TARGET_DIR", workspace.target(variant.directory));
    command
}

/// The arguments that select the objects.
pub(crate) fn bpf_package(command: &mut Command, variant: &Variant) {
    command.args(["-p", "xdp-ebpf", "--profile", PROFILE, "--target", TARGET]);
    for object in variant.objects {
        command.args(["--bin", object.binary]);
    }
    command
        .args(variant.features)
        .args(["-Z", "build-std=core"]);
}

/// The time of the sources that an object was made from.
struct Stamp {
    sources: SystemTime,
    edited: bool,
}

/// Writes the object when it changed, and makes it no older than its sources. Otherwise the file is
/// left alone: xdp-user is rebuilt whenever its time changes, and refuses it when it is too old.
fn put(path: &Path, bytes: &[u8], stamp: &Stamp) -> Result<()> {
    let failed = || format!("failed to write {}", path.display());
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(failed)?;
    }
    let same = fs::read(path).is_ok_and(|old| old == bytes);
    if same && modified(path)? >= stamp.sources {
        return Ok(());
    }
    if !same {
        fs::write(path, bytes).with_context(failed)?;
    }
    let time = if stamp.edited {
        stamp.sources
    } else {
        stamp.sources.max(SystemTime::now())
    };
    let file = fs::File::options()
        .append(true)
        .open(path)
        .with_context(failed)?;
    file.set_modified(time).with_context(failed)
}

fn modified(path: &Path) -> Result<SystemTime> {
    fs::metadata(path)
        .and_then(|meta| meta.modified())
        .with_context(|| format!("failed to look at {}", path.display()))
}

fn newest_source(workspace: &Workspace, sources: &[&str]) -> Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for name in sources {
        let root = workspace.root().join(name);
        visit(&root.join("src"), &mut newest)?;
        visit(&root.join("Cargo.toml"), &mut newest)?;
    }
    Ok(newest)
}

fn visit(path: &Path, newest: &mut SystemTime) -> Result<()> {
    if !path.is_dir() {
        *newest = (*newest).max(modified(path)?);
        return Ok(());
    }
    let failed = || format!("failed to look at {}", path.display());
    for entry in fs::read_dir(path).with_context(failed)? {
        visit(&entry.with_context(failed)?.path(), newest)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{env, time::Duration};

    use super::*;

    #[test]
    fn what_a_binary_obeys_is_found() {
        assert_eq!(hooks(b"...IKENAT_OBJECTfailed"), ["IKENAT_OBJECT"]);
        assert_eq!(hooks(b"IKENAT_FAIL_AT IKENAT_OBJECT"), HOOKS);
        assert!(hooks(b"IKENAT_FAIL").is_empty());
    }

    /// A build that asks for no feature has no failpoints: the feature is in no default, no package
    /// turns it on for the others that are built with it, and nothing outside of it reads the
    /// variables.
    #[test]
    fn only_the_feature_lets_tests_disturb_a_start() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let read = |path: &Path| fs::read_to_string(path).expect("a file of this repository");
        for package in ["xdp-user", "tests", "tests/bench", "xtask", "."] {
            let manifest = read(&root.join(package).join("Cargo.toml"));
            let lines = manifest.lines().map(|line| line.trim());
            let lines = lines.filter(|line| !line.starts_with('#'));
            let names: Vec<&str> = lines.filter(|line| line.contains("failpoints")).collect();
            let expected: &[&str] = match package {
                "xdp-user" => &["failpoints = []"],
                _ => &[],
            };
            assert_eq!(names, expected, "{package}");
            assert!(!manifest.contains("\ndefault = "), "{package}");
        }
        let mut sources = vec![root.join("xdp-user/src")];
        while let Some(path) = sources.pop() {
            if path.is_dir() {
                let entries = fs::read_dir(&path).expect("a directory");
                sources.extend(entries.map(|entry| entry.expect("an entry").path()));
                continue;
            }
            let code = read(&path);
            assert!(
                !code.contains("cfg(debug_assertions)"),
                "{}",
                path.display()
            );
            let lines = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let is_gated = path.ends_with("failpoints.rs");
            assert_eq!(
                lines
                    .filter(|line| !hooks(line.as_bytes()).is_empty())
                    .count()
                    > 0,
                is_gated
            );
            let armed = "#[cfg(feature = \"failpoints\")]\nmod armed {";
            assert!(!is_gated || code.split(armed).count() == 2);
            let before = code.split(armed).next().unwrap_or_default().lines();
            let mut before = before.filter(|line| !line.starts_with("//"));
            assert!(
                before.all(|line| hooks(line.as_bytes()).is_empty()),
                "{}",
                path.display()
            );
        }
    }

    #[test]
    fn an_object_is_touched_only_when_it_must_be() {
        let dir = env::temp_dir().join(format!("xtask-put-{}", std::process::id()));
        let path = dir.join("x.o");
        let early = SystemTime::now() - Duration::from_secs(3600);
        let times = [
            // First written, then the same bytes again, then a newer source with the same result.
            put(
                &path,
                b"a",
                &Stamp {
                    sources: early,
                    edited: true,
                },
            )
            .and_then(|()| modified(&path)),
            put(
                &path,
                b"a",
                &Stamp {
                    sources: early,
                    edited: false,
                },
            )
            .and_then(|()| modified(&path)),
            put(
                &path,
                b"a",
                &Stamp {
                    sources: early + Duration::from_secs(1),
                    edited: false,
                },
            )
            .and_then(|()| modified(&path)),
        ];
        fs::remove_dir_all(&dir).expect("the directory was made");
        let [first, second, third] = times.map(|time| time.expect("written"));
        assert_eq!(first, early);
        assert_eq!(second, early);
        assert!(third > early + Duration::from_secs(1));
    }
}
