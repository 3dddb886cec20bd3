//! Real network cards in place of veths, on a machine that has two cards on one wire and uses
//! neither: a guest of `cargo xtask vm`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::links::{Interface, mac_text};
use super::netns::execute;

/// Interfaces of the network namespace of this process.
const CLASS: &str = "/sys/class/net";
/// Drivers look for a carrier every other second.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// A network card in another network namespace, with another name and address. On drop it returns
/// with its own name and address.
#[derive(Debug)]
pub(crate) struct Card {
    name: String,
    mac: String,
    /// The file that stands for the namespace.
    place: String,
    /// Its name there.
    there: String,
}

/// Moves both ends of the wire into the lab: the card with this driver becomes `near`, the other
/// one `far`. Both are down.
pub(crate) fn join(driver: &str, near: Interface<'_>, far: Interface<'_>) -> Result<[Card; 2]> {
    let mut found = found()?;
    let at = found.iter().position(|(_, of)| of == driver);
    let at = at.with_context(|| format!("this machine has no {driver}: {found:?}"))?;
    let (first, _) = found.swap_remove(at);
    let [(second, _)] = &found[..] else {
        bail!("it takes one card beside {first}, and there are {found:?}");
    };
    Ok([lend(&first, near)?, lend(second, far)?])
}

/// Names and drivers of the interfaces that have hardware beneath them.
fn found() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(CLASS).with_context(|| format!("failed to list {CLASS}"))? {
        let path = entry
            .with_context(|| format!("failed to list {CLASS}"))?
            .path();
        let Ok(driver) = fs::read_link(path.join("device/driver")) else {
            continue;
        };
        let end = |path: &Path| {
            path.file_name()
                .map(|name| name.to_string_lossy().into_owned())
        };
        found.extend(end(&path).zip(end(&driver)));
    }
    Ok(found)
}

fn lend(name: &str, port: Interface<'_>) -> Result<Card> {
    const UP: u32 = 1;
    let read = |file: &str| {
        let path = Path::new(CLASS).join(name).join(file);
        let text = fs::read_to_string(&path);
        text.with_context(|| format!("failed to read {}", path.display()))
    };
    let flags = read("flags")?;
    let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16);
    let flags = flags.with_context(|| format!("failed to read the flags of {name}"))?;
    ensure!(flags & UP == 0, "{name} is up: somebody uses it");
    let mac = read("address")?.trim().to_owned();
    let to = port.namespace.name();
    execute(Command::new("ip").args(["link", "set", "dev", name, "netns", to]))?;
    // From here on it is returned in any case.
    let mut card = Card {
        name: name.to_owned(),
        mac,
        place: port.namespace.path(),
        there: name.to_owned(),
    };
    port.namespace.run(&format!(
        "ip link set dev {name} name {} address {}",
        port.name,
        mac_text(port.mac)
    ))?;
    card.there = port.name.to_owned();
    Ok(card)
}

impl Card {
    fn ip(&self, words: &str) -> Result<String> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.place)).arg("ip");
        execute(command.args(words.split(' ')))
    }

    /// Waits until it receives from the other end of its wire.
    pub(crate) fn wait_for_carrier(&self) -> Result<()> {
        let began = Instant::now();
        let look = || self.ip(&format!("-br link show dev {}", self.there));
        while !look()?.contains("LOWER_UP") {
            ensure!(began.elapsed() < PATIENCE, "{} hears no peer", self.name);
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        let Self {
            name, mac, there, ..
        } = &*self;
        // A card cannot be renamed while it is up. If this fails, the end of the namespace returns
        // the card, but not its name. The lab's packet sockets make it promiscuous.
        let _ = self.ip(&format!("link set dev {there} down promisc off"));
        let _ = self.ip(&format!("link set dev {there} name {name} address {mac}"));
        let _ = self.ip(&format!("link set dev {name} netns {}", std::process::id()));
    }
}
