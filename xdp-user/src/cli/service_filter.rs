//! `--service NAME`: which services a subcommand is about.

use super::Errors;
use anyhow::Result;
use clap::Args;
use xdp_user::report::wanted_services::{HasServiceName, WantedServices};

/// The option, where it has no other meaning.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServiceFilter {
    /// Only what belongs to this service, of all instances that have it
    ///
    /// It may be given any number of times. What the services of an instance share remains as it is:
    /// programs, tables, totals and outcomes.
    #[arg(long, value_name = "NAME")]
    service: Vec<String>,
}

impl ServiceFilter {
    /// The services that are wanted.
    pub(super) fn wanted(&self) -> WantedServices {
        WantedServices::new(self.service.clone())
    }
}

/// Leaves out instances without a service that is wanted. An instance that cannot be read may have one
/// that is not found, so such errors come before that one.
pub(super) fn select<T, S: HasServiceName>(
    wanted: &WantedServices,
    found: &mut Vec<T>,
    errors: &Errors,
    services: impl Fn(&T) -> &[S],
) -> Result<()> {
    wanted.select(found, services).map_err(|unknown| {
        _ = errors.report();
        unknown.into()
    })
}
