//! The services that `--service NAME` selects, for every verb that has it.

use crate::config::services::Service;
use crate::error::{Result, ServiceError};
use crate::tables::services::ServiceRecord;

/// Whatever has the name of a service.
pub trait HasServiceName {
    /// The name.
    fn name(&self) -> &str;
}

impl HasServiceName for ServiceRecord {
    fn name(&self) -> &str {
        &self.name
    }
}

impl HasServiceName for Service {
    fn name(&self) -> &str {
        &self.name
    }
}

/// The services that are wanted, by name; all without a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedServices(Vec<String>);

impl WantedServices {
    /// Those of these names.
    pub const fn new(names: Vec<String>) -> Self {
        Self(names)
    }

    /// Whether some may be left out.
    pub const fn is_partial(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether the service of a name is wanted.
    pub fn wants(&self, name: &str) -> bool {
        !self.is_partial() || self.0.iter().any(|wanted| wanted == name)
    }

    /// Those of an instance.
    pub fn of<S: HasServiceName + Clone>(&self, services: &[S]) -> Vec<S> {
        let wanted = services.iter().filter(|one| self.wants(one.name()));
        wanted.cloned().collect()
    }

    /// Leaves out instances without any of them. Refuses a name that no instance has; two instances
    /// may have a service of the same name.
    pub fn select<T, S: HasServiceName>(
        &self,
        instances: &mut Vec<T>,
        services: impl Fn(&T) -> &[S],
    ) -> Result<()> {
        if !self.is_partial() {
            return Ok(());
        }
        let all = instances
            .iter()
            .flat_map(&services)
            .map(HasServiceName::name);
        let mut known: Vec<&str> = all.collect();
        known.sort_unstable();
        known.dedup();
        let is_unknown = |name: &&String| !known.contains(&name.as_str());
        if let Some(unknown) = self.0.iter().find(is_unknown) {
            return Err(ServiceError::Unknown {
                name: unknown.clone(),
                known: known.join(", "),
            }
            .into());
        }
        instances.retain(|one| services(one).iter().any(|one| self.wants(one.name())));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl HasServiceName for &str {
        fn name(&self) -> &str {
            self
        }
    }

    const INSTANCES: [&[&str]; 3] = [&["default"], &["office", "default"], &["lab"]];

    fn wanted(names: &[&str]) -> WantedServices {
        WantedServices::new(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn selected(names: &[&str]) -> Result<Vec<&'static [&'static str]>> {
        let mut instances = INSTANCES.to_vec();
        wanted(names).select(&mut instances, |one| *one)?;
        Ok(instances)
    }

    #[test]
    fn without_a_name_all_are_wanted() {
        let all = wanted(&[]);
        assert!(all.wants("office") && !all.is_partial());
        assert_eq!(all.of(INSTANCES[1]), ["office", "default"]);
        assert_eq!(selected(&[]).expect("all"), INSTANCES);
    }

    #[test]
    fn instances_without_a_wanted_service_are_left_out() {
        let office = wanted(&["office"]);
        assert!(office.wants("office") && !office.wants("lab") && office.is_partial());
        assert_eq!(office.of(INSTANCES[1]), ["office"]);
        let found = selected(&["office"]).expect("it exists");
        assert_eq!(found, [INSTANCES[1]]);
        let found = selected(&["lab", "default"]).expect("they exist");
        assert_eq!(found, INSTANCES);
        let found = selected(&["lab", "office"]).expect("they exist");
        assert_eq!(found, INSTANCES[1..]);
    }

    #[test]
    fn each_service_that_there_is_is_named_once() {
        for names in [&["home"][..], &["lab", "home"]] {
            let error = selected(names).expect_err("there is none").to_string();
            assert_eq!(
                error,
                "there is no service home; give --service one of: default, lab, office"
            );
        }
    }
}
