//! Dumps taken at any time of a program that allocates on all processors while collections run: in a mark phase, in a sweep, inside
//! the allocator, while a stack grows. What the program holds for sure is stated, and must be reached to the last object.
//!
//! Where a round that ends at some microsecond is then, is luck, and printed. In [`STOPS`] gdb stops the program in each phase of a
//! collection and of a span's life.

use crate::fixtures::unmet;
use crate::harness::dying::{self, Death, Stop, Writer};
use crate::harness::program::{Mode, Program, Recipe};
use crate::harness::toolchain::{Toolchain, minor, newest, per_release};
use crate::harness::{expect, required, root, tool};
use crate::reference::check::{config, walk};
use crate::reference::dump::Dump;
use crate::reference::heap::{Memory, Object};
use crate::reference::masked;
use crate::reference::sets::{self, describe};
use goref_fast::image::{Inputs, Process};
use goref_fast::model::heap::{Heap, SpanId};
use serde_json::Value;
use std::path::Path;
use std::{fmt, fs};

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

/// How often a core is taken elsewhere because the collection was not where it should have been: that is luck where many collections
/// pass by.
const ATTEMPTS: u32 = 5;

/// Phases of a collection (`gcphase`).
const PHASES: [&str; 3] = ["off", "mark", "mark termination"];

/// What a collection is doing in a core.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Moment {
    Marking,
    /// The world stands still.
    MarkTermination,
    /// Some spans wait for the sweeper, and have garbage.
    Sweeping,
    /// The same, and a sweeper has taken a span.
    InSpan,
    /// A span is in use that its allocator has not seen yet.
    NewSpan,
    Anything,
}

/// Where gdb stops the program, and what must be going on. The counts let the program come so far that all that it states is there.
const STOPS: [(Stop, Moment); 7] = [
    (Stop { function: "runtime.gcDrain", ignore: 40, ..Stop::ENTRY }, Moment::Marking),
    (Stop { function: "runtime.gcMark", ignore: 9, ..Stop::ENTRY }, Moment::MarkTermination),
    (Stop { function: "runtime.sweepone", ignore: 900, ..Stop::ENTRY }, Moment::Sweeping),
    (Stop { function: "runtime.(*sweepLocked).sweep", ignore: 900, ..Stop::ENTRY }, Moment::InSpan),
    (
        Stop { function: "runtime.(*mheap).alloc", ignore: 900, then: &["delete", "finish"], ..Stop::ENTRY },
        Moment::NewSpan,
    ),
    (Stop { function: "runtime.(*mcache).refill", ignore: 900, ..Stop::ENTRY }, Moment::Anything),
    (Stop { function: "runtime.copystack", ignore: 40, ..Stop::ENTRY }, Moment::Anything),
];

// For arm64: qemu stops all threads between two of the blocks that it translates.
per_release! {
    default: |version| check_all(version, Mode::Default, Writer::preferred());
    noopt, 26: |version| check_all(version, Mode::NoOpt, Writer::preferred());
    phases: |version| stopped(version);
    emulator, 24, 27: |version| check_all(version, Mode::Default, Writer::Emulator);
    emulator_noopt, 26: |version| check_all(version, Mode::NoOpt, Writer::Emulator);
}

#[test]
fn debugger() {
    if let Some(version) = newest() {
        check_all(version, Mode::Default, Writer::Debugger);
    }
}

/// In each phase of a collection, and of a span's life.
fn stopped(version: &'static str) {
    let Some(toolchain) = required(Toolchain::get(version)) else { return };
    let program = Program::build(&toolchain, PROGRAM, Mode::Default);
    let mut wrong = Vec::new();
    for (stop, moment) in STOPS {
        let mut met = false;
        for attempt in 0..ATTEMPTS {
            let stop = Stop { ignore: stop.ignore + 37 * attempt, ..stop };
            // It dies anyway, in the wrong place, if it never comes there.
            let args = &["60000000", "kernel"][..];
            let death = Death { args, procs: PROCS as u32, stop: Some(stop), ..Death::default() };
            let Some((core, _)) = required(dying::take(&program, &death, Writer::Debugger)) else { return };
            let (now, findings) = check(version, Mode::Default, &program.exe, &core);
            met = now.is(moment)
                && (moment != Moment::NewSpan || minor(version) > 23 || stale_limits(&program.exe, &core) > 0);
            eprintln!("{version} {}, {}: {now}", stop.function, stop.ignore);
            wrong.extend(findings.iter().map(|finding| format!("{}, {}: {finding}", stop.function, stop.ignore)));
            if met {
                break;
            }
        }
        if !met {
            wrong.push(format!("{}: never {moment:?}", stop.function));
        }
    }
    assert!(wrong.is_empty(), "{version}:\n{}", wrong.join("\n"));
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
        let (is, findings) = check(version, mode, &program.exe, &core);
        eprintln!("{version} {} {us} us, {how}, {writer:?}: {is}", mode.name());
        wrong.extend(findings.iter().map(|finding| format!("{us} {how}: {finding}")));
    }
    assert!(wrong.is_empty(), "{version} {} {writer:?}:\n{}", mode.name(), wrong.join("\n"));
}

/// What a collection is doing in a core, and all that is not as it must be.
fn check(version: &str, mode: Mode, exe: &Path, core: &Path) -> (Now, Vec<String>) {
    let inputs = Inputs::open(exe, core, None).expect("open");
    let process = Process::parse(&inputs).expect("parse");
    let (model, walked, roots) = walk(&process, &config(exe, core));
    let memory = Memory { image: &process.image, heap: &model.heap, masks: &model.masks };
    let reached = sets::of_walk(memory, &walked);
    let allocated = sets::allocated(memory);
    let mut wrong = Vec::new();
    let now = Now::of(&model.heap);
    let is_dead = |o: &&Object| {
        let dead = model.heap.dead_bits(SpanId(o.span));
        dead.get(o.slot as usize / 64).is_some_and(|word| word >> (o.slot % 64) & 1 != 0)
    };
    let undead =
        reached.iter().filter(is_dead).map(|o| format!("reached, but garbage: {}", describe(memory, &roots, *o)));
    wrong.extend(undead);
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
    let dir = tempfile::tempdir().unwrap();
    let stats = dir.path().join("stats.json");
    let ran = tool::core(exe, core, &["--threads", "1", "-v", "--stats", stats.to_str().unwrap()]);
    if ran.code() != 0 {
        wrong.push(format!("exit status {}: {}", ran.code(), ran.stderr()));
    }
    let stats: Value = serde_json::from_slice(&fs::read(&stats).unwrap()).expect("JSON");
    if stats["garbage"]["unswept"]["objects"] != now.dead {
        wrong.push(format!("{} dead slots, but the books say {}", now.dead, stats["garbage"]["unswept"]));
    }
    let profile = ran.decode();
    let bytes = reached.iter().map(|o| memory.size(*o)).sum();
    if profile.total() != [reached.len() as u64, bytes] {
        wrong.push(format!("the profile says {:?} instead of {:?}", profile.total(), (reached.len(), bytes)));
    }
    let mut explained = 0;
    // A kernel writes no pages that nobody touched, and that is all that this one says.
    let untouched = "soft errors core.memory_taken_as_never_written";
    let soft_errors = |l: &&str| l.starts_with("soft errors") && !l.starts_with(untouched);
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
    (now, wrong)
}

/// What a collection is doing, in the words of the heap's own structures.
struct Now {
    phase: &'static str,
    /// Spans that wait for the sweeper, and those that it has taken.
    unswept: usize,
    taken: usize,
    /// Dead slots in the former.
    dead: u64,
    /// Spans of this cycle without a slot that was handed out.
    fresh: usize,
}

impl Now {
    fn of(heap: &Heap) -> Self {
        let counters = heap.counters();
        let off = counters.gcphase == 0;
        let spans = || (0..heap.spans().len() as u32).map(SpanId);
        let since = |id: SpanId| heap.details(id).sweepgen.wrapping_sub(counters.sweepgen).cast_signed();
        let unused = |id: &SpanId| heap.details(*id).free_index == 0 && heap.details(*id).alloc_count == 0;
        Self {
            phase: PHASES.get(counters.gcphase as usize).copied().unwrap_or("unknown"),
            unswept: spans().filter(|id| off && matches!(since(*id), -2 | 1)).count(),
            taken: spans().filter(|id| since(*id) == -1).count(),
            dead: spans().map(|id| heap.dead_bits(id).iter().map(|w| u64::from(w.count_ones())).sum::<u64>()).sum(),
            fresh: spans().filter(|id| since(*id) == 0 && unused(id)).count(),
        }
    }
    /// Whether the core is what it was taken for.
    fn is(&self, moment: Moment) -> bool {
        match moment {
            Moment::Marking => self.phase == "mark",
            Moment::MarkTermination => self.phase == "mark termination",
            Moment::Sweeping => self.unswept > 0 && self.dead > 0,
            Moment::InSpan => self.taken > 0,
            Moment::NewSpan => self.fresh > 0,
            Moment::Anything => true,
        }
    }
}

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { phase, unswept, taken, dead, fresh } = self;
        write!(f, "phase {phase}; spans: {unswept} to sweep with {dead} dead slots, {taken} being swept, {fresh} new")
    }
}

/// How many spans of a core have a limit that is not theirs yet. `initSpan` sets it since Go 1.24.
fn stale_limits(exe: &Path, core: &Path) -> usize {
    let inputs = Inputs::open(exe, core, None).expect("open");
    let process = Process::parse(&inputs).expect("parse");
    let dump = Dump::read(&process);
    let mspan = dump.types.find("runtime.mspan").expect("a type of the runtime");
    let (at, _) = dump.types.field_path(mspan, "limit").expect("a field of it");
    let stale = |id: &SpanId| {
        let (span, details) = (dump.heap.span(*id), dump.heap.details(*id));
        let limit = dump.memory().word(details.mspan + at);
        !(span.start..=span.start + details.npages * 8192).contains(&limit)
    };
    (0..dump.heap.spans().len() as u32).map(SpanId).filter(stale).count()
}
