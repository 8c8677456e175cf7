//! Reads `src/` and fails on an import against the arrows, or on a dependency used elsewhere than at its door.

use crate::harness::root;
use std::fs;
use std::path::{Path, PathBuf};

/// The stages, each of which may use those before it and itself.
const ARROWS: [&[&str]; 12] = [
    &["address", "architecture", "error", "incident", "prefetch", "timing"],
    &["image"],
    &["live"],
    &["model"],
    &["roots"],
    &["traverse"],
    &["aggregate"],
    &["config"],
    &["output"],
    &["progress"],
    &["pipeline"],
    &["cli", "main", "lib"],
];

/// The same inside `model/`.
const MODEL_ARROWS: [&[&str]; 4] = [
    &["types", "dwarf", "layout"],
    &["modules"],
    &["descriptors", "heap", "queues", "release", "closures"],
    &["stacks"],
];

/// Where a dependency may be named: the crate, then path prefixes below `src/`. What is not listed may be used anywhere.
const DOORS: [(&str, &[&str]); 19] = [
    ("memmap2", &["image/map.rs", "image/window.rs"]),
    ("zstd", &["image/", "live/"]),
    ("lz4_flex", &["image/decompress/"]),
    ("liblzma", &["image/decompress/"]),
    ("rustix", &["image/decompress/"]),
    // The one place that uses the network.
    ("ureq", &["image/debuginfod.rs"]),
    ("object", &["image/", "model/dwarf/"]),
    ("gimli", &["model/dwarf/", "model/stacks/"]),
    // Caches by type or function, never by pointer.
    ("dashmap", &["model/", "roots/stacks.rs", "traverse/world.rs"]),
    // Marks are made in traverse/; the heap hands over the free slots in the same form, and the books compare the two.
    ("roaring", &["traverse/", "model/heap/", "pipeline.rs", "pipeline/"]),
    ("prost", &["output/"]),
    ("comfy_table", &["output/"]),
    ("serde_json", &["output/"]),
    ("clap", &["cli/"]),
    ("indicatif", &["progress.rs"]),
    ("mimalloc", &["main.rs"]),
    ("nix", &["live/"]),
    ("tempfile", &["image/", "output/"]),
    ("libc", &["live/"]),
];

/// Files that may contain unsafe code, by name.
const UNSAFE: [&str; 6] =
    ["image/map.rs", "image/unit.rs", "image/window.rs", "live/ptrace.rs", "main.rs", "prefetch.rs"];

#[test]
fn imports_point_left() {
    let mut wrong = Vec::new();
    for (path, text) in code() {
        let stage = first(&path);
        let Some(own) = rank(&ARROWS, &stage) else {
            wrong.push(format!("src/{}: belongs to no stage; add it to ARROWS", path.display()));
            continue;
        };
        for (line, used) in crate_paths(&text) {
            let mut segments = used.split("::");
            let target = segments.next().unwrap_or_default();
            if let Some(other) = rank(&ARROWS, target) {
                if other > own || other == 0 && own == 0 && target == "cli" {
                    wrong.push(format!(
                        "src/{}:{line}: `{stage}` uses `{target}`, a later stage; put a trait on the earlier side",
                        path.display()
                    ));
                }
                if stage == "model" && target == "model" {
                    let inner = path.components().nth(1).map(|c| stem(c.as_os_str().as_ref())).unwrap_or_default();
                    let used = segments.next().unwrap_or_default();
                    if let (Some(a), Some(b)) = (rank(&MODEL_ARROWS, &inner), rank(&MODEL_ARROWS, used))
                        && b > a
                    {
                        wrong.push(format!(
                            "src/{}:{line}: `model::{inner}` uses `model::{used}`, a later part",
                            path.display()
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn one_door_per_dependency() {
    let mut wrong = Vec::new();
    for (path, text) in code() {
        for (number, line) in text.lines().enumerate() {
            for (dependency, doors) in DOORS {
                if names_crate(line, dependency)
                    && !doors.iter().any(|door| path.starts_with(door.trim_end_matches('/')))
                {
                    wrong.push(format!(
                        "src/{}:{}: `{dependency}` is used only in {doors:?}; ask that module for what is needed",
                        path.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_only_by_name() {
    let mut wrong = Vec::new();
    for (path, text) in code() {
        let allowed = UNSAFE.iter().any(|f| path == Path::new(f));
        for (number, line) in text.lines().enumerate() {
            if !allowed
                && (line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("allow(unsafe_code)"))
            {
                wrong.push(format!("src/{}:{}: unsafe code outside {UNSAFE:?}", path.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every source file says first what it makes from what.
#[test]
fn files_have_headers() {
    let wrong: Vec<String> = files(&root().join("src"))
        .into_iter()
        .chain(files(&root().join("tests")))
        // Unit tests in folders of their own are described by the file that names them.
        .filter(|path| !path.to_string_lossy().contains("src/") || !path.to_string_lossy().contains("/tests/"))
        .filter(|path| !fs::read_to_string(path).unwrap().starts_with("//!"))
        .map(|path| format!("{}: does not start with //!", path.display()))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Files below `src/` with their code: comments blanked, unit tests (at the end of a file) left out.
fn code() -> Vec<(PathBuf, String)> {
    let src = root().join("src");
    let strip = |text: String| {
        let mut kept = String::new();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let tests =
                line.trim() == "#[cfg(test)]" && lines.peek().is_some_and(|next| next.trim_start().starts_with("mod "));
            if tests && lines.peek().is_some_and(|next| next.trim_end().ends_with('{')) {
                break;
            }
            kept.push_str(line.split("//").next().unwrap_or_default());
            kept.push('\n');
        }
        kept
    };
    files(&src)
        .into_iter()
        .map(|path| (path.strip_prefix(&src).unwrap().to_owned(), strip(fs::read_to_string(&path).unwrap())))
        .filter(|(path, _)| !path.ends_with("tests.rs") && !path.components().any(|c| c.as_os_str() == "tests"))
        .collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|x| x == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn first(path: &Path) -> String {
    path.components().next().map(|c| stem(c.as_os_str().as_ref())).unwrap_or_default()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn rank(arrows: &[&[&str]], name: &str) -> Option<usize> {
    arrows.iter().position(|stages| stages.contains(&name))
}

/// What follows `crate::` (in `main.rs`, `goref_fast::`), with its line; `{a, b::c}` gives one for each.
fn crate_paths(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for prefix in ["crate::", "goref_fast::"] {
        for (at, _) in text.match_indices(prefix) {
            let line = text[..at].lines().count().max(1);
            expand(&text[at + prefix.len()..], "", &mut |path| found.push((line, path)));
        }
    }
    found
}

/// Expands the path at the start of `text` into single paths of identifiers.
fn expand<'a>(text: &'a str, prefix: &str, found: &mut dyn FnMut(String)) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            let before = rest.len();
            rest = expand(rest, prefix, found);
            if rest.len() == before {
                return rest; // not an import after all
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*').unwrap_or(text.len());
    let path = if prefix.is_empty() { text[..end].to_owned() } else { format!("{prefix}::{}", &text[..end]) };
    match text[end..].strip_prefix("::") {
        Some(rest) => expand(rest, &path, found),
        None => {
            found(path);
            let rest = &text[end..];
            rest.strip_prefix(" as ").map_or(rest, |r| r.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'))
        }
    }
}

/// True if `line` has `name::` or `use name` as a crate's name, not as a part of another path or word.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let free = !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '.');
        let after = &line[at + name.len()..];
        let own = line[..at].trim_start().ends_with("use ") || line[..at].ends_with("extern crate ");
        free && (after.starts_with("::") || own && after.starts_with([';', ' ']))
    })
}

#[test]
fn paths_are_found() {
    let text = "use crate::{image::{self, Image}, model::types::TypeId as T, error};\nlet x = crate::roots::Root;\n";
    let paths: Vec<String> = crate_paths(text).into_iter().map(|(line, path)| format!("{line} {path}")).collect();
    assert_eq!(paths, ["1 image::self", "1 image::Image", "1 model::types::TypeId", "1 error", "2 roots::Root"]);
    assert!(names_crate("use object::read::elf;", "object") && names_crate("let x = gimli::Foo;", "gimli"));
    assert!(!names_crate("crate::object::x", "object") && !names_crate("let object = 1;", "object"));
}
