//! Who uses an instance: the process of its daemon, its interfaces and their network namespace, as
//! META and the lock record them; and what else is in its directory.

use crate::bpffs::layout::Instance;
use crate::config::interfaces::Interface;
use crate::error::text::printable;
use crate::tables::meta::index_and_name;
use crate::tables::mmap::{Memory, ReadOnlyWord};
use crate::tables::services::Records;
use std::fs;
use std::net::IpAddr;
use xdp_common::{ABI_VERSION, meta};
use xdp_core::Word;

/// Where META says that an instance was attached last.
pub(crate) struct Location {
    /// The VIPs.
    pub(crate) vips: Vec<IpAddr>,
    /// The number of the network namespace.
    pub(crate) namespace: u64,
    /// Index and name of each interface.
    pub(crate) interfaces: Vec<(u32, String)>,
}

impl Location {
    /// Reads META; `None` when it is missing or of another version.
    pub(crate) fn of(instance: &Instance) -> Option<Self> {
        let memory = Memory::<ReadOnlyWord>::read(&instance.pin("META"), "META").ok()?;
        let meta = memory.words();
        let version = meta.get(meta::VERSION)?.load();
        (version == u64::from(ABI_VERSION) && meta.len() == meta::WORDS).then_some(())?;
        Some(Self {
            vips: vips(instance),
            namespace: meta[meta::NAMESPACE].load(),
            interfaces: Interface::all()
                .filter_map(|interface| index_and_name(meta, interface))
                .collect(),
        })
    }
}

fn vips(instance: &Instance) -> Vec<IpAddr> {
    let services = Records::read(&instance.directory).map(|records| records.current());
    let services = services.into_iter().flatten();
    services.flat_map(|service| service.vips).collect()
}

impl Instance {
    /// The names of what is left in the directory, for a sentence.
    pub fn others(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten();
        let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
        let mut names: Vec<String> = names
            .map(|name| printable(&name.to_string_lossy()).into_owned())
            .collect();
        names.sort_unstable();
        names
    }

    /// The daemon's process and the interfaces, to append to a sentence:
    /// ` (process 123, on eth1 and eth0)`. Empty when neither is known.
    pub(crate) fn whose(&self) -> String {
        let process = self.owner().map(|pid| format!("process {pid}"));
        let mut names: Vec<String> = Vec::new();
        for (_, name) in Location::of(self)
            .map(|location| location.interfaces)
            .into_iter()
            .flatten()
        {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let on = (!names.is_empty()).then(|| format!("on {}", names.join(" and ")));
        let parts: Vec<String> = process.into_iter().chain(on).collect();
        if parts.is_empty() {
            String::new()
        } else {
            format!(" ({})", parts.join(", "))
        }
    }
}
