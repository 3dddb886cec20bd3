//! The files of a guest: programs of this machine under their own names, with the libraries, links and
//! data that they need.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File, Metadata},
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{
    cpio::{Entry, Tree},
    tools::{Tools, on_path},
};

/// Programs of the guest, those that this machine has. busybox stands in for any other.
const PROGRAMS: &str = "
arping bash bpftool bridge cat charon-systemd chmod chown conntrack cp cut date dd dmesg env
ethtool false find grep head hostname id ip ip6tables iptables iptables-legacy
iptables-legacy-save iptables-nft iptables-nft-save iptables-restore iptables-save kill ln ls
mkdir mktemp mount mv nft nice nsenter openssl pgrep ping pki pkill ps readlink rm rmdir script
sed seq setarch setcap setpriv sh sleep socat sort ss stat stdbuf
swanctl sysctl tail taskset tc tcpdump tee timeout touch tr true umount uname unshare wc xargs
";

/// Programs of the guest that may have been unpacked instead of installed.
const UNPACKED: [&str; 3] = ["busybox", "ipvsadm", "kmod"];

/// Names under which kmod is called; the kernel calls the first.
const KMOD: [&str; 5] = ["modprobe", "insmod", "rmmod", "lsmod", "modinfo"];

/// What programs read or load while they run, where it exists.
const DATA: &str = "
/etc/ethertypes /etc/group /etc/host.conf /etc/hosts /etc/iproute2 /etc/ld.so.cache
/etc/ld.so.conf /etc/ld.so.conf.d /etc/localtime /etc/networks /etc/nsswitch.conf /etc/os-release
/etc/passwd /etc/protocols /etc/rpc /etc/services /etc/shells /etc/ssl/openssl.cnf
/etc/strongswan.conf /etc/strongswan.d /etc/swanctl /usr/lib/ipsec /usr/lib/os-release
/usr/lib/ssl/openssl.cnf /usr/lib/tc
/usr/lib/x86_64-linux-gnu/ossl-modules /usr/lib/x86_64-linux-gnu/xtables /usr/share/iproute2
/usr/lib/x86_64-linux-gnu/libgcc_s.so.1 /usr/lib/x86_64-linux-gnu/libnss_files.so.2
";

/// Directories that are mounted over or written to. Those of `/bin` and the like are links, as on any
/// Debian since 12.
const DIRECTORIES: &str = "
/dev /etc /mnt /proc /root /run /sys /tmp /usr /usr/bin /usr/lib /usr/lib64 /usr/sbin /var
/var/lib /vm
";

/// Links at the top, and others that programs rely on.
const LINKS: [(&str, &str); 7] = [
    ("/bin", "usr/bin"),
    ("/lib", "usr/lib"),
    ("/lib64", "usr/lib64"),
    ("/sbin", "usr/sbin"),
    ("/etc/mtab", "/proc/self/mounts"),
    ("/var/run", "/run"),
    ("/var/lock", "/run/lock"),
];

/// Directories that the guest mounts itself, so nothing of the host's is copied.
const NEVER: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];

/// More links in a row than this lead nowhere.
const MOST_LINKS: usize = 40;

/// The files of a guest, gathered.
pub(crate) struct Contents<'a> {
    tools: &'a Tools,
    tree: Tree,
}

impl<'a> Contents<'a> {
    /// The system: directories, programs and what they read.
    pub(crate) fn new(tools: &'a Tools) -> Result<Self> {
        let mut contents = Self {
            tools,
            tree: Tree::new(),
        };
        for name in DIRECTORIES.split_whitespace() {
            contents.directory(Path::new(name));
        }
        for (name, target) in LINKS {
            contents.link(Path::new(name), Path::new(target));
        }
        for name in PROGRAMS.split_whitespace() {
            if let Some(file) = on_path(name) {
                contents.host(&file)?;
            }
        }
        for name in UNPACKED {
            contents.program(name)?;
        }
        for name in KMOD {
            contents.link(&Path::new("/usr/sbin").join(name), Path::new("../bin/kmod"));
        }
        for name in DATA.split_whitespace() {
            if Path::new(name).exists() {
                contents.host_tree(Path::new(name))?;
            }
        }
        Ok(contents)
    }

    /// Adds a directory, with those above it.
    pub(crate) fn directory(&mut self, name: &Path) {
        for above in name.ancestors().filter(|above| *above != Path::new("/")) {
            let mode = if above == Path::new("/tmp") {
                0o1777
            } else {
                0o755
            };
            self.tree
                .entry(above.to_path_buf())
                .or_insert(Entry::Directory { mode });
        }
    }

    /// Adds a file with this text.
    pub(crate) fn text(&mut self, name: &Path, text: &str, mode: u32) {
        let bytes = text.as_bytes().to_vec();
        self.tree
            .insert(name.to_path_buf(), Entry::Text { bytes, mode });
    }

    fn link(&mut self, name: &Path, target: &Path) {
        let target = target.to_path_buf();
        self.tree.insert(name.to_path_buf(), Entry::Link { target });
    }

    /// A program of the tools, where its package would install it.
    fn program(&mut self, name: &str) -> Result<()> {
        let file = self.tools.program(name)?;
        let installed = self.tools.installed_name(&file);
        if installed == file {
            return self.host(&file);
        }
        self.copy(&file, &merged(&installed))
    }

    /// A directory of the host under another name, with all that is in it.
    pub(crate) fn copy_tree(&mut self, from: &Path, to: &Path) -> Result<()> {
        self.directory(to);
        for (path, metadata) in entries(from)? {
            let name = to.join(path.file_name().unwrap_or_default());
            if metadata.is_dir() {
                self.copy_tree(&path, &name)?;
            } else {
                self.copy(&path, &name)?;
            }
        }
        Ok(())
    }

    fn copy(&mut self, from: &Path, to: &Path) -> Result<()> {
        let metadata = look(from)?;
        if let Some(dir) = to.parent() {
            self.directory(dir);
        }
        let entry = if metadata.is_symlink() {
            let target = fs::read_link(from)
                .with_context(|| format!("failed to read the link {}", from.display()))?;
            Entry::Link { target }
        } else {
            Entry::File {
                source: from.to_path_buf(),
                mode: metadata.permissions().mode() & 0o7777,
            }
        };
        self.tree.insert(to.to_path_buf(), entry);
        Ok(())
    }

    /// A file or directory of the host under its own name, and every link on the way there.
    pub(crate) fn host(&mut self, path: &Path) -> Result<()> {
        let mut goal = path.to_path_buf();
        for _ in 0..MOST_LINKS {
            match self.follow(&goal)? {
                Some(further) => goal = further,
                None => return Ok(()),
            }
        }
        bail!("failed to copy {}: its links lead nowhere", path.display());
    }

    /// Adds the parts of a path up to the first link, and returns where that leads.
    fn follow(&mut self, path: &Path) -> Result<Option<PathBuf>> {
        let mut at = PathBuf::from("/");
        let mut parts = path.components();
        while let Some(part) = parts.next() {
            match part {
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
                Component::ParentDir => {
                    at.pop();
                    continue;
                }
                Component::Normal(name) => at.push(name),
            }
            if NEVER.iter().any(|never| at == Path::new(never)) {
                return Ok(None);
            }
            let metadata = look(&at)?;
            if metadata.is_symlink() {
                self.copy(&at, &at.clone())?;
                let target = fs::read_link(&at)
                    .with_context(|| format!("failed to read the link {}", at.display()))?;
                at.pop();
                return Ok(Some(at.join(target).join(parts.as_path())));
            }
            if metadata.is_dir() {
                self.directory(&at);
            } else if metadata.is_file() {
                self.copy(&at, &at.clone())?;
            }
        }
        Ok(None)
    }

    /// The same for a directory with all that is in it.
    pub(crate) fn host_tree(&mut self, path: &Path) -> Result<()> {
        self.host(path)?;
        let Ok(real) = fs::canonicalize(path) else {
            bail!("failed to find {}", path.display());
        };
        if !real.is_dir() {
            return Ok(());
        }
        for (path, metadata) in entries(&real)? {
            if metadata.is_dir() {
                self.host_tree(&path)?;
            } else if metadata.is_file() || path.exists() {
                self.host(&path)?;
            }
        }
        Ok(())
    }

    /// Adds the libraries of every program gathered, and returns the tree.
    pub(crate) fn finish(mut self) -> Result<Tree> {
        let sources: Vec<&Path> = self
            .tree
            .values()
            .filter_map(|entry| match entry {
                Entry::File { source, .. } => Some(source.as_path()),
                Entry::Directory { .. } | Entry::Text { .. } | Entry::Link { .. } => None,
            })
            .filter(|source| is_program(source))
            .collect();
        let mut ldd = Command::new("ldd");
        self.tools.libraries(&mut ldd);
        // It fails as soon as one of the files is static, and still lists the others.
        let said = ldd
            .args(sources)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .context("failed to start ldd")?;
        for library in libraries(&String::from_utf8_lossy(&said.stdout)) {
            let installed = self.tools.installed_name(&library);
            if installed == library {
                self.host(&library)?;
            } else {
                // The name of a library is a link to its file.
                let file = fs::canonicalize(&library)
                    .with_context(|| format!("failed to find {}", library.display()))?;
                self.copy(&file, &merged(&installed))?;
            }
        }
        Ok(self.tree)
    }
}

/// `/sbin/x` is `/usr/sbin/x` in the guest.
fn merged(path: &Path) -> PathBuf {
    let inside = path.strip_prefix("/").unwrap_or(path);
    let first = inside.components().next().map(Component::as_os_str);
    if first.is_some_and(|first| {
        LINKS
            .iter()
            .any(|(name, _)| OsStr::new(&name[1..]) == first)
    }) {
        Path::new("/usr").join(inside)
    } else {
        path.to_path_buf()
    }
}

fn look(path: &Path) -> Result<Metadata> {
    fs::symlink_metadata(path).with_context(|| format!("failed to look at {}", path.display()))
}

fn entries(dir: &Path) -> Result<Vec<(PathBuf, Metadata)>> {
    let failed = || format!("failed to list {}", dir.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        let metadata = look(&path)?;
        found.push((path, metadata));
    }
    Ok(found)
}

/// Whether a file is a program or a library for this machine (and not, say, a BPF object).
fn is_program(path: &Path) -> bool {
    let mut head = [0; 20];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    // e_ident: magic and 64 bits; e_type: executable or shared; e_machine: x86-64.
    read.is_ok()
        && head.starts_with(b"\x7fELF\x02")
        && matches!(head[16], 2 | 3)
        && head[18..] == [62, 0]
}

/// The files that ldd names.
fn libraries(said: &str) -> BTreeSet<PathBuf> {
    said.lines()
        .filter_map(|line| {
            let line = line.strip_prefix('\t')?;
            let file = line.split_once(" => ").map_or(line, |(_, file)| file);
            let file = file.rsplit_once(" (").map_or(file, |(file, _)| file);
            file.starts_with('/').then(|| PathBuf::from(file))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn ldd_is_read() {
        let said = "/usr/bin/ip:\n\tlinux-vdso.so.1 (0x00007f)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \tlibx.so => not found\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tstatically linked\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(libraries(said), expected.map(PathBuf::from).into());
    }

    #[test]
    fn a_link_brings_its_target() {
        let dir = std::env::temp_dir().join(format!("xtask-contents-{}", std::process::id()));
        let made = fs::create_dir_all(dir.join("real/deep"))
            .and_then(|()| fs::write(dir.join("real/deep/file"), "x"))
            .and_then(|()| symlink("real", dir.join("directory")))
            .and_then(|()| symlink("../directory/deep/file", dir.join("real/link")))
            .and_then(|()| symlink("loop", dir.join("loop")));
        let tools = Tools::of_path();
        let mut contents = Contents {
            tools: &tools,
            tree: Tree::new(),
        };
        let through_links = contents.host(&dir.join("directory/link"));
        let endless = contents.host(&dir.join("loop"));
        fs::remove_dir_all(&dir).expect("the directory was made");
        made.expect("files are made");
        through_links.expect("the file is found");
        assert!(endless.is_err());
        let has = |name: &str| contents.tree.get(&dir.join(name));
        let link = |target: &str| Entry::Link {
            target: target.into(),
        };
        assert_eq!(has("directory"), Some(&link("real")));
        assert_eq!(has("real/link"), Some(&link("../directory/deep/file")));
        assert_eq!(has("real/deep"), Some(&Entry::Directory { mode: 0o755 }));
        assert!(matches!(has("real/deep/file"), Some(Entry::File { .. })));
    }

    #[test]
    fn the_guest_has_merged_directories() {
        assert_eq!(
            merged(Path::new("/sbin/ipvsadm")),
            Path::new("/usr/sbin/ipvsadm")
        );
        assert_eq!(merged(Path::new("/usr/bin/x")), Path::new("/usr/bin/x"));
        assert_eq!(merged(Path::new("/etc/x")), Path::new("/etc/x"));
    }
}
