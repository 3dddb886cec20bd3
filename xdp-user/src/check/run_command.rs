//! The command line that starts ikenat with given settings, for a fix that can be pasted.

use crate::config::commands::{quoted, quoted_path};
use crate::config::instance_name;
use crate::config::interfaces::Side;
use crate::config::peer_lists::Lists;
use crate::config::services::Service;
use crate::config::settings::{Mode, Modes, Settings, Sizes, Tc};
use xdp_common::limits;

/// What the tables of a running instance do not hold.
const MISSING: &str = "# and --except-peer, --deny, --group, --idle-timeout and --log-sessions as at the last start, if it had them";

/// The command line. Options with their default value are left out. What the tables of a running
/// instance do not hold cannot be given, so a comment says that it is missing.
pub fn run_command(settings: &Settings) -> String {
    // Without `..`, so that a new setting is not forgotten here.
    let Settings {
        instance,
        wans,
        lans,
        services,
        modes,
        dry_run,
        tc,
        sizes,
        idle_secs,
        log_sessions,
        bpffs,
        group,
        complete,
    } = settings;
    let mut words = vec!["ikenat run".to_owned()];
    if instance != instance_name::DEFAULT {
        words.push(format!("--instance {instance}"));
    }
    words.extend(wans.iter().map(|name| format!("--wan {}", quoted(name))));
    words.extend(lans.iter().map(|name| format!("--lan {}", quoted(name))));
    words.extend(services.iter().map(Service::arguments));
    // They are options of the instance, so all services have the same.
    let usual = Lists::default();
    let first = services.first();
    let lists = first.map_or(&usual, |service| &service.lists);
    let dedicated = first.is_some_and(|service| service.dedicated);
    words.extend(mode_option(*modes).map(str::to_owned));
    words.extend(
        lists
            .except
            .iter()
            .map(|one| format!("--except-peer {one}")),
    );
    words.extend(lists.deny.iter().map(|one| format!("--deny {one}")));
    let flags = [
        (dedicated, "--dedicated"),
        (*dry_run, "--dry-run"),
        (*log_sessions, "--log-sessions"),
    ];
    words.extend(
        flags
            .iter()
            .filter(|(set, _)| *set)
            .map(|(_, name)| (*name).to_owned()),
    );
    match tc {
        Tc::Auto => {}
        Tc::Tcx => words.push("--tc tcx".to_owned()),
        Tc::Clsact => words.push("--tc clsact".to_owned()),
    }
    let Sizes {
        flow_slots,
        session_slots,
    } = *sizes;
    let numbers = [
        ("--flow-slots", flow_slots, limits::FLOW_SLOTS),
        ("--session-slots", session_slots, limits::SESSION_SLOTS),
        ("--idle-timeout", *idle_secs, limits::IDLE_SECS),
    ];
    let changed = numbers.iter().filter(|(_, value, usual)| value != usual);
    words.extend(changed.map(|(option, value, _)| format!("{option} {value}")));
    words.extend(group.map(|group| format!("--group {group}")));
    words.extend(
        bpffs
            .iter()
            .map(|path| format!("--bpffs {}", quoted_path(path))),
    );
    if !complete {
        words.push(MISSING.to_owned());
    }
    words.join(" ")
}

fn mode_option(modes: Modes) -> Option<&'static str> {
    let generic = |side| modes.of(side) == Mode::Generic;
    match (generic(Side::Wan), generic(Side::Lan)) {
        (false, false) => None,
        (true, true) => Some("--mode generic"),
        (true, false) => Some("--wan-mode generic"),
        (false, true) => Some("--lan-mode generic"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::peer_lists::prefix;
    use std::net::Ipv4Addr;
    use std::path::PathBuf;

    const USUAL: &str =
        "ikenat run --wan eth1 --wan eth2 --lan eth0 --vip 203.0.113.1 --server 192.168.0.1";

    fn settings() -> Settings {
        let vip = Ipv4Addr::new(203, 0, 113, 1);
        Settings {
            wans: vec!["eth1".to_owned(), "eth2".to_owned()],
            lans: vec!["eth0".to_owned()],
            ..Settings::new(vip, Ipv4Addr::new(192, 168, 0, 1))
        }
    }

    #[test]
    fn defaults_are_left_out() {
        assert_eq!(run_command(&settings()), USUAL);
    }

    #[test]
    fn words_with_characters_of_the_shell_are_quoted() {
        let settings = Settings {
            wans: vec!["eth$1".to_owned(), "eth2".to_owned()],
            bpffs: Some(PathBuf::from("/run/my bpf")),
            ..settings()
        };
        let quoted = USUAL.replace("eth1", "'eth$1'");
        let command = run_command(&settings);
        assert_eq!(command, format!("{quoted} --bpffs '/run/my bpf'"));
    }

    #[test]
    fn each_mode_has_its_option() {
        let mut settings = settings();
        settings.modes.lan = Mode::Generic;
        assert_eq!(
            run_command(&settings),
            format!("{USUAL} --lan-mode generic")
        );
        settings.modes.wan = Mode::Generic;
        assert_eq!(run_command(&settings), format!("{USUAL} --mode generic"));
        settings.modes.lan = Mode::Native;
        assert_eq!(
            run_command(&settings),
            format!("{USUAL} --wan-mode generic")
        );
    }

    /// Who pastes a fix must not lose a list of denied peers by it.
    #[test]
    fn every_option_is_kept() {
        let mut settings = settings();
        let list = |text| vec![prefix(text).expect("a prefix")];
        settings.services[0].lists.except = list("198.51.100.0/24");
        settings.services[0].lists.deny = list("192.0.2.7");
        settings.services[0].dedicated = true;
        settings.dry_run = true;
        settings.log_sessions = true;
        settings.tc = Tc::Clsact;
        settings.sizes = Sizes {
            flow_slots: 131_072,
            session_slots: 64,
        };
        settings.idle_secs = 600;
        settings.group = Some(50);
        settings.bpffs = Some(PathBuf::from("/bpf"));
        let more = "--except-peer 198.51.100.0/24 --deny 192.0.2.7/32 --dedicated --dry-run \
                    --log-sessions --tc clsact --flow-slots 131072 --session-slots 64 \
                    --idle-timeout 600 --group 50 --bpffs /bpf";
        assert_eq!(run_command(&settings), format!("{USUAL} {more}"));
    }

    #[test]
    fn what_the_tables_do_not_hold_is_said() {
        let settings = Settings {
            complete: false,
            ..settings()
        };
        assert_eq!(run_command(&settings), format!("{USUAL} {MISSING}"));
    }
}
