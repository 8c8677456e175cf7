//! goref-fast answers "who holds my memory?" for Go programs.

pub mod address;
pub mod aggregate;
pub mod cli;
pub mod config;
pub mod error;
pub mod image;
pub mod incident;
pub mod model;
pub mod output;
pub mod pipeline;
pub mod progress;
pub mod roots;
pub mod timing;
pub mod traverse;
