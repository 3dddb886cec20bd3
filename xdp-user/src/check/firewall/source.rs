//! Reads the rules of this host through `nft` and `iptables-save`. Rules that cannot be read are a
//! finding.

use super::super::Finding;
use super::ruleset::Table;
use super::{iptables, nft};
use crate::sys::distribution::{Software, install};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The rules, and findings about reading them.
#[derive(Default)]
pub(super) struct Ruleset {
    pub(super) tables: Vec<Table>,
    pub(super) findings: Vec<Finding>,
    /// False when some rules could not be read.
    pub(super) complete: bool,
}

const CODE: &str = "firewall";
const REASON: &str = "most packets bypass the rules; packets that the kernel has to fragment do not, and while ikenat is not attached no packet does";

pub(super) fn all() -> Ruleset {
    let mut rules = Ruleset {
        complete: true,
        ..Ruleset::default()
    };
    legacy(&mut rules);
    modern(&mut rules);
    rules
}

impl Ruleset {
    fn not_checked(&mut self, what: String, fix: Option<String>) {
        self.complete = false;
        let mut finding = Finding::not_checked(CODE, what, REASON);
        finding.fix.extend(fix);
        self.findings.push(finding);
    }

    fn read(&mut self, what: String) {
        self.findings.push(Finding::ok(CODE, what, REASON));
    }
}

/// Searches PATH and the administrator's directories, which are not in every user's PATH.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// Runs a program that only prints; `None` when it is not installed.
fn run_tool(program: &str, arguments: &[&str]) -> Option<Result<String, String>> {
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
                line.unwrap_or("failed without a message").trim()
            ))
        }
        Err(error) => Err(format!("{program}: {}", crate::error::word(&error))),
    })
}

/// The output of one kind of `iptables-save`, and the name of the iptables program of that kind. The
/// plain name may be of either kind; the first line of its output says which.
fn saved(kind: &str, modern: bool) -> Option<Result<(String, String), String>> {
    let named = format!("iptables-{kind}-save");
    if let Some(answer) = run_tool(&named, &[]) {
        return Some(answer.map(|text| (text, format!("iptables-{kind}"))));
    }
    match run_tool("iptables-save", &[])? {
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

/// The kernel lists the existing legacy tables. If there are none, no program is run, because running
/// one would load the kernel module.
fn legacy(rules: &mut Ruleset) {
    const NAMES: &str = "/proc/thread-self/net/ip_tables_names";
    let present = match fs::read_to_string(NAMES) {
        Ok(text) => text.split_whitespace().collect::<Vec<_>>().join(", "),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            let reason = crate::error::word(&error);
            return rules.not_checked(format!("{NAMES}: {reason}"), None);
        }
    };
    if present.is_empty() {
        return rules.read("no legacy iptables tables".to_owned());
    }
    match saved("legacy", false) {
        Some(Ok((text, program))) => {
            let tables = iptables::parse(&text, &program);
            rules.read(format!("legacy iptables tables: {}", names(&tables)));
            rules.tables.extend(tables);
        }
        Some(Err(error)) => rules.not_checked(format!("legacy iptables tables ({present}): {error}"), None),
        None => rules.not_checked(
            format!("legacy iptables tables exist ({present}), but iptables-legacy-save is not installed"),
            install(Software::Iptables),
        ),
    }
}

/// Whether this table is managed by iptables-nft. nft prints only the names of its matches.
fn is_of_iptables(table: &Table) -> bool {
    const NAMES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];
    const CHAINS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    let ip = table.syntax == super::ruleset::Syntax::Nft("ip".to_owned());
    let chain = |name: &str| {
        table
            .chains
            .get(name)
            .is_some_and(|chain| chain.base.is_some())
    };
    ip && NAMES.contains(&table.name.as_str()) && CHAINS.iter().any(|name| chain(name))
}

fn modern(rules: &mut Ruleset) {
    let answer = match run_tool("nft", &["-j", "list", "ruleset"]) {
        Some(answer) => answer,
        None => {
            return rules.not_checked(
                "nft is not installed".to_owned(),
                install(Software::Nftables),
            );
        }
    };
    let tables = answer.and_then(|json| {
        nft::parse(&json).map_err(|error| format!("unexpected output of nft: {error}"))
    });
    let mut tables = match tables {
        Ok(tables) => tables,
        Err(error) => return rules.not_checked(error, None),
    };
    if tables.iter().any(is_of_iptables) {
        match saved("nft", true) {
            Some(Ok((text, program))) => {
                tables.retain(|table| !is_of_iptables(table));
                let of_iptables = iptables::parse(&text, &program);
                rules.read(format!("{program} tables: {}", names(&of_iptables)));
                rules.tables.extend(of_iptables);
            }
            Some(Err(error)) => rules.not_checked(error, None),
            None => rules.not_checked(
                "tables of iptables-nft exist, but iptables-nft-save is not installed".to_owned(),
                install(Software::Iptables),
            ),
        }
    }
    if tables.is_empty() {
        rules.read("no nft tables".to_owned());
    } else {
        rules.read(format!("nft tables: {}", names(&tables)));
    }
    rules.tables.extend(tables);
}
