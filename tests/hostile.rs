//! Seeded mutations of a real dump, aimed at what the analysis trusts: span records, module and function tables, type
//! descriptors, goroutines, stacks, heap words, debug information.
//!
//! Every case runs the program with a limit on time and memory and demands a documented exit status, no panic, books that
//! balance, and a profile exactly if the status is not 1. A failure names the seed that repeats it. Environment:
//! * `GOREF_HOSTILE_CASES`: number of cases (default: few enough for every test run);
//! * `GOREF_HOSTILE_SEED`: the first seed;
//! * `GOREF_HOSTILE_KEEP`: a folder for copies of the damaged files, to look at one seed;
//! * `GOREF_HOSTILE_EXE`, `GOREF_HOSTILE_CORE`: another dump instead of the bundled sample.

mod aims;

use crate::harness::{binutils, required, sparse, tool};
use crate::sample::unpacked;
use aims::{Aim, executable_aims, inflated, memory_aims};
use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Cases of an ordinary test run, by kind.
const MEMORY_CASES: u64 = 90;
const EXECUTABLE_CASES: u64 = 40;
const STRIPPED_CASES: u64 = 40;
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

/// A core that may be damaged.
struct Copy {
    dir: tempfile::TempDir,
    path: PathBuf,
    file: File,
}

impl Copy {
    fn of(core: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("core");
        sparse::copy(&mut File::open(core).unwrap(), &path).unwrap();
        let file = writable(&path);
        Self { dir, path, file }
    }

    /// One case; returns the exit status.
    fn damage(&self, seed: u64, aims: &[Aim], exe: &Path) -> i32 {
        let mut random = Random::new(seed);
        let (what, list) = patches(&mut random, &self.file, aims);
        damaged(&self.file, &list, || survives(&what, exe, &self.path, &mut random))
    }
}

fn writable(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

#[test]
fn mutated_memory() {
    let (exe, core) = subject();
    let copy = Copy::of(&core);
    let aims = memory_aims(&exe, &core);
    campaign("memory", MEMORY_CASES, |seed| copy.damage(seed, &aims, &exe));
}

/// The same with an executable that has neither symbols nor debug information: the runtime is searched for in the damaged memory.
#[test]
fn mutated_memory_without_symbols() {
    let (exe, core) = subject();
    let copy = Copy::of(&core);
    let stripped = copy.dir.path().join("stripped");
    if required(binutils::run("strip", &[&exe, &"-o", &stripped])).is_none() {
        return;
    }
    let total = |exe: &Path| tool::core_ok(exe, &copy.path, &["-q"]).decode().total();
    assert_eq!(total(&stripped), total(&exe), "nothing is damaged yet");
    let aims = memory_aims(&exe, &core);
    campaign("memory without symbols", STRIPPED_CASES, |seed| copy.damage(seed, &aims, &stripped));
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
