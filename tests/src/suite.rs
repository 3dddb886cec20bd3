//! Runs trials in labs: each in a lab of its own, those with load alone on the machine, and those
//! that this machine cannot run ignored under a name that says why (a skip is not a pass).
//!
//! Knows what trials need; knows nothing of what they do.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{PoisonError, RwLock};

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

use crate::lab::topology::with_lab;
use crate::lab::{Host, Lab, Options, cleanup};

/// Trials that measure or load the machine take it for writing.
static MACHINE: RwLock<()> = RwLock::new(());

/// Set in a guest of `cargo xtask vm`, whose cards and kernel nobody else uses.
const GUEST: &str = "IKENAT_TEST_GUEST";

/// What one trial needs and does.
pub struct Scenario {
    name: String,
    options: Options,
    alone: bool,
    programs: Vec<&'static str>,
    variable: Option<(&'static str, &'static str)>,
    useless: Option<&'static str>,
    test: fn(&Lab) -> Result<()>,
}

impl Scenario {
    /// A trial in the usual lab.
    pub fn new(name: impl Into<String>, test: fn(&Lab) -> Result<()>) -> Self {
        Self {
            name: name.into(),
            options: Options::default(),
            alone: false,
            programs: Vec::new(),
            variable: None,
            useless: None,
            test,
        }
    }

    /// A trial that takes a card or a part of the kernel from the machine, named `NAME@guest`: `cargo xtask vm` runs those
    /// of that name even when it is in a hurry. What is missing there is a failure.
    pub fn in_a_guest(name: &str, test: fn(&Lab) -> Result<()>) -> Self {
        Self::new(format!("{name}@guest"), test).alone().only_with(
            GUEST,
            "it takes from the machine what only a guest of `cargo xtask vm` has to spare",
        )
    }

    /// A trial under each kind of host, named after it: `NAME@HOST`.
    pub fn on_every_host(name: &str, test: fn(&Lab) -> Result<()>) -> Vec<Self> {
        Host::ALL.map(|host| Self::on_host(name, host, test)).into()
    }

    /// A trial on one kind of host, named after it.
    pub fn on_host(name: &str, host: Host, test: fn(&Lab) -> Result<()>) -> Self {
        let options = Options {
            host,
            ..Options::default()
        };
        Self::new(format!("{name}@{}", host.name()), test)
            .with_options(options)
            .with_programs(host.programs())
    }

    /// In a lab with these options.
    pub fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// While no other trial of this process runs.
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Only where these programs are installed.
    pub fn with_programs(mut self, programs: &'static [&'static str]) -> Self {
        self.programs.extend(programs);
        self
    }

    /// Only where this environment variable is set, because it does something that not everybody wants.
    pub fn only_with(mut self, variable: &'static str, why: &'static str) -> Self {
        self.variable = Some((variable, why));
        self
    }

    /// Not where there is nothing to try, for this reason.
    pub fn unless(mut self, useless: bool, why: &'static str) -> Self {
        self.useless = useless.then_some(why);
        self
    }

    fn obstacle(&self) -> Option<String> {
        const ALWAYS: [&str; 5] = ["ip", "nsenter", "sysctl", "ethtool", "nft"];
        if let Some(why) = not_root() {
            return Some(why);
        }
        if let Some((variable, why)) = self.variable
            && std::env::var_os(variable).is_none()
        {
            return Some(format!("{why}: set {variable}=1"));
        }
        if let Some(why) = self.useless {
            return Some(why.to_owned());
        }
        let programs = ALWAYS.iter().chain(&self.programs);
        let missing: Vec<&str> = programs
            .copied()
            .filter(|program| !installed(program))
            .collect();
        (!missing.is_empty()).then(|| format!("not installed: {}", missing.join(", ")))
    }

    fn into_test(self) -> Trial {
        let obstacle = self.obstacle();
        test(&self.name, obstacle, move || {
            let test = self.test;
            if self.alone {
                let _machine = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
                with_lab(self.options, test)
            } else {
                let _machine = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
                with_lab(self.options, test)
            }
        })
    }
}

/// A trial; where something is in its way, it is ignored under a name that says what.
pub fn test(
    name: &str,
    obstacle: Option<String>,
    run: impl FnOnce() -> Result<()> + Send + 'static,
) -> Trial {
    let full = match &obstacle {
        Some(why) => format!("{name} [ignored: {why}]"),
        None => name.to_owned(),
    };
    let run = || run().map_err(|error| Failed::from(format!("{error:#}")));
    Trial::test(full, run).with_ignored_flag(obstacle.is_some())
}

/// What is in the way of a trial that takes root.
pub fn not_root() -> Option<String> {
    (!nix::unistd::geteuid().is_root()).then(|| "not root".to_owned())
}

/// Runs the scenarios as the command line says; for `main` of a test without a harness.
pub fn run(scenarios: Vec<Scenario>) -> ExitCode {
    let arguments = Arguments::from_args();
    if let Err(error) = cleanup::on_interruption() {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let tests = scenarios.into_iter().map(Scenario::into_test).collect();
    libtest_mimic::run(&arguments, tests).exit_code()
}

fn installed(program: &str) -> bool {
    // Not every shell's PATH has the directories of the administrator.
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|directory| directory.join(program).is_file())
}
