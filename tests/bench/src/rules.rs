//! The rules for the kernel's own methods of forwarding: iptables, nftables and IPVS.

use anyhow::{Context, Result, bail};
use ikenat_tests::lab::netns::Namespace;
use ikenat_tests::lab::topology::{LAN, SERVER, VIP, WAN};

use crate::results::Contestant;

/// Installs the rules of a contestant, with room for this many flows.
///
/// # Errors
/// The kernel or a tool lacks what it needs.
pub(crate) fn apply(gateway: &Namespace, contestant: Contestant, flows: u32) -> Result<()> {
    let script = match contestant {
        Contestant::Forwarding => String::new(),
        Contestant::Iptables => iptables(),
        Contestant::Nft => nft(""),
        Contestant::NftFlowtable => nft(&format!(
            "add flowtable ip bench fast {{ hook ingress priority 0; devices = {{ {WAN}, {LAN} }}; }}
             add chain ip bench forward {{ type filter hook forward priority 0; }}
             add rule ip bench forward ip protocol udp flow add @fast"
        )),
        Contestant::Ipvs => ipvs(),
        Contestant::Cable
        | Contestant::Pass
        | Contestant::Noop
        | Contestant::Ikenat
        | Contestant::IkenatTwin
        | Contestant::IkenatGeneric
        | Contestant::IkenatOneArmed
        | Contestant::IkenatServices
        | Contestant::Broken => bail!("{contestant:?} needs no rules"),
    };
    if script.is_empty() {
        return Ok(());
    }
    gateway.shell(&script)?;
    // IPVS has a table of its own.
    if contestant != Contestant::Ipvs {
        room(gateway, flows)?;
    }
    Ok(())
}

/// Makes room in conntrack for every flow, so that it is not the limit. The limit of the first
/// network namespace applies to all, and is only ever raised here.
fn room(gateway: &Namespace, flows: u32) -> Result<()> {
    // Some more entries, for other traffic in the namespaces.
    let wanted = u64::from(flows) * 2 + 1_024;
    gateway
        .shell(&format!(
            "have=$(cat /proc/sys/net/netfilter/nf_conntrack_max)
         [ \"$have\" -ge {wanted} ] || echo {wanted} > /proc/sys/net/netfilter/nf_conntrack_max"
        ))
        .context("failed to make room in conntrack")?;
    Ok(())
}

fn iptables() -> String {
    let mut lines = Vec::new();
    let dnat = format!("-j DNAT --to-destination {SERVER}");
    let snat = format!("-j SNAT --to-source {VIP}");
    for port in [500, 4500] {
        lines.push(format!(
            "iptables -t nat -A PREROUTING -d {VIP}/32 -p udp --dport {port} {dnat}"
        ));
        lines.push(format!(
            "iptables -t nat -A POSTROUTING -o {WAN} -s {SERVER}/32 -p udp --sport {port} {snat}"
        ));
    }
    lines.push(format!(
        "iptables -t nat -A PREROUTING -d {VIP}/32 -p esp {dnat}"
    ));
    lines.push(format!(
        "iptables -t nat -A POSTROUTING -o {WAN} -s {SERVER}/32 -p esp {snat}"
    ));
    lines.join("\n")
}

fn nft(more: &str) -> String {
    format!(
        "nft -f - <<'RULES'
add table ip bench
add chain ip bench pre {{ type nat hook prerouting priority dstnat; }}
add rule ip bench pre ip daddr {VIP} udp dport {{ 500, 4500 }} dnat to {SERVER}
add rule ip bench pre ip daddr {VIP} ip protocol esp dnat to {SERVER}
add chain ip bench post {{ type nat hook postrouting priority srcnat; }}
add rule ip bench post oifname {WAN} ip saddr {SERVER} udp sport {{ 500, 4500 }} snat to {VIP}
add rule ip bench post oifname {WAN} ip saddr {SERVER} ip protocol esp snat to {VIP}
{more}
RULES"
    )
}

fn ipvs() -> String {
    let mut lines = Vec::new();
    for port in [500, 4500] {
        lines.push(format!("ipvsadm -A -u {VIP}:{port} -s rr"));
        lines.push(format!("ipvsadm -a -u {VIP}:{port} -r {SERVER}:{port} -m"));
    }
    // By now ipvsadm has loaded the module, if there is one.
    lines.push("sysctl -qw net.ipv4.vs.conntrack=0".to_owned());
    lines.join("\n")
}
