//! `ikenat check`: prints the findings as text or JSON, and sets the exit status.

use super::run::{Arguments as Run, ServiceArgument};
use super::service_filter::select;
use super::{Errors, complain, heading, print};
use anyhow::{Context, Result, anyhow};
use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches, Id};
use std::path::PathBuf;
use std::process::ExitCode;
use xdp_user::bpffs::find::Selector;
use xdp_user::check::{Checks, Finding, InstanceCheck, Level, TunnelNeed, check, running};
use xdp_user::config::settings::Settings;
use xdp_user::netlink::Netlink;
use xdp_user::report::document::Document;
use xdp_user::report::wanted_services::WantedServices;
use xdp_user::tables::services::ServiceRecord;

/// Check everything that forwarding depends on, and print what is wrong and how to fix it
///
/// Changes nothing. Accepts the arguments of `run`, before `run` starts or while it runs; without
/// --wan, --lan, --vip and --server it checks what is attached. Run it in the network namespace of
/// the gateway.
///
/// With --service NAME it prints only the findings about that service and those that are the same for
/// all services.
///
/// Exit status: 0 when there is no error (warnings may be there) among the findings that it prints, 1
/// when there is an error, 2 when the arguments are wrong or there is nothing to check.
#[derive(Args, Clone, Debug)]
// The group of `run`'s arguments has the name that this one would have.
#[group(skip)]
pub(crate) struct Arguments {
    /// Print one JSON document with all findings
    #[arg(long)]
    json: bool,
    /// Say what tables N tunnels need, and whether these are large enough
    #[arg(long, value_name = "N", value_parser = tunnels)]
    tunnels: Option<TunnelNeed>,
    #[command(flatten)]
    scope: Scope,
}

fn tunnels(text: &str) -> Result<TunnelNeed, String> {
    match text.parse() {
        Ok(number) if number > 0 => TunnelNeed::of(number).ok_or_else(|| {
            "no tables are large enough; the largest are for 2097152 tunnels".to_owned()
        }),
        Ok(_) | Err(_) => Err("give a number of tunnels, for example 25000".to_owned()),
    }
}

/// The arguments of `run`, none of them required, and names of services.
#[derive(Clone, Debug)]
struct Scope {
    instances: Instances,
    services: WantedServices,
}

#[derive(Clone, Debug)]
enum Instances {
    /// The arguments that describe an instance were given.
    Given(Box<Run>),
    /// None of those were given: check what is attached.
    Missing {
        wanted: Selector,
        bpffs: Option<PathBuf>,
    },
}

/// With any of these, or a service with its server, all arguments that `run` requires are required;
/// --instance or --vip alone selects an instance, and --service with a name alone a service.
const DESCRIBING: [&str; 3] = ["wan", "lan", "server"];

/// The option of two meanings.
const SERVICE: &str = "service";

fn incomplete() -> clap::Error {
    let sentence = "give all of --wan, --lan, --vip and --server (or --service), or none of them to look at what is attached\n";
    clap::Error::raw(ErrorKind::MissingRequiredArgument, sentence)
}

/// `run` refuses it by the declaration of its arguments; here it depends on the value.
fn conflict() -> clap::Error {
    let sentence = "a service with its server in --service cannot be used with --vip or --server; give one form of both\n";
    clap::Error::raw(ErrorKind::ArgumentConflict, sentence)
}

impl Args for Scope {
    fn augment_args(command: Command) -> Command {
        let never = || Resettable::<Id>::Reset;
        let command = Run::augment_args(command)
            .mut_args(|argument| argument.required(false).required_unless_present(never()));
        command.mut_arg(SERVICE, |argument| {
            argument
                .conflicts_with(never())
                .value_parser(ServiceArgument::given_or_named)
                .value_name("NAME|[NAME:]VIP[,VIP...]=SERVER")
                .help("Only the findings about the service NAME; or VIPs and a server, as in `run`")
                .long_help(
                    "Only the findings about the service NAME and those that are the same for all services; or public addresses and the VPN server behind them, as in `run`\n\n\
                     Both may be given any number of times. NAME is a service of the other --service, or of what is attached.",
                )
        })
    }
    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Scope {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let services = matches.get_many(SERVICE).into_iter().flatten();
        let (mut names, mut is_given) = (Vec::new(), false);
        for service in services {
            match service {
                ServiceArgument::Named(name) => names.push(name.clone()),
                ServiceArgument::Given(_) => is_given = true,
            }
        }
        if is_given
            && ["vip", "server"]
                .iter()
                .any(|name| matches.contains_id(name))
        {
            return Err(conflict());
        }
        let is_described = is_given || DESCRIBING.iter().any(|name| matches.contains_id(name));
        Ok(Self {
            instances: Instances::of(matches, is_described)?,
            services: WantedServices::new(names),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Instances {
    fn of(matches: &ArgMatches, is_described: bool) -> Result<Self, clap::Error> {
        if is_described {
            return match Run::from_arg_matches(matches) {
                Ok(run) if !run.services().is_empty() => Ok(Self::Given(Box::new(run))),
                Ok(_) => Err(incomplete()),
                Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
                    Err(incomplete())
                }
                Err(error) => Err(error),
            };
        }
        Ok(Self::Missing {
            wanted: Selector {
                // Its default value selects nothing.
                name: (matches.value_source("instance") == Some(ValueSource::CommandLine))
                    .then(|| matches.get_one("instance").cloned())
                    .flatten(),
                vip: matches.get_one("vip").copied(),
            },
            bpffs: matches.get_one("bpffs").cloned(),
        })
    }

    /// The settings of each, or why they cannot be read.
    fn settings(&self) -> Result<Vec<xdp_user::Result<Settings>>> {
        match self {
            Self::Given(run) => Ok(vec![Ok(run.settings())]),
            Self::Missing { wanted, bpffs } => match running(bpffs.as_deref(), wanted) {
                // Without a BPF file system nothing can be attached.
                Err(xdp_user::Error::NoBpffs { .. }) => Ok(Vec::new()),
                found => found.context("failed to look at what is attached"),
            },
        }
    }
}

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let Scope {
        instances,
        services: wanted,
    } = &arguments.scope;
    let found = instances.settings()?;
    let tunnels = arguments.tunnels;
    if found.is_empty() && tunnels.is_none() {
        complain(&anyhow!(
            "nothing is attached, so say what to look at: ikenat check --wan IF --lan IF --vip A --server A, as for `ikenat run`"
        ));
        return Ok(ExitCode::from(2));
    }
    let (mut subjects, mut errors) = (Vec::new(), Vec::new());
    for one in found {
        match one {
            Ok(subject) => subjects.push(subject),
            Err(error) => errors.push(error.into()),
        }
    }
    let errors = Errors(errors);
    if !subjects.is_empty()
        && let Err(unknown) = select(wanted, &mut subjects, &errors, |one| &one.services)
    {
        complain(&unknown);
        return Ok(ExitCode::from(2));
    }
    let netlink = Netlink::open().context("failed to look at this host")?;
    let mut checks = Vec::new();
    for subject in &subjects {
        let shown = wanted.of(&subject.services);
        checks.push(InstanceCheck {
            instance: subject.instance.clone(),
            services: shown.iter().map(ServiceRecord::of).collect(),
            findings: check(subject, wanted, &netlink, tunnels)
                .context("failed to look at this host")?,
        });
    }
    let worst = checks.iter().flat_map(|check| &check.findings);
    let worst = worst.map(|finding| finding.level).max();
    if checks.is_empty() && tunnels.is_none() {
        return Ok(errors.report());
    }
    if arguments.json {
        print(&Document::now(Checks { tunnels, checks }).indented()?)?;
    } else {
        // With an instance it is one of its findings.
        let alone = tunnels.filter(|_| checks.is_empty());
        let alone = alone.map(|need| need.text() + "\n");
        let texts: Vec<String> = alone.into_iter().chain(checks.iter().map(text)).collect();
        print(&texts.join("\n"))?;
    }
    let status = errors.report();
    Ok(if worst == Some(Level::Error) {
        ExitCode::FAILURE
    } else {
        status
    })
}

fn text(check: &InstanceCheck) -> String {
    let mut text = heading(&check.instance, &check.services) + "\n\n";
    let on = |finding: &Finding| {
        let both = [&finding.on, &finding.service].into_iter().flatten();
        both.cloned().collect::<Vec<_>>().join(" ")
    };
    let widest = check
        .findings
        .iter()
        .map(|finding| finding.code.len() + on(finding).len() + 1);
    let widest = widest.max().unwrap_or_default();
    for finding in &check.findings {
        let level = match finding.level {
            Level::Ok => "OK",
            Level::Warning => "WARNING",
            Level::Error => "ERROR",
        };
        let about = format!("{} {}", finding.code, on(finding));
        text.push_str(&format!(
            "{level:<8} {about:<widest$}  {}\n",
            finding.message
        ));
        if finding.level != Level::Ok {
            text.push_str(&format!("         reason: {}\n", finding.reason));
            for command in &finding.fix {
                text.push_str(&format!("         fix:    {command}\n"));
            }
        }
    }
    let count = |level| {
        check
            .findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    };
    text.push_str(&format!(
        "\n{} OK; warnings: {}; errors: {}\n",
        count(Level::Ok),
        count(Level::Warning),
        count(Level::Error)
    ));
    text
}
