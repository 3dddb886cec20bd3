//! Runs the eBPF object in the kernel, one packet at a time (`BPF_PROG_TEST_RUN`): loads it with a
//! configuration of the test, feeds it frames and reads its tables. Run it in the namespace with the
//! interfaces of the configuration: the programs look up the FIB of the calling thread's namespace.
//!
//! Invariant: nothing here uses ikenat's loader, because the tests cover the object alone.

mod between;
pub mod fixture;
pub mod gateway;
pub mod host;
mod object;
pub mod pinned;
pub mod tables;
mod verdict;

use anyhow::{Context, Result, bail};
use aya::maps::{Array, Map, MapData};
use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, TestRun, TestRunOptions, TestRunResult};
use std::path::Path;
use xdp_common::counters::{self, Counters};
use xdp_common::slot::{STATE, WAYS, WORDS};
use xdp_common::{Config, Hook, cpu, limits};

pub use object::Object;
pub use tables::{PinBucket, Slot};

/// A bucket as a map's value.
type Bucket = [u64; WAYS * WORDS];

/// What a program did with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its return value.
    pub action: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

/// The loaded object.
pub struct Dataplane {
    ebpf: Ebpf,
    /// The XDP programs that fit the configuration, with their interfaces; `None`: of any.
    xdp: Vec<(Option<u32>, &'static str)>,
}

/// The XDP programs of the WAN, of the LAN, and of the only interface of a one-armed gateway.
const XDP: [&str; 3] = ["ikenat_xdp_wan", "ikenat_xdp_lan", "ikenat_xdp_both"];
/// Those for several VIPs.
const XDP_SEVERAL: [&str; 3] = [
    "ikenat_xdp_wan_several",
    "ikenat_xdp_lan_several",
    "ikenat_xdp_both_several",
];
/// The tc programs, on ingress and on egress.
const TC: [&str; 2] = ["ikenat_tc", "ikenat_egress"];

/// Runs a program on a frame, with a context of words.
fn run<P>(program: &P, frame: &[u8], context: &[u32]) -> Result<Run>
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>,
{
    let mut out = vec![0; frame.len() + 256];
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.data_out = Some(&mut out);
    options.ctx_in = Some(bytemuck::cast_slice(context));
    let result = program.test_run(options)?;
    out.truncate(usize::try_from(result.data_size_out)?);
    Ok(Run {
        action: result.return_value,
        frame: out,
    })
}

/// How many blocks the map CPU has.
fn cpus() -> Result<u32> {
    let number = aya::util::nr_cpus()
        .map_err(|(path, error)| anyhow::anyhow!("failed to read {path}: {error}"))?;
    Ok(u32::try_from(number)?)
}

/// Finishes a configuration: masks and limits that fit the number of buckets.
pub fn with_sizes(mut config: Config, flow_buckets: u32, session_buckets: u32) -> Config {
    config.flow_mask = flow_buckets - 1;
    config.session_mask = session_buckets - 1;
    config.half_mask = limits::HALF_BUCKETS - 1;
    config.fragment_mask = limits::FRAGMENT_BUCKETS - 1;
    config.flow_limit = flow_buckets * 2;
    config.session_limit = session_buckets * 2;
    config.tick_shift = 8;
    // Never, so that a verdict does not depend on the time; a test of its own turns it on.
    config.confirm_ticks = u32::MAX;
    config.seal()
}

/// Number of slots in a table with this mask of its buckets.
pub fn slots(mask: u32) -> u32 {
    (mask + 1) * u32::try_from(WAYS).unwrap_or(u32::MAX)
}

impl Dataplane {
    /// Loads the object and its programs.
    ///
    /// # Errors
    /// The kernel refuses it; the verifier's log is in the error.
    pub fn load(config: &Config) -> Result<Self> {
        Self::load_object(Object::Usual, config)
    }

    /// The same, with another object.
    ///
    /// # Errors
    /// The kernel refuses it; the verifier's log is in the error.
    pub fn load_object(object: Object, config: &Config) -> Result<Self> {
        Self::load_file(&object.path()?, config)
    }

    /// The same, with an object of this ABI from any file.
    ///
    /// # Errors
    /// The kernel refuses it; the verifier's log is in the error.
    pub fn load_file(path: &Path, config: &Config) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .override_global("CONFIG", bytemuck::bytes_of(config), true)
            .map_max_entries("FLOW", config.flow_mask + 1)
            .map_max_entries("FLOW_COLD", slots(config.flow_mask))
            .map_max_entries("SESSION", config.session_mask + 1)
            .map_max_entries("SESSION_COLD", slots(config.session_mask))
            .map_max_entries("CPU", cpus()?)
            .load_file(path)
            .with_context(|| format!("failed to load {}", path.display()))?;
        let [wan, lan, both] = if config.several_vips == 0 {
            XDP
        } else {
            XDP_SEVERAL
        };
        let programs = if config.lan_ifindex == config.wan_ifindex {
            vec![(None, both)]
        } else {
            vec![(Some(config.lan_ifindex), lan), (None, wan)]
        };
        for (_, name) in programs.iter().copied() {
            let xdp: &mut Xdp = ebpf
                .program_mut(name)
                .with_context(|| format!("failed to find {name}"))?
                .try_into()?;
            xdp.load()
                .with_context(|| format!("failed to load {name}"))?;
        }
        for name in TC {
            let tc: &mut SchedClassifier = ebpf
                .program_mut(name)
                .with_context(|| format!("failed to find {name}"))?
                .try_into()?;
            tc.load()
                .with_context(|| format!("failed to load {name}"))?;
        }
        let mut this = Self {
            ebpf,
            xdp: programs,
        };
        for side in [cpu::EGRESS_WAN, cpu::EGRESS_LAN] {
            this.set_egress(side, cpu::egress(fixture::MTU, 1))?;
        }
        Ok(this)
    }

    /// Attaches the XDP program: `BPF_PROG_TEST_RUN` accepts only interfaces that run XDP.
    ///
    /// # Errors
    /// The interface does not take it.
    pub fn attach(&mut self, interface: &str) -> Result<()> {
        self.attach_as(interface, XdpMode::Driver)
    }

    /// The same, in the given XDP mode.
    ///
    /// # Errors
    /// The interface does not take it.
    pub fn attach_as(&mut self, interface: &str, mode: XdpMode) -> Result<()> {
        let name = self.name_of(nix::net::if_::if_nametoindex(interface)?);
        let program: &mut Xdp = self
            .ebpf
            .program_mut(name)
            .with_context(|| format!("failed to find {name}"))?
            .try_into()?;
        program
            .attach(interface, mode)
            .with_context(|| format!("failed to attach to {interface}"))?;
        Ok(())
    }

    /// Attaches the tc program, which handles the packets that XDP leaves to it.
    ///
    /// # Errors
    /// The interface does not take it.
    pub fn attach_tc(&mut self, interface: &str) -> Result<()> {
        // An error means that one exists already (before tcx); then that one is used.
        let _ = aya::programs::tc::qdisc_add_clsact(interface);
        let tc: &mut SchedClassifier = self
            .ebpf
            .program_mut("ikenat_tc")
            .context("failed to find ikenat_tc")?
            .try_into()?;
        tc.attach(interface, TcAttachType::Ingress)
            .with_context(|| format!("failed to attach ikenat_tc to {interface}"))?;
        Ok(())
    }

    /// The XDP program of the interface of this index.
    fn name_of(&self, ifindex: u32) -> &'static str {
        let mut programs = self.xdp.iter();
        let found = programs.find(|(of, _)| of.is_none_or(|of| of == ifindex));
        found.map_or("", |(_, name)| name)
    }

    /// The XDP program for packets that arrive on an interface.
    ///
    /// # Errors
    /// The object has none.
    pub fn program(&self, ifindex: u32) -> Result<&Xdp> {
        let name = self.name_of(ifindex);
        Ok(self
            .ebpf
            .program(name)
            .with_context(|| format!("failed to find {name}"))?
            .try_into()?)
    }

    /// The number of instructions that the verifier processed for a program, from the kernel's
    /// program information.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn verified_instructions(&self, program: &str) -> Result<u32> {
        let program = self
            .ebpf
            .program(program)
            .with_context(|| format!("failed to find {program}"))?;
        program.info()?.verified_instruction_count().context(
            "failed to read the number of verified instructions: the kernel is older than 5.16",
        )
    }

    /// Runs the XDP program on a frame that came in on an interface.
    ///
    /// # Errors
    /// The kernel refuses the frame or the interface.
    pub fn xdp(&self, ifindex: u32, frame: &[u8]) -> Result<Run> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index,
        // egress_ifindex.
        let length = u32::try_from(frame.len())?;
        run(
            self.program(ifindex)?,
            frame,
            &[0, length, 0, ifindex, 0, 0],
        )
    }

    /// Runs the tc program on a frame that came in on an interface.
    ///
    /// # Errors
    /// The kernel refuses the frame or the interface.
    pub fn tc(&self, ifindex: u32, frame: &[u8]) -> Result<Run> {
        self.classify(TC[0], ifindex, frame)
    }

    /// Runs the egress program on a frame that is about to leave by an interface.
    ///
    /// # Errors
    /// The kernel refuses the frame or the interface.
    pub fn egress(&self, ifindex: u32, frame: &[u8]) -> Result<Run> {
        self.classify(TC[1], ifindex, frame)
    }

    fn classify(&self, name: &str, ifindex: u32, frame: &[u8]) -> Result<Run> {
        let program: &SchedClassifier = self
            .ebpf
            .program(name)
            .with_context(|| format!("failed to find {name}"))?
            .try_into()?;
        // struct __sk_buff: 192 bytes, of which the caller may set a few; `ifindex` is the eleventh
        // word.
        let mut context = [0; 48];
        context[10] = ifindex;
        run(program, frame, &context)
    }

    fn map(&self, name: &str) -> Result<&Map> {
        self.ebpf
            .map(name)
            .with_context(|| format!("failed to find the map {name}"))
    }

    /// An array map itself, to be mapped into memory.
    ///
    /// # Errors
    /// There is no such array.
    pub fn map_data(&self, name: &str) -> Result<&MapData> {
        let Map::Array(data) = self.map(name)? else {
            bail!("failed to find an array: {name} is another kind of map");
        };
        Ok(data)
    }

    /// The live slots of FLOW or SESSION.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn slots(&self, name: &str) -> Result<Vec<Slot>> {
        let map: Array<&MapData, Bucket> = self.map(name)?.try_into()?;
        let cold = format!("{name}_COLD");
        let cold: Array<&MapData, [u64; WORDS]> = self.map(&cold)?.try_into()?;
        let mut slots = Vec::new();
        let mut number = 0;
        for bucket in map.iter() {
            for hot in bucket?.as_chunks::<WORDS>().0 {
                if hot[STATE] & 0x7f != 0 {
                    let cold = cold.get(&number, 0)?;
                    slots.push(Slot { hot: *hot, cold });
                }
                number += 1;
            }
        }
        Ok(slots)
    }

    /// The buckets of PIN.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn pins(&self) -> Result<Vec<PinBucket>> {
        let map: Array<&MapData, PinBucket> = self.map("PIN")?.try_into()?;
        Ok(map.iter().collect::<Result<_, _>>()?)
    }

    /// The counters of a hook, summed over all CPUs.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counters(&self, hook: Hook) -> Result<Counters> {
        let map: Array<&MapData, [u64; cpu::WORDS]> = self.map("CPU")?.try_into()?;
        let mut sum = [0; counters::WORDS];
        for block in map.iter() {
            for (total, word) in sum.iter_mut().zip(&block?[cpu::counters(hook)..]) {
                *total += word;
            }
        }
        Ok(sum)
    }
}
