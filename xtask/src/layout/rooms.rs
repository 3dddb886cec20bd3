//! Which room may import which. A room is a file or a directory directly below a crate's `src`; what
//! is below a directory belongs to its room. A room may import those of its row, which stand above it.

/// Where the tables stand.
pub(crate) const TABLE: &str = "xtask/src/layout/rooms.rs";

/// The arrows of one crate.
pub(crate) struct Crate {
    /// Its directory, and what other files of it call it.
    pub(crate) directory: &'static str,
    pub(crate) name: &'static str,
    /// Each room and those that it may import.
    pub(crate) rooms: &'static [(&'static str, &'static [&'static str])],
    /// Another crate of this workspace, and the only rooms of it that may be used.
    pub(crate) other: Option<(&'static str, &'static [&'static str])>,
    /// No circle between files; else none between rooms.
    pub(crate) by_file: bool,
}

/// The two crates with rooms.
pub(crate) const CRATES: [Crate; 2] = [CORE, USER];

const CORE: Crate = Crate {
    directory: "xdp-core/src",
    name: "xdp_core",
    rooms: &[
        ("checksum", &[]),
        ("sequence", &[]),
        ("table", &[]),
        ("vip", &[]),
        ("interfaces", &[]),
        ("frame", &["checksum", "vip"]),
        ("wire", &["frame"]),
        ("neighbour", &["table"]),
        ("counters", &["table"]),
        ("packet", &["vip", "wire"]),
        (
            "env",
            &["frame", "neighbour", "packet", "table", "vip", "wire"],
        ),
        ("service", &["env", "vip", "wire"]),
        ("transport", &["checksum", "env", "frame", "packet", "wire"]),
        (
            "classify",
            &[
                "env",
                "frame",
                "packet",
                "service",
                "transport",
                "vip",
                "wire",
            ],
        ),
        (
            "conntrack",
            &[
                "counters", "env", "frame", "packet", "sequence", "table", "vip", "wire",
            ],
        ),
        ("inside", &["env", "interfaces", "neighbour", "vip"]),
        ("uplink", &["env", "interfaces"]),
        (
            "route",
            &[
                "conntrack",
                "env",
                "interfaces",
                "neighbour",
                "packet",
                "table",
                "uplink",
                "vip",
            ],
        ),
        (
            "learn",
            &[
                "classify",
                "conntrack",
                "env",
                "frame",
                "interfaces",
                "packet",
                "route",
                "vip",
                "wire",
            ],
        ),
        ("rewrite", &["checksum", "frame", "packet", "vip", "wire"]),
        (
            "icmp",
            &[
                "checksum",
                "classify",
                "conntrack",
                "env",
                "frame",
                "inside",
                "interfaces",
                "packet",
                "rewrite",
                "route",
                "table",
                "transport",
                "uplink",
                "vip",
                "wire",
            ],
        ),
        (
            "pipeline",
            &[
                "classify",
                "conntrack",
                "env",
                "frame",
                "icmp",
                "inside",
                "neighbour",
                "packet",
                "rewrite",
                "route",
                "table",
                "transport",
                "vip",
            ],
        ),
        (
            "fast_path",
            &[
                "checksum",
                "conntrack",
                "counters",
                "env",
                "frame",
                "neighbour",
                "pipeline",
                "table",
                "vip",
                "wire",
            ],
        ),
    ],
    other: None,
    by_file: true,
};

const USER: Crate = Crate {
    directory: "xdp-user/src",
    name: "xdp_user",
    rooms: &[
        ("error", &[]),
        ("failpoints", &["error"]),
        ("sys", &["error"]),
        ("netlink", &["error", "sys"]),
        ("config", &["error", "netlink", "sys"]),
        ("tables", &["config", "error", "failpoints", "sys"]),
        ("bpffs", &["config", "error", "netlink", "sys", "tables"]),
        (
            "dataplane",
            &[
                "bpffs",
                "config",
                "error",
                "failpoints",
                "netlink",
                "sys",
                "tables",
            ],
        ),
        (
            "report",
            &[
                "bpffs",
                "config",
                "dataplane",
                "error",
                "netlink",
                "sys",
                "tables",
            ],
        ),
        (
            "check",
            &[
                "bpffs",
                "config",
                "dataplane",
                "error",
                "netlink",
                "report",
                "sys",
                "tables",
            ],
        ),
        (
            "daemon",
            &[
                "bpffs",
                "config",
                "dataplane",
                "error",
                "failpoints",
                "netlink",
                "report",
                "sys",
                "tables",
            ],
        ),
        (
            "cli",
            &[
                "bpffs",
                "check",
                "config",
                "daemon",
                "dataplane",
                "error",
                "netlink",
                "report",
                "sys",
                "tables",
            ],
        ),
    ],
    other: Some(("xdp_core", &["Word", "neighbour", "table"])),
    by_file: false,
};
