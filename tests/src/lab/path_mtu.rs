//! Path MTU discovery (RFC 1191) as a program on the client or the server sees it: it sends with
//! DF, an ICMP error arrives, and its kernel has the path MTU from then on.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result, bail};

use super::netns::{Namespace, execute};

/// Sends with `IP_PMTUDISC_DO` until the kernel refuses, and prints how many packets it accepted
/// before. Rust's standard library cannot set that socket option, and every Debian has perl.
const SENDER: &str = r#"
use Socket; use Errno qw(EMSGSIZE);
my ($from, $from_port, $to, $to_port, $length) = @ARGV;
socket(my $s, PF_INET, SOCK_DGRAM, 0) or die "socket: $!";
setsockopt($s, 0, 10, pack("i", 2)) or die "IP_MTU_DISCOVER: $!";
bind($s, sockaddr_in($from_port, inet_aton($from))) or die "bind: $!";
my $peer = sockaddr_in($to_port, inet_aton($to));
for my $sent (0 .. 300) {
    if (!defined send($s, "\x5a" x $length, 0, $peer)) {
        die "send: $!" unless $! == EMSGSIZE;
        print $sent;
        exit 0;
    }
    select(undef, undef, undef, 0.01);
}
die "no EMSGSIZE";
"#;

/// The programs that a test with it needs.
pub const PROGRAMS: &[&str] = &["perl"];

/// Sends a datagram of `length` bytes with DF until the sender's kernel refuses it as too large
/// (EMSGSIZE). Returns the number of datagrams sent before that; fails if that does not happen
/// within three seconds.
pub fn discover(
    sender: &Namespace,
    from: SocketAddrV4,
    to: SocketAddrV4,
    length: usize,
) -> Result<u32> {
    let words = [
        from.ip().to_string(),
        from.port().to_string(),
        to.ip().to_string(),
        to.port().to_string(),
        length.to_string(),
    ];
    let printed = execute(
        sender
            .command("perl")
            .args(["-e", SENDER, "--"])
            .args(words),
    )
    .with_context(|| format!("{from} sends {length} bytes with DF to {to}"))?;
    printed
        .trim()
        .parse()
        .with_context(|| format!("perl printed {printed:?}"))
}

/// The MTU of the path to an address, where the kernel has learnt one.
pub fn learnt(namespace: &Namespace, to: Ipv4Addr) -> Result<Option<u16>> {
    let route = namespace.run(&format!("ip route get {to}"))?;
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu");
    match (words.next(), words.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(mtu)) => Ok(Some(mtu.parse().with_context(|| route.clone())?)),
        (Some(_), None) => bail!("`ip route get` printed {route}"),
    }
}
