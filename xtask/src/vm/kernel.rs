//! Stock Debian kernels: fetched, unpacked, cut down to an image that QEMU starts at once and to the
//! modules that a gateway, the other contestants of the benchmark and the tests can use.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};

use super::{
    fetch,
    tools::{Tools, replace},
};
use crate::{shell, workspace::Workspace};

/// The releases that are supported besides that of the machine at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Series {
    /// Debian 12's own.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13's, which Debian 12 has as well.
    #[value(name = "6.12")]
    V6_12,
}

/// The packages that depend on the newest kernel of a series. What series it is depends on the release
/// of Debian, so each is asked.
const META: [&str; 3] = [
    "linux-image-amd64",
    "linux-image-6.12-amd64",
    "linux-image-6.1-amd64",
];

/// The modules of the guest, without what they depend on. A star stands for any end of a name.
const MODULES: &str = "
veth bonding bridge br_netfilter dummy tun macvlan ipvlan 8021q ifb vxlan nlmon vrf ipip ip_gre
nfnetlink* nf_* nft_* xt_* x_tables ip_tables ip6_tables iptable_* ip6table_* ipt_* ip6t_* arp* ebtable* ip_set*
ip_vs ip_vs_rr ip_vs_sh ip_vs_wrr
sch_* cls_* act_* em_*
esp4 esp6 ah4 ah6 xfrm_user xfrm_interface xfrm_algo xfrm4_tunnel ipcomp tunnel4 udp_tunnel af_key
authenc authencesn echainiv seqiv gcm ccm ctr cbc ecb cmac hmac xcbc sha1_generic sha256_generic sha512_generic
aes_generic aesni_intel crypto_simd cryptd ghash* chacha20poly1305 chacha* poly1305* algif_* af_alg des_generic md5
drbg jitterentropy_rng ansi_cprng crypto_null
crc32c* crc32_generic libcrc32c
inet_diag tcp_diag udp_diag raw_diag unix_diag netlink_diag packet_diag af_packet_diag xsk_diag
kheaders overlay fuse pktgen
e1000e vmxnet3
";

/// A kernel ready to start.
#[derive(Debug)]
pub(crate) struct Kernel {
    dir: PathBuf,
    release: String,
}

impl Kernel {
    /// The newest kernel of the series that is at hand or can be had.
    pub(crate) fn find(workspace: &Workspace, tools: &Tools, series: Series) -> Result<Self> {
        let mut newest = newest(series);
        let at_hand = at_hand(workspace, series);
        if newest.is_none() && at_hand.is_none() {
            fetch::refresh(workspace)?;
            newest = self::newest(series);
        }
        let Some(release) = newest.or_else(|| at_hand.clone()) else {
            bail!(
                "failed to find a kernel {}: neither of the packages {} brings it here",
                series.name(),
                META.join(", ")
            );
        };
        let kernel = Self::of(workspace, release);
        if kernel.is_complete() {
            return Ok(kernel);
        }
        let what = format!("vm: unpacking Debian's kernel {}", kernel.release);
        let made = shell::step(&what, || kernel.make(workspace, tools));
        match (made, at_hand) {
            (Ok(()), Some(old)) if old != kernel.release => {
                // A guest that runs it has it in memory.
                let old = Self::of(workspace, old).dir;
                fs::remove_dir_all(&old)
                    .with_context(|| format!("failed to remove {}", old.display()))?;
                Ok(kernel)
            }
            (Ok(()), _) => Ok(kernel),
            (Err(error), Some(old)) => {
                println!("vm: going on with {old}, because {error:#}");
                Ok(Self::of(workspace, old))
            }
            (Err(error), None) => Err(error),
        }
    }

    fn of(workspace: &Workspace, release: String) -> Self {
        Self {
            dir: workspace.target("vm").join(&release),
            release,
        }
    }

    /// What `uname -r` says in the guest.
    pub(crate) fn release(&self) -> &str {
        &self.release
    }

    /// What QEMU starts.
    pub(crate) fn image(&self) -> PathBuf {
        self.dir.join("vmlinux")
    }

    /// What becomes the guest's `/usr/lib/modules/<release>`.
    pub(crate) fn modules(&self) -> PathBuf {
        self.dir.join("lib/modules").join(&self.release)
    }

    fn is_complete(&self) -> bool {
        fs::read_to_string(self.dir.join("list")).is_ok_and(|list| list == MODULES)
    }

    fn make(&self, workspace: &Workspace, tools: &Tools) -> Result<()> {
        let whole = self.dir.with_file_name(format!("{}.package", self.release));
        let part = self.dir.with_file_name(format!("{}.part", self.release));
        fetch::unpack(
            workspace,
            &[format!("linux-image-{}", self.release)],
            &whole,
        )?;
        if !whole.join("lib").exists() {
            // Debian 13 unpacks to where /lib leads.
            symlink("usr/lib", whole.join("lib")).context("failed to link lib to usr/lib")?;
        }
        if part.exists() {
            fs::remove_dir_all(&part)
                .with_context(|| format!("failed to empty {}", part.display()))?;
        }
        let modules = part.join("lib/modules").join(&self.release);
        fs::create_dir_all(&modules)
            .with_context(|| format!("failed to create {}", modules.display()))?;
        let log = workspace.target("vm/depmod.log");
        depmod(tools, &whole, &self.release, &log)?;
        self.pick(tools, &whole, &modules)?;
        depmod(tools, &part, &self.release, &log)?;
        let packed = whole.join("boot").join(format!("vmlinuz-{}", self.release));
        unpack_image(tools, &packed, &part.join("vmlinux"))?;
        // Last: whoever finds it knows that the rest is there.
        fs::write(part.join("list"), MODULES).context("failed to write the list of modules")?;
        replace(&part, &self.dir)?;
        fs::remove_dir_all(&whole).with_context(|| format!("failed to remove {}", whole.display()))
    }

    /// Copies the chosen modules and what they need, not compressed.
    fn pick(&self, tools: &Tools, whole: &Path, to: &Path) -> Result<()> {
        let from = whole.join("lib/modules").join(&self.release);
        let failed = || format!("failed to copy modules from {}", from.display());
        for name in [
            "modules.builtin",
            "modules.builtin.modinfo",
            "modules.order",
        ] {
            fs::copy(from.join(name), to.join(name)).with_context(failed)?;
        }
        let dependencies = fs::read_to_string(from.join("modules.dep")).with_context(failed)?;
        let mut packed = Vec::new();
        for name in closure(&dependencies, MODULES) {
            let target = to.join(&name);
            let dir = target.parent().with_context(failed)?;
            fs::create_dir_all(dir).with_context(failed)?;
            fs::copy(from.join(&name), &target).with_context(failed)?;
            if name.ends_with(".xz") {
                packed.push(target);
            }
        }
        if !packed.is_empty() {
            shell::run(tools.command("xz")?.arg("--decompress").args(packed))?;
        }
        Ok(())
    }
}

impl Series {
    /// All of them, oldest first.
    pub(crate) const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    /// `6.1`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    fn has(self, release: &str) -> bool {
        release
            .strip_prefix(self.name())
            .is_some_and(|rest| rest.starts_with('.'))
    }
}

/// The release that this system's package lists name.
fn newest(series: Series) -> Option<String> {
    META.iter()
        .flat_map(|meta| fetch::dependencies(meta))
        .filter_map(|name| name.strip_prefix("linux-image-").map(str::to_owned))
        .find(|release| series.has(release))
}

/// The release that was unpacked last.
fn at_hand(workspace: &Workspace, series: Series) -> Option<String> {
    let entries = fs::read_dir(workspace.target("vm")).ok()?.flatten();
    entries
        .filter_map(|entry| {
            let release = entry.file_name().into_string().ok()?;
            let list = fs::metadata(entry.path().join("list")).ok()?;
            let known = series.has(&release) && !release.ends_with(".part");
            known.then_some((list.modified().ok()?, release))
        })
        .max()
        .map(|(_, release)| release)
}

fn depmod(tools: &Tools, root: &Path, release: &str, log: &Path) -> Result<()> {
    let mut depmod = tools.kmod("depmod")?;
    depmod.arg("-b").arg(root).arg(release);
    shell::run_logged(&mut depmod, log)
}

/// The files of the modules that a pattern names, and of those that they need.
fn closure(dependencies: &str, patterns: &str) -> Vec<String> {
    let wanted = |file: &str| {
        let base = file.rsplit('/').next().unwrap_or(file);
        let name = base.split(".ko").next().unwrap_or(base).replace('-', "_");
        patterns.split_whitespace().any(|pattern| {
            pattern
                .strip_suffix('*')
                .map_or(name == pattern, |start| name.starts_with(start))
        })
    };
    // modules.dep has all dependencies of a module, not the nearest only.
    let mut files: Vec<String> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(file, _)| wanted(file))
        .flat_map(|(file, needs)| [file].into_iter().chain(needs.split_whitespace()))
        .map(str::to_owned)
        .collect();
    files.sort_unstable();
    files.dedup();
    files
}

/// Takes the ELF file out of a vmlinuz, so that no guest has to do it, slowly, at each start.
/// Offsets and meaning: Documentation/arch/x86/boot.rst of the kernel.
fn unpack_image(tools: &Tools, packed: &Path, to: &Path) -> Result<()> {
    let failed = || format!("failed to unpack {}", packed.display());
    let bytes = fs::read(packed).with_context(failed)?;
    let payload = payload(&bytes).with_context(failed)?;
    let (program, arguments): (_, &[&str]) = match payload {
        [0xfd, b'7', b'z', b'X', b'Z', ..] => ("xz", &["-dc", "--single-stream"]),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd", &["-dc"]),
        _ => bail!("{} is neither xz nor zstd", packed.display()),
    };
    let file = File::create(to).with_context(failed)?;
    let mut unpack = tools.command(program)?;
    unpack.args(arguments).stdin(Stdio::piped()).stdout(file);
    let mut child = unpack.spawn().with_context(failed)?;
    let mut stdin = child.stdin.take().with_context(failed)?;
    let written = stdin.write_all(payload);
    drop(stdin);
    let status = child.wait().with_context(failed)?;
    written.with_context(failed)?;
    if !status.success() {
        bail!(
            "failed to unpack {}: {program} ended with {status}",
            packed.display()
        );
    }
    Ok(())
}

/// The compressed kernel in a vmlinuz, without the four bytes of its unpacked size behind it.
fn payload(bytes: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| -> Option<usize> {
        let four = bytes.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(four)).ok()
    };
    let sectors = usize::from(*bytes.get(0x1f1)?);
    let start = (sectors + 1) * 512 + number(0x248)?;
    bytes.get(start..(start + number(0x24c)?).checked_sub(4)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_a_whole_number() {
        assert!(Series::V6_1.has("6.1.0-56-amd64"));
        assert!(!Series::V6_1.has("6.12.117+deb12-amd64"));
        assert!(Series::V6_12.has("6.12.117+deb12-amd64"));
        assert!(!Series::V6_12.has("6.1"));
    }

    #[test]
    fn a_module_brings_what_it_needs() {
        let dependencies = "kernel/net/nft-nat.ko.xz: kernel/net/nf_tables.ko.xz kernel/lib/crc.ko.xz\n\
                            kernel/net/nf_tables.ko.xz: kernel/lib/crc.ko.xz\n\
                            kernel/net/veth.ko:\n\
                            kernel/net/vethx.ko:\n";
        assert_eq!(
            closure(dependencies, "nft_* veth"),
            [
                "kernel/lib/crc.ko.xz",
                "kernel/net/nf_tables.ko.xz",
                "kernel/net/nft-nat.ko.xz",
                "kernel/net/veth.ko",
            ]
        );
    }

    #[test]
    fn the_payload_stands_where_the_header_says() {
        let mut bytes = vec![0; 2048];
        bytes[0x1f1] = 1;
        bytes[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        bytes[0x24c..0x250].copy_from_slice(&9_u32.to_le_bytes());
        bytes[1040..1049].copy_from_slice(b"abcde\0\0\0\0");
        assert_eq!(payload(&bytes), Some(&b"abcde"[..]));
        assert_eq!(payload(&bytes[..1000]), None);
    }
}
