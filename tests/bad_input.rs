//! Damaged, truncated and mismatched input: exit status 1 with a message, or 3 with a partial profile, or (where the damage
//! does no harm) 0; never a signal, a panic or a hang.

use crate::harness::{sparse, tool};
use crate::sample::unpacked;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Fails unless the tool refused with status 1 and a message of at least a few words.
fn refused(exe: &Path, core: &Path) {
    let ran = tool::core(exe, core, &[]);
    assert_eq!(ran.code(), 1, "{} {}: {}{}", exe.display(), core.display(), ran.stdout(), ran.stderr());
    assert!(ran.stderr().split_whitespace().count() >= 4, "says why: {:?}", ran.stderr());
    assert!(!ran.stderr().contains("panicked"), "{}", ran.stderr());
    assert!(!ran.profile.exists(), "no profile is left behind");
}

/// Fails on anything but the documented statuses.
fn survived(what: &str, exe: &Path, core: &Path) -> i32 {
    let ran = tool::core(exe, core, &["-q"]);
    let code = ran.code();
    assert!([0, 1, 3].contains(&code), "{what}: status {code}: {}", ran.stderr());
    assert!(!ran.stderr().contains("panicked"), "{what}: {}", ran.stderr());
    assert!(code == 0 || !ran.stderr().trim().is_empty(), "{what}: status {code} without a message");
    assert_eq!(ran.profile.exists(), code != 1, "{what}: a profile with status {code}");
    if code != 1 {
        ran.decode();
    }
    code
}

/// A writable copy of the sample's core.
fn copy_of_core(dir: &Path) -> std::path::PathBuf {
    let copy = dir.join("core");
    sparse::copy(&mut File::open(&unpacked().1).unwrap(), &copy).unwrap();
    copy
}

#[test]
fn not_what_it_should_be() {
    let (exe, core) = unpacked();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let empty = file("empty", b"");
    let text = file("text", b"this is not an executable\n");
    let magic = file("magic", b"\x7fELF");
    let zeros = file("zeros", &[0; 4096]);
    for bad in [&empty, &text, &magic, &zeros, &dir.path().join("absent"), &dir.path().to_owned()] {
        refused(bad, core);
        refused(exe, bad);
    }
    // Exchanged, or twice the same.
    refused(core, exe);
    for same in [exe, core] {
        let ran = tool::core(same, same, &[]);
        assert_eq!(ran.code(), 2, "the same file twice is a mistake of usage: {}", ran.stderr());
    }
    // An ELF executable that the core does not belong to: this test.
    refused(&std::env::current_exe().unwrap(), core);
}

/// One clear line with the cause, a second one with the remedy, and an older profile is left as it was.
#[test]
fn refusals_say_what_to_do() {
    let (exe, core) = unpacked();
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(exe).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let mut arm = whole.clone();
    arm[18..20].copy_from_slice(&183u16.to_le_bytes());
    let other = std::env::current_exe().unwrap();
    let cases = [
        (file("arm64", &arm), core.clone(), "arm64"),
        (file("empty", b""), core.clone(), "empty"),
        (file("text", b"#!/bin/sh\n"), core.clone(), "expected an ELF file"),
        (exe.clone(), file("none", b""), "empty"),
        (exe.clone(), file("notes", b"some text\n"), "expected an ELF file"),
        (exe.clone(), other.clone(), "expected a core dump"),
        (core.clone(), exe.clone(), "executable first"),
        (other, core.clone(), "does not belong to"),
        (dir.path().to_owned(), core.clone(), "directory"),
    ];
    let output = file("older.out", b"an older profile");
    for (exe, core, cause) in &cases {
        let paths = [exe, core, &output].map(|p| p.to_str().unwrap());
        let ran = tool::run(&["core", paths[0], paths[1], "-o", paths[2]]);
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{paths:?}: {said}");
        assert!(said.contains(cause), "{paths:?}: {cause}? {said}");
        assert!(said.lines().count() <= 2, "a line for the cause, one for the remedy: {said}");
        assert!(said.contains("help: "), "{paths:?}: no remedy: {said}");
        assert_eq!(fs::read(&output).unwrap(), b"an older profile", "{paths:?}");
    }
}

#[test]
fn wrong_command_lines() {
    for args in [
        &[][..],
        &["core"],
        &["core", "a"],
        &["nonsense"],
        &["core", "a", "b", "--threads", "x"],
        &["core", "a", "b", "--nonsense"],
    ] {
        let output = tool::run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for args in [&["--help"][..], &["core", "--help"], &["--version"]] {
        let output = tool::run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty(), "{args:?}");
    }
}

/// The length of each kind of damage, from harmless to hopeless. A truncated core is partial as long as its headers, notes
/// and the span tables are there.
#[test]
fn truncated_core() {
    let dir = tempfile::tempdir().unwrap();
    let copy = copy_of_core(dir.path());
    let exe = &unpacked().0;
    let length = fs::metadata(&copy).unwrap().len();
    let lengths = [
        length - 1,
        length - 4096,
        length / 100 * 99,
        length / 10 * 9,
        length / 4 * 3,
        length / 2,
        length / 3,
        length / 10,
        length / 50,
        length / 500,
        1 << 20,
        100_000,
        8192,
        4096,
        1000,
        100,
        64,
        63,
        16,
        5,
        1,
    ];
    let file = OpenOptions::new().write(true).open(&copy).unwrap();
    for length in lengths {
        file.set_len(length).unwrap();
        let code = survived(&format!("core of {length} bytes"), exe, &copy);
        assert!(length > 4096 || code == 1, "a core of {length} bytes has no notes: status {code}");
    }
}

#[test]
fn truncated_executable() {
    let dir = tempfile::tempdir().unwrap();
    let (exe, core) = unpacked();
    let whole = fs::read(exe).unwrap();
    let copy = dir.path().join("cacheserver");
    for part in [999, 990, 950, 900, 800, 700, 500, 300, 100, 10, 1] {
        let length = whole.len() * part / 1000;
        fs::write(&copy, &whole[..length]).unwrap();
        survived(&format!("executable of {length} bytes"), &copy, core);
    }
}

/// Damaged bytes in the ELF header, program headers and notes of the core: one place at a time, then put back.
#[test]
fn damaged_core_headers() {
    let dir = tempfile::tempdir().unwrap();
    let copy = copy_of_core(dir.path());
    let exe = &unpacked().0;
    let file = OpenOptions::new().read(true).write(true).open(&copy).unwrap();
    for (at, value) in damage(0..4000) {
        let mut old = [0u8; 8];
        file.read_exact_at(&mut old, at).unwrap();
        file.write_all_at(&value.to_le_bytes(), at).unwrap();
        survived(&format!("core with {value:#x} at {at:#x}"), exe, &copy);
        file.write_all_at(&old, at).unwrap();
    }
}

/// Damaged words anywhere in the executable: headers, sections, debug information.
#[test]
fn damaged_executable() {
    let dir = tempfile::tempdir().unwrap();
    let (exe, core) = unpacked();
    let whole = fs::read(exe).unwrap();
    let copy = dir.path().join("cacheserver");
    let sections = u64::from_le_bytes(whole[40..48].try_into().unwrap());
    let places = [0..64, 64..600, sections..sections + 2000, 0..whole.len() as u64 - 8];
    for (at, value) in places.into_iter().flat_map(|range| damage(range).step_by(3)) {
        let mut bytes = whole.clone();
        let at = usize::try_from(at).unwrap().min(bytes.len() - 8);
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        fs::write(&copy, bytes).unwrap();
        survived(&format!("executable with {value:#x} at {at:#x}"), &copy, core);
    }
}

/// Words of the dumped memory set to extremes: every length, count and pointer is hostile.
#[test]
fn damaged_memory() {
    let dir = tempfile::tempdir().unwrap();
    let copy = copy_of_core(dir.path());
    let exe = &unpacked().0;
    let file = OpenOptions::new().read(true).write(true).open(&copy).unwrap();
    // Blocks that are not all zero are few; damage a dozen words in each of some.
    let length = fs::metadata(&copy).unwrap().len();
    let mut block = vec![0u8; 64 << 10];
    let (mut offset, mut used) = (0, Vec::new());
    while offset + (block.len() as u64) <= length {
        file.read_exact_at(&mut block, offset).unwrap();
        if block.iter().any(|&b| b != 0) {
            used.push(offset);
        }
        offset += block.len() as u64;
    }
    for offset in used.iter().step_by((used.len() / 24).max(1)) {
        let mut old = vec![0u8; block.len()];
        file.read_exact_at(&mut old, *offset).unwrap();
        let mut new = old.clone();
        for (at, value) in damage(0..block.len() as u64 - 8).step_by(2) {
            let at = usize::try_from(at).unwrap() & !7;
            new[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        file.write_all_at(&new, *offset).unwrap();
        survived(&format!("memory damaged at file offset {offset:#x}"), exe, &copy);
        file.write_all_at(&old, *offset).unwrap();
    }
}

/// Thirty places in a range, each with an extreme value; the same ones every time.
fn damage(range: std::ops::Range<u64>) -> impl Iterator<Item = (u64, u64)> {
    const VALUES: [u64; 6] = [0, u64::MAX, 1, i64::MAX as u64, 0x7fff_ffff, 0x0100_0000_0000];
    let mut state = range.end;
    (0..30).map(move |i| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (range.start + (state >> 33) % (range.end - range.start), VALUES[i % VALUES.len()])
    })
}
