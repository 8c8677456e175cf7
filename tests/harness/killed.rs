//! Cores of programs that a signal kills as they wait: the kernel writes them, or, of programs for linux/arm64, `qemu-aarch64`, which writes
//! the core of the emulated machine.
//!
//! The programs are killed after they have told their truth, so nothing can say afterwards that nothing was allocated meanwhile, but the
//! core itself: its allocation bits must agree with the truth, or the core is retaken and never compared.

use super::corefile::{CoreFile, Truth, parse_truth};
use super::dying::{self, Death, Writer};
use super::program::{CROSS_COMPILER, Machine, Program, Recipe};
use super::toolchain::Toolchain;
use super::{Outcome, Skip};
use crate::reference::dump::Dump;
use crate::reference::sets;
use goref_fast::image::{Inputs, Process};
use std::fs;
use std::path::Path;
use std::process::Command;

/// How often a core is retaken because the runtime allocated something of its own (a thread, mostly) after the truth.
const ATTEMPTS: usize = 8;

/// The core of a program of the repository that is run with `args`, cached beside the executable. SIGABRT comes from outside, as soon as it waits.
///
/// * `filter`: as in [`Death`].
pub fn core_of(
    version: &str,
    source: &str,
    recipe: Recipe,
    args: &[&str],
    writer: Writer,
    filter: &'static str,
) -> Outcome<CoreFile> {
    if matches!(writer, Writer::Kernel) {
        dying::kernel_writes_cores().map_err(Skip)?;
    } else if recipe.mode.is_dynamic() {
        dying::loader()?;
    }
    if recipe.mode.needs_cgo() && recipe.machine == Machine::Arm64 {
        let version = Command::new(CROSS_COMPILER).arg("--version").output();
        version.map_err(|e| Skip(format!("{CROSS_COMPILER}: {e}")))?;
    }
    let program = Program::build(&Toolchain::get(version)?, source, recipe);
    let core = program.dir.join(format!("core-killed{}{filter}", args.concat()));
    let killed = Death { args, procs: 2, filter, second_abort: true, signal: Some("ABRT"), ..Death::default() };
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let line = dying::take_to(&core, &program, &killed, writer)?;
        let truth = parse_truth(&line, "TRUTH").expect("numbers after TRUTH");
        let allocated = allocated(&program.exe, &core);
        if allocated == truth {
            return Ok(CoreFile { exe: program.exe, core, truth });
        }
        last = Some((truth, allocated));
        fs::remove_file(&core).unwrap();
    }
    panic!("{}: the heap never held still: {last:?}", program.exe.display());
}

/// What the allocation bits of a core say.
fn allocated(exe: &Path, core: &Path) -> Truth {
    let inputs = Inputs::open(exe, core, None).expect("open");
    let process = Process::parse(&inputs).expect("parse");
    let dump = Dump::read(&process);
    let memory = dump.memory();
    let none = Truth { bytes: 0, objects: 0 };
    sets::allocated(memory)
        .iter()
        .fold(none, |sum, o| Truth { bytes: sum.bytes + memory.size(*o), objects: sum.objects + 1 })
}
