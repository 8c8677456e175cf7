//! Cores that lack pages of the heap. An object whose page is not there is counted where a pointer to it was found, and its own words are
//! nobody's: what only they hold is unreachable. Closures are the case of interest: what they are is in them, and is read when a level is
//! put in order and not when they are found.

use crate::fixtures::MODULE;
use crate::harness::corefile::{CoreFile, core_of};
use crate::harness::pprof::Profile;
use crate::harness::program::Mode;
use crate::harness::rewritten::Rewritten;
use crate::harness::toolchain::per_release;
use crate::harness::{required, tool};
use crate::hostile::books;
use crate::reference::check::{UNKNOWN, check};
use crate::reference::dump::Dump;
use crate::reference::heap::Object;
use crate::reference::masked;
use goref_fast::image::{Inputs, Process};
use goref_fast::model::heap::SpanId;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

per_release! {
    closures: told_apart;
}

const PAGE: u64 = 4096;

/// A span with closures of `funcs.Many`.
struct Span {
    range: Range<u64>,
    elem_size: u64,
    closures: Vec<u64>,
}

/// The span of each size of closures that has most of them.
fn fullest(file: &CoreFile) -> [Span; 2] {
    let inputs = Inputs::open(&file.exe, &file.core, None).expect("open");
    let process = Process::parse(&inputs).expect("parse");
    let dump = Dump::read(&process);
    let memory = dump.memory();
    let name = format!("{MODULE}/funcs.Many");
    let many = dump.debug.variables.iter().find(|v| *v.name == name).expect("the slice");
    let slice = many.address.wrapping_add(process.load_bias);
    let (array, len) = (memory.word(slice), memory.word(slice + 8));
    let mut spans: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    // The others are static.
    for object in (0..len).filter_map(|i| memory.object_at(memory.word(array + i * 8))) {
        spans.entry(object.span).or_default().push(object.addr);
    }
    [16, 24].map(|elem_size| {
        let of_size = spans.iter().filter(|(span, _)| memory.heap.spans()[**span as usize].elem_size() == elem_size);
        let (&span, closures) = of_size.max_by_key(|(_, closures)| closures.len()).expect("a span");
        let start = memory.heap.spans()[span as usize].start;
        let end = start + memory.heap.details(SpanId(span)).npages * 8192;
        Span { range: start..end, elem_size, closures: closures.clone() }
    })
}

/// Reached objects with pointers of which no byte is there, as the reference sees it.
fn lost_objects(exe: &Path, core: &Path, lost: &[Range<u64>]) -> u64 {
    let inputs = Inputs::open(exe, core, None).expect("open");
    let process = Process::parse(&inputs).expect("parse");
    let dump = Dump::read(&process);
    let memory = dump.memory();
    let is_lost = |o: &&Object| !memory.noscan(**o) && lost.iter().any(|range| range.contains(&o.addr));
    masked::reach(memory, &dump.roots).iter().filter(is_lost).count() as u64
}

/// Two spans that are full of closures; then one page of a span, whose end cuts an object in two.
fn told_apart(version: &str) {
    let Some(file) = required(core_of(version, "testdata/programs", Mode::Default, &[])) else { return };
    let whole = tool::core_ok(&file.exe, &file.core, &["-q"]).decode();
    let [small, large] = fullest(&file);
    let lost = small.closures.len() + large.closures.len();
    assert!(lost > 600, "{lost} closures in two spans");
    let mut both = [small.range, large.range.clone()];
    both.sort_by_key(|range| range.start);
    let said = partial(&file, &whole, &both, lost);
    let core = Rewritten::of(&file.core);
    core.lose(&both);
    let expected = lost_objects(&file.exe, &core.path, &both);
    assert_eq!(said, expected, "{version}: objects that are not in the core");
    check(version, &CoreFile { exe: file.exe.clone(), core: core.path.clone(), truth: UNKNOWN });

    let page = large.range.start..large.range.start + PAGE;
    let on_it = large.closures.iter().filter(|addr| page.contains(addr)).count();
    assert!(on_it > 100, "{on_it} closures on a page");
    let said = partial(&file, &whole, &[page], on_it);
    assert!(
        said >= on_it as u64 && said <= PAGE / large.elem_size + 1,
        "{version}: {said} objects are not in the core"
    );
}

/// The result without `lost`, which has `closures` of `funcs.Many`: how many objects it says are not in the core.
fn partial(file: &CoreFile, whole: &Profile, lost: &[Range<u64>], closures: usize) -> u64 {
    let core = Rewritten::of(&file.core);
    core.lose(lost);
    let run = |args: &[&str]| {
        let ran = tool::core(&file.exe, &core.path, args);
        assert_eq!(ran.code(), 3, "{lost:x?} {args:?}: {}{}", ran.stdout(), ran.stderr());
        ran
    };
    let one = run(&["--threads", "1", "-v"]);
    for threads in ["2", "3"] {
        assert!(run(&["--threads", threads]).bytes() == one.bytes(), "{lost:x?}: other bytes with {threads} threads");
    }
    let bytes: u64 = lost.iter().map(|range| range.end - range.start).sum();
    let (said, stdout) = (one.stderr(), one.stdout());
    let lacks = format!("the core lacks {bytes} bytes of the heap's pages");
    assert!(said.contains(&lacks), "{lost:x?}: {said}");
    let profile = one.decode();
    let line = stdout.lines().find(|l| l.starts_with("heap in use")).expect("totals");
    let (in_use, parts, reachable) = books(line);
    assert_eq!((in_use, profile.total()[1]), (parts, reachable), "{line}");
    // Masks are lost with the objects.
    assert_eq!(run(&["--no-types"]).decode().total(), profile.total(), "{lost:x?}: with and without types");
    // The slice holds them all, but nobody knows what they hold.
    let own = |of: &Profile| {
        of.sum(|s| {
            s[0] == format!("{MODULE}/funcs.Many")
                && s[1..].iter().all(|f| f.ends_with("(func() *goref.test/fixtures/funcs.V)"))
        })
    };
    let below = |of: &Profile| of.sum(|s| s[0] == format!("{MODULE}/funcs.Many"))[0] - own(of)[0];
    assert_eq!(own(&profile), own(whole), "{lost:x?}: the closures themselves");
    // Each has one value or two of its own.
    let missing = below(whole) - below(&profile);
    assert!((closures as u64..=2 * closures as u64).contains(&missing), "{missing} values of {closures} closures");
    let counted = stdout.lines().find_map(|l| l.strip_prefix("soft errors walk.object_not_in_core: "));
    counted.unwrap_or_else(|| panic!("{lost:x?}: {stdout}")).parse().expect("a number")
}
