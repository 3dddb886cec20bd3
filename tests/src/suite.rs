//! Test runner for the lab tests: each test gets a lab of its own, load tests run alone, and a test
//! that this machine cannot run is reported as ignored, with the reason in its name (a skip is not
//! a pass).

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{PoisonError, RwLock};

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

use crate::lab::topology::with_lab;
use crate::lab::{Host, Lab, Options, cleanup};

/// Tests that measure or load the machine lock it for writing, all others for reading.
static MACHINE: RwLock<()> = RwLock::new(());

/// Set in a guest of `cargo xtask vm`, which has its network cards and kernel to itself.
const GUEST: &str = "IKENAT_TEST_GUEST";

/// A test: its requirements and its function.
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
    /// A test in the default lab.
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

    /// A test that takes a network card or a part of the kernel from the machine, named
    /// `NAME@guest`: `cargo xtask vm` runs tests with that suffix even in its short mode. In a
    /// guest, a missing requirement is a failure.
    pub fn in_a_guest(name: &str, test: fn(&Lab) -> Result<()>) -> Self {
        Self::new(format!("{name}@guest"), test).alone().only_with(
            GUEST,
            "it takes from the machine what only a guest of `cargo xtask vm` has to spare",
        )
    }

    /// One test for each kind of host, named `NAME@HOST`.
    pub fn on_every_host(name: &str, test: fn(&Lab) -> Result<()>) -> Vec<Self> {
        Host::ALL.map(|host| Self::on_host(name, host, test)).into()
    }

    /// A test on one kind of host, named `NAME@HOST`.
    pub fn on_host(name: &str, host: Host, test: fn(&Lab) -> Result<()>) -> Self {
        let options = Options {
            host,
            ..Options::default()
        };
        Self::new(format!("{name}@{}", host.name()), test)
            .with_options(options)
            .with_programs(host.programs())
    }

    /// Runs the test in a lab with these options.
    pub fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Runs the test while no other test of this process runs.
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Ignores the test unless these programs are installed.
    pub fn with_programs(mut self, programs: &'static [&'static str]) -> Self {
        self.programs.extend(programs);
        self
    }

    /// Ignores the test unless this environment variable is set, for the reason `why`.
    pub fn only_with(mut self, variable: &'static str, why: &'static str) -> Self {
        self.variable = Some((variable, why));
        self
    }

    /// Ignores the test if it is `useless` here, for the reason `why`.
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

/// A test; if there is an obstacle, it is ignored and its name states the obstacle.
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

/// The obstacle for a test that needs root, if this process is not root.
pub fn not_root() -> Option<String> {
    (!nix::unistd::geteuid().is_root()).then(|| "not root".to_owned())
}

/// Runs the scenarios that the command line selects; for `main` of a test without a harness.
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
    // The PATH of an unprivileged shell often lacks the sbin directories.
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|directory| directory.join(program).is_file())
}
