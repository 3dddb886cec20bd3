//! A tunnel of another host behind the gateway, to a far gateway of its own, beside a client of the
//! server.

use std::net::Ipv4Addr;
use std::thread;

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::netns::Namespace;
use ikenat_tests::lab::strongswan::{Ends, Settings, Tunnel, Version};
use ikenat_tests::lab::topology::{CLIENT, PEER, VIP, WAN};
use ikenat_tests::suite::Scenario;

use super::{PINGS, QUICK, agree};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let with = |one: Scenario| one.with_programs(&["iptables"]);
    vec![with(Scenario::new(
        "a_lan_hosts_tunnel_beside_a_clients",
        beside,
    ))]
}

/// The other host, and the far gateway.
const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// The other host on a network of its own, whose addresses the gateway translates.
fn lan_host(lab: &Lab) -> Result<Namespace> {
    let host = lab.add_namespace("host")?;
    lab.gateway.shell(&format!(
        "ip link add lan1 type veth peer name {PEER} netns {host}
         ip address add 192.168.1.254/24 dev lan1; ip link set lan1 up
         ip route add 198.51.100.0/24 via {CLIENT}
         iptables -t nat -A POSTROUTING -o {WAN} -j MASQUERADE",
        host = host.name()
    ))?;
    host.shell(&format!(
        "ip address add {HOST}/24 dev {PEER}; ip link set {PEER} up
         ip route add default via 192.168.1.254"
    ))?;
    Ok(host)
}

/// The far gateway, behind the client's network.
fn far_gateway(lab: &Lab) -> Result<Namespace> {
    let far = lab.add_namespace("far")?;
    lab.client.shell(&format!(
        "ip link add far0 type veth peer name {PEER} netns {far}
         ip address add 198.51.100.254/24 dev far0; ip link set far0 up
         sysctl -qw net.ipv4.ip_forward=1",
        far = far.name()
    ))?;
    far.shell(&format!(
        "ip address add {FAR}/24 dev {PEER}; ip link set {PEER} up
         ip route add default via 198.51.100.254"
    ))?;
    Ok(far)
}

fn beside(lab: &Lab) -> Result<()> {
    let (host, far) = (lan_host(lab)?, far_gateway(lab)?);
    let _ikenat = Ikenat::start(lab)?;
    let client = Tunnel::configure(lab, Settings::default())?;
    client.initiate()?;
    client.ping(PINGS, QUICK)?;
    for (name, version) in [("own-v2-", Version::V2), ("own-v1-", Version::V1)] {
        let ends = Ends {
            name,
            namespaces: [&host, &far],
            addresses: [HOST, FAR],
            responder: FAR,
            inner: ["10.20.1.1", "10.20.2.1"],
        };
        let settings = Settings {
            version,
            ..Settings::default()
        };
        let own = Tunnel::between(lab, ends, settings)?;
        own.initiate()
            .with_context(|| format!("{version:?} of the host behind the gateway"))?;
        thread::scope(|scope| -> Result<()> {
            let beside = scope.spawn(|| client.ping(PINGS, QUICK));
            own.ping(PINGS, QUICK)?;
            own.rekey_child()?;
            own.ping(PINGS, QUICK)?;
            beside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
    }
    agree(lab, &client, 3 * PINGS)?;
    let status = lab.status()?;
    let ports: Vec<_> = status
        .host_peers
        .iter()
        .map(|one| (one.peer, one.vip_port))
        .collect();
    ensure!(
        ports.contains(&(FAR, Some(500))) && ports.contains(&(FAR, Some(4500))) && ports.len() == 2,
        "the peers of {VIP} itself are {ports:?}"
    );
    // A new client comes to the server all the same.
    client.terminate()?;
    client.initiate()?;
    client.ping(PINGS, QUICK)
}
