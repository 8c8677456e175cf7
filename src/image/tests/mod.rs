//! Tests of the whole stage on hand-built files (`synth`).
//!
//! * `memory`: every source of bytes, borrowing and copying, an oracle that maps byte by byte.
//! * `identity`: EXE and CORE that do and do not belong together.
//! * `executable`: sections, compression, symbols.
//! * `inputs`: opening, decompression, files of the wrong kind.
//! * `linked`: programs whose runtime is in a library.
//! * `separate`: debug information in files of its own, executables in a sysroot.
//! * `damage`: truncation and changed bytes everywhere.

mod damage;
mod executable;
mod identity;
mod inputs;
mod linked;
mod memory;
mod separate;
