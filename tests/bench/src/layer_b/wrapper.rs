//! Runs a program many times and measures the time, with the objects `restore` and `yardstick`,
//! which keep their plan and their state in maps of the same names.

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunOptions};
use ikenat_bench_abi::measure::{HEADER, Plan, state};
use ikenat_tests::bpf::Object;
use std::path::PathBuf;

/// The plan as the map's value.
type PlanBytes = [u8; size_of::<Plan>()];
type State = [u64; state::WORDS];

/// The path of an object of the same build.
///
/// # Errors
/// There is no build.
pub(super) fn beside(name: &str) -> Result<PathBuf> {
    Ok(Object::Usual.path()?.with_file_name(name))
}

/// Loads an object and some of its programs.
///
/// # Errors
/// The kernel refuses one of them.
pub(super) fn load(loader: &mut EbpfLoader<'_>, object: &str, programs: &[&str]) -> Result<Ebpf> {
    let mut ebpf = loader
        .load_file(beside(object)?)
        .with_context(|| format!("failed to load {object}"))?;
    for name in programs {
        let program: &mut Xdp = ebpf
            .program_mut(name)
            .with_context(|| format!("failed to find {name}"))?
            .try_into()?;
        program
            .load()
            .with_context(|| format!("failed to load {name}"))?;
    }
    Ok(ebpf)
}

/// A loaded XDP program.
///
/// # Errors
/// There is no such program.
pub(super) fn program<'e>(ebpf: &'e Ebpf, name: &str) -> Result<&'e Xdp> {
    Ok(ebpf
        .program(name)
        .with_context(|| format!("failed to find {name}"))?
        .try_into()?)
}

/// The frame for a program, and its context.
pub(super) struct Packet {
    /// The frame, in the length that the program sees.
    pub frame: Vec<u8>,
    /// The ingress interface; 0: the program does not need it.
    pub ingress: u32,
}

impl Packet {
    fn options<'o>(&'o self, context: &'o [u32; 6], repeat: u32) -> TestRunOptions<'o> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(&self.frame);
        options.ctx_in = Some(bytemuck::cast_slice(context));
        options.repeat = repeat;
        options
    }

    /// struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    fn context(&self) -> Result<[u32; 6]> {
        let length = u32::try_from(self.frame.len()).context("failed to use a huge frame")?;
        Ok([0, length, 0, self.ingress, 0, 0])
    }
}

/// The result of one measurement.
pub(super) struct Timing {
    /// Nanoseconds from the start of one run to the start of the next.
    pub nanoseconds: f64,
    /// Successful look-ups (the yardstick).
    pub found: u64,
}

/// An object with a PLAN and a STATE.
pub(super) struct Instrument {
    ebpf: Ebpf,
}

impl Instrument {
    /// Wraps a loaded object.
    pub(super) const fn new(ebpf: Ebpf) -> Self {
        Self { ebpf }
    }

    /// The wrapper that tail-calls another program, with room for flows that are drawn in advance.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub(super) fn restore(draws: u32) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("DRAWS", draws);
        Ok(Self::new(load(
            &mut loader,
            "restore.o",
            &["ikenat_restore"],
        )?))
    }

    /// A map of the object.
    ///
    /// # Errors
    /// There is none of this name.
    pub(super) fn map_mut(&mut self, name: &str) -> Result<&mut aya::maps::Map> {
        self.ebpf
            .map_mut(name)
            .with_context(|| format!("failed to find {name}"))
    }

    /// A map of the object, to be read.
    ///
    /// # Errors
    /// There is none of this name.
    pub(super) fn map(&self, name: &str) -> Result<&aya::maps::Map> {
        self.ebpf
            .map(name)
            .with_context(|| format!("failed to find {name}"))
    }

    fn state(&self) -> Result<State> {
        let map: Array<&MapData, State> = self.map("STATE")?.try_into()?;
        Ok(map.get(&0, 0)?)
    }

    fn plan(&mut self, plan: &Plan) -> Result<()> {
        let mut map: Array<&mut MapData, PlanBytes> = self.map_mut("PLAN")?.try_into()?;
        map.set(0, bytemuck::cast::<Plan, PlanBytes>(*plan), 0)?;
        let mut state = self.state()?;
        state[state::RUNS] = 0;
        state[state::FOUND] = 0;
        state[state::SEQUENCE] = 0;
        let mut map: Array<&mut MapData, State> = self.map_mut("STATE")?.try_into()?;
        map.set(0, state, 0)?;
        Ok(())
    }

    /// The map of the program that the wrapper calls.
    ///
    /// # Errors
    /// The object is not the wrapper.
    pub(super) fn before(&mut self, next: &Xdp) -> Result<()> {
        let mut jump: ProgramArray<&mut MapData> = self.map_mut("NEXT")?.try_into()?;
        jump.set(0, next.fd()?, 0)?;
        Ok(())
    }

    /// Runs a program `repeat` times.
    ///
    /// The kernel's own figure is a whole number of nanoseconds, so the program itself records the
    /// time of its first and last run instead.
    ///
    /// # Errors
    /// The kernel refuses, or the number of runs is not the requested one.
    pub(super) fn time(
        &mut self,
        name: &str,
        plan: &Plan,
        packet: &Packet,
        repeat: u32,
    ) -> Result<Timing> {
        let plan = Plan {
            runs: u64::from(repeat),
            ..*plan
        };
        self.plan(&plan)?;
        let context = packet.context()?;
        program(&self.ebpf, name)?.test_run(packet.options(&context, repeat))?;
        let state = self.state()?;
        ensure!(
            state[state::RUNS] == plan.runs && repeat > 1,
            "{name} was run {} times instead of {repeat}",
            state[state::RUNS]
        );
        let whole = state[state::ENDED].saturating_sub(state[state::BEGAN]);
        Ok(Timing {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            nanoseconds: whole as f64 / f64::from(repeat - 1),
            found: state[state::FOUND],
        })
    }

    /// Runs a program once. Returns its return value, and the frame afterwards.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn once(
        &mut self,
        name: &str,
        plan: &Plan,
        packet: &Packet,
    ) -> Result<(u32, Vec<u8>)> {
        self.plan(plan)?;
        let context = packet.context()?;
        let mut out = vec![0; packet.frame.len()];
        let mut options = packet.options(&context, 1);
        options.data_out = Some(&mut out);
        let result = program(&self.ebpf, name)?.test_run(options)?;
        Ok((result.return_value, out))
    }
}

/// The plan for a frame whose peer address, SPI and sequence number are zero.
///
/// # Errors
/// The frame is shorter than the part that the wrapper writes.
pub(super) fn plan(frame: &[u8]) -> Result<Plan> {
    const IP_CHECKSUM: usize = 24;
    const UDP_CHECKSUM: usize = 40;
    let header = frame
        .first_chunk::<HEADER>()
        .context("failed to use a frame that is shorter than the header")?;
    let field = |at: usize| u32::from(!u16::from_be_bytes([header[at], header[at + 1]]));
    Ok(Plan {
        header: *header,
        // The complement of a correct checksum is the sum of the other words.
        ip_sum: field(IP_CHECKSUM),
        udp_sum: field(UDP_CHECKSUM),
        ..bytemuck::Zeroable::zeroed()
    })
}
