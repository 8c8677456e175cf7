//! The `goref-fast` binary: allocator, library call, exit code. All logic is in the library.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::io::{IsTerminal, Write};
use std::process::{ExitCode, abort, exit};
use std::sync::atomic::{AtomicBool, Ordering};

use mimalloc::MiMalloc;

#[global_allocator]
static GLOBAL: Allocator = Allocator;

fn main() -> ExitCode {
    goref_fast::cli::main(goref_fast::pipeline::run, goref_fast::pipeline::capture)
}

/// mimalloc, with an end that the user can make sense of: without this it is a core dump and a stack of the allocator.
struct Allocator;

// SAFETY: mimalloc keeps the contract; what it returns is passed on, except null, after which nothing returns.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that mimalloc asks for; so they are below.
        checked(unsafe { MiMalloc.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        checked(unsafe { MiMalloc.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        checked(unsafe { MiMalloc.realloc(block, layout, size) }, size)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(block, layout) }
    }
}

#[inline(always)]
fn checked(block: *mut u8, size: usize) -> *mut u8 {
    if block.is_null() { out_of_memory(size) } else { block }
}

/// Says so and ends, like any error. A process that we stopped goes on: its guard is a process of its own.
#[cold]
fn out_of_memory(size: usize) -> ! {
    static ENDING: AtomicBool = AtomicBool::new(false);
    // No memory for the way out either.
    if ENDING.swap(true, Ordering::Relaxed) {
        abort();
    }
    // Formatting numbers allocates nothing, and standard error has no buffer.
    let mut stderr = std::io::stderr();
    let _ = stderr.write_all(if stderr.is_terminal() { b"\n" } else { b"" });
    let _ = writeln!(
        stderr,
        "goref-fast: error: out of memory: the system refused {size} bytes more\n  \
         help: raise the limit (ulimit -v, ulimit -d, that of the cgroup), or use fewer --threads; of a running process \
         --pause whole takes less than --pause copy, and `goref-fast capture` next to none"
    );
    exit(1)
}
