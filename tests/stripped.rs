//! Executables without debug information: the fixtures' totals are in [`crate::matrix`]; here is what keeps its name, and that the runtime
//! is found without a symbol where the symbols say that it is.

use crate::harness::corefile::{CoreFile, core_of};
use crate::harness::dying::Writer;
use crate::harness::pprof::Profile;
use crate::harness::program::{Machine, Mode, Recipe};
use crate::harness::toolchain::{minor, per_release};
use crate::harness::{killed, required, tool};
use goref_fast::address::Addr;
use goref_fast::image::{Image, Inputs, Process};
use goref_fast::model::release;
use std::collections::BTreeMap;

const FIXTURES: &str = "testdata/programs";

per_release! {
    variables: variables_keep_their_names;
    functions: functions_keep_their_names;
    found_without_symbols: located;
    found_without_symbols_arm64: located_arm64;
}

fn analyzed(version: &str, mode: Mode) -> Option<(Profile, String)> {
    let file = required(core_of(version, FIXTURES, mode, &[]))?;
    let ran = tool::core_ok(&file.exe, &file.core, &["--threads", "2"]);
    let profile = ran.decode();
    assert_eq!(profile.total(), [file.truth.objects, file.truth.bytes], "the collector's totals");
    for threads in ["1", "3"] {
        assert!(tool::core_ok(&file.exe, &file.core, &["--threads", threads]).bytes() == ran.bytes(), "{threads}");
    }
    Some((profile, ran.stdout()))
}

/// Bytes by first frame.
fn roots(profile: &Profile) -> BTreeMap<&str, u64> {
    let mut roots = BTreeMap::new();
    for (stack, [_, bytes]) in &profile.stacks {
        *roots.entry(&*stack[0]).or_insert(0) += bytes;
    }
    roots
}

/// With a symbol table a package variable holds what it holds with debug information; interfaces and headers bring types back.
fn variables_keep_their_names(version: &str) {
    let Some((profile, report)) = analyzed(version, Mode::NoDwarf) else { return };
    let Some((full, _)) = analyzed(version, Mode::Default) else { return };
    assert!(report.contains("Names: the executable has no debug information (-ldflags=-w, -linkshared)"), "{report}");
    let (here, there) = (roots(&profile), roots(&full));
    let variables: Vec<_> = there
        .iter()
        .filter(|(name, _)| name.starts_with("goref.test/fixtures/") && name.matches('.').count() == 2)
        .collect();
    let same = variables.iter().filter(|(name, bytes)| here.get(**name) == Some(*bytes)).count();
    assert!(variables.len() > 100 && same * 5 > variables.len() * 4, "{same} of {} variables", variables.len());
    for path in [
        // An interface, a header, an interface in what that leads to.
        "goref.test/fixtures/chans.InIface -> [0]. (*goref.test/fixtures/chans.V)",
        "goref.test/fixtures/wide.One -> Tail. ([]*goref.test/fixtures/wide.V) -> [0]. (*goref.test/fixtures/wide.V)",
        "goref.test/fixtures/funcs.Big -> ",
        "goref.test/fixtures/generics.Boxed -> Val. (*goref.test/fixtures/generics.V)",
    ] {
        // There were no generic types.
        if minor(version) < 18 && path.contains("generics") {
            continue;
        }
        // No object had a header yet.
        if minor(version) < 22 && (path.contains("wide.One") || path.contains("funcs.Big")) {
            continue;
        }
        let joined = |stack: &[String]| stack.join(" -> ");
        let found =
            profile.stacks.keys().any(|stack| joined(stack).starts_with(path) && !joined(stack).contains("$sub"));
        assert!(found, "nothing under {path}");
    }
}

/// Without any symbol the call chains are left, and what types tell.
fn functions_keep_their_names(version: &str) {
    let Some((profile, report)) = analyzed(version, Mode::Stripped) else { return };
    assert!(report.contains("Names: the executable has neither debug information nor symbols"), "{report}");
    let frame = |name: &str| profile.sum(|stack| stack.iter().any(|frame| frame == name))[0];
    for name in ["goref.test/fixtures/frames.selects", "goref.test/fixtures/stacks.local", "bss segment[0]"] {
        assert!(frame(name) > 0, "nothing under {name}");
    }
    assert!(frame("[0]. (*goref.test/fixtures/chans.V)") > 0, "an interface leads to its type");
    assert!(profile.stacks.keys().all(|stack| !stack[0].starts_with("runtime.all")), "no variable has a name");
}

/// What is found by structure is what the symbols say.
fn located(version: &str) {
    for mode in [Mode::Default, Mode::NoOpt, Mode::Pie] {
        let Some(file) = required(core_of(version, FIXTURES, mode, &[])) else { return };
        check_located(version, mode.name(), &file);
    }
}

/// The same of code for arm64.
fn located_arm64(version: &str) {
    let recipe = Recipe { machine: Machine::Arm64, ..Mode::Default.into() };
    let Some(file) = required(killed::core_of(version, FIXTURES, recipe, &[], Writer::Emulator, "")) else { return };
    check_located(version, "arm64", &file);
}

fn check_located(version: &str, build: &str, file: &CoreFile) {
    let inputs = Inputs::open(&file.exe, &file.core, None).expect("two files");
    let process = Process::parse(&inputs).expect("a core");
    let exe = &process.executable;
    let found = release::locate(exe, &process.image, process.load_bias).expect("the runtime");
    let found: BTreeMap<&str, u64> = found.into_iter().collect();
    let symbol = |name: &str| {
        let symbol = exe.symbol(&format!("runtime.{name}")).unwrap_or_else(|| panic!("no symbol {name}"));
        symbol.address.wrapping_add(process.load_bias)
    };
    // Lists are found by their first element, which several variables may have.
    for name in ["allm", "allfin"] {
        let word = |at: u64| process.image.read_u64(Addr(at)).expect("a word");
        assert_eq!(word(found[name]), word(symbol(name)), "{version} {}: {name}", build);
    }
    // Before Go 1.19 it has nothing that spans could be compared with.
    if minor(version) >= 19 {
        assert_eq!(found.get("gcController"), Some(&symbol("gcController")), "{version} {}", build);
    }
    for name in ["firstmoduledata", "mheap_", "allgs", "allp", "memstats", "buildVersion", "waitReasonStrings"] {
        assert_eq!(found.get(name), Some(&symbol(name)), "{version} {}: {name}", build);
    }
    assert_eq!(found["gcphase"], symbol("writeBarrier"), "{version} {}", build);
    // Without a queued cleanup it is not found, and nobody needs it.
    if let Some(at) = found.get("gcCleanups") {
        assert_eq!(*at, symbol("gcCleanups"), "{version} {}", build);
    }
}
