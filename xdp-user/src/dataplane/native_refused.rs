//! Why a device refuses native XDP, and what to do about it, by the error of the kernel.

use crate::config::commands::quoted;
use crate::error::{Error, causes, errno};
use crate::netlink::Link;
use rustix::io::Errno;

/// The error for a device that refuses native XDP; `option` sets the mode of its side alone.
pub(crate) fn native_refused(
    link: &Link,
    option: &'static str,
    error: &(dyn std::error::Error + 'static),
) -> Error {
    Error::NativeRefused {
        interface: link.name.clone(),
        why: causes(error),
        remedy: remedy(errno(error), link, option),
    }
}

fn remedy(errno: Option<i32>, link: &Link, option: &str) -> String {
    let generic = format!(
        "`{option} generic`, which works on every device and is slower; `--mode generic` sets both sides"
    );
    let (name, mtu, dev) = (&link.name, link.mtu, quoted(&link.name));
    match errno.map(Errno::from_raw_os_error) {
        // ENOTSUPP is no number of the ABI, but some drivers return it.
        Some(Errno::OPNOTSUPP) => no_native_xdp(&generic),
        Some(number) if number.raw_os_error() == 524 => no_native_xdp(&generic),
        Some(Errno::BUSY | Errno::EXIST) => format!(
            "another XDP program has taken its place: `ip -details link show dev {dev}` shows it, `ip link set dev {dev} xdp off` removes one without a link"
        ),
        Some(Errno::PERM | Errno::ACCESS) => format!(
            "this process may not attach there: give it CAP_NET_ADMIN in the user namespace that owns the network namespace of {name}, which is not that of a container"
        ),
        Some(Errno::NOMEM) => format!(
            "there is not enough memory, or the device has not enough transmit queues, of which many drivers need one for each CPU (`ethtool -l {dev}` shows them, `ethtool -L {dev}` changes them): otherwise use {generic}"
        ),
        Some(Errno::NXIO | Errno::NOSPC) => format!(
            "the device has not enough transmit queues, of which many drivers need one for each CPU (`ethtool -l {dev}` shows them, `ethtool -L {dev}` changes them): otherwise use {generic}"
        ),
        Some(Errno::INVAL | Errno::RANGE | Errno::MSGSIZE) => format!(
            "many drivers refuse it with a large MTU (that of {name} is {mtu}) or with LRO: run `ip link set dev {dev} mtu 1500` or `ethtool -K {dev} lro off`, or use {generic}"
        ),
        Some(Errno::NODEV) => format!("{name} has vanished: start ikenat again when it is back"),
        _ => format!("the kernel's log (`dmesg`) may say why; otherwise use {generic}"),
    }
}

fn no_native_xdp(generic: &str) -> String {
    format!(
        "its driver does not support it (bridges, VLAN devices, taps, some NICs): use {generic}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn the_remedy_depends_on_the_kernels_error() {
        let link = Link {
            name: "eth1".to_owned(),
            mtu: 9000,
            ..Link::default()
        };
        let text = |number: i32| {
            let cause = io::Error::from_raw_os_error(number);
            let error = Error::system("attach")(cause);
            native_refused(&link, "--wan-mode", &error).to_string()
        };
        let generic = "`--wan-mode generic`";
        for (number, said, is_generic) in [
            (Errno::OPNOTSUPP, "its driver does not support it", true),
            (Errno::BUSY, "another XDP program", false),
            (Errno::EXIST, "another XDP program", false),
            (Errno::PERM, "CAP_NET_ADMIN", false),
            (Errno::NOMEM, "not enough memory, or", true),
            (Errno::NXIO, "transmit queues", true),
            (Errno::INVAL, "that of eth1 is 9000", true),
            (Errno::IO, "dmesg", true),
        ] {
            let text = text(number.raw_os_error());
            assert!(text.starts_with("eth1 refuses native XDP ("), "{text}");
            assert!(text.contains(said), "{said:?} is not in: {text}");
            assert_eq!(text.contains(generic), is_generic, "{text}");
            assert_eq!(
                text.contains("does not support"),
                number == Errno::OPNOTSUPP,
                "{text}"
            );
        }
        assert!(text(524).contains("its driver does not support it"));
    }

    #[test]
    fn commands_are_about_the_interface_whatever_its_name() {
        let link = Link {
            name: "eth$1".to_owned(),
            ..Link::default()
        };
        for number in [
            Errno::BUSY,
            Errno::EXIST,
            Errno::NOMEM,
            Errno::NXIO,
            Errno::NOSPC,
            Errno::INVAL,
        ] {
            let text = remedy(Some(number.raw_os_error()), &link, "--wan-mode");
            let commands = text.split('`').skip(1).step_by(2);
            let about = commands.filter(|command| command.contains("eth"));
            let about: Vec<&str> = about.filter(|command| *command != "ethtool").collect();
            assert!(about.len() > 1, "{text}");
            for command in about {
                assert!(command.contains("'eth$1'"), "{command}");
            }
        }
    }
}
