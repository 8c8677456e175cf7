//! What the tests share: toolchains, programs, cores with their truth, the tool itself, and a reader of its output.

pub mod binutils;
pub mod corefile;
pub mod dying;
pub mod expect;
pub mod killed;
pub mod pprof;
pub mod program;
pub mod rewritten;
pub mod sparse;
pub mod tool;
pub mod toolchain;

use std::path::{Path, PathBuf};

/// Why a test cannot run here. `GOREF_REQUIRE_ALL=1` makes it a failure.
#[derive(Debug)]
pub struct Skip(pub String);

pub type Outcome<T> = Result<T, Skip>;

/// `Some` if there, else reports the skip (or fails, if everything is required).
pub fn required<T>(outcome: Outcome<T>) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(Skip(reason)) => {
            assert!(
                std::env::var("GOREF_REQUIRE_ALL").as_deref() != Ok("1"),
                "required by GOREF_REQUIRE_ALL=1: {reason}"
            );
            eprintln!("skipped: {reason}");
            None
        }
    }
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Folder `name` of the cache that git ignores, created.
pub fn cache(name: &str) -> PathBuf {
    let dir = root().join("testdata/.cache").join(name);
    std::fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("create {}: {e}", dir.display()));
    dir
}
