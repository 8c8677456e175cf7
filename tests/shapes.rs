//! Generated heaps of `perf/gen`, one shape each: the total is the collector's, whatever the number of threads.

use crate::harness::corefile::core_of;
use crate::harness::program::Mode;
use crate::harness::{required, tool, toolchain};

fn check(shape: &str, size: &str) {
    let Some(version) = toolchain::newest_for_generator() else { return };
    let args = ["-shape", shape, "-size", size];
    let Some(file) = required(core_of(version, "perf/gen", Mode::Default, &args)) else { return };
    let one = tool::core_ok(&file.exe, &file.core, &["--threads", "1"]);
    let profile = one.decode();
    assert_eq!(
        profile.total(),
        [file.truth.objects, file.truth.bytes],
        "{shape}: the profile's total against the collector's"
    );
    let four = tool::core_ok(&file.exe, &file.core, &["--threads", "4"]);
    assert!(one.bytes() == four.bytes(), "{shape}: --threads 4 gives other bytes than --threads 1");
    let untyped = tool::core_ok(&file.exe, &file.core, &["--no-types"]).decode();
    assert_eq!(untyped.total(), profile.total(), "{shape}: types made objects reachable, or hid some");
}

/// A million objects of all kinds.
#[test]
fn mix() {
    check("mix", "1000000");
}

/// As many levels as nodes.
#[test]
fn list() {
    check("list", "300000");
}

#[test]
fn tree() {
    check("tree", "300000");
}

/// One level, no more.
#[test]
fn slice() {
    check("slice", "300000");
}

#[test]
fn bigmap() {
    check("bigmap", "300000");
}

/// Ten pointers to the own type in each node: the number of paths must not explode.
#[test]
fn selfish() {
    check("selfish", "100000");
}

/// Thousands of stacks.
#[test]
fn goroutines() {
    check("goroutines", "10000");
}
