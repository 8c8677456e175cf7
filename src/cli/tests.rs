//! Command lines, messages, and names of repeated files.

use super::arguments::{Args, duration};
use super::*;
use crate::live::Pause;
use clap::CommandFactory;
use std::ffi::OsString;

fn parse_words(words: &[&str]) -> Result<Config, clap::Error> {
    match parse(std::iter::once("goref-fast").chain(words.iter().copied()).map(OsString::from))? {
        Job::Run(config) => Ok(config),
        other => panic!("{other:?}"),
    }
}

#[test]
fn defaults() {
    let config = parse_words(&["core", "app", "core.1"]).expect("valid");
    assert_eq!(config.exe, Path::new("app"));
    assert_eq!(config.core, Path::new("core.1"));
    assert_eq!(config.output, Path::new("grf.out"));
    assert_eq!((config.max_depth, config.max_stacks), (256, 50_000));
    assert!(config.fold && config.types && config.stats.is_none() && config.tmpdir.is_none());
    assert!(config.search.file.is_none() && config.search.dir.is_none());
    assert_eq!(config.verbosity, Verbosity::Normal);
    assert_eq!(Some(config.threads), std::thread::available_parallelism().ok());
}

#[test]
fn every_option() {
    let words = [
        "core",
        "-v",
        "--no-fold",
        "--no-types",
        "--threads",
        "3",
        "--max-depth",
        "8",
        "--max-stacks",
        "9",
        "--stats",
        "s.json",
        "--tmpdir",
        "/tmp",
        "--debug-file",
        "app.debug",
        "--debug-dir",
        "/srv/debug",
        "-o",
        "p.out",
        "app",
        "core.1",
    ];
    let config = parse_words(&words).expect("valid");
    assert_eq!((config.threads.get(), config.max_depth, config.max_stacks), (3, 8, 9));
    assert!(!config.fold && !config.types);
    assert_eq!(config.stats.as_deref(), Some(Path::new("s.json")));
    assert_eq!(config.tmpdir.as_deref(), Some(Path::new("/tmp")));
    assert_eq!(config.search.file.as_deref(), Some(Path::new("app.debug")));
    assert_eq!(config.search.dir.as_deref(), Some(Path::new("/srv/debug")));
    assert_eq!(config.output, Path::new("p.out"));
    assert_eq!(config.verbosity, Verbosity::Verbose);
}

#[test]
fn attach_takes_the_same_options() {
    let config = parse_words(&["attach", "17", "--max-pause", "50ms", "--threads", "3"]).expect("valid");
    let attach = config.attach.expect("attach");
    assert_eq!((attach.pid, attach.pause), (17, None));
    assert_eq!(attach.max_pause, Some(Duration::from_millis(50)));
    assert!(config.exe.as_os_str().is_empty() && config.threads.get() == 3);
    let config = parse_words(&["attach", "17", "app", "--pause", "whole"]).expect("valid");
    assert_eq!(config.attach.expect("attach").pause, Some(Pause::Whole));
    assert_eq!(config.exe, Path::new("app"));
    for words in
        [&["attach"][..], &["attach", "x"], &["attach", "1", "--pause", "no"], &["attach", "1", "--max-pause", "5"]]
    {
        assert_eq!(parse_words(words).expect_err("invalid").exit_code(), 2, "{words:?}");
    }
    assert_eq!(duration("1.5min"), Ok(Duration::from_secs(90)));
    assert!(duration("ms").is_err() && duration("0s").is_err() && duration("-1s").is_err());
}

#[test]
fn captures_and_repetitions() {
    let job = |words: &[&str]| parse(std::iter::once("goref-fast").chain(words.iter().copied()).map(OsString::from));
    let words = ["capture", "17", "-o", "x.core.zst", "--every", "30s", "--count", "3"];
    let Ok(Job::Capture(capture, every, 3)) = job(&words) else { panic!("a capture") };
    assert_eq!((capture.pid, every), (17, Duration::from_secs(30)));
    assert!(!capture.go_only && !capture.with_data);
    assert_eq!(numbered(&capture.output, 2), Path::new("x.2.core.zst"));
    let words = ["capture", "17", "-o", "x", "--go-only", "--with-data"];
    let Ok(Job::Capture(capture, _, 1)) = job(&words) else { panic!("a capture") };
    assert!(capture.go_only && capture.with_data);
    assert_eq!(numbered(Path::new("a.b/.c/grf"), 1), Path::new("a.b/.c/grf.1"));
    assert_eq!(numbered(Path::new("-"), 1), Path::new("-"));
    assert_eq!(numbered(Path::new("/dev/null"), 1), Path::new("/dev/null"));
    assert!(matches!(job(&["attach", "17", "--every", "1s", "--count", "2"]), Ok(Job::Repeat(_, _, 2))));
    for words in [
        &["capture", "17"][..],
        &["capture", "17", "-o", "x", "--pause", "copy"],
        &["attach", "1", "--count", "2"],
        &["capture", "17", "-o", "x", "--with-data"],
    ] {
        assert_eq!(job(words).expect_err("invalid").exit_code(), 2, "{words:?}");
    }
}

#[test]
fn wrong_usage_exits_with_2_and_help_with_0() {
    let wrong: [&[&str]; 9] = [
        &[],
        &["core"],
        &["core", "app"],
        &["core", "app", "core.1", "more"],
        &["core", "app", "core.1", "-q", "-v"],
        &["core", "app", "core.1", "--threads", "0"],
        &["core", "app", "core.1", "--max-depth", "0"],
        &["core", "app", "core.1", "--max-stacks", "many"],
        &["core", "app", "core.1", "-o", "x", "--stats", "x"],
    ];
    for words in wrong {
        let e = parse_words(words).expect_err("invalid");
        assert!(e.use_stderr(), "{words:?}");
        assert_eq!(e.exit_code(), 2, "{words:?}");
    }
    for words in [["--help", ""], ["core", "--help"], ["--version", ""]] {
        let words: Vec<&str> = words.into_iter().filter(|w| !w.is_empty()).collect();
        assert_eq!(parse_words(&words).expect_err("help").exit_code(), 0, "{words:?}");
    }
}

#[test]
fn inputs_are_never_overwritten() {
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, name).expect("write");
        path.to_string_lossy().into_owned()
    };
    let (exe, core) = (path("exe"), path("core"));
    for words in
        [["core", &exe, &core, "-o", &core], ["core", &exe, &core, "--stats", &exe], ["core", &exe, &exe, "-o", "x"]]
    {
        assert_eq!(parse_words(&words).expect_err("refused").exit_code(), 2, "{words:?}");
    }
}

#[test]
fn errors_carry_their_remedy() {
    let e = Error::new("cannot read x").cause("is\u{7} gone").remedy("take it again");
    assert_eq!(render_error(&e), "goref-fast: error: cannot read x: is\\u{7} gone\n  help: take it again\n");
    assert_eq!(render_error(&Error::new("bad")), "goref-fast: error: bad\n");
}

#[test]
fn the_command_is_well_formed() {
    Args::command().debug_assert();
}
