//! Programs that crash: threads in signal handlers, a goroutine stopped anywhere, a runtime that allocated while it died. The
//! kernel writes the core (no file-backed pages), or gdb at the fatal signal: always in one test, and wherever the kernel cannot; or
//! qemu, of a program for arm64.
//!
//! The books are closed object by object: what the collector counted before the crash, and each object that the crash made, by its
//! cause, content and holder, are what the core has. No number is tolerated.

use crate::fixtures::unmet;
use crate::harness::corefile::{Truth, parse_truth};
use crate::harness::dying::{self, Death, Writer};
use crate::harness::program::{Mode, Program, Recipe};
use crate::harness::toolchain::{Toolchain, newest, per_release};
use crate::harness::{Outcome, Skip, expect, required, root, tool};
use crate::reference::check::{config, walk};
use crate::reference::dump::Dump;
use crate::reference::heap::{Memory, Object};
use crate::reference::sets::{self, describe};
use goref_fast::address::Addr;
use goref_fast::image::{Inputs, Process};
use std::path::PathBuf;

/// A way to die, and what it leaves on the heap.
struct Way {
    /// The argument of `cmd/crash`.
    name: &'static str,
    /// It dies of a SIGABRT from outside of the runtime.
    by_abort: bool,
    /// What the dying runtime allocates. All of it is under [`PANIC_VALUE`].
    made: &'static [Made],
    /// The function whose conservatively scanned frame alone holds one [`V`].
    held_by_looks_in: Option<&'static str>,
}

/// One object that a crash allocates.
enum Made {
    /// `preprintpanics` replaces an error by what its `Error` says, boxed: the header of this string.
    Boxed(&'static str),
    /// The bytes of this string, which `Error` concatenated.
    Text(&'static str),
}

/// The innermost panic of the dying goroutine.
const PANIC_VALUE: [&str; 2] = ["runtime.gopanic.p", "arg. (interface {})"];
/// What `Failure` says.
const FAILURE: &str = "a failure";
/// What `runtime.memoryError` says.
const NIL: &str = "runtime error: invalid memory address or nil pointer dereference";
/// Size of the fixture's `V`.
const V: u64 = 32;

const WAYS: [Way; 10] = [
    // SIGABRT to the thread of the goroutine.
    Way { name: "abort", by_abort: true, made: &[], held_by_looks_in: None },
    // SIGQUIT to the process: any thread handles it.
    Way { name: "quit", by_abort: false, made: &[], held_by_looks_in: None },
    // While another goroutine holds an object in a register alone.
    Way { name: "spin", by_abort: true, made: &[], held_by_looks_in: Some("main.spin") },
    // The same, preempted by a signal: the frame that has its registers is scanned by looks, and the one that it interrupted.
    Way { name: "preempted", by_abort: true, made: &[], held_by_looks_in: Some("main.spin") },
    // Preempted in the prologue of a function: everything is exact.
    Way { name: "prologue", by_abort: true, made: &[], held_by_looks_in: None },
    // A goroutine that never ran.
    Way { name: "unstarted", by_abort: true, made: &[], held_by_looks_in: None },
    Way { name: "panic", by_abort: false, made: &[Made::Boxed(FAILURE)], held_by_looks_in: None },
    Way { name: "nil", by_abort: false, made: &[Made::Boxed(NIL), Made::Text(NIL)], held_by_looks_in: None },
    // Two fatal errors: no goroutine runs; the running one's.
    Way { name: "deadlock", by_abort: false, made: &[], held_by_looks_in: None },
    Way { name: "unlock", by_abort: false, made: &[], held_by_looks_in: None },
];

per_release! {
    default: |version| check_all(version, Mode::Default, Writer::preferred());
    noopt, 24, 27: |version| check_all(version, Mode::NoOpt, Writer::preferred());
    emulator, 24, 25, 26, 27: |version| check_all(version, Mode::Default, Writer::Emulator);
    emulator_noopt, 27: |version| check_all(version, Mode::NoOpt, Writer::Emulator);
}

/// A debugger that stops at the fatal signal writes other segments and notes, and the runtime is in the same state.
#[test]
fn debugger() {
    if let Some(version) = newest() {
        check_all(version, Mode::Default, Writer::Debugger);
    }
}

/// What the kernel leaves out: file-backed memory never, always or but for the first page of each ELF file; shared memory.
#[test]
fn coredump_filters() {
    let Some(version) = newest() else { return };
    if required(dying::kernel_writes_cores().map_err(Skip)).is_none() {
        return;
    }
    let mut wrong = Vec::new();
    for filter in ["0x33", "0x3f", "0x23", "0x1", "0x7f"] {
        for way in WAYS.iter().filter(|way| ["abort", "nil"].contains(&way.name)) {
            let Some(crash) = required(Crash::take(version, Mode::Default, way, Writer::Kernel, filter)) else {
                return;
            };
            let found = check(version, Mode::Default, way, &crash);
            wrong.extend(found.iter().map(|finding| format!("{filter} {}: {finding}", way.name)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn check_all(version: &str, mode: Mode, writer: Writer) {
    let mut wrong = Vec::new();
    for way in &WAYS {
        let Some(crash) = required(Crash::take(version, mode, way, writer, "")) else { return };
        wrong.extend(check(version, mode, way, &crash).iter().map(|finding| format!("{}: {finding}", way.name)));
    }
    assert!(wrong.is_empty(), "{version} {} {writer:?}:\n{}", mode.name(), wrong.join("\n"));
}

fn check(version: &str, mode: Mode, way: &Way, crash: &Crash) -> Vec<String> {
    let inputs = Inputs::open(&crash.exe, &crash.core, None).expect("open");
    let process = Process::parse(&inputs).expect("parse");
    let dump = Dump::read(&process);
    let (model, walked, roots) = walk(&process, &config(&crash.exe, &crash.core));
    let memory = Memory { image: &process.image, heap: &model.heap, masks: &model.masks };
    let mut wrong = Vec::new();

    // Every object that came after the last collection is one that the crash made, or that the runtime makes when it likes.
    let mut new = sets::allocated_since_collection(memory);
    let mut made = Vec::new();
    for expected in way.made {
        match new.iter().position(|o| expected.is(memory, *o)) {
            Some(i) => made.push(new.remove(i)),
            None => wrong.push(format!("no object since the last collection is {}", expected.cause())),
        }
    }
    let mut late = sets::take_threads(&dump, &mut new);
    late.extend(new.extract_if(.., |o| sets::is_timers_of_a_p(&dump, *o)).map(|o| vec![o]));
    late.extend(new.extract_if(.., |o| sets::is_spare_record_of_a_p(&dump, *o)).map(|o| vec![o]));
    let unnamed = new.iter().map(|o| describe(memory, &roots, *o));
    wrong.extend(unnamed.map(|o| format!("allocated since the last collection, by no known cause: {o}")));

    // The others are what the collector counted, and all are reached but for those that a collection leaves to nobody.
    let allocated = sets::allocated(memory);
    let sum = |objects: &mut dyn Iterator<Item = Object>| {
        objects.fold(Truth { objects: 0, bytes: 0 }, |sum, o| Truth {
            objects: sum.objects + 1,
            bytes: sum.bytes + memory.size(o),
        })
    };
    let rest: Vec<_> = allocated.iter().copied().filter(|o| !made.contains(o)).collect();
    // What the runtime allocated of its own accord is in the numbers or came after them; each group as a whole.
    let without = |subset: u32| {
        let left_out: Vec<_> = (0..late.len()).filter(|i| subset >> i & 1 != 0).flat_map(|i| &late[i]).collect();
        sum(&mut rest.iter().copied().filter(|o| !left_out.contains(&o)))
    };
    assert!(late.len() < 8, "{} threads and timers", late.len());
    if !(0..1 << late.len()).any(|subset| without(subset) == crash.truth) {
        let (now, truth) = (without(0), crash.truth);
        wrong.push(format!("before the crash the collector counted {truth:?}, the core has {now:?}; known: {late:?}"));
    }
    let mut unreached = sets::minus(&allocated, &sets::of_walk(memory, &walked));
    unreached.retain(|o| !sets::is_of_the_collection(&dump, *o));
    wrong.extend(unreached.iter().map(|o| format!("allocated, not reached: {}", describe(memory, &roots, *o))));

    // The same from outside.
    let one = tool::core_ok(&crash.exe, &crash.core, &["--threads", "1", "-v"]);
    let profile = one.decode();
    let expected = sum(&mut made.iter().copied());
    let reached = sum(&mut allocated.iter().copied().filter(|o| !sets::is_of_the_collection(&dump, *o)));
    let total = [reached.objects, reached.bytes];
    if profile.total() != total {
        wrong.push(format!("the profile says {:?} instead of {total:?}", profile.total()));
    }
    let of_panic = profile.sum(|stack| stack.len() >= 2 && stack[..2] == PANIC_VALUE);
    if of_panic != [expected.objects, expected.bytes] {
        wrong.push(format!("{PANIC_VALUE:?} holds {of_panic:?} instead of {expected:?}"));
    }
    wrong.extend(held_by_looks(way, &dump, &one.stdout()));
    if let Some(line) = one.stdout().lines().find(|l| l.starts_with("soft errors stack.")) {
        wrong.push(format!("a stack was not understood: {line}"));
    }
    let expectations = expect::read_main(&root().join("testdata/programs/cmd/crash/main.go"));
    wrong.extend(unmet(&expectations, version, mode, &profile));
    let four = tool::core_ok(&crash.exe, &crash.core, &["--threads", "4"]);
    if one.bytes() != four.bytes() {
        wrong.push("--threads 4 gives other bytes than --threads 1".to_owned());
    }
    wrong
}

impl Made {
    fn cause(&self) -> String {
        match self {
            Self::Boxed(text) => format!("the string that the panic's value was printed to: {text:?}"),
            Self::Text(text) => format!("the text of the panic's value: {text:?}"),
        }
    }

    fn is(&self, memory: Memory<'_>, object: Object) -> bool {
        let text_at = |addr: u64, text: &str| {
            let mut bytes = vec![0; text.len()];
            memory.image.read(Addr(addr), &mut bytes).is_ok() && bytes == text.as_bytes()
        };
        match self {
            Self::Boxed(text) => {
                let len = || memory.word(object.addr + 8);
                memory.size(object) == 16
                    && !memory.noscan(object)
                    && len() == text.len() as u64
                    && text_at(memory.word(object.addr), text)
            }
            Self::Text(text) => memory.noscan(object) && text_at(object.addr, text),
        }
    }
}

/// What only conservatively scanned words hold is said object by object, with the word and the frame that it is in.
fn held_by_looks(way: &Way, dump: &Dump<'_, '_>, report: &str) -> Vec<String> {
    let memory = dump.memory();
    let mut lines: Vec<_> = report.lines().filter(|l| l.starts_with("conservative: ")).collect();
    let Some(function) = way.held_by_looks_in else {
        return lines.iter().map(|l| format!("held by its looks alone: {l}")).collect();
    };
    // The object that a line tells of, if the word is where it says.
    let held = |line: &str| {
        let number = |after: &str| {
            let digits = line.split_once(after)?.1.split([' ', ',']).next()?;
            u64::from_str_radix(digits, 16).ok()
        };
        let (word, object) = (number("the word at 0x")?, number("the object at 0x")?);
        memory.object_at(memory.word(word)).filter(|o| o.addr == object && line.contains(function))
    };
    if dump.process.architecture.name == "arm64" {
        // The register that a goroutine is started with, R26, is not used for anything else there: it keeps the closure of the `go`.
        let is_closure = |o: Object| dump.function(memory.word(o.addr)).is_some_and(|f| f.0 == memory.word(o.addr));
        lines.retain(|line| !held(line).is_some_and(is_closure));
    }
    let [line] = lines[..] else { return vec![format!("one object is held by {function}, the report says {lines:?}")] };
    if held(line).is_some_and(|o| memory.size(o) == V) {
        return Vec::new();
    }
    vec![format!("{line}; the word leads to {:?}, expected a V held by {function}", held(line))]
}

/// The core of a crash and what the collector counted before.
struct Crash {
    exe: PathBuf,
    core: PathBuf,
    truth: Truth,
}

impl Crash {
    fn take(version: &str, mode: Mode, way: &Way, writer: Writer, filter: &str) -> Outcome<Self> {
        let toolchain = Toolchain::get(version)?;
        let recipe = Recipe { machine: writer.machine(), ..mode.into() };
        let program = Program::build(&toolchain, "testdata/programs/cmd/crash", recipe);
        // Goroutines in their prologue: preempted there and nowhere else.
        let godebug = if way.name == "prologue" { "asyncpreemptoff=1" } else { "" };
        let death =
            Death { args: &[way.name], procs: 2, godebug, filter, second_abort: way.by_abort, ..Death::default() };
        let (core, line) = dying::take(&program, &death, writer)?;
        let truth = parse_truth(&line, "TRUTH").expect("numbers after TRUTH");
        Ok(Self { exe: program.exe, core, truth })
    }
}
