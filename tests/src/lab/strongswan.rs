//! Two real strongSwan daemons, one behind the client's address and one behind the VIP, with ESP in
//! user space (which works on kernels without ESP).

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

pub use super::ends::Ends;
use super::netns::execute;
use super::process::Process;
use super::topology::Lab;
use super::{certificates, swanctl, vici};

/// The client's address inside the tunnel.
pub const INNER_CLIENT: &str = "10.10.1.1";
/// The server's address inside the tunnel.
pub const INNER_SERVER: &str = "10.10.2.1";

pub(crate) const CHILD: &str = "net";

/// The server has its end of a tunnel after so long.
const READY: Duration = Duration::from_secs(5);

/// The version of IKE, and for version 1 the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IKEv1, main mode.
    V1,
    /// IKEv2.
    V2,
}

/// How the peers prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// A pre-shared key.
    Psk,
    /// Certificates, which make IKE_AUTH larger than a packet.
    Certificates,
}

/// What differs between tunnels.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Which IKE.
    pub version: Version,
    /// Which proof.
    pub authentication: Authentication,
    /// IKE messages with more bytes than this are sent as IKE fragments (RFC 7383). With `None`
    /// each is one datagram of any size, which the kernel fragments.
    pub fragment_size: Option<u32>,
    /// Bytes that the certificates are longer than they need to be, as long chains are.
    pub certificate_padding: usize,
    /// NAT-keepalives are sent after this many idle seconds.
    pub keep_alive_secs: u32,
    /// The ends may move to other addresses (RFC 4555).
    pub mobike: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: Version::V2,
            authentication: Authentication::Psk,
            fragment_size: Some(1280),
            certificate_padding: 0,
            keep_alive_secs: 20,
            mobike: false,
        }
    }
}

/// Which end of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The initiator.
    Client,
    /// The responder.
    Server,
}

/// One IPsec SA pair as strongSwan counts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildSa {
    /// `INSTALLED`, `REKEYED`, `DELETED` (kept for stragglers), ...
    pub state: String,
    /// Whether ESP goes in UDP.
    pub encapsulated: bool,
    /// SPI of what this end receives.
    pub spi_in: u32,
    /// SPI of what this end sends.
    pub spi_out: u32,
    /// Packets received.
    pub packets_in: u64,
    /// Packets sent.
    pub packets_out: u64,
}

/// Both daemons, configured; killed when dropped.
#[derive(Debug)]
pub struct Tunnel<'lab> {
    ends: Ends<'lab>,
    client: Daemon,
    server: Arc<Daemon>,
}

#[derive(Debug)]
struct Daemon {
    process: Process,
    directory: PathBuf,
}

impl<'lab> Tunnel<'lab> {
    /// Starts both daemons and loads their configuration; nothing is sent yet.
    pub fn configure(lab: &'lab Lab, settings: Settings) -> Result<Self> {
        Self::between(lab, Ends::usual(lab), settings)
    }

    /// The same between other ends.
    pub fn between(lab: &'lab Lab, ends: Ends<'lab>, settings: Settings) -> Result<Self> {
        let server = Arc::new(Daemon::start(lab, &ends, End::Server, settings)?);
        Self::to_server(lab, ends, settings, server)
    }

    /// One more client of the same responder. The ends have another name, and another address
    /// of the client inside the tunnel.
    pub fn beside(&self, lab: &'lab Lab, ends: Ends<'lab>, settings: Settings) -> Result<Self> {
        self.server
            .add(&swanctl::connection(&ends, End::Server, settings))?;
        Self::to_server(lab, ends, settings, Arc::clone(&self.server))
    }

    fn to_server(
        lab: &'lab Lab,
        ends: Ends<'lab>,
        settings: Settings,
        server: Arc<Daemon>,
    ) -> Result<Self> {
        for (namespace, inner) in ends.namespaces.into_iter().zip(ends.inner) {
            namespace.run(&format!("ip address replace {inner}/32 dev lo"))?;
        }
        let client = Daemon::start(lab, &ends, End::Client, settings)?;
        Ok(Self {
            ends,
            client,
            server,
        })
    }

    fn daemon(&self, end: End) -> &Daemon {
        match end {
            End::Client => &self.client,
            End::Server => &self.server,
        }
    }

    /// Brings the tunnel up and says how long that took.
    pub fn initiate(&self) -> Result<Duration> {
        let began = Instant::now();
        self.client
            .swanctl(&["--initiate", "--child", CHILD, "--timeout", "20"])?;
        let took = began.elapsed();
        // With IKEv1 the client sends the last message (RFC 2409 section 5.5), and the server drops ESP
        // until it has read it.
        let deadline = Instant::now() + READY;
        while let Err(error) = self.installed_sa(End::Server) {
            ensure!(Instant::now() < deadline, "at the server: {error:#}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(took)
    }

    /// Rekeys the child SA, which gives new SPIs.
    pub fn rekey_child(&self) -> Result<()> {
        self.rekey_child_by(End::Client)
    }

    /// The same, begun by either end.
    pub fn rekey_child_by(&self, end: End) -> Result<()> {
        let connection = self.ends.connection();
        self.daemon(end)
            .swanctl(&["--rekey", "--ike", &connection, "--child", CHILD])?;
        Ok(())
    }

    /// Ends the tunnel.
    pub fn terminate(&self) -> Result<()> {
        self.client.swanctl(&[
            "--terminate",
            "--ike",
            &self.ends.connection(),
            "--timeout",
            "10",
        ])?;
        Ok(())
    }

    /// The IPsec SAs that one end has of this tunnel.
    pub fn child_sas(&self, end: End) -> Result<Vec<ChildSa>> {
        let text = self.daemon(end).swanctl(&["--list-sas", "--raw"])?;
        let mut children = Vec::new();
        let mut all = vici::events(&text, "list-sa")?;
        all.retain(|(connection, _)| *connection == self.ends.connection());
        for (_, ike) in all {
            let Some(Value::Object(sas)) = ike.get("child-sas") else {
                continue;
            };
            for (name, sa) in sas {
                let Value::Object(sa) = sa else { continue };
                children.push(
                    ChildSa::read(sa)
                        .with_context(|| format!("failed to read SA {name}: {sa:?}"))?,
                );
            }
        }
        Ok(children)
    }

    /// The one installed SA of an end.
    pub fn installed_sa(&self, end: End) -> Result<ChildSa> {
        let mut installed = self.child_sas(end)?;
        installed.retain(|sa| sa.state == "INSTALLED");
        ensure!(
            installed.len() == 1,
            "{end:?} has these SAs installed: {installed:?}"
        );
        Ok(installed.remove(0))
    }

    /// Sends pings through the tunnel and fails unless each is answered.
    ///
    /// ping waits only two round trips for the last answer (iputils, `finish` and `-W` in ping(8)),
    /// which is milliseconds here: an answer that a daemon delayed for longer looks lost. So a
    /// missing answer is looked up in the counters of the client's SA.
    pub fn ping(&self, count: u32, interval: Duration) -> Result<()> {
        let before = self.answers()?;
        let [from, to] = self.ends.inner;
        let mut command = self.ends.namespaces[0].command("ping");
        command.args(["-n", "-q", "-W", "2", "-I", from]);
        command.args(["-c", &count.to_string()]);
        command.args(["-i", &format!("{:.3}", interval.as_secs_f64())]);
        let output = command.arg(to).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let sent = format!("{count} packets transmitted, ");
        ensure!(text.contains(&sent), "ping did not send {count}:\n{text}");
        if text.contains(&format!("{sent}{count} received, 0% packet loss")) {
            return Ok(());
        }
        ensure!(!text.contains("duplicates"), "pings came twice:\n{text}");
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            let arrived: u64 = self
                .answers()?
                .iter()
                .map(|(spi, packets)| packets - before.get(spi).copied().unwrap_or(0).min(*packets))
                .sum();
            if arrived == u64::from(count) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("pings were lost:\n{text}")
    }

    /// What the client's SAs have received, by SPI.
    fn answers(&self) -> Result<BTreeMap<u32, u64>> {
        let sas = self.child_sas(End::Client)?;
        Ok(sas.iter().map(|sa| (sa.spi_in, sa.packets_in)).collect())
    }

    /// What a daemon has logged.
    pub fn log(&self, end: End) -> String {
        self.daemon(end).process.log()
    }

    /// The shell command that queries a daemon: `swanctl ARGUMENTS --uri ...`.
    pub fn uri(&self, end: End) -> String {
        self.daemon(end).uri()
    }
}

impl ChildSa {
    fn read(sa: &Map<String, Value>) -> Result<Self> {
        let text = |key: &str| {
            sa.get(key)
                .and_then(Value::as_str)
                .with_context(|| format!("no {key}"))
        };
        let spi = |key: &str| Ok::<_, anyhow::Error>(u32::from_str_radix(text(key)?, 16)?);
        Ok(Self {
            state: text("state")?.to_owned(),
            encapsulated: text("encap").is_ok_and(|encap| encap == "yes"),
            spi_in: spi("spi-in")?,
            spi_out: spi("spi-out")?,
            packets_in: text("packets-in")?.parse()?,
            packets_out: text("packets-out")?.parse()?,
        })
    }
}

impl Daemon {
    fn start(lab: &Lab, ends: &Ends<'_>, end: End, settings: Settings) -> Result<Self> {
        let (name, namespace) = match end {
            End::Client => ("client", ends.namespaces[0]),
            End::Server => ("server", ends.namespaces[1]),
        };
        let name = format!("{}{name}", ends.name);
        let directory = lab.directory().join(&name);
        for part in ["conf.d", "x509", "x509ca", "private"] {
            let path = directory.join("swanctl").join(part);
            fs::create_dir_all(&path)
                .with_context(|| format!("failed to create {}", path.display()))?;
        }
        if settings.authentication == Authentication::Certificates {
            certificates::install(
                lab.directory(),
                &directory.join("swanctl"),
                &ends.identities()[end as usize],
                settings.certificate_padding,
            )?;
        }
        let write = |file: &str, text: String| {
            let path = directory.join(file);
            fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
        };
        write("strongswan.conf", swanctl::daemon(&directory, settings))?;
        write(
            "swanctl/swanctl.conf",
            swanctl::connection(ends, end, settings),
        )?;

        let mut command = namespace.command("charon-systemd");
        command.env("STRONGSWAN_CONF", directory.join("strongswan.conf"));
        let process = Process::spawn(&mut command, lab.log(&format!("charon-{name}")))?;
        let mut daemon = Self { process, directory };
        daemon.wait_for_socket()?;
        daemon.swanctl(&["--load-all"])?;
        Ok(daemon)
    }

    /// Loads more configuration beside what it has.
    fn add(&self, text: &str) -> Result<()> {
        let path = self.directory.join("swanctl/swanctl.conf");
        let file = OpenOptions::new().append(true).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("failed to add to {}", path.display()))?;
        self.swanctl(&["--load-all"])?;
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("vici")
    }

    fn uri(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn wait_for_socket(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        // The file appears a moment before the daemon listens.
        while UnixStream::connect(self.socket()).is_err() {
            let ended = self.process.ended()?;
            ensure!(
                ended.is_none() && Instant::now() < deadline,
                "charon-systemd did not open its socket (ended: {ended:?}):\n{}",
                self.process.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn swanctl(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("swanctl");
        command
            .args(words)
            .args(["--uri", &self.uri()])
            .env("SWANCTL_DIR", self.directory.join("swanctl"))
            .env("STRONGSWAN_CONF", self.directory.join("strongswan.conf"));
        execute(&mut command)
    }
}
