//! `ikenat unload`: detaches the programs of an instance and removes its pins.

use super::run::parse_command_line;
use super::service_filter::select;
use super::{Errors, InstanceFilter, complain, print};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;
use xdp_user::Error;
use xdp_user::bpffs::layout::{self, Instance};
use xdp_user::bpffs::stop::Holder;
use xdp_user::check::{run_command, running};
use xdp_user::config::commands::bpffs_option;
use xdp_user::config::settings::Settings;
use xdp_user::dataplane::detach;
use xdp_user::netlink::Netlink;
use xdp_user::report::wanted_services::WantedServices;
use xdp_user::sys::capabilities;
use xdp_user::tables::removal;

/// Detach everything and remove all pins and counters
///
/// A stopped or killed daemon leaves its programs attached on purpose, so that tunnels survive a
/// restart. `unload` removes them. It refuses while a daemon runs, which should be stopped first.
/// With --force it ends the daemon itself, as SIGTERM does, and after five seconds as SIGKILL does.
///
/// It removes whole instances. To remove one service of several, start `run` again without it;
/// --service NAME prints how, and removes nothing.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Stop the daemon if one runs
    #[arg(long)]
    force: bool,
    /// Remove nothing, and print how this service is removed from its instance
    ///
    /// It may be given any number of times. The exit status is 1, or 0 if nothing is attached.
    #[arg(long, value_name = "NAME")]
    service: Vec<String>,
    #[command(flatten)]
    which: InstanceFilter,
}

/// Runs the subcommand. An instance that cannot be removed keeps none of the others.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let wanted = WantedServices::new(arguments.service.clone());
    if wanted.is_partial() {
        return refuse(&arguments.which, &wanted);
    }
    capabilities::check()?;
    let instances = arguments.which.instances()?;
    if instances.is_empty() {
        return nothing(&arguments.which);
    }
    if let (Some(vip), [first, _, ..]) = (arguments.which.vip, &*instances) {
        let names: Vec<&str> = instances.iter().map(|one| one.name.as_str()).collect();
        bail!(
            "{} instances have the VIP {vip}: {}; name the one to remove with --instance, as in `{}`",
            names.len(),
            names.join(", "),
            first.unload_command()
        );
    }
    let netlink = Netlink::open()?;
    let mut status = ExitCode::SUCCESS;
    for pins in &instances {
        let removed = remove(pins, &netlink, arguments.force).and_then(|text| print(&text));
        if let Err(error) = removed {
            complain(&error);
            status = ExitCode::FAILURE;
        }
    }
    Ok(status)
}

fn nothing(which: &InstanceFilter) -> Result<ExitCode> {
    print(&format!(
        "Nothing to remove: no ikenat{} is attached.\n",
        which.whose()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// All services of an instance have the same programs, and a daemon that runs has them in its command
/// line, as its unit has for the next start. So a service is removed by a start without it.
fn refuse(which: &InstanceFilter, wanted: &WantedServices) -> Result<ExitCode> {
    let found = running(which.bpffs.as_deref(), &which.selector());
    let (mut instances, mut errors) = (Vec::new(), Vec::new());
    for one in found.context("failed to find what is attached")? {
        match one {
            Ok(settings) => instances.push(settings),
            Err(error) => errors.push(error.into()),
        }
    }
    if instances.is_empty() && errors.is_empty() {
        return nothing(which);
    }
    let errors = Errors(errors);
    if !instances.is_empty() {
        select(wanted, &mut instances, &errors, |one| &one.services)?;
    }
    for settings in instances {
        let settings = settings_of_daemon(&settings).unwrap_or(settings);
        complain(&refusal(settings, wanted));
    }
    _ = errors.report();
    Ok(ExitCode::FAILURE)
}

/// The settings of an instance with all options, which only the command line of its daemon has. `None` if no
/// daemon runs, or if this is not its command line.
fn settings_of_daemon(settings: &Settings) -> Option<Settings> {
    let bpffs = layout::bpffs(settings.bpffs.as_deref()).ok()?;
    let pid = Instance::of(&bpffs, &settings.instance).owner()?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = line.strip_suffix(b"\0")?;
    let words: Vec<&OsStr> = line
        .split(|byte| *byte == 0)
        .map(OsStr::from_bytes)
        .collect();
    let given = parse_command_line(&words)?;
    let names = |settings: &Settings| -> BTreeSet<String> {
        let services = settings.services.iter();
        services.map(|service| service.name.clone()).collect()
    };
    let is_it = given.instance == settings.instance && names(&given) == names(settings);
    is_it.then_some(given)
}

/// How services are removed from an instance that has them.
fn refusal(mut settings: Settings, wanted: &WantedServices) -> anyhow::Error {
    let instance = settings.instance.clone();
    let gone = wanted.of(&settings.services);
    let names: Vec<&str> = gone.iter().map(|one| one.name.as_str()).collect();
    let names = names.join(", ");
    settings.services.retain(|one| !gone.contains(one));
    if settings.services.is_empty() {
        let bpffs = settings.bpffs.as_deref();
        let bpffs = bpffs.map_or_else(String::new, bpffs_option);
        return anyhow!(
            "the instance {instance} has no other service than {names}, and nothing is removed: `ikenat unload --instance {instance}{bpffs}` removes the whole instance"
        );
    }
    anyhow!(
        "nothing is removed, because all services of an instance have the same programs: to remove {names} from the instance {instance}, stop its daemon (SIGTERM) and start it without (if a systemd unit starts it, change the command in the unit and restart that); the other services lose no packet, and what {names} has left in the tables is removed within {} s: {}",
        removal::SECONDS,
        run_command(&settings)
    )
}

/// Removes an instance and says what it was.
fn remove(pins: &Instance, netlink: &Netlink, force: bool) -> Result<String> {
    let name = pins.name_and_vips();
    let failed = || format!("failed to remove the instance {name}");
    let (lock, holder) = if force {
        pins.lock_by_force().with_context(failed)?
    } else {
        match pins.lock() {
            Ok(lock) => (Some(lock), Holder::None),
            Err(Error::Locked { whose, .. }) => bail!(
                "an ikenat{whose} runs the instance {name}: stop it first (Ctrl-C, `systemctl stop`), or use --force"
            ),
            Err(error) => return Err(error).with_context(failed),
        }
    };
    let holder = match holder {
        Holder::None => String::new(),
        Holder::Stopped(pid) => format!("stopped process {pid}; "),
        Holder::Killed(pid) => format!("killed process {pid}, which did not end; "),
        Holder::Hidden => {
            "its daemon is in another PID namespace, and ends when it notices; ".to_owned()
        }
    };
    let removed = detach::remove(pins, netlink).with_context(failed)?;
    drop(lock);
    let foreign = match pins.others().as_slice() {
        [] => String::new(),
        names => format!(
            "{name}: {} stays, because it has pins of others: {}.\n",
            pins.directory.display(),
            names.join(", ")
        ),
    };
    if removed.is_empty() {
        let text = "nothing was attached; removed its empty directory";
        let text = if foreign.is_empty() {
            text
        } else {
            "nothing was attached"
        };
        return Ok(format!("{name}: {holder}{text}.\n{foreign}"));
    }
    let (links, maps): (Vec<String>, Vec<String>) = removed
        .into_iter()
        .partition(|name| name.starts_with("link-") || name.starts_with("filter-"));
    let short = |name: &String| {
        let name = name.trim_start_matches("link-");
        name.trim_start_matches("filter-").to_owned()
    };
    let programs: Vec<String> = links.iter().map(short).collect();
    Ok(format!(
        "{name}: {holder}detached {} ({}), removed {} ({}).\n{foreign}",
        count(links.len(), "program"),
        programs.join(", "),
        count(maps.len(), "map"),
        maps.join(", "),
    ))
}

fn count(number: usize, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}
