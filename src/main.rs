//! The `goref-fast` binary: allocator, library call, exit code. All logic is in the library.

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    goref_fast::cli::main(goref_fast::pipeline::run, goref_fast::pipeline::capture)
}
