//! Independent walkers over the same model, as naive as they can be, and what follows for the product.
//!
//! * [`masked`]: reachability by masks alone. Its set must be the product's, with and without types;
//! * [`typed`]: types and paths, by reading values as their types say ([`values`]). Objects and bytes of every path must be the
//!   product's, folded or not, and the types that edges say must agree with malloc headers and heap bits;
//! * the collector: after two collections the allocation bits are its own marks, so both sets must be the allocated slots;
//! * the copying image: the result must not depend on borrowing from the core.

pub mod check;
pub mod closures;
pub mod dump;
mod edges;
pub mod heap;
pub mod masked;
mod paths;
pub mod sets;
pub mod typed;
mod values;
