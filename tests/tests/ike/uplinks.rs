//! One VPN server behind two uplinks with a VIP each, and a client of each VIP: what reaches a client
//! comes from its own VIP, by its own uplink, whatever happens to the daemon and to the tables.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ikenat_tests::lab::capture::PacketSocket;
use ikenat_tests::lab::frames::{Captured, protocol};
use ikenat_tests::lab::ikenat::Ikenat;
use ikenat_tests::lab::json::State;
use ikenat_tests::lab::netns::Namespace;
use ikenat_tests::lab::process::Process;
use ikenat_tests::lab::second_wan::{FAR_CLIENT, WAN_2, WAN_2_ADDRESS, second_wan, start_office};
use ikenat_tests::lab::strongswan::{
    End, Ends, INNER_CLIENT, INNER_SERVER, Settings, Tunnel, Version,
};
use ikenat_tests::lab::topology::{CLIENT, PEER, SERVER, VIP, WAN};
use ikenat_tests::lab::{Host, Lab, Options};
use ikenat_tests::suite::Scenario;
use nix::sys::signal::Signal;

use super::answers::{Name, Payload, gaps, name};
use super::tables::empty_tables;
use super::{PATIENCE, PINGS, QUICK};

pub(crate) fn scenarios() -> Vec<Scenario> {
    // Without programs, the gateway's kernel forwards nothing of the server's as it is.
    let firewall = Options {
        host: Host::ForwardDropConntrack,
        ..Options::default()
    };
    let scenario = |one: Scenario| one.with_options(firewall);
    vec![
        scenario(Scenario::new(
            "two_clients_of_two_uplinks_keep_their_vips",
            |lab| restarts(lab, Version::V2),
        )),
        scenario(Scenario::new(
            "two_clients_of_two_uplinks_keep_their_vips_by_ikev1",
            |lab| restarts(lab, Version::V1),
        )),
        scenario(Scenario::new(
            "two_clients_of_two_uplinks_keep_their_vips_without_tables",
            emptied,
        )),
    ]
}

/// Nothing comes for so long once all have been answered.
pub(super) const SILENCE: Duration = Duration::from_millis(300);
/// The clients are behind routers of the two providers: only the VIP says whose packet it is.
const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 20);
const INNER_FAR: &str = "10.10.3.1";

/// A client, its tunnel and its wire.
struct Client<'lab> {
    namespace: &'lab Namespace,
    wire: PacketSocket,
    tunnel: Tunnel<'lab>,
    address: Ipv4Addr,
    vip: Ipv4Addr,
}

/// The clients of the first and of the second uplink, and by which version of IKE they have their tunnels.
struct Office<'lab>([Client<'lab>; 2], Version);

/// What has come to a client from its VIP, and what was for the other one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Came {
    ike: u32,
    esp: u32,
    astray: Vec<Name>,
}

impl Client<'_> {
    /// Reads what has come since the last call, until it is enough and nothing more comes. What is not
    /// enough in time is the caller's to judge.
    fn until(&self, other: Option<Ipv4Addr>, enough: impl Fn(&Came) -> bool) -> Result<Came> {
        let (mut all, deadline) = (Came::default(), Instant::now() + PATIENCE);
        while !enough(&all) && Instant::now() < deadline {
            let came = self.came(other)?;
            all.ike += came.ike;
            all.esp += came.esp;
            all.astray.extend(came.astray);
        }
        Ok(all)
    }

    /// Reads what has come since the last call. Anything that is not from its own VIP is an error;
    /// so is a packet for another address, unless it is for `other`.
    fn came(&self, other: Option<Ipv4Addr>) -> Result<Came> {
        let mut came = Came::default();
        while let Some(frame) = self.wire.receive(SILENCE)? {
            let Ok(ip) = Captured::read(&frame) else {
                continue;
            };
            if ip.protocol != protocol::UDP {
                continue;
            }
            ensure!(
                ip.source == self.vip
                    && (ip.destination == self.address || Some(ip.destination) == other),
                "from {} to {} at the client {} of {}",
                ip.source,
                ip.destination,
                self.address,
                self.vip
            );
            match Payload::of(&ip.body) {
                _ if ip.destination != self.address => came.astray.push(name(&ip.body)),
                Payload::Ike => came.ike += 1,
                Payload::Esp => came.esp += 1,
                Payload::Keepalive => {}
            }
        }
        Ok(came)
    }
}

impl<'lab> Office<'lab> {
    fn new(
        lab: &'lab Lab,
        (far, far_wire): (&'lab Namespace, PacketSocket),
        version: Version,
    ) -> Result<Self> {
        lab.client
            .run(&format!("ip address add {NEAR}/32 dev lo"))?;
        far.run(&format!("ip address add {FAR}/32 dev lo"))?;
        let ends = |name, namespace, address, responder, inner| Ends {
            name,
            namespaces: [namespace, &lab.server],
            addresses: [address, SERVER],
            responder,
            inner: [inner, INNER_SERVER],
        };
        let near_ends = ends("near-", &lab.client, NEAR, VIP, INNER_CLIENT);
        let far_ends = ends("far-", far, FAR, WAN_2_ADDRESS, INNER_FAR);
        let near_wire = PacketSocket::open(&lab.client, PEER)?;
        let settings = Settings {
            version,
            ..Settings::default()
        };
        let near = Tunnel::between(lab, near_ends, settings)?;
        let far_tunnel = near.beside(lab, far_ends, settings)?;
        let client = |namespace, wire, tunnel, address, vip| Client {
            namespace,
            wire,
            tunnel,
            address,
            vip,
        };
        let clients = [
            client(&lab.client, near_wire, near, NEAR, VIP),
            client(far, far_wire, far_tunnel, FAR, WAN_2_ADDRESS),
        ];
        Ok(Self(clients, version))
    }

    /// Both do something at once.
    fn both<T: Send>(&self, each: impl Fn(&Client<'_>) -> Result<T> + Sync) -> Result<[T; 2]> {
        let [near, far] = &self.0;
        thread::scope(|scope| {
            let near = scope.spawn(|| each(near));
            let far = each(far).context("the client of the second uplink")?;
            let near = near
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                .context("the client of the first uplink")?;
            Ok([near, far])
        })
    }

    /// Both bring their tunnels up.
    fn connect(&self) -> Result<()> {
        self.both(|client| client.tunnel.initiate())?;
        for came in self.both(|client| client.until(None, |came| came.ike >= 2))? {
            ensure!(
                came.ike >= 2 && came.esp == 0,
                "to IKE_SA_INIT and IKE_AUTH: {came:?}"
            );
        }
        Ok(())
    }

    /// Both rekey and ping: each request has its answer, from the own VIP.
    fn talk(&self) -> Result<()> {
        self.both(|client| {
            client.tunnel.rekey_child()?;
            client.tunnel.ping(PINGS, QUICK)
        })?;
        // The answers to CREATE_CHILD_SA and to the deletion of the old SA; in IKEv1 that to quick mode.
        let ike = match self.1 {
            Version::V1 => 1,
            Version::V2 => 2,
        };
        let enough = |came: &Came| came.esp >= PINGS && came.ike >= ike;
        for came in self.both(|client| client.until(None, enough))? {
            ensure!(came.esp == PINGS && came.ike >= ike, "{came:?}");
        }
        Ok(())
    }

    /// Both ping while something else is done. Returns for each how many pings had no answer, and
    /// for the client of the second uplink how many answers to it came by the first.
    fn while_both_send(&self, lab: &Lab, act: impl FnOnce() -> Result<()>) -> Result<[Lost; 2]> {
        let at_server = PacketSocket::open(&lab.server, PEER)?;
        let start = |client| Pings::start(lab, client);
        let [near, far] = self.0.each_ref().map(start);
        let (near, far) = (near?, far?);
        for pings in [&near, &far] {
            pings.wait_for_more()?;
        }
        act()?;
        for pings in [&near, &far] {
            pings.wait_for_more()?;
        }
        let sent = [near.stop()?, far.stop()?];
        let [near, far] = &self.0;
        let came = [near.came(Some(FAR))?, far.came(None)?];
        ensure!(
            came[0].esp <= sent[0] && came[1].esp <= sent[1],
            "{came:?} came to {sent:?} pings"
        );
        let strays = &came[0].astray;
        let gaps = gaps(&at_server, FAR, strays)?;
        let count = u32::try_from(strays.len())?;
        let lost = |at: usize, (astray, gaps)| Lost {
            lost: sent[at] - came[at].esp,
            astray,
            gaps,
        };
        Ok([lost(0, (0, 0)), lost(1, (count, gaps))])
    }
}

/// What became of a client's pings.
#[derive(Clone, Copy, Debug)]
struct Lost {
    lost: u32,
    astray: u32,
    /// Between how many pairs of successive requests those have left the server.
    gaps: usize,
}

/// Pings of a client through its tunnel until they are stopped.
struct Pings<'a, 'lab> {
    client: &'a Client<'lab>,
    process: Process,
}

impl<'a, 'lab> Pings<'a, 'lab> {
    fn start(lab: &Lab, client: &'a Client<'lab>) -> Result<Self> {
        let inner = if client.vip == VIP {
            INNER_CLIENT
        } else {
            INNER_FAR
        };
        let mut command = client.namespace.command("ping");
        command.args(["-n", "-q", "-i", "0.01", "-I", inner, INNER_SERVER]);
        let process = Process::spawn(&mut command, lab.log(&format!("ping-{inner}")))?;
        Ok(Self { client, process })
    }

    /// Waits until its tunnel has had twenty more answers.
    fn wait_for_more(&self) -> Result<()> {
        let answers = || -> Result<u64> {
            let sa = self.client.tunnel.installed_sa(End::Client)?;
            Ok(sa.packets_in)
        };
        let (before, deadline) = (answers()?, Instant::now() + 5 * PATIENCE);
        while answers()? < before + 20 {
            ensure!(
                Instant::now() < deadline,
                "{} gets no answers",
                self.client.address
            );
            thread::sleep(QUICK);
        }
        Ok(())
    }

    /// Ends it and returns how many were sent.
    fn stop(mut self) -> Result<u32> {
        self.process.signal(Signal::SIGINT)?;
        self.process.wait(PATIENCE)?;
        let log = self.process.log();
        let words = log.split_once(" packets transmitted");
        let sent = words.and_then(|(before, _)| before.rsplit('\n').next());
        let sent = sent.with_context(|| format!("ping has not counted: {log}"))?;
        Ok(sent.parse()?)
    }
}

/// Both clients have a tunnel through ikenat, and have used it. The gateway's table leads to both by the first uplink.
fn opened<'lab>(
    lab: &'lab Lab,
    far: &'lab Namespace,
    far_wire: PacketSocket,
    version: Version,
) -> Result<(Office<'lab>, Ikenat)> {
    let office = Office::new(lab, (far, far_wire), version)?;
    lab.gateway.shell(&format!(
        "ip route add default via {CLIENT} dev {WAN}
         ip route add default via {FAR_CLIENT} dev {WAN_2} metric 100"
    ))?;
    let ikenat = start_office(lab)?;
    office.connect()?;
    office.talk()?;
    Ok((office, ikenat))
}

fn restarts(lab: &Lab, version: Version) -> Result<()> {
    let (far, far_wire) = second_wan(lab)?;
    let (office, first) = opened(lab, &far, far_wire, version)?;
    first.terminate()?;
    office.talk().context("the daemon has ended")?;
    let second = start_office(lab)?;
    office.talk().context("another daemon runs")?;
    second.kill()?;
    office.talk().context("the daemon was killed")?;
    let _third = start_office(lab)?;
    office.talk().context("a third daemon runs")?;
    let sessions = lab.stats()?.sessions;
    let established = |peer| {
        let session = sessions.iter().find(|one| one.peer == peer);
        session.is_some_and(|one| one.state == State::Established)
    };
    ensure!(
        sessions.len() == 2 && established(NEAR) && established(FAR),
        "{sessions:?}"
    );
    Ok(())
}

fn emptied(lab: &Lab) -> Result<()> {
    let (far, far_wire) = second_wan(lab)?;
    let (office, first) = opened(lab, &far, far_wire, Version::V2)?;
    const TIMES: usize = 3;
    let mut meanwhile = 0;
    let [near, far] = office.while_both_send(lab, || {
        (0..TIMES).try_for_each(|_| {
            meanwhile += empty_tables(lab, &office.0[1].tunnel)?;
            thread::sleep(QUICK * 20);
            Ok(())
        })
    })?;
    println!("emptied three times: {near:?} {far:?}, {meanwhile} meanwhile");
    // Only what the server sends before the client's next packet goes astray, each time. That is two gaps if an
    // answer to the packet before is still on its way.
    ensure!(
        near.lost == 0 && far.lost == far.astray && far.gaps <= 2 * TIMES + meanwhile,
        "{near:?} {far:?}, {meanwhile} meanwhile"
    );
    office.talk().context("the tables were emptied")?;

    let mut ikenat = None;
    let [near, far] = office.while_both_send(lab, || {
        drop(first);
        lab.unload()?;
        ikenat = Some(start_office(lab)?);
        Ok(())
    })?;
    println!("unloaded and started: {near:?} {far:?}");
    ensure!(far.astray == 0, "{near:?} {far:?}");
    office.talk().context("after unload and start")?;

    // What the server begins, before a client has sent anything, leaves from the first VIP.
    drop(ikenat);
    lab.unload()?;
    let _last = start_office(lab)?;
    let [near, far] = &office.0;
    let spi = far.tunnel.installed_sa(End::Client)?.spi_out;
    far.tunnel.rekey_child_by(End::Server)?;
    let came = [
        near.until(Some(FAR), |came| !came.astray.is_empty())?,
        far.came(None)?,
    ];
    ensure!(
        !came[0].astray.is_empty() && came[1] == Came::default(),
        "the server has begun: {came:?}"
    );
    // The client's next packet shows its VIP, and what the server repeats arrives.
    far.tunnel.ping(1, QUICK)?;
    let deadline = Instant::now() + 5 * PATIENCE;
    while !matches!(far.tunnel.installed_sa(End::Client), Ok(sa) if sa.spi_out != spi) {
        ensure!(
            Instant::now() < deadline,
            "the client has not heard the server"
        );
        thread::sleep(QUICK);
    }
    let came = far.until(None, |came| came.ike > 0 && came.esp > 0)?;
    ensure!(came.ike > 0 && came.esp == 1, "{came:?}");
    near.came(Some(FAR))?;
    office.talk().context("the server has rekeyed")
}
