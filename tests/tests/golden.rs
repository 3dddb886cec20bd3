//! The golden table: description, input, verdict and output bytes of ordinary and unusual packets,
//! through the XDP program and the tc programs in the kernel and through the packet logic on the
//! host.
//!
//! The expected bytes come from the lab's packet builder, which computes every checksum from
//! scratch and shares no code with the dataplane.

#[path = "golden/generated.rs"]
mod generated;
#[path = "golden/in_kernel.rs"]
mod in_kernel;
#[path = "golden/on_host.rs"]
mod on_host;
#[path = "golden/second.rs"]
mod second;
mod table;

use anyhow::Result;
use ikenat_tests::bpf::Object;
use ikenat_tests::lab::cleanup;
use ikenat_tests::suite::{not_root, test};
use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;
use std::sync::mpsc;

/// The name of a test and its result.
type Named = (String, Result<()>);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if let Err(error) = cleanup::on_interruption() {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let mut tests: Vec<Trial> = on_host::whole().into_iter().map(done).collect();
    if let Some(why) = not_root() {
        tests.push(test("kernel", Some(why), || Ok(())));
    } else {
        let (sender, results) = mpsc::channel();
        let ran = Object::ALL.map(|object| in_kernel::whole(object, &sender));
        drop(sender);
        tests.extend(results.into_iter().map(done));
        tests.extend(ran);
    }
    libtest_mimic::run(&arguments, tests).exit_code()
}

fn done((name, result): Named) -> Trial {
    test(&name, None, move || result)
}
