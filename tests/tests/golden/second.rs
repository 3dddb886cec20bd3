//! The second packets of the golden table, through XDP in the kernel and on the host. A flow's
//! counters and its next hop show whether the fast path took a packet: the general path replaces
//! the next hop of each flow that it counts in.

use crate::Named;
use crate::on_host::same_bytes;
use crate::table::Arms;
use crate::table::second::{Counted, Path, Second, seconds};
use anyhow::{Result, bail, ensure};
use ikenat_tests::bpf::fixture;
use ikenat_tests::bpf::host::{self, Tables};
use ikenat_tests::bpf::tables::{Hop, Slot};
use xdp_common::slot::flow;
use xdp_common::{Config, Hook, cpu};
use xdp_core::{Side, Verdict};

/// A gateway whose tables can be looked into.
pub(crate) trait Gateway {
    /// Forgets all flows and sessions.
    fn forget(&mut self) -> Result<()>;
    /// Runs XDP on a frame: the verdict in the words of the table, and the bytes that are counted.
    fn run(&mut self, side: Side, frame: &mut Vec<u8>) -> Result<(String, u64)>;
    /// Changes the hop words of all flows.
    fn change_hops(&mut self, hop: Hop) -> Result<()>;
    fn flows(&self) -> Result<Vec<Slot>>;
}

/// The packet logic on the host.
pub(crate) struct OnHost {
    pub(crate) config: Config,
    /// What XDP knows of the MTU of both sides.
    pub(crate) egress_mtu: u16,
    tables: Tables,
}

impl OnHost {
    pub(crate) fn new(arms: Arms) -> Self {
        let config = match arms {
            Arms::Two => fixture::config(),
            Arms::One => fixture::one_armed(fixture::config()),
        };
        Self {
            tables: Tables::new(&config),
            egress_mtu: fixture::MTU,
            config,
        }
    }
}

impl Gateway for OnHost {
    fn forget(&mut self) -> Result<()> {
        self.tables = Tables::new(&self.config);
        for side in [cpu::EGRESS_WAN, cpu::EGRESS_LAN] {
            self.tables.set_egress_mtu(side, self.egress_mtu);
        }
        Ok(())
    }

    fn run(&mut self, side: Side, frame: &mut Vec<u8>) -> Result<(String, u64)> {
        let config = &self.config;
        let fib = |_: [u8; 4], destination, length| fixture::fib(config, destination, length);
        let ran = host::run_in(Hook::Xdp, (&self.tables, &fib, config), side, frame);
        let verdict = ran.verdict;
        let bytes = match verdict {
            Verdict::Forward { bytes, .. } => bytes.into(),
            Verdict::NotForwarded(_) | Verdict::Answer { .. } => 0,
        };
        Ok((host::word(verdict), bytes))
    }

    fn change_hops(&mut self, hop: Hop) -> Result<()> {
        self.tables.change_hops(|word| hop.word(word));
        Ok(())
    }

    fn flows(&self) -> Result<Vec<Slot>> {
        Ok(self.tables.flows())
    }
}

/// Runs all second packets of a gateway, and checks that both paths were taken many times.
pub(crate) fn whole(gateway: &mut dyn Gateway, arms: Arms, word: &str) -> Vec<Named> {
    let (mut fast, mut general) = (0, 0);
    let mut tests = Vec::new();
    for row in seconds(arms) {
        let result = run(gateway, &row).map(|path| match path {
            Path::Fast => fast += 1,
            Path::General => general += 1,
        });
        tests.push((format!("{word}: {}", row.name), result));
    }
    let result = || {
        println!("{word}: the fast path took {fast} second packets, the general path {general}");
        ensure!(
            fast >= 80 && general >= 200,
            "only {fast} second packets took the fast path, and {general} the general path"
        );
        Ok(())
    };
    tests.push((
        format!("{word}: both paths are taken{}", arms.suffix()),
        result(),
    ));
    tests
}

fn of(slot: &Slot, expected: &Counted) -> Counted {
    let low = |word: u64| u32::try_from(word & 0xffff_ffff).expect("32 bits");
    Counted {
        key: expected.key,
        packets: slot.hot[flow::PACKETS],
        bytes: slot.hot[flow::BYTES],
        highest: low(slot.hot[flow::SEEN]),
        reordered: slot.cold[flow::REORDERED],
        late: slot.cold[flow::LATE],
        first: slot.cold[flow::FIRST],
    }
}

/// Runs a second packet, and compares verdict, bytes, counters and path with the row.
pub(crate) fn run(gateway: &mut dyn Gateway, row: &Second) -> Result<Path> {
    gateway.forget()?;
    for (side, frame) in &row.before {
        gateway.run(*side, &mut frame.clone())?;
    }
    gateway.change_hops(row.hop)?;
    let find = |flows: Vec<Slot>| {
        let key = row.flow.map(|flow| flow.key);
        flows.into_iter().find(|slot| Some(slot.key()) == key)
    };
    let known = find(gateway.flows()?);
    ensure!(
        known.is_some() == row.flow.is_some(),
        "there is {} flow",
        known.map_or("no", |_| "a")
    );
    let mut frame = row.input.clone();
    let (word, bytes) = gateway.run(row.side, &mut frame)?;
    ensure!(word == row.verdict, "{word}, not {}", row.verdict);
    same_bytes(&frame, &row.output)?;
    let forwarded = word.starts_with("forward");
    let expected = if forwarded { row.bytes } else { 0 };
    ensure!(
        bytes == expected,
        "{bytes} bytes are counted, not {expected}"
    );
    let mut path = Path::General;
    if let (Some(known), Some(expected)) = (known, row.flow) {
        let Some(slot) = find(gateway.flows()?) else {
            bail!("the flow is gone");
        };
        let counted = of(&slot, &expected);
        ensure!(counted == expected, "{counted:?}, not {expected:?}");
        let more = slot.hot[flow::PACKETS] - known.hot[flow::PACKETS];
        if more == 1 && slot.hot[flow::HOP] == known.hot[flow::HOP] {
            path = Path::Fast;
        }
    }
    ensure!(
        path == row.path,
        "the path was {path:?}, not {:?}",
        row.path
    );
    Ok(path)
}
