//! The bundled sample of `testdata/sample`: a toy cache server and its core, compressed. Needs neither Go nor a network.

use crate::fixtures::unmet;
use crate::harness::corefile::parse_truth;
use crate::harness::program::Mode;
use crate::harness::{cache, expect, root, sparse, tool};
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::OnceLock;

/// Go version that built it.
const VERSION: &str = "1.26.6";

/// The unpacked executable and core.
pub fn unpacked() -> &'static (PathBuf, PathBuf) {
    static UNPACKED: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    UNPACKED.get_or_init(|| {
        let unpack = |name: &str, to: &str| {
            let packed = root().join("testdata/sample").join(name);
            let length = fs::metadata(&packed).unwrap_or_else(|e| panic!("{}: {e}", packed.display())).len();
            // The length tells a new sample from an old one in the cache.
            let path = cache("sample").join(format!("{to}-{length}"));
            if !path.exists() {
                let mut reader = zstd::Decoder::new(File::open(&packed).unwrap()).unwrap();
                let partial = path.with_extension(format!("partial{}", std::process::id()));
                sparse::copy(&mut reader, &partial).unwrap();
                fs::rename(partial, &path).unwrap();
            }
            path
        };
        (unpack("cacheserver.zst", "cacheserver"), unpack("core.zst", "core"))
    })
}

#[test]
fn sample() {
    let (exe, core) = unpacked();
    let truth = fs::read_to_string(root().join("testdata/sample/truth.txt")).unwrap();
    let truth = parse_truth(&truth, "TRUTH").unwrap();
    let one = tool::core_ok(exe, core, &["--threads", "1"]);
    let profile = one.decode();
    assert_eq!(profile.total(), [truth.objects, truth.bytes], "the profile's total against the collector's");
    let expectations = expect::read_main(&root().join("testdata/sample/src/main.go"));
    let wrong = unmet(&expectations, VERSION, Mode::Default, &profile);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(one.stdout().contains("heap in use"), "totals line on stdout: {}", one.stdout());
    assert!(
        one.stdout().trim_end().lines().last().is_some_and(|l| l.contains("grf.out")),
        "the last line says where: {}",
        one.stdout()
    );
    let quiet = tool::core_ok(exe, core, &["--threads", "3", "-q"]);
    assert!(quiet.output.stdout.is_empty(), "-q is silent: {}", quiet.stdout());
    assert!(one.bytes() == quiet.bytes(), "--threads 3 -q gives other bytes than --threads 1");
}

/// `--stats`: JSON with the keys that are documented.
#[test]
fn stats_file() {
    let (exe, core) = unpacked();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stats.json");
    let ran = tool::core_ok(exe, core, &["--stats", file.to_str().unwrap()]);
    let stats: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).expect("JSON");
    let text = stats.to_string();
    assert!(text.contains(VERSION), "the target's Go version: {text}");
    let [objects, bytes] = ran.decode().total();
    for number in [objects, bytes] {
        assert!(text.contains(&number.to_string()), "{number} of the totals: {text}");
    }
}

/// A compressed core is read as it is.
#[test]
fn compressed_core() {
    let (exe, core) = unpacked();
    let packed = root().join("testdata/sample/core.zst");
    let from_packed = tool::core_ok(exe, &packed, &[]);
    let plain = tool::core_ok(exe, core, &[]);
    assert!(from_packed.bytes() == plain.bytes(), "the compressed core gives other bytes");
}
