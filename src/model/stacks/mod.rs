//! Goroutines and their stacks: `allgs` to [`Goroutine`]s, each with where it stands ([`Entry`]); [`unwind()`] turns that into physical
//! [`Frame`]s; each frame's [`FrameCode`] says which of its words the collector takes for live pointers.
//!
//! This stage knows no variables and no names but the functions': `crate::roots` joins frames with DWARF. Sources: traceback.go,
//! stkframe.go, mgcmark.go (`scanstack`), mgcstack.go of the Go runtime.

mod bits;
mod code;
mod goroutine;
mod interrupted;
mod layout;
mod memory;
mod tables;
#[cfg(test)]
mod testing;
mod unwind;

pub use bits::Bits;
pub use code::{CodeId, FrameCode, FrameCodes, Role, StackMaps, StackObject};
pub use goroutine::{Entry, Goroutine, Threads, read_goroutines};
pub use layout::{RegArgs, StackLayout};
pub use memory::StackMemory;
pub use tables::{CodeCache, LocalCodes, is_reflect_stub, reflect_arguments, reflect_arguments_of};
pub use unwind::{End, Frame, FrameMode, Start, unwind};
