//! Outputs end to end: an independent reader of the profile, conservation in every mode, files and exit conditions, and the
//! pprof tool itself where a Go toolchain is at hand.

use std::collections::BTreeMap;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::aggregate::select::tests::tree;
use crate::aggregate::{Amount, ROOT};
use crate::image::EXECUTABLE_NOT_VERIFIED;

/// A profile as read by code that shares nothing with the writer: plain protobuf wire format.
#[derive(Debug, Default)]
struct Read1 {
    strings: Vec<String>,
    sample_types: Vec<(String, String)>,
    /// Frames from the root to the leaf, joined by `;`, then objects and bytes.
    samples: Vec<(String, i64, i64)>,
    location_ids: Vec<u64>,
    mapping: BTreeMap<u64, u64>,
    comments: Vec<String>,
    time_nanos: u64,
    default_sample_type: String,
}

/// One field: number, and the number or the bytes.
type Field<'a> = (u64, u64, &'a [u8]);

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for i in 0.. {
        let (first, rest) = bytes.split_first().expect("a byte");
        *bytes = rest;
        value |= u64::from(first & 0x7f) << (7 * i);
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

fn fields(mut bytes: &[u8]) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        match key & 7 {
            0 => fields.push((key >> 3, varint(&mut bytes), &[][..])),
            2 => {
                let (inner, rest) = {
                    let len = varint(&mut bytes) as usize;
                    bytes.split_at(len)
                };
                fields.push((key >> 3, 0, inner));
                bytes = rest;
            }
            wire => panic!("wire type {wire}"),
        }
    }
    fields
}

fn packed(mut bytes: &[u8]) -> Vec<u64> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        values.push(varint(&mut bytes));
    }
    values
}

fn numbers(bytes: &[u8]) -> BTreeMap<u64, u64> {
    fields(bytes).into_iter().map(|(n, value, _)| (n, value)).collect()
}

fn read_profile(gzip: &[u8]) -> Read1 {
    let mut raw = Vec::new();
    flate2::read::GzDecoder::new(gzip).read_to_end(&mut raw).expect("gzip");
    let all = fields(&raw);
    let of = |n: u64| all.iter().filter(move |f| f.0 == n);
    let strings: Vec<String> = of(6).map(|f| String::from_utf8(f.2.to_vec()).expect("UTF-8")).collect();
    let text = |i: u64| strings[i as usize].clone();
    let functions: BTreeMap<u64, String> = of(5)
        .map(|f| {
            let f = numbers(f.2);
            assert_eq!(f.keys().copied().collect::<Vec<_>>(), [1, 2], "a function has an id and a name only");
            (f[&1], text(f[&2]))
        })
        .collect();
    let locations: BTreeMap<u64, String> = of(4)
        .map(|f| {
            let (number, lines) = (numbers(f.2), fields(f.2));
            assert_eq!(number[&2], 1, "mapping of a location");
            let line = lines.iter().find(|l| l.0 == 4).expect("a line");
            (number[&1], functions[&numbers(line.2)[&1]].clone())
        })
        .collect();
    let samples = of(2).map(|f| {
        let sample = fields(f.2);
        let list = |n: u64| packed(sample.iter().find(|s| s.0 == n).expect("a packed list").2);
        let (ids, values) = (list(1), list(2));
        assert_eq!(values.len(), 2);
        let frames: Vec<&str> = ids.iter().rev().map(|id| locations[id].as_str()).collect();
        (frames.join(";"), values[0] as i64, values[1] as i64)
    });
    let single = |n: u64| of(n).map(|f| f.1).next().unwrap_or(0);
    let types = of(1).map(|f| numbers(f.2)).map(|f| (text(f[&1]), text(f[&2])));
    Read1 {
        sample_types: types.collect(),
        samples: samples.collect(),
        location_ids: locations.keys().copied().collect(),
        mapping: of(3).map(|f| numbers(f.2)).next().expect("a mapping"),
        comments: of(13).map(|f| text(f.1)).collect(),
        time_nanos: single(9),
        default_sample_type: text(single(14)),
        strings,
    }
}

/// 7 objects, 590 bytes; `items. (T)` is used twice and shares one location, `unused` has none.
fn sample_result() -> RunResult {
    let mut tree = tree(&[
        (ROOT, "main.cache", 1, 100),
        (ROOT, "main.log", 1, 16),
        (0, "items. (map[string]*main.T)", 2, 50),
        (1, "items. (map[string]*main.T)", 1, 16),
        (2, "$mapval. (main.T)", 1, 400),
        (2, "[0]. (*main.T)", 1, 8),
    ]);
    tree.labels.push("unused".into());
    let amount = |objects, bytes| Amount { objects, bytes };
    RunResult {
        tree,
        types: vec![TypeTotal { name: "main.T".into(), objects: 7, bytes: 590 }],
        totals: Totals {
            heap_in_use: amount(20, 8192),
            typed: amount(6, 490),
            sub_objects: amount(1, 100),
            unreachable: amount(3, 602),
            free_slots: amount(10, 5000),
            span_overhead_bytes: 2000,
            unread: amount(0, 0),
            ..Totals::default()
        },
        target: Target {
            exe_name: "app".into(),
            debug_file: None,
            build_id: Some("0123abcd".into()),
            go_version: "go1.26.6".into(),
            mapping: TextMapping { start: 0x40_0000, limit: 0x50_0000, offset: 0x1000 },
            last_gc_unix_nanos: 1_700_000_000_123_456_789,
        },
        ..RunResult::default()
    }
}

fn config(folder: &Path) -> Config {
    Config {
        exe: "app".into(),
        core: "core".into(),
        attach: None,
        output: folder.join("grf.out"),
        threads: NonZeroUsize::MIN,
        max_depth: 256,
        max_stacks: 50_000,
        fold: true,
        types: true,
        stats: Some(folder.join("stats.json")),
        search: Default::default(),
        tmpdir: None,
        verbosity: Verbosity::Normal,
    }
}

fn write(config: &Config, result: RunResult) -> Outcome {
    Outputs::prepare(config).and_then(|outputs| outputs.write_all(config, result)).expect("written")
}

#[test]
fn profile_reads_back() {
    let folder = tempfile::tempdir().expect("folder");
    let config = config(folder.path());
    let outcome = write(&config, sample_result());
    assert_eq!(outcome.partial, [""; 0]);
    let profile = read_profile(&std::fs::read(&config.output).expect("profile"));
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(profile.sample_types, [pair("inuse_objects", "count"), pair("inuse_space", "bytes")]);
    assert_eq!(profile.default_sample_type, "inuse_space");
    let sample = |frames: &str, objects, bytes| (frames.to_owned(), objects, bytes);
    assert_eq!(
        profile.samples,
        [
            sample("main.cache", 1, 100),
            sample("main.log", 1, 16),
            sample("main.cache;items. (map[string]*main.T)", 2, 50),
            sample("main.log;items. (map[string]*main.T)", 1, 16),
            sample("main.cache;items. (map[string]*main.T);$mapval. (main.T)", 1, 400),
            sample("main.cache;items. (map[string]*main.T);[0]. (*main.T)", 1, 8),
        ]
    );
    assert_eq!(profile.location_ids, [1, 2, 3, 4, 5]);
    assert_eq!(profile.strings[0], "");
    assert!(!profile.strings.iter().any(|s| s == "unused"));
    assert_eq!(profile.time_nanos, 1_700_000_000_123_456_789);
    let mapping = &profile.mapping;
    assert_eq!((mapping[&1], mapping[&2], mapping[&3], mapping[&4]), (1, 0x40_0000, 0x50_0000, 0x1000));
    assert_eq!(profile.strings[mapping[&5] as usize], "app");
    assert_eq!(profile.strings[mapping[&6] as usize], "0123abcd");
    assert_eq!(mapping[&7], 1, "has_functions");
    let totals = sample_result().totals.to_string();
    assert_eq!(profile.comments, [totals, format!("goref-fast {}", env!("CARGO_PKG_VERSION"))]);
}

#[test]
fn sums_are_conserved_at_every_limit() {
    let folder = tempfile::tempdir().expect("folder");
    for max_stacks in 1..8 {
        let config = Config { max_stacks, ..config(folder.path()) };
        assert_eq!(write(&config, sample_result()).partial, [""; 0]);
        let profile = read_profile(&std::fs::read(&config.output).expect("profile"));
        let sum = profile.samples.iter().fold((0, 0), |sum, s| (sum.0 + s.1, sum.1 + s.2));
        assert_eq!(sum, (7, 590), "--max-stacks {max_stacks}");
        let kept = profile.samples.iter().filter(|s| !s.0.ends_with("(other)")).count();
        assert_eq!(kept, max_stacks.min(6));
    }
}

#[test]
fn an_empty_heap_is_a_valid_profile() {
    let folder = tempfile::tempdir().expect("folder");
    let config = config(folder.path());
    assert_eq!(write(&config, RunResult::default()).partial, [""; 0]);
    let profile = read_profile(&std::fs::read(&config.output).expect("profile"));
    assert!(profile.samples.is_empty() && profile.location_ids.is_empty());
    assert_eq!((profile.time_nanos, profile.comments.len()), (0, 2));
}

/// Threads, paths and times must not enter the profile; the compressed stream has no clock in its header.
#[test]
fn equal_results_give_equal_bytes() {
    let folders = [tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder")];
    let mut bytes = Vec::new();
    for (folder, threads) in folders.iter().zip([1, 7]) {
        let threads = NonZeroUsize::new(threads).expect("not zero");
        let config = Config { threads, ..config(folder.path()) };
        let mut result = sample_result();
        result.phases.add("walk", std::time::Duration::from_millis(threads.get() as u64));
        result.walk.levels = threads.get() as u64;
        write(&config, result);
        bytes.push(std::fs::read(&config.output).expect("profile"));
    }
    assert_eq!(bytes[0], bytes[1]);
    assert_eq!(bytes[0][..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, bytes[0][8], 255]);
}

#[test]
fn report_says_the_numbers_and_where_the_profile_is() {
    let folder = tempfile::tempdir().expect("folder");
    let config = config(folder.path());
    let mut result = sample_result();
    result.incidents.add("span.bad_geometry", 2);
    result.walk.conservative_roots = 4;
    result.totals.conservative = Amount { objects: 2, bytes: 48 };
    let report = write(&config, result.clone()).report;
    let lines: Vec<&str> = report.lines().collect();
    assert_eq!(lines[0], "app (go1.26.6)");
    assert_eq!(lines[1], result.totals.to_string());
    let words = |name: &str| -> Vec<&str> {
        let line = lines.iter().find(|line| line.ends_with(name)).expect("a row");
        line.split_whitespace().collect()
    };
    assert_eq!(words("main.cache"), ["558", "558", "B", "94.6", "5", "main.cache"]);
    assert_eq!(words("main.log"), ["32", "32", "B", "5.4", "2", "main.log"]);
    assert_eq!(words("main.T"), ["590", "590", "B", "100.0", "7", "main.T"]);
    assert!(report.contains("not what would be freed"));
    assert!(report.contains("4 roots come from frames without a pointer map"));
    assert!(report.contains("of reachable, 48 B (2 objects) are held by them alone"));
    assert!(report.contains("2 soft errors") && !report.contains("span.bad_geometry"));
    assert!(!report.contains("only the entry address"));
    let path = config.output.display().to_string();
    assert_eq!(*lines.last().expect("a line"), format!("wrote {path}; open it with: go tool pprof -http=:5079 {path}"));
    let verbose = Config { verbosity: Verbosity::Verbose, ..config };
    result.incidents.count(EXECUTABLE_NOT_VERIFIED);
    let report = write(&verbose, result).report;
    assert!(report.contains("soft errors span.bad_geometry: 2") && report.contains("only the entry address"));
}

#[test]
fn folding_is_reported() {
    let folder = tempfile::tempdir().expect("folder");
    let config = Config { max_stacks: 2, ..config(folder.path()) };
    let report = write(&config, sample_result()).report;
    assert!(report.contains("2 of 6 stacks kept; the lightest 4 are folded into (other)"), "{report}");
    // The table is made before folding: main.log lost all its frames to the root-level (other).
    assert!(report.contains("main.log"));
}

#[test]
fn stats_have_stable_keys() {
    let folder = tempfile::tempdir().expect("folder");
    let config = Config { max_stacks: 2, ..config(folder.path()) };
    let mut result = sample_result();
    result.phases.add("walk", std::time::Duration::from_millis(1500));
    result.walk = WalkStats { levels: 3, candidates: 9, path_nodes: 6, conservative_roots: 0 };
    result.incidents.count("frame.no_map");
    write(&config, result);
    let text = std::fs::read_to_string(config.stats.expect("stats")).expect("stats");
    let stats: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut keys: Vec<&str> = stats.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys.join(" "),
        "beside_heap candidates conservative_roots finalizers garbage go_version incidents levels live_bytes live_objects \
         other_stacks partial path_nodes pause peak_private_bytes phase_seconds profile_locations profile_raw_bytes profile_samples \
         runtime_counters schema span_classes stacks_after stacks_before threads total_seconds totals version"
    );
    assert_eq!(stats["live_objects"], 7);
    assert_eq!(stats["live_bytes"], 590);
    assert_eq!((&stats["stacks_before"], &stats["stacks_after"]), (&6.into(), &2.into()));
    assert_eq!(stats["phase_seconds"]["walk"], 1.5);
    assert!(stats["phase_seconds"]["write profile"].is_number());
    assert_eq!(stats["incidents"]["frame.no_map"], 1);
    assert_eq!(stats["totals"]["heap_in_use"]["bytes"], 8192);
    assert_eq!(stats["totals"]["balanced"], true);
    assert_eq!(stats["partial"], serde_json::json!([]));
}

#[test]
fn wrong_books_make_the_result_partial() {
    let folder = tempfile::tempdir().expect("folder");
    let config = config(folder.path());
    let mut unexplained = sample_result();
    unexplained.totals.free_slots.bytes -= 8;
    let partial = write(&config, unexplained).partial;
    assert_eq!(partial.len(), 1);
    assert!(partial[0].contains("do not balance by -8 bytes and 0 slots"), "{}", partial[0]);
    assert!(partial[0].contains("8192 bytes (20 slots), its parts add up to 8184 bytes (20 slots)"), "{}", partial[0]);
    let mut miscounted = sample_result();
    miscounted.tree.nodes[0].own_objects += 1;
    let partial = write(&config, miscounted).partial;
    assert!(
        partial[0].contains("add up to 590 bytes (8 objects), reachable is 590 bytes (7 objects)"),
        "{}",
        partial[0]
    );
    let profile = read_profile(&std::fs::read(&config.output).expect("profile"));
    assert!(profile.comments[2].starts_with("partial: the books do not balance"));
}

#[test]
fn unread_spans_make_the_result_partial() {
    let folder = tempfile::tempdir().expect("folder");
    let mut result = sample_result();
    result.totals.unread = Amount { objects: 3, bytes: 602 };
    result.totals.unreachable = Amount::default();
    result.partial = vec!["thread 3 has no registers".into(); 2];
    let partial = write(&config(folder.path()), result).partial;
    assert_eq!(partial.len(), 2);
    assert!(partial[1].contains("602 bytes (3 slots)"), "{}", partial[1]);
}

/// `go tool pprof` reads the profile and has nothing to complain about.
#[test]
fn pprof_accepts_the_profile() {
    let go = |folder: &Path, args: &[&str]| {
        let mut command = Command::new("go");
        command.current_dir(folder).env("GOTOOLCHAIN", "local").args(["tool", "pprof"]).args(args);
        // pprof wants a home for its settings.
        if std::env::var_os("HOME").is_none() {
            command.env("HOME", folder);
        }
        command.output()
    };
    let folder = tempfile::tempdir().expect("folder");
    if Command::new("go").arg("version").output().is_err() {
        assert!(std::env::var_os("GOREF_REQUIRE_ALL").is_none(), "no Go toolchain in PATH");
        eprintln!("skipped: no Go toolchain in PATH");
        return;
    }
    write(&config(folder.path()), sample_result());
    // Each mode with something that it must print.
    for (mode, expected) in [
        ("-top", "558B 94.58%  main.cache"),
        ("-peek=main.cache", "items. (map[string]*main.T)"),
        ("-tree", "$mapval. (main.T)"),
        ("-raw", "inuse_objects/count inuse_space/bytes[dflt]"),
        ("-comments", "heap in use 8192 B"),
    ] {
        let output = go(folder.path(), &[mode, "-unit=B", "grf.out"]).expect("go tool pprof");
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{mode}: {stderr}");
        assert_eq!(stderr, "", "{mode} has a warning");
        assert!(stdout.contains(expected), "{mode}: {stdout}");
    }
}
