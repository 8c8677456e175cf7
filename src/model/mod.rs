//! STAGE 2: what the bytes mean to the Go runtime. Read-only once built, except that [`types::TypeTable`] grows by types that only
//! runtime descriptors know, at points where the order is canonical.
//!
//! `dwarf`, `layout` <- `types`, `modules` <- `heap`, `release`, `closures` <- `stacks`.

pub mod chain;
pub mod closures;
pub mod descriptors;
pub mod dwarf;
pub mod heap;
pub mod layout;
pub mod modules;
pub mod queues;
pub mod release;
pub mod stacks;
pub mod types;
