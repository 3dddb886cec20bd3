//! Tracepoints: what is lost after the redirect.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use xdp_ebpf::losses;

/// Packets that the driver of an egress has not sent.
#[raw_tracepoint(tracepoint = "xdp_devmap_xmit")]
fn ikenat_lost_bulk(context: RawTracePointContext) -> i32 {
    losses::bulk(&context);
    0
}

/// Packets whose redirect the kernel has refused.
#[raw_tracepoint(tracepoint = "xdp_redirect_err")]
fn ikenat_lost_refused(context: RawTracePointContext) -> i32 {
    losses::refused(&context);
    0
}

/// Packets that generic XDP has not sent.
#[raw_tracepoint(tracepoint = "xdp_exception")]
fn ikenat_lost_generic(context: RawTracePointContext) -> i32 {
    losses::exception(&context);
    0
}
