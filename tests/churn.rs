//! Dumps taken at any time of a program that allocates on all processors while collections run: in a mark phase, in a sweep, inside
//! the allocator, while a stack grows. What the program holds for sure is stated, and must be reached to the last object.

use crate::fixtures::unmet;
use crate::harness::dying::{self, Death, Writer};
use crate::harness::program::{Mode, Program, Recipe};
use crate::harness::toolchain::{Toolchain, newest, per_release};
use crate::harness::{expect, required, root, tool};
use crate::reference::check::{config, walk};
use crate::reference::heap::{Memory, Object};
use crate::reference::masked;
use crate::reference::sets::{self, describe};
use goref_fast::image::{Inputs, Process};
use goref_fast::model::heap::SpanId;
use std::path::Path;

/// Where the program is.
const PROGRAM: &str = "testdata/programs/cmd/churn";

/// Microseconds after which it dies, and how (see `cmd/churn`).
const DEATHS: [(&str, &str); 4] = [("20000", "kernel"), ("43210", "kernel"), ("77777", "kernel"), ("30000", "runtime")];

/// Mark of `cmd/churn`'s objects; a small number is added for each kind.
const MARK: u64 = 0x676f_7265_6600_0000;

/// Size, offset of the mark (behind a header and a pointer, if it has them), number to add and count of what must be reached: globals,
/// locals of four goroutines, values of a map, captures.
const STATED: [(u64, u64, u64, usize); 4] =
    [(1152, 16, 1, 300), (1408, 16, 2, 4 * 50), (1792, 0, 3, 200), (2304, 16, 4, 4 * 20)];

/// `GOMAXPROCS` of the program.
const PROCS: u64 = 4;

/// Soft errors that a stop at any instruction explains, but not more of them than threads run Go code: a stack between two states.
const EXPLAINED: [&str; 4] =
    ["stack.unknown_return_pc", "stack.unknown_pc", "stack.sp_write", "stack.unknown_position"];

// For arm64: qemu stops all threads between two of the blocks that it translates.
per_release! {
    default: |version| check_all(version, Mode::Default, Writer::preferred());
    noopt, 26: |version| check_all(version, Mode::NoOpt, Writer::preferred());
    emulator, 24, 27: |version| check_all(version, Mode::Default, Writer::Emulator);
    emulator_noopt, 26: |version| check_all(version, Mode::NoOpt, Writer::Emulator);
}

#[test]
fn debugger() {
    if let Some(version) = newest() {
        check_all(version, Mode::Default, Writer::Debugger);
    }
}

fn check_all(version: &str, mode: Mode, writer: Writer) {
    let mut wrong = Vec::new();
    for (us, how) in DEATHS {
        let Some(toolchain) = required(Toolchain::get(version)) else { return };
        let recipe = Recipe { machine: writer.machine(), ..mode.into() };
        let program = Program::build(&toolchain, PROGRAM, recipe);
        let death = Death {
            args: &[us, how],
            procs: PROCS as u32,
            godebug: "",
            second_abort: how == "runtime",
            ..Death::default()
        };
        let Some((core, _)) = required(dying::take(&program, &death, writer)) else { return };
        let findings = check(version, mode, &program.exe, &core);
        wrong.extend(findings.iter().map(|finding| format!("{us} {how}: {finding}")));
    }
    assert!(wrong.is_empty(), "{version} {} {writer:?}:\n{}", mode.name(), wrong.join("\n"));
}

fn check(version: &str, mode: Mode, exe: &Path, core: &Path) -> Vec<String> {
    let inputs = Inputs::open(exe, core, None).expect("open");
    let process = Process::parse(&inputs).expect("parse");
    let (model, walked, roots) = walk(&process, &config(exe, core));
    let memory = Memory { image: &process.image, heap: &model.heap, masks: &model.masks };
    let reached = sets::of_walk(memory, &walked);
    let allocated = sets::allocated(memory);
    let mut wrong = Vec::new();
    let stray = sets::minus(&reached, &allocated);
    wrong.extend(stray.iter().map(|o| format!("reached, not allocated: {}", describe(memory, &roots, *o))));
    if reached != masked::reach(memory, &roots) {
        wrong.push("the reference walker reaches other objects".to_owned());
    }
    for (size, at, kind, want) in STATED {
        // Offsets are those behind a malloc header; up to Go 1.21 there is none.
        let header = |o: &Object| model.heap.object_offset(SpanId(o.span));
        let mark = |o: &Object| memory.word(o.addr + at.saturating_sub(8 - header(o)));
        let stated = |o: &&Object| memory.size(**o) == size && mark(o) == MARK + kind;
        let count = reached.iter().filter(stated).count();
        if count != want {
            wrong.push(format!("{count} of the {want} objects of {size} bytes are reached"));
        }
    }
    // The books balance, or the exit status is not 0.
    let ran = tool::core(exe, core, &["--threads", "1", "-v"]);
    // Where `mcentral.grow` sets the limit (up to Go 1.23), a span is in use a moment before it. It holds nothing yet, and is said not to
    // be read.
    let unfinished = |line: &str| {
        let (_, rest) = line.split_once("(span.bad_geometry: ")?;
        rest.split_once(')')?.0.parse::<u64>().ok()
    };
    let unfinished = ran.stderr().lines().find_map(unfinished).unwrap_or(0);
    let status = if unfinished == 0 { 0 } else { 3 };
    if ran.code() != status || unfinished > PROCS {
        wrong.push(format!("exit status {}: {}", ran.code(), ran.stderr()));
    }
    let profile = ran.decode();
    let bytes = reached.iter().map(|o| memory.size(*o)).sum();
    if profile.total() != [reached.len() as u64, bytes] {
        wrong.push(format!("the profile says {:?} instead of {:?}", profile.total(), (reached.len(), bytes)));
    }
    let mut explained = 0;
    // A kernel writes no pages that nobody touched, and that is all that this one says.
    let untouched = "soft errors core.memory_taken_as_never_written";
    let soft_errors = |l: &&str| {
        l.starts_with("soft errors") && !l.starts_with(untouched) && !l.starts_with("soft errors span.bad_geometry")
    };
    for line in ran.stdout().lines().filter(soft_errors) {
        let count = line.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok());
        match count.filter(|_| EXPLAINED.iter().any(|cause| line.contains(cause))) {
            Some(count) => explained += count,
            None => wrong.push(line.to_owned()),
        }
    }
    if explained > PROCS {
        wrong.push(format!("{explained} soft errors of stacks, with {PROCS} threads in Go code"));
    }
    let expectations = expect::read_main(&root().join(PROGRAM).join("main.go"));
    wrong.extend(unmet(&expectations, version, mode, &profile));
    if tool::core(exe, core, &["--threads", "4"]).bytes() != ran.bytes() {
        wrong.push("--threads 4 gives other bytes than --threads 1".to_owned());
    }
    wrong
}
