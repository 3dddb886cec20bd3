//! Four kinds of gateway hosts: the sysctls and firewall rules that an administrator or another
//! program has set before `ikenat` starts.

use anyhow::Result;

use super::netns::Namespace;
use super::topology::WAN;

/// What is set up on the gateway besides its addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Host {
    /// `ip_forward` and nothing else.
    #[default]
    Plain,
    /// A firewall: FORWARD drops what no rule accepts, and conntrack looks at every packet.
    ForwardDropConntrack,
    /// MASQUERADE on the WAN, and the rules that Docker makes.
    MasqueradeAndDocker,
    /// `ip_forward` is off: it was turned off while `ikenat` ran, since `ikenat` does not start
    /// without forwarding.
    NoIpForward,
}

impl Host {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Plain,
        Self::ForwardDropConntrack,
        Self::MasqueradeAndDocker,
        Self::NoIpForward,
    ];

    /// The suffix of test names that stands for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::ForwardDropConntrack => "forward_drop",
            Self::MasqueradeAndDocker => "docker",
            Self::NoIpForward => "no_ip_forward",
        }
    }

    /// Whether its kernel forwards between WAN and LAN the packets that ikenat leaves to it.
    pub const fn kernel_forwards(self) -> bool {
        matches!(self, Self::Plain)
    }

    /// The programs that its setup needs.
    pub const fn programs(self) -> &'static [&'static str] {
        match self {
            Self::MasqueradeAndDocker => &["iptables-restore"],
            Self::Plain | Self::ForwardDropConntrack | Self::NoIpForward => &[],
        }
    }

    /// Sets it up on a gateway that is otherwise complete.
    pub(crate) fn set_up(self, gateway: &Namespace) -> Result<()> {
        match self {
            Self::Plain => {}
            Self::ForwardDropConntrack => {
                gateway.shell(FIREWALL)?;
            }
            Self::MasqueradeAndDocker => {
                gateway.shell(&docker())?;
            }
            Self::NoIpForward => {
                gateway.run("sysctl -qw net.ipv4.ip_forward=0")?;
            }
        }
        Ok(())
    }

    /// Adds the rule with which an administrator of this host accepts the VPN's packets in FORWARD.
    pub(crate) fn accept_forward(self, gateway: &Namespace) -> Result<()> {
        let rule = match self {
            Self::Plain => return Ok(()),
            Self::ForwardDropConntrack => "nft insert rule inet firewall forward accept",
            Self::MasqueradeAndDocker => "iptables -I DOCKER-USER -j ACCEPT",
            Self::NoIpForward => "sysctl -qw net.ipv4.ip_forward=1",
        };
        gateway.run(rule)?;
        Ok(())
    }
}

/// What distributions and textbooks propose for a router.
const FIREWALL: &str = "nft -f - <<'RULES'
table inet firewall {
    chain input {
        type filter hook input priority filter; policy accept;
        ct state invalid drop
        ct state established,related accept
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state invalid drop
        ct state established,related accept
    }
    chain output {
        type filter hook output priority filter; policy accept;
        ct state invalid drop
    }
}
RULES";

/// The rules, in the format of `iptables-save`, of a host that runs Docker with one published port
/// and masquerades a home network.
fn docker() -> String {
    format!(
        "ip link add docker0 type bridge
         ip address add 172.17.0.1/16 dev docker0
         ip link set docker0 up
         iptables-restore <<'RULES'
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -o {WAN} -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
RULES"
    )
}
