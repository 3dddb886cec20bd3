//! The commands that install software on this host's distribution.

use std::fs;

/// What can be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Software {
    /// The distribution's newest kernel.
    Kernel,
    /// The programs of iptables.
    Iptables,
    /// nft.
    Nftables,
}

/// Where the distribution is described (os-release(5)).
const RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// The command that installs something here; `None` on a distribution that is not known.
pub(crate) fn install(software: Software) -> Option<String> {
    let release = RELEASE
        .iter()
        .find_map(|path| fs::read_to_string(path).ok())?;
    install_on(&release, software)
}

/// The names of a distribution and of those that it is made from, the nearest first.
fn names(release: &str) -> Vec<&str> {
    let value = |key: &str| {
        let mut lines = release.lines();
        let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches(['"', '\''])
    };
    let all = value("ID").split_whitespace();
    all.chain(value("ID_LIKE").split_whitespace()).collect()
}

fn install_on(release: &str, software: Software) -> Option<String> {
    // The kernels of RHEL and its derivatives have other numbers than what is in them.
    let names = names(release);
    let is_enterprise = names.contains(&"rhel");
    let (command, kernel) = names.iter().find_map(|name| match *name {
        "ubuntu" => Some(("apt-get install", Some("linux-image-generic"))),
        "debian" => Some(("apt-get install", Some("linux-image-amd64"))),
        "rhel" | "fedora" => Some(("dnf install", Some("kernel").filter(|_| !is_enterprise))),
        "suse" | "opensuse" => Some(("zypper install", Some("kernel-default"))),
        "arch" => Some(("pacman -S", Some("linux"))),
        "alpine" => Some(("apk add", Some("linux-lts"))),
        _ => None,
    })?;
    let package = match software {
        Software::Kernel => kernel?,
        Software::Iptables => "iptables",
        Software::Nftables => "nftables",
    };
    Some(format!("{command} {package}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_that_of_the_distribution() {
        for (release, kernel, nftables) in [
            (
                "NAME=\"Debian GNU/Linux\"\nID=debian\n",
                Some("apt-get install linux-image-amd64"),
                Some("apt-get install nftables"),
            ),
            (
                "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n",
                Some("apt-get install linux-image-generic"),
                Some("apt-get install nftables"),
            ),
            (
                "ID=fedora\n",
                Some("dnf install kernel"),
                Some("dnf install nftables"),
            ),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n",
                None,
                Some("dnf install nftables"),
            ),
            (
                "ID='opensuse-leap'\nID_LIKE='suse opensuse'\n",
                Some("zypper install kernel-default"),
                Some("zypper install nftables"),
            ),
            (
                "ID=arch\n",
                Some("pacman -S linux"),
                Some("pacman -S nftables"),
            ),
            ("ID=nixos\n", None, None),
            ("", None, None),
        ] {
            let command = |software| install_on(release, software);
            assert_eq!(command(Software::Kernel).as_deref(), kernel, "{release}");
            assert_eq!(
                command(Software::Nftables).as_deref(),
                nftables,
                "{release}"
            );
        }
    }
}
