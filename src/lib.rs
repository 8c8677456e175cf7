//! goref-fast answers "who holds my memory?" for Go programs: it walks the heap of a core dump as the garbage collector would, and
//! writes a pprof profile in which every live object is counted once, on the shortest path that leads to it.
//!
//! # The pipeline
//!
//! Each stage borrows the earlier ones and returns one new value; imports go to the left only (`tests/architecture.rs` holds it):
//!
//! ```text
//! address, architecture, error, incident, timing <- image <- live <- model <- roots <- traverse <- aggregate <- output <- pipeline <- cli
//! ```
//!
//! * [`image`]: memory of the dumped process by address; knows ELF, nothing of Go.
//! * [`live`]: the same of a process that runs: stopped, or as a snapshot.
//! * [`model`]: what the bytes mean to the Go runtime: types, functions, spans, masks, stacks.
//! * [`roots`]: the words where the collector starts, as named, typed, copied values.
//! * [`traverse`]: the walk; every reachable object once, on one path.
//! * [`aggregate`]: stacks within a budget, tables, totals.
//! * [`output`]: profile, report, stats file.
//! * [`pipeline`]: the one file that knows every stage.
//!
//! # Words
//!
//! * *span* (`mspan`): pages cut into slots of one size. *arena* (`heapArena`): 64 MiB of address space. *shard*: whole arenas with one
//!   owner per wave.
//! * *object*: one slot of an in-use span. *ordinal*: its number within its shard. *word*: 8 aligned bytes.
//! * *pointer mask*: the collector's own bits for the words that it follows. *root*: a word where it starts.
//! * *edge*: a word of a typed value with the label that names it. *path*: a root, then edges; *path node*: (parent, label).
//! * *program*: a type compiled to a flat list of operations. *group*: items that share path and program. *item*: a value to scan.
//! * *candidate*: a pointer that was followed, before anyone knows whether its target is new. *claim*: settling who counts the target.
//! * *wave*: a fixed number of elements of a level. *unit*: what a worker takes at a time. *stratum*: a class of roots.
//! * *partial object*: one whose claimant's type leaves mask words unexplained (*open*). *loose word*: the same outside of such an object.

pub mod address;
pub mod aggregate;
pub mod architecture;
pub mod cli;
pub mod config;
pub mod error;
pub mod image;
pub mod incident;
pub mod live;
pub mod model;
pub mod output;
pub mod pipeline;
pub mod prefetch;
pub mod progress;
pub mod roots;
pub mod timing;
pub mod traverse;
