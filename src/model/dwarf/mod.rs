//! Debug information: units parsed in parallel into a [`TypeTable`], package variables, functions and runtime constants.
//!
//! All addresses here are link-time addresses of the executable; the caller adds the load bias.

use crate::error::Result;
use crate::model::types::{TypeId, TypeTable};
use rustc_hash::FxHashMap;

/// A package-level variable with a fixed address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalVariable {
    /// `pkg/path.name`.
    pub name: Box<str>,
    /// Link-time address.
    pub address: u64,
    /// Its type.
    pub ty: TypeId,
}

/// Where (a part of) a variable lies.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// At canonical frame address (the caller's SP) plus this.
    Cfa(i64),
    /// In this DWARF register.
    Register(u16),
    /// The pointer at CFA plus this holds its address (an escaped variable, Go 1.25+).
    CfaDeref(i64),
    /// Not anywhere.
    Gone,
}

/// `size` bytes of a variable's value.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Offset inside the value.
    pub offset: u64,
    /// Length in bytes.
    pub size: u64,
    /// Where these bytes are.
    pub at: Location,
}

/// A local variable, parameter or result in scope at a PC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalVariable {
    /// Innermost (inlined) function that declares it, full path.
    pub function: Box<str>,
    /// Source name; a leading `&` (an escaped variable's address) is kept.
    pub name: Box<str>,
    /// Type of the value at the location (for `&x` the pointer type).
    pub ty: TypeId,
    /// Parameter or result.
    pub is_param: bool,
    /// Scope depth: 0 is the function's own scope, inlined calls and lexical blocks add one each.
    pub depth: u32,
    /// The pieces at the PC; one piece of the whole size unless decomposed. Empty: optimised away there.
    pub pieces: Vec<Piece>,
}

/// The function objects' layout behind a func value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosureLayout {
    /// Full name of the function.
    pub function: Box<str>,
    /// Captured variables: name (leading `&` kept: captured by reference), byte offset in the closure object, type of the word(s) there.
    pub captures: Vec<(Box<str>, u64, TypeId)>,
}
