//! Runs the programs that a daemon has attached, one packet at a time (`BPF_PROG_TEST_RUN`): with its
//! tables, its expiry and its next hops, and without a queue that could lose a packet.

use super::{Run, run};
use crate::lab::Lab;
use crate::lab::netns::execute;
use crate::lab::topology::{LAN, WAN};
use anyhow::{Context, Result};
use aya::programs::SchedClassifier;
use std::path::PathBuf;
use std::process::Command;

/// The programs on one interface. (aya opens no pinned XDP program without a type that is private to
/// it; to run one, the kernel only needs its descriptor.)
struct Programs {
    ifindex: u32,
    xdp: SchedClassifier,
    tc: SchedClassifier,
}

/// The programs of a running instance with one WAN and one LAN.
pub struct Attached {
    wan: Programs,
    lan: Programs,
}

/// Where a packet comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// From outside.
    Wan,
    /// From the server's side.
    Lan,
}

impl Attached {
    /// The programs of the one instance of a lab.
    ///
    /// # Errors
    /// It is not attached, or bpftool fails.
    pub fn of(lab: &Lab) -> Result<Self> {
        let attached = lab.status()?.attached;
        let pinned = |interface: &str, hook: &str| -> Result<(u32, PathBuf)> {
            let found = attached.iter().find(|one| {
                let is_xdp = one.hook == "xdp";
                one.interface == interface && is_xdp == (hook == "xdp") && one.mode != "egress"
            });
            let found = found.with_context(|| format!("{interface} has no {hook} program"))?;
            let pin = lab.bpffs().join(format!("test-{hook}-{interface}"));
            let mut command = Command::new("bpftool");
            command.args(["prog", "pin", "id", &found.program.to_string()]);
            execute(command.arg(&pin))?;
            Ok((found.ifindex, pin))
        };
        let programs = |interface| -> Result<Programs> {
            let (ifindex, xdp) = pinned(interface, "xdp")?;
            let (_, tc) = pinned(interface, "tc")?;
            Ok(Programs {
                ifindex,
                xdp: SchedClassifier::from_pin(xdp)?,
                tc: SchedClassifier::from_pin(tc)?,
            })
        };
        Ok(Self {
            wan: programs(WAN)?,
            lan: programs(LAN)?,
        })
    }

    fn programs(&self, from: From) -> &Programs {
        match from {
            From::Wan => &self.wan,
            From::Lan => &self.lan,
        }
    }

    /// The XDP program on a frame. Call it in the gateway's namespace.
    ///
    /// # Errors
    /// The kernel refuses the frame.
    pub fn xdp(&self, from: From, frame: &[u8]) -> Result<Run> {
        let programs = self.programs(from);
        let length = u32::try_from(frame.len())?;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index,
        // egress_ifindex.
        run(
            &programs.xdp,
            frame,
            &[0, length, 0, programs.ifindex, 0, 0],
        )
    }

    /// The tc program on a frame that XDP has passed.
    ///
    /// # Errors
    /// The kernel refuses the frame.
    pub fn tc(&self, from: From, frame: &[u8]) -> Result<Run> {
        let programs = self.programs(from);
        // struct __sk_buff, in which `ifindex` is the eleventh word.
        let mut context = [0; 48];
        context[10] = programs.ifindex;
        run(&programs.tc, frame, &context)
    }
}
