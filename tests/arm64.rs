//! Programs for linux/arm64, run by `qemu-aarch64`, which writes a core of the emulated machine when they die of a signal.
//!
//! The fixtures are the same as for amd64, and so is what they state. They are killed after their truth was told, so nothing can
//! say afterwards that nothing was allocated meanwhile but the core itself: its allocation bits must agree with the truth, or the core
//! is retaken and never compared; what is reached must be equal then.

use crate::crash;
use crate::fixtures::{self, unmet};
use crate::harness::corefile::{Truth, parse_truth};
use crate::harness::dying::{self, Death, Writer};
use crate::harness::program::{Mode, Program};
use crate::harness::toolchain::{Toolchain, selected};
use crate::harness::{Outcome, expect, required, root, tool};
use crate::reference::dump::Dump;
use crate::reference::heap::Memory;
use crate::reference::sets;
use goref_fast::image::{Inputs, Process};
use std::fs;
use std::path::PathBuf;

macro_rules! arm64 {
    ($($name:ident, $dies:ident: $version:literal, $mode:ident;)*) => {
        $(
            #[test]
            fn $name() {
                if selected($version) {
                    check_fixtures($version, Mode::$mode);
                }
            }

            #[test]
            fn $dies() {
                if selected($version) {
                    crash::check_all($version, Mode::$mode, Writer::Emulator);
                }
            }
        )*
    };
}

arm64! {
    go_1_24_default, go_1_24_default_dies: "1.24.11", Default;
    go_1_24_noopt, go_1_24_noopt_dies: "1.24.11", NoOpt;
    go_1_25_default, go_1_25_default_dies: "1.25.5", Default;
    go_1_25_noopt, go_1_25_noopt_dies: "1.25.5", NoOpt;
    go_1_26_default, go_1_26_default_dies: "1.26.6", Default;
    go_1_26_noopt, go_1_26_noopt_dies: "1.26.6", NoOpt;
    go_1_27_default, go_1_27_default_dies: "1.27.3", Default;
    go_1_27_noopt, go_1_27_noopt_dies: "1.27.3", NoOpt;
    go_1_26_pie, go_1_26_pie_dies: "1.26.6", Pie;
}

/// How often a core is retaken because the runtime allocated something of its own (a thread, mostly) after the truth.
const ATTEMPTS: usize = 8;

struct Dead {
    exe: PathBuf,
    core: PathBuf,
    truth: Truth,
}

impl Dead {
    /// A core with nothing in it that was not there when the truth was told.
    fn take(version: &str, mode: Mode) -> Outcome<Self> {
        let toolchain = Toolchain::get(version)?;
        let program = Program::build_for(Writer::Emulator.machine(), &toolchain, fixtures::PROGRAM, mode);
        let death =
            Death { args: &[], procs: 2, godebug: "", second_abort: false, signal: Some("ABRT") };
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let (core, line) = dying::take(&program, &death, Writer::Emulator)?;
            let truth = parse_truth(&line, "TRUTH").expect("numbers after TRUTH");
            let dead = Self { exe: program.exe.clone(), core, truth };
            let allocated = dead.allocated();
            if allocated == truth {
                return Ok(dead);
            }
            last = Some((truth, allocated));
            fs::remove_file(&dead.core).unwrap();
            dying::forget(&program, &death, Writer::Emulator);
        }
        panic!("{}: the heap never held still: {last:?}", program.exe.display());
    }

    /// What the allocation bits of the core say.
    fn allocated(&self) -> Truth {
        let inputs = Inputs::open(&self.exe, &self.core, None).expect("open");
        let process = Process::parse(&inputs).expect("parse");
        let dump = Dump::read(&process);
        let memory = Memory { image: &process.image, heap: &dump.heap, masks: &dump.masks };
        sets::allocated(memory).iter().fold(Truth { bytes: 0, objects: 0 }, |sum, o| Truth {
            bytes: sum.bytes + memory.size(*o),
            objects: sum.objects + 1,
        })
    }
}

fn check_fixtures(version: &str, mode: Mode) {
    let Some(dead) = required(Dead::take(version, mode)) else { return };
    let run = |args: &[&str]| tool::core_ok(&dead.exe, &dead.core, args);
    let first = run(&["--threads", "2", "-v"]);
    let profile = first.decode();
    let truth = [dead.truth.objects, dead.truth.bytes];
    let mut wrong = Vec::new();
    if profile.total() != truth {
        wrong.push(format!("total [objects, bytes]: the collector says {truth:?}, the profile {:?}", profile.total()));
    }
    wrong.extend(first.stdout().lines().filter(|l| l.starts_with("soft error")).map(str::to_owned));
    let expectations = expect::read_all(&root().join(fixtures::PROGRAM), fixtures::MODULE);
    assert!(expectations.len() > 300, "only {} statements were found", expectations.len());
    wrong.extend(unmet(&expectations, version, mode, &profile));
    if run(&["--threads", "3"]).bytes() != first.bytes() {
        wrong.push("--threads 3 gives other bytes than --threads 2".to_owned());
    }
    let total = run(&["--no-types"]).decode().total();
    if total != truth {
        wrong.push(format!("total with --no-types: {total:?} instead of {truth:?}"));
    }
    assert!(wrong.is_empty(), "{version} {}: {} findings:\n{}", mode.name(), wrong.len(), wrong.join("\n"));
}
