//! Generator and sink: the programs, their configuration, and their counters.

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunAttrs, TestRunOptions};
use bytemuck::{Pod, Zeroable};
use ikenat_bench_abi::traffic::{BUCKETS, KINDS, Pace, Spec, Tally, WRONGS};
use ikenat_tests::bpf::Object;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::sync::Barrier;
use std::time::Duration;

/// Frames per batch that the kernel sends when there is no pace.
const BATCH: u32 = 64;
/// The generator's IPv4 identification is the number of the packet modulo this.
const PERIOD: u64 = 65_500;

/// The generator that sends as fast as it can.
pub const GENERATE: &str = "ikenat_generate";
/// The generator that sends at a pace.
pub const KEEP_PACE: &str = "ikenat_pace";
/// The sink.
pub const SINK: &str = "ikenat_sink";

/// The shared types as the plain bytes that aya needs.
const SPEC: usize = size_of::<Spec>();
const TALLY: usize = size_of::<Tally>();
const PACE: usize = size_of::<Pace>();

/// The result of one run of a case, over all CPUs.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The time from the first packet to the last.
    pub elapsed: Duration,
    /// Packets generated.
    pub sent: u64,
    /// Packets that were due at a pace and never generated, because they would have found the queue
    /// full.
    pub missed: u64,
    /// Packets that arrived intact.
    pub arrived: u64,
    /// Packets that arrived corrupted, by [`ikenat_bench_abi::traffic::Wrong`].
    pub wrong: [u64; WRONGS],
    /// Intact packets that did not follow their predecessor.
    pub gaps: u64,
    /// Intact packets by age.
    pub ages: Box<[u64; BUCKETS]>,
}

impl Outcome {
    /// Packets that arrived corrupted.
    #[must_use]
    pub fn wrongs(&self) -> u64 {
        self.wrong.iter().sum()
    }

    /// Packets that were sent and did not arrive at all.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.arrived + self.wrongs())
    }

    /// Packets per second that arrived intact.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn rate(&self) -> f64 {
        self.arrived as f64 / self.elapsed.as_secs_f64()
    }

    /// Fails unless every packet arrived intact. Their order does not matter: the kernel's GRO
    /// mixes flows.
    ///
    /// # Errors
    /// The error says what was wrong.
    pub fn complete(&self) -> Result<()> {
        ensure!(
            self.arrived == self.sent && self.wrongs() == 0,
            "{} packets were sent, {} arrived as they must, with {} gaps, {:?} otherwise (length, IPv4 checksum, IPv4 field, address, header, UDP checksum, payload)",
            self.sent,
            self.arrived,
            self.gaps,
            self.wrong
        );
        Ok(())
    }
}

/// When packets are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pacing {
    /// As fast as possible: the kernel generates the next batch when the last one has been
    /// processed.
    Saturation,
    /// Bursts of this many packets at fixed times.
    Bursts {
        /// Packets in a burst.
        burst: u32,
        /// Packets per second on each CPU.
        rate: f64,
        /// Packets that may wait in the queue.
        queue: u32,
    },
}

impl Pacing {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "nanoseconds between two bursts"
    )]
    fn pace(self) -> Option<Pace> {
        match self {
            Self::Saturation => None,
            Self::Bursts { burst, rate, queue } => {
                let gap = ((f64::from(burst) * 1e9 / rate) as u64).max(1);
                Some(Pace {
                    gap,
                    patience: gap * u64::from(queue / burst),
                    burst: burst.into(),
                    ..Pace::zeroed()
                })
            }
        }
    }

    const fn batch(self) -> u32 {
        match self {
            Self::Saturation => BATCH,
            Self::Bursts { burst, .. } => burst,
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Saturation => GENERATE,
            Self::Bursts { .. } => KEEP_PACE,
        }
    }
}

/// The loaded object.
pub struct Wire {
    bench: Ebpf,
}

impl Wire {
    /// Loads it.
    ///
    /// # Errors
    /// The kernel refuses it, or it has not been built.
    pub fn load() -> Result<Self> {
        let mut bench = EbpfLoader::new()
            .load_file(Object::Usual.path()?.with_file_name("bench.o"))
            .context("failed to load bench.o")?;
        for name in [GENERATE, KEEP_PACE, SINK] {
            xdp(&mut bench, name)?
                .load()
                .with_context(|| format!("failed to load {name}"))?;
        }
        Ok(Self { bench })
    }

    /// A program of the object, to be attached.
    ///
    /// # Errors
    /// The object has none of this name.
    pub fn program(&mut self, name: &str) -> Result<&mut Xdp> {
        xdp(&mut self.bench, name)
    }

    /// Configures what is sent and what must arrive, and resets the counters. The first packet has
    /// the number `next`.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn prepare(
        &mut self,
        send: &[Spec; KINDS],
        expect: &[Spec; KINDS],
        next: u64,
        pacing: Pacing,
    ) -> Result<()> {
        self.specs("SEND", send)?;
        self.specs("EXPECT", expect)?;
        let mut tally = Tally::zeroed();
        tally.sent = next;
        tally.last = (next + PERIOD - 1) % PERIOD;
        self.everywhere::<Tally, TALLY>("TALLY", tally)?;
        if let Some(pace) = pacing.pace() {
            self.everywhere::<Pace, PACE>("PACE", pace)?;
        }
        Ok(())
    }

    fn specs(&mut self, name: &str, specs: &[Spec]) -> Result<()> {
        let map = self.bench.map_mut(name).context("failed to find a map")?;
        let mut map: Array<&mut MapData, [u8; SPEC]> = map.try_into()?;
        for (i, spec) in (0_u32..).zip(specs) {
            map.set(i, bytemuck::cast::<Spec, [u8; SPEC]>(*spec), 0)?;
        }
        Ok(())
    }

    fn everywhere<T: Pod, const SIZE: usize>(&mut self, name: &str, value: T) -> Result<()> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let map = self.bench.map_mut(name).context("failed to find a map")?;
        let mut map: PerCpuArray<&mut MapData, [u8; SIZE]> = map.try_into()?;
        let bytes: [u8; SIZE] = bytemuck::bytes_of(&value).try_into()?;
        map.set(0, vec![bytes; cpus].try_into()?, 0)?;
        Ok(())
    }

    /// Sends on the requested number of CPUs at the same time, and returns how long the slowest
    /// took. The calling thread is in the namespace of the interface.
    ///
    /// # Errors
    /// The kernel refuses the run.
    pub fn send(
        &self,
        interface: &str,
        frame: &[u8],
        packets: u32,
        cores: u32,
        pacing: Pacing,
    ) -> Result<Duration> {
        let program: &Xdp = self
            .bench
            .program(pacing.program())
            .with_context(|| format!("failed to find {}", pacing.program()))?
            .try_into()?;
        let ifindex = nix::net::if_::if_nametoindex(interface)
            .with_context(|| format!("failed to find {interface}"))?;
        let batch = pacing.batch();
        let job = &Job {
            program,
            ifindex,
            frame,
            packets,
            batch,
            start: Barrier::new(cores as usize),
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..cores as usize)
                .map(|cpu| scope.spawn(move || job.run(cpu)))
                .collect();
            let mut longest = Duration::ZERO;
            for thread in threads {
                match thread.join() {
                    Ok(elapsed) => longest = longest.max(elapsed?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok(longest)
        })
    }

    /// Waits until no more packets arrive, and adds up the counters. `next` is the number that
    /// [`Self::prepare`] got.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn read(&self, elapsed: Duration, next: u64, pacing: Pacing) -> Result<Outcome> {
        let mut before = u64::MAX;
        loop {
            let mut sum = Outcome {
                elapsed,
                sent: 0,
                missed: 0,
                arrived: 0,
                wrong: [0; WRONGS],
                gaps: 0,
                ages: Box::new([0; BUCKETS]),
            };
            for tally in self.of_each::<Tally, TALLY>("TALLY")? {
                sum.sent += tally.sent - next;
                sum.arrived += tally.arrived;
                sum.gaps += tally.gaps;
                add(&mut sum.wrong, &tally.wrong);
                add(sum.ages.as_mut(), &tally.ages);
            }
            let seen = sum.arrived + sum.wrongs();
            if seen >= sum.sent || seen == before {
                if pacing != Pacing::Saturation {
                    let paces = self.of_each::<Pace, PACE>("PACE")?;
                    sum.missed = paces.iter().map(|pace| pace.missed * pace.burst).sum();
                    let early: u64 = paces.iter().map(|pace| pace.early).sum();
                    ensure!(
                        early == 0,
                        "failed to keep the pace: {early} bursts are further apart than the generator can wait; choose a higher rate"
                    );
                }
                return Ok(sum);
            }
            before = seen;
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn of_each<T: Pod, const SIZE: usize>(&self, name: &str) -> Result<Vec<T>> {
        let map = self.bench.map(name).context("failed to find a map")?;
        let map: PerCpuArray<&MapData, [u8; SIZE]> = map.try_into()?;
        let values = map.get(&0, 0)?;
        Ok(values
            .iter()
            .map(|bytes| bytemuck::pod_read_unaligned(bytes))
            .collect())
    }
}

fn add(sum: &mut [u64], more: &[u64]) {
    for (total, value) in sum.iter_mut().zip(more) {
        *total += value;
    }
}

/// A program of an object.
///
/// # Errors
/// The object has none of this name.
pub fn xdp<'e>(object: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp> {
    Ok(object
        .program_mut(name)
        .with_context(|| format!("failed to find {name}"))?
        .try_into()?)
}

/// The work that every CPU does at the same time.
struct Job<'a> {
    program: &'a Xdp,
    ifindex: u32,
    frame: &'a [u8],
    packets: u32,
    batch: u32,
    start: Barrier,
}

impl Job<'_> {
    /// Sends on this CPU as soon as all others are ready.
    fn run(&self, cpu: usize) -> Result<Duration> {
        let pinned = pin(cpu);
        // Before the error is checked, since the others wait for this thread.
        self.start.wait();
        pinned?;
        let length = u32::try_from(self.frame.len())?;
        let context: [u32; 6] = [0, length, 0, self.ifindex, 0, 0];
        let mut options = TestRunOptions::new();
        options.data_in = Some(self.frame);
        options.ctx_in = Some(bytemuck::cast_slice(&context));
        options.repeat = self.packets;
        options.attrs = TestRunAttrs::new().xdp_live_frames(self.batch);
        let result = self.program.test_run(options).context(
            "failed to generate frames (BPF_F_TEST_XDP_LIVE_FRAMES, kernel 5.18 or newer)",
        )?;
        // The kernel's own measurement, a mean per packet: it excludes the set-up and clean-up of
        // the call.
        Ok(result.duration * self.packets)
    }
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
        .with_context(|| format!("failed to run on CPU {cpu}: the machine may have only one"))
}
