//! Whose an instance is: the process that keeps its house, its interfaces, and the network namespace that they are in.
//!
//! It may not know what is attached there.

use crate::bpffs::layout::Instance;
use crate::config::interfaces::Interface;
use crate::config::plan::Plan;
use crate::dataplane::clsact::cleanup;
use crate::dataplane::link;
use crate::error::{Error, Result};
use crate::netlink::{Block, Netlink};
use crate::tables::meta::interface;
use crate::tables::mmap::{Memory, ReadOnlyWord};
use xdp_common::{ABI_VERSION, meta};
use xdp_core::Word;

/// What META says, if it is of this version.
struct Place {
    namespace: u64,
    interfaces: Vec<(u32, String)>,
}

impl Place {
    fn of(instance: &Instance) -> Option<Self> {
        let memory = Memory::<ReadOnlyWord>::read(&instance.pin("META"), "META").ok()?;
        let meta = memory.words();
        let version = meta.get(meta::VERSION)?.load();
        (version == u64::from(ABI_VERSION) && meta.len() == meta::WORDS).then_some(())?;
        Some(Self {
            namespace: meta[meta::NAMESPACE].load(),
            interfaces: Interface::all()
                .filter_map(|port| interface(meta, port))
                .collect(),
        })
    }
}

impl Instance {
    /// Its process and its interfaces, as they stand behind a name: ` (process 123, on eth1 and eth0)`.
    pub(crate) fn whose(&self) -> String {
        let process = self.owner().map(|pid| format!("process {pid}"));
        let mut names: Vec<String> = Vec::new();
        for (_, name) in Place::of(self)
            .map(|place| place.interfaces)
            .into_iter()
            .flatten()
        {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let on = (!names.is_empty()).then(|| format!("on {}", names.join(" and ")));
        let known: Vec<String> = process.into_iter().chain(on).collect();
        if known.is_empty() {
            String::new()
        } else {
            format!(" ({})", known.join(", "))
        }
    }

    /// Refuses to take an instance away from another network namespace in which it is attached. One that has gone with its
    /// interfaces has left pins that anybody may take over.
    pub(crate) fn check_namespace(&self, plan: &Plan, netlink: &Netlink) -> Result<()> {
        let Some(place) = Place::of(self).filter(|place| place.namespace != plan.namespace) else {
            return Ok(());
        };
        let linked = link::attachments(self).iter().any(|one| one.ifindex != 0);
        let filtered = || -> Result<bool> {
            let blocks = |(index, _): &(u32, String)| Block::ALL.map(|block| (*index, block));
            let sought: Vec<(u32, Block)> = place.interfaces.iter().flat_map(blocks).collect();
            Ok(self.has_filters()
                && cleanup::find(netlink, self, &sought)?
                    .iter()
                    .any(Option::is_some))
        };
        if linked || filtered()? {
            return Err(Error::OtherNamespace {
                vip: self.vip,
                whose: self.whose(),
            });
        }
        Ok(())
    }
}
