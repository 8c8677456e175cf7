//! goref-fast answers "who holds my memory?" for Go programs.

pub mod address;
pub mod cli;
pub mod error;
pub mod image;
pub mod incident;
pub mod model;
pub mod roots;
pub mod timing;
