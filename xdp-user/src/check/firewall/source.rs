//! Asks for the rules: the legacy tables of iptables and those of nft, by the programs that know their languages.
//!
//! It may not know what the rules mean. That one cannot look is a finding.

use super::super::Finding;
use super::ruleset::Table;
use super::{iptables, nft};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What was read, and what of it could not be.
#[derive(Default)]
pub(super) struct Rules {
    pub(super) tables: Vec<Table>,
    pub(super) findings: Vec<Finding>,
    /// False when something could not be looked at.
    pub(super) complete: bool,
}

const CODE: &str = "firewall";
const WHY: &str = "most packets never meet a rule; those that the kernel itself has to fragment do, and all do while ikenat is not attached";

pub(super) fn all() -> Rules {
    let mut rules = Rules {
        complete: true,
        ..Rules::default()
    };
    legacy(&mut rules);
    modern(&mut rules);
    rules
}

impl Rules {
    fn unseen(&mut self, what: String, mend: Option<&str>) {
        self.complete = false;
        let mut finding = Finding::unseen(CODE, what, WHY);
        finding.mend.extend(mend.map(str::to_owned));
        self.findings.push(finding);
    }

    fn seen(&mut self, what: String) {
        self.findings.push(Finding::ok(CODE, what, WHY));
    }
}

/// Not every shell's PATH has the directories of the administrator.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// Runs a program that only prints. `None`: it is not installed.
fn ask(program: &str, arguments: &[&str]) -> Option<Result<String, String>> {
    let path = find(program)?;
    let output = Command::new(path)
        .args(arguments)
        .stdin(Stdio::null())
        .env("LC_ALL", "C")
        .output();
    Some(match output {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let line = said.lines().find(|line| !line.trim().is_empty());
            Err(format!(
                "{program}: {}",
                line.unwrap_or("it failed and said nothing").trim()
            ))
        }
        Err(error) => Err(format!("{program}: {}", crate::error::word(&error))),
    })
}

/// What the programs of one kind print, and the program that changes what they print. The plain name stands for either
/// kind; which one it is stands in the first line.
fn saved(kind: &str, modern: bool) -> Option<Result<(String, String), String>> {
    let named = format!("iptables-{kind}-save");
    if let Some(answer) = ask(&named, &[]) {
        return Some(answer.map(|text| (text, format!("iptables-{kind}"))));
    }
    match ask("iptables-save", &[])? {
        Ok(text) if text.is_empty() || text.contains("(nf_tables)") == modern => {
            Some(Ok((text, "iptables".to_owned())))
        }
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    }
}

fn names(tables: &[Table]) -> String {
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    names.join(", ")
}

/// The kernel names the tables that there are; where there are none, no program is needed (and asking one would load
/// the module).
fn legacy(rules: &mut Rules) {
    const NAMES: &str = "/proc/thread-self/net/ip_tables_names";
    let present = match fs::read_to_string(NAMES) {
        Ok(text) => text.split_whitespace().collect::<Vec<_>>().join(", "),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            let why = crate::error::word(&error);
            return rules.unseen(format!("{NAMES}: {why}"), None);
        }
    };
    if present.is_empty() {
        return rules.seen("no legacy tables of iptables".to_owned());
    }
    match saved("legacy", false) {
        Some(Ok((text, program))) => {
            let tables = iptables::parse(&text, &program);
            rules.seen(format!("legacy tables of iptables: {}", names(&tables)));
            rules.tables.extend(tables);
        }
        Some(Err(error)) => rules.unseen(format!("legacy tables of iptables ({present}): {error}"), None),
        None => rules.unseen(
            format!("there are legacy tables of iptables ({present}), and iptables-legacy-save is not installed"),
            Some("apt-get install iptables"),
        ),
    }
}

/// Whether iptables keeps this table: nft prints its matches by name alone.
fn is_of_iptables(table: &Table) -> bool {
    const NAMES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];
    const CHAINS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    let ip = table.language == super::ruleset::Language::Nft("ip".to_owned());
    let chain = |name: &str| {
        table
            .chains
            .get(name)
            .is_some_and(|chain| chain.base.is_some())
    };
    ip && NAMES.contains(&table.name.as_str()) && CHAINS.iter().any(|name| chain(name))
}

fn modern(rules: &mut Rules) {
    let answer = match ask("nft", &["-j", "list", "ruleset"]) {
        Some(answer) => answer,
        None => {
            return rules.unseen(
                "nft is not installed".to_owned(),
                Some("apt-get install nftables"),
            );
        }
    };
    let tables = answer.and_then(|json| {
        nft::parse(&json).map_err(|error| format!("nft prints something else than rules: {error}"))
    });
    let mut tables = match tables {
        Ok(tables) => tables,
        Err(error) => return rules.unseen(error, None),
    };
    if tables.iter().any(is_of_iptables) {
        match saved("nft", true) {
            Some(Ok((text, program))) => {
                tables.retain(|table| !is_of_iptables(table));
                let of_iptables = iptables::parse(&text, &program);
                rules.seen(format!("tables of {program}: {}", names(&of_iptables)));
                rules.tables.extend(of_iptables);
            }
            Some(Err(error)) => rules.unseen(error, None),
            None => rules.unseen(
                "there are tables that iptables keeps in nft, and iptables-nft-save is not installed".to_owned(),
                Some("apt-get install iptables"),
            ),
        }
    }
    if tables.is_empty() {
        rules.seen("no tables of nft's own".to_owned());
    } else {
        rules.seen(format!("tables of nft: {}", names(&tables)));
    }
    rules.tables.extend(tables);
}
