//! The `goref-fast` binary: allocator, library call, exit code. All logic is in the library.

use goref_fast::error::Error;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    goref_fast::cli::main(|_, _| Err(Error::new("this build has no pipeline")))
}
