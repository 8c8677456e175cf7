//! Releases of Go that nobody has seen yet: tried, and refused only for what they lack.

use crate::harness::corefile::core_of;
use crate::harness::program::Mode;
use crate::harness::required;
use crate::harness::toolchain::newest;
use crate::harness::{sparse, tool};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of a file that are searched at once.
const BLOCK: usize = 1 << 20;

/// Copies of the newest release's executable (with its debug information in plain text) and core.
fn copies(dir: &Path) -> Option<(PathBuf, PathBuf)> {
    let file = required(core_of(newest()?, "testdata/programs", Mode::PlainDwarf, &[]))?;
    let (exe, core) = (dir.join("exe"), dir.join("core"));
    fs::copy(&file.exe, &exe).unwrap();
    sparse::copy(&mut File::open(&file.core).unwrap(), &core).unwrap();
    Some((exe, core))
}

/// Replaces each `from` by `to`, which is as long; returns how often.
fn replace(path: &Path, from: &[u8], to: &[u8]) -> usize {
    assert_eq!(from.len(), to.len());
    let file = File::options().read(true).write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    let mut block = vec![0; BLOCK + from.len()];
    let mut found = 0;
    for start in (0..len).step_by(BLOCK) {
        let n = block.len().min((len - start) as usize);
        file.read_exact_at(&mut block[..n], start).unwrap();
        if block[..n].iter().all(|byte| *byte == 0) {
            continue;
        }
        for i in 0..n.saturating_sub(from.len() - 1).min(BLOCK) {
            if block[i..].starts_with(from) {
                file.write_all_at(to, start + i as u64).unwrap();
                found += 1;
            }
        }
    }
    found
}

#[test]
fn unknown_release_is_tried() {
    let dir = tempfile::tempdir().unwrap();
    let Some((exe, core)) = copies(dir.path()) else { return };
    let known = tool::core_ok(&exe, &core, &[]);
    assert!(!known.stdout().contains("untested release"), "{}", known.stdout());
    let version = format!("go{}", newest().expect("there are copies"));
    let unknown = version.replacen("go1.2", "go1.9", 1);
    for file in [&exe, &core] {
        assert!(replace(file, version.as_bytes(), unknown.as_bytes()) > 0, "{version} in {}", file.display());
    }
    let tried = tool::core_ok(&exe, &core, &[]);
    assert!(tried.stdout().contains(&format!("({unknown})")), "{}", tried.stdout());
    assert!(tried.stdout().contains("untested release"), "{}", tried.stdout());
    assert_eq!(tried.decode().total(), known.decode().total());
}

#[test]
fn missing_field_is_named() {
    for (field, changed) in [("allocBits", "allocBitz"), ("atomicstatus", "atomicstatuz"), ("gcdatamask", "gcdatamazk")]
    {
        let dir = tempfile::tempdir().unwrap();
        let Some((exe, core)) = copies(dir.path()) else { return };
        let name = |text: &str| [text.as_bytes(), b"\0"].concat();
        assert!(replace(&exe, &name(field), &name(changed)) > 0, "{field} is in the debug information");
        let ran = tool::core(&exe, &core, &[]);
        assert_eq!(ran.code(), 1, "{}{}", ran.stdout(), ran.stderr());
        assert!(ran.stderr().contains(&format!("no field {field}")), "{}", ran.stderr());
    }
}
