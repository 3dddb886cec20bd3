//! Changes of the host that the kernel notifies: which of them make flows look up their next hops
//! again, and what the log says of the VIP.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::Lab;
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::load::Load;
use ikenat_tests::lab::topology::{CLIENT, LAN, SERVER, VIP, WAN};
use ikenat_tests::suite::Scenario;

use super::neighbours::{lan_egress, settled};
use crate::support::{everything_crosses, no_loss, patience, tenth_rate};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("changes_of_others_invalidate_no_next_hop", others).alone(),
        Scenario::new("changes_of_what_is_used_invalidate_next_hops", used).alone(),
        Scenario::new("a_vip_that_is_gone_and_back_is_logged", vip),
    ]
}

/// What a host with containers and a BGP feed does all the time.
fn others(lab: &Lab) -> Result<()> {
    const ROUNDS: usize = 20;
    let _ikenat = Ikenat::start(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    load.flows()?;
    settled(lab)?;
    let before = lan_egress(lab)?;
    let began = Instant::now();
    for round in 0..ROUNDS {
        lab.gateway.shell(&format!(
            "ip link add va type veth peer name vb
             ip address add 172.17.0.1/16 dev va
             ip link set va up; ip link set vb up; ip link set va mtu 1400
             ip neighbour replace 172.17.0.2 lladdr 02:00:00:00:17:{round:02x} dev va
             ip neighbour replace 192.168.0.77 lladdr 02:00:00:00:18:{round:02x} dev {LAN}
             for net in 1 2 3 4 5; do ip route add 10.{round}.$net.0/24 via {CLIENT} dev {WAN}; done
             ip link del va"
        ))?;
        let now = lan_egress(lab)?;
        ensure!(
            now == before,
            "round {round}: {now:x} instead of {before:x}"
        );
    }
    // Invalidations are a second apart at most, and the last event is due by now as well.
    std::thread::sleep(Duration::from_secs(2).saturating_sub(began.elapsed()));
    std::thread::sleep(Duration::from_millis(100));
    let now = lan_egress(lab)?;
    ensure!(now == before && now != 0, "{now:x} instead of {before:x}");
    load.flows()?;
    no_loss(&load.losses("changes of other interfaces and of routes to no peer")?)
}

fn used(lab: &Lab) -> Result<()> {
    let _ikenat = Ikenat::start(lab)?;
    let load = Load::start(lab, tenth_rate()?, tenth_rate()?)?;
    load.flows()?;
    for change in [
        // To a peer that has a session, and to the server.
        format!("ip route add {CLIENT}/32 dev {WAN}"),
        format!("ip route add {SERVER}/32 dev {LAN}"),
        format!("ip route add default via {CLIENT} dev {WAN}"),
        format!("ip nexthop add id 7 via {CLIENT} dev {WAN}"),
        "ip rule add from 10.9.9.9 lookup main".to_owned(),
        format!("ip address add 192.168.9.1/24 dev {LAN}"),
        // The next packet has it resolved again.
        format!("ip neighbour del {SERVER} dev {LAN}"),
    ] {
        settled(lab)?;
        let before = lan_egress(lab)?;
        lab.gateway.run(&change)?;
        let began = Instant::now();
        while lan_egress(lab)? == before {
            ensure!(
                began.elapsed() < patience(Duration::from_secs(2)),
                "`{change}` invalidates no next hop"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        load.flows().with_context(|| format!("after `{change}`"))?;
    }
    Ok(())
}

fn vip(lab: &Lab) -> Result<()> {
    let ikenat = Ikenat::start(lab)?;
    everything_crosses(lab)?;
    let gone = format!("{VIP}: not an address of this host any more");
    let back = format!("{VIP}: an address of this host again");
    // Another address in its place, as from a DHCP server, and then another interface that goes.
    for (change, said, times) in [
        (
            format!("ip address add 203.0.113.77/24 dev {WAN}; ip address del {VIP}/24 dev {WAN}"),
            &gone,
            [1, 0],
        ),
        (
            format!("ip link add va type veth peer name vb; ip address add {VIP}/32 dev va"),
            &back,
            [1, 1],
        ),
        ("ip link del va".to_owned(), &gone, [2, 1]),
        (format!("ip address add {VIP}/24 dev {WAN}"), &back, [2, 2]),
    ] {
        lab.gateway.shell(&change)?;
        let counts = || [&gone, &back].map(|text| ikenat.log().matches(text.as_str()).count());
        let began = Instant::now();
        while counts() != times {
            ensure!(
                began.elapsed() < patience(Duration::from_secs(10)),
                "after `{change}` the log does not say {said:?}:\n{}",
                ikenat.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    everything_crosses(lab)
}
