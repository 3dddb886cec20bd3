//! `ikenat unload`: detaches the programs of an instance and removes its pins.

use super::{InstanceFilter, print};
use anyhow::{Context, Result, bail};
use clap::Args;
use xdp_user::Error;
use xdp_user::dataplane::detach;
use xdp_user::netlink::Netlink;
use xdp_user::sys::capabilities;

/// Detach everything and remove all pins and counters
///
/// A stopped or killed daemon leaves its programs attached on purpose, so that tunnels survive a
/// restart. `unload` removes them. It refuses while a daemon runs, which should be stopped first.
/// With --force it removes everything nevertheless, and the daemon ends as soon as it notices.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Remove everything even while a daemon runs
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    which: InstanceFilter,
}

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    capabilities::check()?;
    let instances = arguments.which.instances()?;
    if instances.is_empty() {
        let whose = arguments.which.vip.map(|vip| format!(" for {vip}"));
        return print(&format!(
            "Nothing to remove: no ikenat{} is attached.\n",
            whose.unwrap_or_default()
        ));
    }
    let netlink = Netlink::open()?;
    for pins in &instances {
        let lock = match pins.lock() {
            Ok(lock) => Some(lock),
            Err(Error::Locked { .. }) if arguments.force => None,
            Err(Error::Locked { whose, .. }) => {
                bail!(
                    "an ikenat{whose} is running for {}: stop it first (Ctrl-C, `systemctl stop`), or use --force",
                    pins.vip
                );
            }
            Err(error) => return Err(error).context("failed to remove an instance"),
        };
        let removed = detach::remove(pins, &netlink)
            .with_context(|| format!("failed to remove the instance of {}", pins.vip))?;
        drop(lock);
        if removed.is_empty() {
            print(&format!(
                "{}: nothing was attached; removed its empty directory.\n",
                pins.vip
            ))?;
            continue;
        }
        let (links, maps): (Vec<String>, Vec<String>) = removed
            .into_iter()
            .partition(|name| name.starts_with("link-") || name.starts_with("filter-"));
        print(&format!(
            "{}: detached {} ({}), removed {} ({}).\n",
            pins.vip,
            count(links.len(), "program"),
            links
                .iter()
                .map(|name| name
                    .trim_start_matches("link-")
                    .trim_start_matches("filter-"))
                .collect::<Vec<_>>()
                .join(", "),
            count(maps.len(), "map"),
            maps.join(", "),
        ))?;
    }
    Ok(())
}

fn count(number: usize, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}
