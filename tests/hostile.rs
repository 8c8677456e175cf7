//! Seeded mutations of a real dump, aimed at what the analysis trusts: span records, module and function tables, type
//! descriptors, goroutines, stacks, heap words, debug information.
//!
//! Every case runs the program with a limit on time and memory and demands a documented exit status, no panic, books that
//! balance, and a profile exactly if the status is not 1. A failure names the seed that repeats it. Environment:
//! * `GOREF_HOSTILE_CASES`: number of cases (default: few enough for every test run);
//! * `GOREF_HOSTILE_SEED`: the first seed;
//! * `GOREF_HOSTILE_KEEP`: a folder for copies of the damaged files, to look at one seed;
//! * `GOREF_HOSTILE_EXE`, `GOREF_HOSTILE_CORE`: another dump instead of the bundled sample.

use crate::harness::{sparse, tool};
use crate::sample::unpacked;
use goref_fast::address::Addr;
use goref_fast::image::executable::Executable;
use goref_fast::image::{Image, Inputs, Process};
use goref_fast::model::dwarf::DebugInfo;
use goref_fast::model::heap::Heap;
use goref_fast::model::layout::RuntimeLayout;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{Object, ObjectSection, ObjectSymbol};
use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Cases of an ordinary test run, by kind.
const MEMORY_CASES: u64 = 90;
const EXECUTABLE_CASES: u64 = 40;
const TRUNCATIONS: u64 = 16;

/// Private memory that is enough for any core of the size of the sample, whatever its words say.
const MEMORY_LIMIT_KIB: u64 = 1 << 20;
/// A whole run takes a tenth of a second; machines are slow at times.
const TIME_LIMIT: Duration = Duration::from_secs(30);

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Seeds of one kind of case.
fn seeds(cases: u64) -> Range<u64> {
    let first = setting("GOREF_HOSTILE_SEED").unwrap_or(1);
    first..first + setting("GOREF_HOSTILE_CASES").unwrap_or(cases)
}

/// The dump to mutate.
fn subject() -> (PathBuf, PathBuf) {
    match (std::env::var_os("GOREF_HOSTILE_EXE"), std::env::var_os("GOREF_HOSTILE_CORE")) {
        (Some(exe), Some(core)) => (exe.into(), core.into()),
        _ => unpacked().clone(),
    }
}

/// SplitMix64: the same cases everywhere.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// Something that the analysis reads, as ranges of a file.
struct Aim {
    name: &'static str,
    ranges: Vec<Range<u64>>,
}

/// What a case writes: (file offset, bytes).
type Patch = (u64, Vec<u8>);

/// A word to put in place of `old`: extremes, near misses, and words that are valid elsewhere.
fn bad_word(random: &mut Random, old: u64, elsewhere: u64) -> u64 {
    const EXTREMES: [u64; 10] =
        [0, 1, u64::MAX, i64::MAX as u64, 1 << 31, u32::MAX as u64, 1 << 40, 1 << 47, u64::MAX - 7, 0x7fff_ffff];
    match random.below(10) {
        0..=2 => *random.pick(&EXTREMES),
        3 => old ^ 1 << random.below(64),
        4 => old.wrapping_add(8),
        5 => old.wrapping_sub(1),
        6 | 7 => elsewhere,
        8 => random.next() >> random.below(64),
        _ => random.below(300),
    }
}

fn word_at(file: &File, at: u64) -> u64 {
    let mut word = [0; 8];
    match file.read_exact_at(&mut word, at) {
        Ok(()) => u64::from_le_bytes(word),
        Err(_) => 0,
    }
}

/// The damage of one seed: one aim, one to some hundred places.
fn patches(random: &mut Random, file: &File, aims: &[Aim]) -> (String, Vec<Patch>) {
    let aim = random.pick(aims);
    let places = *random.pick(&[1, 1, 1, 2, 4, 16, 64, 400]);
    let mut list = Vec::new();
    for _ in 0..places {
        let range = random.pick(&aim.ranges).clone();
        let another = random.pick(aims);
        let other = random.pick(&another.ranges).clone();
        let at = (range.start + random.below(range.end - range.start)) & if random.below(4) == 0 { !0 } else { !7 };
        let at = at.max(range.start);
        let old = word_at(file, at);
        let elsewhere = word_at(file, other.start + random.below(other.end - other.start) / 8 * 8);
        let value = bad_word(random, old, elsewhere).to_le_bytes();
        let width = *random.pick(&[1, 2, 4, 8, 8, 8, 8]);
        let width = usize::try_from((range.end - at).min(width)).unwrap();
        list.push((at, value[..width].to_vec()));
    }
    let first = list.first().map_or(0, |p| p.0);
    (format!("{} ({places} places, first at file offset {first:#x})", aim.name), list)
}

/// Where the interesting memory of a core lies in its file.
fn memory_aims(exe: &Path, core: &Path) -> Vec<Aim> {
    let inputs = Inputs::open(exe, core, None).unwrap();
    let process = Process::parse(&inputs).unwrap();
    let debug = DebugInfo::load(&process.executable).unwrap();
    let layout = RuntimeLayout::find(&debug.types, &debug.variables, &debug.constants, process.load_bias).unwrap();
    let image = &process.image;
    let heap = Heap::read(image, &layout).unwrap();
    let bytes = inputs.core().data();
    let header = object::elf::FileHeader64::<object::LittleEndian>::parse(bytes).unwrap();
    let le = object::LittleEndian;
    let segments: Vec<(u64, Range<u64>)> = header
        .program_headers(le, bytes)
        .unwrap()
        .iter()
        .filter(|s| s.p_type(le) == object::elf::PT_LOAD)
        .map(|s| (s.p_vaddr(le), s.p_offset(le)..s.p_offset(le) + s.p_filesz(le)))
        .collect();
    // Ranges of memory to ranges of the file; what the core does not hold is left out.
    let in_file = |start: u64, len: u64| {
        segments.iter().find_map(|(vaddr, range)| {
            let at = range.start + start.checked_sub(*vaddr)?;
            (at < range.end && len > 0).then(|| at..range.end.min(at + len))
        })
    };
    let variable = |name: &str| {
        let of = debug.variables.iter().filter(|v| &*v.name == name);
        let size = |v: &goref_fast::model::dwarf::GlobalVariable| debug.types.get(v.ty).size;
        of.filter_map(|v| in_file(v.address.wrapping_add(process.load_bias), size(v))).collect::<Vec<_>>()
    };
    let word = |at: u64| image.read_u64(Addr(at)).unwrap_or(0);
    let slice = |at: u64, elem: u64| in_file(word(at), word(at + 8).min(1 << 20) * elem);
    let globals = &layout.globals;
    let allspans = globals.mheap + layout.mheap.allspans;
    let mut aims = vec![
        Aim { name: "mheap_.allspans", ranges: in_file(allspans, 24).into_iter().chain(slice(allspans, 8)).collect() },
        Aim {
            name: "mspan records",
            ranges: heap
                .spans()
                .iter()
                .enumerate()
                .filter_map(|(id, _)| {
                    let id = goref_fast::model::heap::SpanId(u32::try_from(id).unwrap());
                    in_file(heap.details(id).mspan, layout.mspan.size)
                })
                .collect(),
        },
        Aim {
            name: "allocation bits",
            ranges: heap
                .spans()
                .iter()
                .enumerate()
                .flat_map(|(id, _)| {
                    let details = heap.details(goref_fast::model::heap::SpanId(u32::try_from(id).unwrap()));
                    [in_file(details.alloc_bits, 64), in_file(details.gcmark_bits, 64), in_file(details.specials, 64)]
                })
                .flatten()
                .collect(),
        },
        Aim {
            name: "moduledata",
            ranges: in_file(globals.firstmoduledata, layout.moduledata.size).into_iter().collect(),
        },
        Aim {
            name: "pointer masks of data and bss",
            ranges: [layout.moduledata.gcdatamask, layout.moduledata.gcbssmask]
                .into_iter()
                .filter_map(|field| in_file(word(globals.firstmoduledata + field + layout.bitvector.bytedata), 4096))
                .collect(),
        },
        Aim {
            name: "collector state",
            ranges: [
                "runtime.work",
                "runtime.gcController",
                "runtime.gcphase",
                "runtime.memstats",
                "runtime.mheap_",
                "runtime.sched",
                "runtime.allfin",
                "runtime.gcCleanups",
            ]
            .iter()
            .flat_map(|n| variable(n))
            .collect(),
        },
        Aim {
            name: "package variables",
            ranges: debug
                .variables
                .iter()
                .filter_map(|v| in_file(v.address.wrapping_add(process.load_bias), debug.types.get(v.ty).size))
                .collect(),
        },
    ];
    let mut list = |name, spans: &dyn Fn(&goref_fast::model::heap::Span) -> bool, front: u64| {
        let ranges = heap.spans().iter().enumerate().filter(|(_, s)| spans(s)).filter_map(|(id, s)| {
            let pages = heap.details(goref_fast::model::heap::SpanId(u32::try_from(id).unwrap())).npages * 8192;
            in_file(s.start, if front == 0 { pages } else { front })
        });
        aims.push(Aim { name, ranges: ranges.collect() });
    };
    list("heap objects with pointers", &|s| !s.noscan(), 0);
    list("all heap pages", &|_| true, 0);
    list("malloc headers and large objects", &|s| !s.noscan() && s.elem_size() > 512, 64);
    let (mut gs, mut stacks) = (Vec::new(), Vec::new());
    let allgs = globals.allgs;
    for i in 0..word(allgs + 8).min(1000) {
        let g = word(word(allgs) + 8 * i);
        gs.extend(in_file(g, layout.g.size));
        let (sp, hi) = (word(g + layout.g.sched_sp), word(g + layout.g.stack_hi));
        stacks.extend(in_file(sp, hi.saturating_sub(sp).min(1 << 16)));
    }
    gs.extend(slice(allgs, 8));
    gs.extend(in_file(allgs, 24));
    let (mut ms, mut m) = (variable("runtime.allm"), word(globals.allm));
    while m != 0 && ms.len() < 100 {
        ms.extend(in_file(m, layout.m.size));
        m = word(m + layout.m.alllink);
    }
    ms.extend(variable("runtime.allp"));
    aims.push(Aim { name: "goroutines", ranges: gs });
    aims.push(Aim { name: "stacks", ranges: stacks });
    aims.push(Aim { name: "threads", ranges: ms });
    // Read-only data is in cores of the kernel only if its filter says so.
    for (name, start, end) in [
        ("type descriptors in the core", layout.moduledata.types, layout.moduledata.etypes),
        ("function tables in the core", layout.moduledata.pclntable, layout.moduledata.ftab),
    ] {
        let (start, end) = (word(globals.firstmoduledata + start), word(globals.firstmoduledata + end));
        aims.push(Aim { name, ranges: in_file(start, end.saturating_sub(start)).into_iter().collect() });
    }
    let threads = header.program_headers(le, bytes).unwrap().iter();
    let notes = threads.filter(|s| s.p_type(le) == object::elf::PT_NOTE);
    aims.push(Aim {
        name: "headers and notes of the core",
        ranges: notes
            .map(|s| s.p_offset(le)..s.p_offset(le) + s.p_filesz(le))
            .chain(std::iter::once(0..4096))
            .collect(),
    });
    for aim in &mut aims {
        aim.ranges.retain(|r| r.start < r.end);
    }
    aims.retain(|aim| !aim.ranges.is_empty());
    aims
}

/// The executable with its debug sections unpacked, so that damage reaches what is behind the compression: the sections are
/// appended and their headers changed.
fn inflated(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut changes = Vec::new();
    {
        let executable = Executable::parse(&bytes, Path::new("executable")).unwrap();
        let elf = ElfFile64::<object::LittleEndian>::parse(&bytes[..]).unwrap();
        let headers = elf.elf_header().e_shoff.get(object::LittleEndian);
        for section in elf.sections() {
            let name = section.name().unwrap();
            if name.starts_with(".debug_") {
                let data = executable.section_data(name).unwrap().into_owned();
                changes.push((headers + 64 * section.index().0 as u64, data));
            }
        }
    }
    for (header, data) in changes {
        let header = usize::try_from(header).unwrap();
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        let (offset, size) = (bytes.len() as u64, data.len() as u64);
        bytes[header + 8..header + 16].copy_from_slice(&0u64.to_le_bytes());
        bytes[header + 24..header + 32].copy_from_slice(&offset.to_le_bytes());
        bytes[header + 32..header + 40].copy_from_slice(&size.to_le_bytes());
        bytes.extend(data);
    }
    bytes
}

/// Sections of an executable, and its headers.
fn executable_aims(bytes: &[u8]) -> Vec<Aim> {
    let elf = ElfFile64::<object::LittleEndian>::parse(bytes).unwrap();
    let mut aims = vec![Aim { name: "headers of the executable", ranges: std::iter::once(0..1000).collect() }];
    let headers = elf.elf_header().e_shoff.get(object::LittleEndian);
    aims.push(Aim {
        name: "section headers",
        ranges: std::iter::once(headers..headers + 64 * elf.sections().count() as u64).collect(),
    });
    let sections = [
        ".rodata",
        ".typelink",
        ".itablink",
        ".gopclntab",
        ".go.buildinfo",
        ".note.go.buildid",
        ".text",
        ".symtab",
        ".debug_abbrev",
        ".debug_info",
        ".debug_line",
        ".debug_ranges",
        ".debug_rnglists",
        ".debug_loclists",
        ".debug_loc",
        ".debug_addr",
        ".debug_frame",
        ".debug_gdb_scripts",
    ];
    for name in sections {
        let range = elf.section_by_name(name).and_then(|s| s.file_range()).map(|(offset, size)| offset..offset + size);
        aims.extend(range.filter(|r| r.start < r.end).map(|range| Aim { name, ranges: vec![range] }));
    }
    // Descriptors are the front of .rodata: `types` up to `etypes`.
    let symbol = |name: &str| elf.symbols().find(|s| s.name() == Ok(name)).map(|s| s.address());
    let rodata = elf.section_by_name(".rodata").and_then(|s| Some((s.address(), s.file_range()?.0)));
    if let (Some(types), Some(etypes), Some((address, offset))) =
        (symbol("runtime.types"), symbol("runtime.etypes"), rodata)
    {
        let range = types - address + offset..etypes - address + offset;
        aims.push(Aim { name: "type descriptors", ranges: vec![range] });
    }
    aims
}

/// Runs the program on a damaged dump and checks everything that holds for any input.
fn survives(what: &str, exe: &Path, core: &Path, random: &mut Random) -> i32 {
    let mut args = vec!["--threads", *random.pick(&["1", "2"])];
    args.extend(*random.pick(&[&[][..], &[], &[], &["--no-types"], &["--no-fold"], &["--max-depth", "3"]]));
    if let Some(keep) = std::env::var_os("GOREF_HOSTILE_KEEP").map(PathBuf::from) {
        eprintln!("{what} {args:?}: kept in {}", keep.display());
        for (file, name) in [(exe, "exe"), (core, "core")] {
            sparse::copy(&mut File::open(file).unwrap(), &keep.join(name)).unwrap();
        }
    }
    let ran = tool::core_limited(exe, core, &args, MEMORY_LIMIT_KIB, TIME_LIMIT);
    let code = ran.code();
    let said = || format!("{what} {args:?}: status {code}\n{}{}", ran.stdout(), ran.stderr());
    assert!([0, 1, 3].contains(&code), "{}", said());
    assert!(!ran.stderr().contains("panicked"), "{}", said());
    assert!(code == 0 || ran.stderr().split_whitespace().count() >= 4, "why? {}", said());
    assert_eq!(ran.profile.exists(), code != 1, "a profile exactly if it is not refused: {}", said());
    if code == 1 {
        return code;
    }
    let profile = ran.decode();
    let stdout = ran.stdout();
    let totals = stdout.lines().find(|l| l.starts_with("heap in use")).unwrap_or_else(|| panic!("{}", said()));
    let (all, parts, reachable) = books(totals);
    assert_eq!(profile.total()[1], reachable, "samples against the totals line: {}", said());
    assert_eq!(all, parts, "books that do not balance: {}", said());
    code
}

/// Bytes of the totals line: heap in use, the sum of its parts, reachable.
pub fn books(line: &str) -> (u64, u64, u64) {
    let bytes = |text: &str| text.split(" B").next().and_then(|t| t.split(' ').next_back()?.parse::<u64>().ok());
    let after = |word: &str| line.split(word).nth(1).and_then(bytes);
    let need = |word: &str| after(word).unwrap_or_else(|| panic!("no {word} in {line}"));
    let reachable = need("= reachable");
    let parts = reachable
        + need("+ unreachable")
        + need("+ free slots")
        + need("+ span overhead")
        + after("+ unread").unwrap_or(0);
    (need("heap in use"), parts, reachable)
}

/// Applies `list` to `file`, runs `f`, and puts everything back.
fn damaged<T>(file: &File, list: &[Patch], f: impl FnOnce() -> T) -> T {
    let mut old = Vec::new();
    for (at, bytes) in list {
        let mut before = vec![0; bytes.len()];
        file.read_exact_at(&mut before, *at).unwrap();
        file.write_all_at(bytes, *at).unwrap();
        old.push((*at, before));
    }
    let result = catch_unwind(AssertUnwindSafe(f));
    for (at, bytes) in old.iter().rev() {
        file.write_all_at(bytes, *at).unwrap();
    }
    result.unwrap_or_else(|failure| resume_unwind(failure))
}

/// Runs the cases of one kind. All are run even if some fail: the failures are told together.
fn campaign(kind: &str, cases: u64, mut case: impl FnMut(u64) -> i32) {
    let (mut codes, mut failures) = (Vec::new(), 0);
    for seed in seeds(cases) {
        match catch_unwind(AssertUnwindSafe(|| case(seed))) {
            Ok(code) => codes.push(code),
            Err(_) => {
                eprintln!("FAILED: {kind}, seed {seed}");
                failures += 1;
            }
        }
    }
    let of = |code: i32| codes.iter().filter(|&&c| c == code).count();
    eprintln!("{kind}: {} whole, {} partial, {} refused", of(0), of(3), of(1));
    assert_eq!(failures, 0, "{kind}: failures; GOREF_HOSTILE_SEED=N GOREF_HOSTILE_CASES=1 repeats one");
}

fn writable(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

#[test]
fn mutated_memory() {
    let (exe, core) = subject();
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("core");
    sparse::copy(&mut File::open(&core).unwrap(), &copy).unwrap();
    let aims = memory_aims(&exe, &copy);
    let file = writable(&copy);
    campaign("memory", MEMORY_CASES, |seed| {
        let mut random = Random::new(seed);
        let (what, list) = patches(&mut random, &file, &aims);
        damaged(&file, &list, || survives(&what, &exe, &copy, &mut random))
    });
}

#[test]
fn mutated_executable() {
    let (exe, core) = subject();
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join(exe.file_name().unwrap());
    let bytes = inflated(fs::read(&exe).unwrap());
    fs::write(&copy, &bytes).unwrap();
    assert_eq!(survives("nothing is damaged yet", &copy, &core, &mut Random::new(1)), 0);
    let aims = executable_aims(&bytes);
    let file = writable(&copy);
    campaign("executable", EXECUTABLE_CASES, |seed| {
        let mut random = Random::new(seed);
        let (what, list) = patches(&mut random, &file, &aims);
        damaged(&file, &list, || survives(&what, &copy, &core, &mut random))
    });
}

/// Cut off anywhere: at lengths that cut what was really written, not only holes.
#[test]
fn truncated_anywhere() {
    let (exe, core) = subject();
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("core");
    let length = fs::metadata(&core).unwrap().len();
    campaign("truncation", TRUNCATIONS, |seed| {
        let mut random = Random::new(seed);
        sparse::copy(&mut File::open(&core).unwrap(), &copy).unwrap();
        let cut = match random.below(3) {
            0 => length - random.below(length / 50),
            1 => random.below(length),
            _ => length - random.below(1 << 16),
        };
        writable(&copy).set_len(cut).unwrap();
        survives(&format!("cut to {cut} of {length} bytes"), &exe, &copy, &mut random)
    });
}
