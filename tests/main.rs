//! The integration tests: one binary that runs the real program on real dumps.
//!
//! What belongs where:
//! * [`architecture`]: the import arrows between the folders of `src/`, and one door per dependency.
//! * [`fixtures`]: the Go programs of `testdata/programs`, one core per toolchain and build mode: totals to the byte, every
//!   stated path, the same bytes for every number of threads, `go tool pprof` without warnings.
//! * [`shapes`]: generated heaps of `perf/gen`: totals of a million mixed objects, lists, self-referring types.
//! * [`attach`]: running processes: the same bytes as from a core; a busy program that is attached to, and the attacher killed, many times.
//! * [`crash`]: programs that die in several ways, dumped by the kernel or by gdb; every object that a crash makes is named.
//! * [`signals`]: a goroutine that gdb stops at many instructions of a signal handler, and while the runtime switches stacks.
//! * [`debug_files`]: debug information in files of its own, on servers; executables in a sysroot.
//! * [`kinds`]: kernel cores of every filter, cut off by limits, of too many segments, compressed; odd executables.
//! * [`lost_pages`]: cores that lack pages of the heap: closures that cannot be told apart, against the reference walkers.
//! * [`books`]: a program that states its own books: every total, counter and kind of garbage; and roots left out one kind at a time.
//! * [`cgo`]: goroutines in C code and in functions that C called.
//! * [`churn`]: dumps taken at any time, and in each phase of a collection: in the sweeper, the allocator, the middle of growing stacks.
//! * [`stdlib`]: programs that work with the standard library (HTTP, TLS, JSON and templates, compression, timers and contexts): totals to
//!   the byte, sets of objects, and that types explain nearly all of it.
//! * [`stripped`]: executables without debug information and symbols: what has names, and the runtime found without any.
//! * [`several`]: several Go runtimes in one process.
//! * [`sample`]: the bundled sample of `testdata/sample`; needs neither Go nor a network.
//! * [`matrix`]: release x experiment x build x kind of core; a selection, or all of it with `GOREF_MATRIX=full`, which writes the
//!   table in the README.
//! * [`releases`]: a release that nobody has tested is tried, and what it lacks is named.
//! * [`reference`]: a naive walker that shares no code with `src/traverse`: the same objects, paths and totals.
//! * [`hostile`]: seeded mutations of a dump, under limits of time and memory.
//! * [`bad_input`]: damaged, truncated and mismatched input: an exit status, never a signal.
//!
//! A test that lacks a tool (network, gdb) says so and passes; `GOREF_REQUIRE_ALL=1` turns that into a failure. Environment:
//! * `GOREF_GO_ROOTS`: a folder with `VERSION/go/bin/go` inside, used instead of downloading toolchains;
//! * `GOREF_GO_VERSIONS`: the versions to test, separated by commas (default: all that are known);
//! * `GOREF_ATTACH_ROUNDS`: how often a busy program is attached to in each way (default: a few times);
//! * `GOREF_OWN_MACHINE=1`: settings of the whole machine may be changed, as in the emulated one of `tests/arm64/run`;
//! * `GOREF_BUILD_ONLY=arm64`: programs are built for arm64 and not run, for the emulated machine of `tests/arm64/run`;
//! * `GOREF_REFERENCE`: folders with `exe` and `core`, separated by colons, to hold against the reference walkers as well.

#![allow(missing_docs)]

mod architecture;
mod attach;
mod bad_input;
mod books;
mod cgo;
mod churn;
mod crash;
mod debug_files;
mod fixtures;
mod harness;
mod hostile;
mod kinds;
mod lost_pages;
mod matrix;
mod reference;
mod releases;
mod sample;
mod several;
mod shapes;
mod signals;
mod stdlib;
mod stripped;
