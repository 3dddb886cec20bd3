//! Queries about loaded BPF programs and links, answered by the kernel (`bpf(2)`). Listing programs
//! or links needs CAP_SYS_ADMIN; without it these queries find nothing.

use crate::netlink::Netlink;
use crate::tables::bpf_syscall;
use aya::programs::{ProgramInfo, loaded_links, loaded_programs};

/// Whether the kernel has tcx links. The version does not decide: a 6.6 may be built without them.
pub fn has_tcx(ifindex: u32) -> bool {
    bpf_syscall::tcx_programs(ifindex, false).is_ok()
}

/// The name of a loaded program, if this process may read it.
pub fn program_name(id: u32) -> Option<String> {
    loaded_programs()
        .filter_map(Result::<_, _>::ok)
        .find(|program| program.id() == id)?
        .name_as_str()
        .filter(|name| !name.is_empty())
        .map(ToOwned::to_owned)
}

/// The ids of the loaded programs that use a map.
pub(crate) fn programs_using_map(map: u32) -> Vec<u32> {
    let uses = |program: &ProgramInfo| {
        let maps = program.map_ids().ok().flatten();
        maps.is_some_and(|maps| maps.contains(&map))
    };
    let programs = loaded_programs().filter_map(Result::<_, _>::ok);
    programs.filter(uses).map(|program| program.id()).collect()
}

/// The id of the BPF link that holds a program, if there is one and this process may list links.
pub(crate) fn link_of_program(program: u32) -> Option<u32> {
    loaded_links()
        .filter_map(Result::<_, _>::ok)
        .find(|link| link.program_id() == program)
        .map(|link| link.id())
}

/// Whether any of these programs or links is still loaded.
pub(crate) fn any_loaded(programs: &[u32], links: &[u32]) -> bool {
    let mut loaded_links = loaded_links().filter_map(Result::<_, _>::ok);
    let mut loaded_programs = loaded_programs().filter_map(Result::<_, _>::ok);
    loaded_links.any(|link| links.contains(&link.id()))
        || loaded_programs.any(|program| programs.contains(&program.id()))
}

/// Whether a program is attached to an interface of this network namespace, by XDP or tcx.
pub(crate) fn is_attached(netlink: &Netlink, ifindex: u32, program: u32) -> bool {
    let xdp = netlink
        .link_by_index(ifindex)
        .is_ok_and(|link| link.xdp == Some(program));
    let tcx =
        |egress| bpf_syscall::tcx_programs(ifindex, egress).is_ok_and(|all| all.contains(&program));
    xdp || tcx(false) || tcx(true)
}
