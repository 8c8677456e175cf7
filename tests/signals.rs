//! A goroutine whose frame alone holds an object, while its thread is at some instruction of a signal handler, or while the runtime
//! switches to its stack and off it. gdb stops the program there, other threads do not run on; totals are the collector's.

use crate::fixtures::unmet;
use crate::harness::corefile::{Truth, parse_truth};
use crate::harness::dying::{self, Death, Stop, Writer};
use crate::harness::program::{Mode, Program, Recipe};
use crate::harness::toolchain::{Toolchain, per_release};
use crate::harness::{expect, required, root, tool};
use crate::reference::check::{config, walk};
use crate::reference::dump::Dump;
use crate::reference::heap::{Memory, Object};
use crate::reference::sets::{self, describe};
use goref_fast::image::{Inputs, Process};
use std::path::Path;

/// Where the program is.
const PROGRAM: &str = "testdata/programs/cmd/signals";

/// From when on gdb counts.
const BEGUN: Stop = Stop { from: "main.begun", ..Stop::ENTRY };
/// The first instruction of the handler, on the signal stack.
const HANDLER: Stop = Stop { function: "*runtime.sigtramp", ignore: 3, ..BEGUN };
/// Where the runtime goes to a goroutine's stack, and where it leaves it.
const GOGO: Stop = Stop { function: "*gogo", ignore: 30, ..BEGUN };
const MCALL: Stop = Stop { function: "*runtime.mcall", ignore: 30, ..BEGUN };

/// So that no other thread goes on meanwhile.
const ALONE: &str = "set scheduler-locking on";

const SIGNALS: [Stop; 12] = [
    HANDLER,
    Stop { then: &[ALONE, "stepi"], ..HANDLER },
    Stop { then: &[ALONE, "stepi 3"], ..HANDLER },
    Stop { then: &[ALONE, "stepi 12"], ..HANDLER },
    Stop { then: &[ALONE, "stepi 40"], ..HANDLER },
    Stop { then: &[ALONE, "stepi 100"], ..HANDLER },
    Stop { then: &[ALONE, "tbreak *'runtime.sigtrampgo'", "continue"], ..HANDLER },
    Stop { then: &[ALONE, "tbreak *'runtime.sigfwdgo'", "continue"], ..HANDLER },
    Stop { then: &[ALONE, "tbreak *'runtime.sighandler'", "continue"], ..HANDLER },
    Stop { then: &[ALONE, "tbreak *'runtime.sighandler'", "continue", "stepi 25"], ..HANDLER },
    // The handler is done: where it returns to, and at the system call there.
    Stop { then: &[ALONE, "set language c", "tbreak **(long*)$sp", "continue"], ..HANDLER },
    Stop { then: &[ALONE, "set language c", "tbreak **(long*)$sp", "continue", "stepi"], ..HANDLER },
];

const SWITCHES: [Stop; 8] = [
    GOGO,
    Stop { then: &[ALONE, "stepi 2"], ..GOGO },
    Stop { then: &[ALONE, "stepi 4"], ..GOGO },
    Stop { then: &[ALONE, "stepi 6"], ..GOGO },
    Stop { then: &[ALONE, "stepi 8"], ..GOGO },
    MCALL,
    Stop { then: &[ALONE, "stepi 6"], ..MCALL },
    Stop { then: &[ALONE, "stepi 14"], ..MCALL },
];

per_release! {
    handlers, 17, 21, 26, 27: |version| check_all(version, "busy", &SIGNALS);
    switches, 17, 21, 26, 27: |version| check_all(version, "yields", &SWITCHES);
}

fn check_all(version: &str, way: &str, stops: &[Stop]) {
    let Some(toolchain) = required(Toolchain::get(version)) else { return };
    let program = Program::build(&toolchain, PROGRAM, Recipe::from(Mode::Default));
    let expectations = expect::read_main(&root().join(PROGRAM).join("main.go"));
    let mut wrong = Vec::new();
    for stop in stops {
        let death =
            Death { args: &[way], procs: 3, godebug: "asyncpreemptoff=1", stop: Some(*stop), ..Death::default() };
        let Some((core, line)) = required(dying::take(&program, &death, Writer::Debugger)) else { break };
        let truth = parse_truth(&line, "TRUTH").expect("numbers after TRUTH");
        let mut found = objects(&program.exe, &core, truth);
        let ran = tool::core_ok(&program.exe, &core, &["--threads", "1", "-v"]);
        let profile = ran.decode();
        let said = |line: &&str| line.starts_with("soft errors stack.") || line.starts_with("conservative: ");
        found.extend(ran.stdout().lines().filter(said).map(str::to_owned));
        found.extend(unmet(&expectations, version, Mode::Default, &profile));
        wrong.extend(found.iter().map(|finding| format!("{} {:?}: {finding}", stop.function, stop.then)));
    }
    assert!(wrong.is_empty(), "{version}:\n{}", wrong.join("\n"));
}

/// What is reached but not allocated, or the other way round, and how the number differs from the collector's `truth`.
fn objects(exe: &Path, core: &Path, truth: Truth) -> Vec<String> {
    let inputs = Inputs::open(exe, core, None).expect("open");
    let process = Process::parse(&inputs).expect("parse");
    let dump = Dump::read(&process);
    let (model, walked, roots) = walk(&process, &config(exe, core));
    let memory = Memory { image: &process.image, heap: &model.heap, masks: &model.masks };
    let (reached, allocated) = (sets::of_walk(memory, &walked), sets::allocated(memory));
    let mut unreached = sets::minus(&allocated, &reached);
    unreached.retain(|o| !sets::is_of_the_collection(&dump, *o));
    let stray = sets::minus(&reached, &allocated);
    let lines = |what: &str, objects: &[Object]| {
        objects.iter().map(|o| format!("{what}: {}", describe(memory, &roots, *o))).collect::<Vec<_>>()
    };
    let mut wrong = [lines("allocated, not reached", &unreached), lines("reached, not allocated", &stray)].concat();
    // The runtime starts a thread when it likes: its objects are in the numbers or came after them.
    let new = sets::allocated_since_collection(memory);
    let sum = |objects: &mut dyn Iterator<Item = &Object>| {
        objects.fold([0, 0], |[count, bytes], o| [count + 1, bytes + memory.size(*o)])
    };
    let (least, most) = (sum(&mut reached.iter().filter(|o| !new.contains(o))), sum(&mut reached.iter()));
    if !(least[0]..=most[0]).contains(&truth.objects) || !(least[1]..=most[1]).contains(&truth.bytes) {
        wrong.push(format!("the collector counted {truth:?}, reached are {least:?} to {most:?}"));
    }
    wrong
}
