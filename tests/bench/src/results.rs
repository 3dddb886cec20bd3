//! The results of a benchmark run, as in the raw JSON: plain data, with their units and meaning.

use serde::{Deserialize, Serialize};

/// One run of the benchmark.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    /// Where and how it ran.
    pub conditions: Conditions,
    /// Instructions per packet; `None`: the layer was not requested.
    pub a: Option<LayerA>,
    /// Nanoseconds of the program alone.
    pub b: Option<LayerB>,
    /// End to end in namespaces.
    pub c: Option<LayerC>,
}

/// Where and how a run was made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Conditions {
    /// The command line.
    pub command: String,
    /// Start, UTC, `2026-11-24 03:18`.
    pub date: String,
    /// Commit, with `-dirty` when the tree had changes; empty when unknown.
    pub commit: String,
    /// How the binaries were built, `debug` or `release`. The eBPF objects are always optimized.
    #[serde(default)]
    pub profile: String,
    /// Kernel release of the machine (layers B and C).
    pub kernel: String,
    /// Model name of the CPU.
    pub cpu: String,
    /// Number of CPUs.
    pub cpus: usize,
    /// Lines of `/sys/devices/system/cpu/vulnerabilities` that contain `Mitigation`, as
    /// `name: text`.
    pub mitigations: Vec<String>,
    /// The machine is a virtual one, as far as can be detected.
    pub virtualized: bool,
    /// `--quick`: fewer rounds and cases.
    pub quick: bool,
}

/// The kind of packet that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Traffic {
    /// ESP in UDP 4500, checksum zero as RFC 3948 section 2.1 recommends.
    EspInUdp,
    /// ESP in UDP 4500 with a checksum.
    EspInUdpChecksum,
    /// Native ESP.
    Esp,
    /// IKE on UDP 500.
    Ike,
    /// NAT-keepalive.
    Keepalive,
    /// UDP to another port of the VIP (layers A and B).
    OtherPort,
    /// Not IPv4 at all (layers A and B).
    NotIpv4,
    /// 97 % ESP in UDP, 1 % each IKE, keepalive and native ESP (layer C).
    Mix,
}

impl Traffic {
    /// The traffic that makes a peer known for this kind: the same kind of ESP.
    #[must_use]
    pub const fn establishing(self) -> Self {
        match self {
            Self::Esp => Self::Esp,
            Self::EspInUdpChecksum => Self::EspInUdpChecksum,
            Self::EspInUdp
            | Self::Ike
            | Self::Keepalive
            | Self::OtherPort
            | Self::NotIpv4
            | Self::Mix => Self::EspInUdp,
        }
    }
}

/// The direction of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Client to server.
    Inbound,
    /// Server to client.
    Outbound,
}

/// What forwards the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contestant {
    /// No gateway: the generator's wire ends at the sink. The cost of the harness itself.
    Cable,
    /// An XDP program of one instruction that passes (only for traffic that ikenat does not
    /// handle).
    Pass,
    /// An XDP program that writes two MAC addresses and redirects: the limit.
    Noop,
    /// ikenat in native mode.
    Ikenat,
    /// ikenat in native mode a second time: it shows the noise of the run.
    IkenatTwin,
    /// ikenat in generic mode.
    IkenatGeneric,
    /// ikenat in native mode with one interface for clients and server (layer A).
    IkenatOneArmed,
    /// ikenat in native mode with 256 services, each with one VIP (layer A).
    #[serde(rename = "ikenat-256-services")]
    IkenatServices,
    /// The kernel's forwarding, without NAT.
    Forwarding,
    /// iptables DNAT and SNAT.
    Iptables,
    /// nftables DNAT and SNAT.
    Nft,
    /// The same with a flowtable.
    NftFlowtable,
    /// IPVS in NAT mode.
    Ipvs,
    /// A gateway that is broken on purpose: it writes a wrong checksum.
    Broken,
}

/// Layer A: instructions per packet on one emulated CPU.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LayerA {
    /// Kernel release of the guest.
    pub kernel: String,
    /// One row per contestant, traffic and direction.
    pub rows: Vec<ARow>,
    /// Largest difference between two boots over all rows' totals, as a share (0.001: 0.1 %).
    pub largest_difference: f64,
    /// Contestants that this kernel lacks, with the reason.
    pub missing: Vec<(Contestant, String)>,
}

/// A row of layer A. Instructions per packet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ARow {
    /// What forwards the packets.
    pub contestant: Contestant,
    /// The kind of traffic.
    pub traffic: Traffic,
    /// The direction.
    pub way: Direction,
    /// Generator, gateway and sink together: one figure per boot.
    pub totals: Vec<f64>,
    /// The total less that of [`Contestant::Cable`] (mean over the boots); `None` for the cable
    /// itself.
    pub marginal: Option<f64>,
    /// Packets that were sent in the measured time, per boot.
    pub sent: u64,
    /// Packets that arrived intact, per boot. A row where this is not `sent` scores nothing.
    pub arrived: u64,
}

/// Layer B: the program alone (`BPF_PROG_TEST_RUN`), nanoseconds per packet beyond a program that
/// only passes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LayerB {
    /// The dataplane.
    pub programs: Vec<BRow>,
    /// The dataplane against an older object.
    #[serde(default)]
    pub against: Vec<BAgainst>,
    /// What one cache miss costs.
    #[serde(default)]
    pub misses: Vec<BMiss>,
    /// A look-up and two counts alone: ikenat's table beside the kernel's maps.
    pub tables: Vec<BTable>,
    /// What tables cost in memory.
    pub memory: Vec<BMemory>,
    /// The number of keys that find no slot.
    pub loads: Vec<BLoad>,
    /// User space with full tables.
    #[serde(default)]
    pub user: Vec<BUser>,
}

/// Median and quartiles of interleaved rounds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Lower quartile.
    pub low: f64,
    /// Upper quartile.
    pub high: f64,
}

/// The order in which packets visit the flows of layer B.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Walk {
    /// Each flow as often as any other, in random order.
    #[default]
    Random,
    /// The same, with eight packets in a row of each flow.
    Trains,
    /// The k-th flow has the weight 1/k (Zipf's law with the exponent 1), in random order.
    Zipf,
}

/// A row of the dataplane in layer B.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BRow {
    /// The kind of traffic.
    pub traffic: Traffic,
    /// The direction.
    pub way: Direction,
    /// Flows in the table.
    pub flows: u64,
    /// The order in which they are visited.
    #[serde(default)]
    pub walk: Walk,
    /// True: every packet finds its flow; false: none does.
    pub hit: bool,
    /// True: the flow's next hop was learnt in the same tick; false: each packet causes a FIB
    /// lookup.
    #[serde(default)]
    pub fresh: bool,
    /// ns per packet.
    pub nanoseconds: Spread,
    /// Packets per round.
    pub packets: u64,
}

/// The dataplane against an older object, measured in turns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BAgainst {
    /// The file of the older object.
    pub object: String,
    /// The kind of traffic.
    pub traffic: Traffic,
    /// The direction.
    pub way: Direction,
    /// Flows in the table, visited in random order; each packet finds its own.
    pub flows: u64,
    /// Slots of FLOW, in both objects.
    #[serde(default)]
    pub slots: u64,
    /// ns per packet with the older object.
    pub older: Spread,
    /// ns per packet with that of this build.
    pub present: Spread,
    /// The second figure over the first, in each round.
    pub ratio: Spread,
}

/// One cache miss on which the next one depends: a step in a chain of pointers through an array.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BMiss {
    /// The array is as large as the hot halves of a table for so many flows.
    pub flows: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Bytes of a page.
    pub page: u64,
    /// ns per step.
    pub nanoseconds: Spread,
}

/// A table of layer B.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BTable {
    /// `ikenat`, `BPF_MAP_TYPE_HASH` or `BPF_MAP_TYPE_LRU_HASH`.
    pub table: String,
    /// Flows in the table, visited in random order.
    pub flows: u64,
    /// ns per look-up and count.
    pub nanoseconds: Spread,
}

/// Memory of a table size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BMemory {
    /// Capacity in flows.
    pub flows: u64,
    /// Bytes of FLOW and SESSION as the kernel accounts them.
    pub bytes: u64,
}

/// How full a table can be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BLoad {
    /// `random` peers and SPIs, or `sequential` ones.
    #[serde(default)]
    pub kind: String,
    /// Keys inserted as a share of the slots.
    pub load: f64,
    /// Number of keys to insert.
    pub keys: u64,
    /// Number of keys that found no slot.
    pub without_slot: u64,
}

/// What user space does with full tables.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BUser {
    /// `stats --json`, or what one pass of expiry finds.
    pub work: String,
    /// Flows in the table, two for each peer.
    pub flows: u64,
    /// Milliseconds of one run of the command, or of one pass: one a second.
    pub milliseconds: Spread,
    /// The longest of them.
    pub longest: f64,
}

/// Layer C: end to end in namespaces.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LayerC {
    /// One row per case and contestant.
    pub rows: Vec<CRow>,
    /// Contestants that this kernel lacks, with the reason.
    pub missing: Vec<(Contestant, String)>,
    /// Interval of the twin's ratio to ikenat over all blocks. Outside [0.98, 1.02] the run is
    /// void.
    pub twin: Interval,
    /// Why the run is void; `None`: it counts.
    pub void: Option<String>,
    /// The seed of the order of the blocks.
    #[serde(default)]
    pub seed: u64,
}

/// A median with its bootstrap 95 % interval.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Interval {
    /// Median.
    pub median: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// A row of layer C.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CRow {
    /// What forwards the packets.
    pub contestant: Contestant,
    /// The kind of traffic.
    pub traffic: Traffic,
    /// The direction.
    pub way: Direction,
    /// Bytes of a frame.
    pub frame: u32,
    /// Flows, visited in random order.
    pub flows: u64,
    /// CPUs that send.
    pub cores: u32,
    /// Packets per second at saturation that arrived intact, one figure per block. Zero when a
    /// packet arrived corrupted.
    pub blocks: Vec<f64>,
    /// Packets that arrived corrupted, over all blocks.
    pub wrong: u64,
    /// Packets that did not arrive, over all blocks.
    pub lost: u64,
    /// Packets that were sent, over all blocks.
    pub sent: u64,
    /// Intact packets that did not follow their predecessor, over all blocks: one was lost between
    /// them, or they were reordered. With many flows, the kernel's GRO reorders packets of
    /// different flows.
    #[serde(default)]
    pub gaps: u64,
    /// Median of the per-block ratios to [`Contestant::Noop`].
    pub ratio: Option<Interval>,
    /// Highest rate with a loss below 1e-4, packets per second.
    pub lossless: Option<f64>,
    /// Latency at half of that rate.
    pub latency: Option<Latency>,
}

/// Nanoseconds from the generator to the sink.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the packets are faster.
    pub p50: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
}
