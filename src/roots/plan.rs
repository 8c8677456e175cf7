//! Names the live words of a frame, once per (PC, mode); all goroutines that stand there follow the same plan.
//!
//! Which words are live is the collector's business ([`FrameCode::maps`]), which variable a word belongs to is DWARF's. Both are
//! relative to the CFA, so the join does not depend on the goroutine. A word is named by at most one variable: innermost scope
//! first, then declaration order.

mod window;

use super::{is_runtime_package, is_runtime_symbol, pieces, spill};
use crate::architecture::Architecture;
use crate::model::dwarf::{LocalVariable, Location, Piece};
use crate::model::stacks::{Bits, FrameCode, FrameMode, StackObject};
use crate::model::types::{Kind, TypeId, TypeTable};
use std::sync::Arc;
use window::Window;

/// Values with more words than their frame and this many registers are not followed (hostile sizes).
const MAX_REGISTER_WORDS: u64 = 64;

/// Memory of more words than that is not looked at for the sake of a variable without a place: hostile frames.
const MAX_LOST_WORDS: u64 = 1 << 16;

/// A local variable's display name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// `pkg/path.function.variable`.
    pub(super) text: Arc<str>,
    /// The function is the runtime's.
    pub(super) runtime: bool,
}

/// Where words of a value come from.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Frame memory at this CFA offset.
    Frame(i64),
    /// A DWARF register: known only for the innermost frame of a running thread.
    Register(u16),
}

/// Consecutive words of a value.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// First word inside the value.
    pub(super) word: u32,
    /// Number of words.
    pub(super) nwords: u32,
    /// Where they are.
    pub(super) from: Source,
}

/// What a variable with a single pointer refers to. A stack object without a variable of its own takes the variable's name.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Referent {
    /// A value of this type.
    Value(TypeId),
    /// A slice's elements.
    Elements(TypeId),
    /// The header of a map of this type.
    Map(TypeId),
}

impl Referent {
    /// Of a value of type `ty`.
    pub(super) fn of(ty: TypeId, types: &TypeTable) -> Option<Self> {
        match types.get(ty).kind {
            Kind::Pointer(elem) => Some(Self::Value(elem)),
            Kind::Slice(elem) => Some(Self::Elements(elem)),
            Kind::Map { .. } => Some(Self::Map(ty)),
            _ => None,
        }
    }

    /// Whether a stack object of `size` bytes with the pointers `mask` can be all of it.
    fn fills(self, size: u64, mask: &Bits, types: &TypeTable) -> bool {
        let (Self::Value(ty) | Self::Elements(ty)) = self else { return false };
        let elem = types.get(ty).size;
        let nwords = (elem / 8).min(size / 8) as usize;
        let fits = size / 8 <= MAX_LOST_WORDS
            && match self {
                Self::Elements(_) => elem > 0 && elem.is_multiple_of(8) && size.is_multiple_of(elem),
                _ => elem == size && elem.is_multiple_of(8),
            };
        if !fits || nwords == 0 {
            return false;
        }
        let pointers = pieces::pointer_words(ty, nwords, types);
        (0..(size / 8) as usize).all(|i| mask.get(i) == pointers.get(i % nwords))
    }
}

/// A variable with live words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) name: Name,
    pub(super) ty: Option<TypeId>,
    pub(super) nwords: u32,
    pub(super) parts: Vec<Part>,
    /// Live words.
    pub(super) live: Bits,
    /// CFA offset of its first part in the frame; of SP if it is in registers.
    pub(super) offset: i64,
    /// If it is a slice: the size of its elements. Its length and capacity may be gone, or not its own.
    pub(super) extent_of: Option<u64>,
    /// In generic code: where the dictionary's address is and which entry is the value's real type.
    pub(super) dictionary: Option<Entry>,
}

/// An entry of a dictionary: the descriptor of a type argument, or of a type made from one.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// CFA offset of the dictionary's address.
    pub(super) dictionary: i64,
    /// Index of the entry.
    pub(super) index: u64,
}

/// A stack object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// CFA offset.
    pub(super) offset: i64,
    /// Size in bytes.
    pub(super) size: u64,
    /// Pointer words.
    pub(super) mask: Bits,
    /// The variable that lies there.
    pub(super) name: Option<(Name, TypeId)>,
    /// If none does: what a variable without a place may refer to here.
    pub(super) lost: Option<Lost>,
}

/// A variable whose place the compiler no longer knows, because its value is a constant, the address of memory in the frame: `s :=
/// make([]*T, 20)`. That it is the address of just this memory is a guess, to be checked by the values there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    /// The variable, if there is but one.
    pub(super) name: Option<Name>,
    /// What it refers to.
    pub(super) referent: Referent,
}

/// Consecutive words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// CFA offset of the first.
    pub(super) offset: i64,
    pub(super) nwords: u32,
    /// What a variable without a place may refer to here.
    pub(super) lost: Option<Lost>,
}

/// What to do with a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) variables: Vec<Variable>,
    /// Live words that no variable names, ascending.
    pub(super) unnamed: Vec<Run>,
    /// Stack objects; a conservatively scanned frame has none.
    pub(super) objects: Vec<Object>,
    /// Every word counts, whatever the maps say.
    pub(super) conservative: bool,
}

/// Builds the plan of a frame.
///
/// * `architecture`: how many arguments travel in registers.
/// * `code`: the frame's geometry.
/// * `maps`: the code whose maps apply: `code` itself, or the one at its deferreturn call; `None`: nothing is live.
/// * `variables`: those in scope, in declaration order.
/// * `after`: for a frame at a call, those at its return address. DWARF forgets what is in a register that the call overwrites
///   and then names the stack slot.
pub(super) fn build(
    architecture: &Architecture,
    code: &FrameCode,
    maps: Option<&FrameCode>,
    mode: FrameMode,
    variables: &[LocalVariable],
    after: &[LocalVariable],
    types: &TypeTable,
) -> Plan {
    let mut window = Window::new(code, maps, mode);
    let mut plan = Plan { conservative: window.conservative, ..Plan::default() };
    let mut candidates = candidates(variables, types, &window);
    add_returned(&mut candidates, after, types, &window);
    add_spill_slots(&mut candidates, architecture, code, types);
    candidates.sort_by_key(|c| std::cmp::Reverse(c.variable.depth));
    plan.variables = candidates
        .iter()
        .filter_map(|c| {
            let dictionary = c.dictionary(&candidates, &window, code.argp);
            Some(Variable { dictionary, ..window.claim(c, types)? })
        })
        .collect();
    let lost_in = |nwords: u32| {
        let all = Bits::from_bytes(&vec![0xff; nwords as usize], nwords as usize);
        lost(&candidates, u64::from(nwords) * 8, &all, types)
    };
    plan.unnamed = window.unnamed();
    let sane = |run: &&mut Run| run.nwords > 1 && u64::from(run.nwords) <= MAX_LOST_WORDS;
    for run in plan.unnamed.iter_mut().filter(sane).filter(|_| !window.conservative) {
        run.lost = lost_in(run.nwords);
    }
    if let Some(maps) = maps.filter(|_| !window.conservative) {
        let objects = maps.maps.objects.iter().map(|StackObject { offset, size, mask }| {
            let name = candidates.iter().find_map(|c| c.object_name(*offset, types));
            let lost = if name.is_none() { lost(&candidates, *size, mask, types) } else { None };
            Object { offset: *offset, size: *size, mask: mask.clone(), name, lost }
        });
        plan.objects = objects.collect();
    }
    plan
}

/// The variables without a place that may refer to memory of this size with these pointers, if all agree on its type.
fn lost(candidates: &[Candidate<'_>], size: u64, mask: &Bits, types: &TypeTable) -> Option<Lost> {
    let mut found: Option<Lost> = None;
    for candidate in candidates.iter().filter(|c| c.is_lost()) {
        let Some(referent) = Referent::of(candidate.variable.ty, types).filter(|r| r.fills(size, mask, types)) else {
            continue;
        };
        match &mut found {
            None => found = Some(Lost { name: Some(candidate.display_name()), referent }),
            Some(known) if known.referent == referent => known.name = None,
            Some(_) => return None,
        }
    }
    found
}

/// A variable, or a part of one that the compiler gave a name of its own.
struct Candidate<'v> {
    variable: &'v LocalVariable,
    /// Name without the part.
    name: &'v str,
    /// Pieces at their places in the value.
    pieces: Vec<Piece>,
    /// Other places of the same value, or of parts of it.
    parts: Vec<Piece>,
    /// The spill slot of a register argument.
    spill: Option<Piece>,
}

/// Joins parts with their variables; a part whose variable is gone stands for itself under its variable's name.
fn candidates<'v>(variables: &'v [LocalVariable], types: &TypeTable, window: &Window<'_>) -> Vec<Candidate<'v>> {
    let mut candidates: Vec<Candidate<'v>> = Vec::with_capacity(variables.len());
    // A part follows its variable in no particular order: variables first.
    let (parts, whole): (Vec<_>, Vec<_>) = variables.iter().partition(|v| pieces::split_name(&v.name).is_some());
    for variable in whole {
        let mut pieces = variable.pieces.clone();
        if let [piece] = &mut pieces[..]
            && window.is_sole_slot(piece, variable, variables, types)
        {
            piece.size = 8;
        }
        let pieces = pieces::place(&pieces, variable.ty, types, |offset| window.is_live(offset));
        candidates.push(Candidate { variable, name: &variable.name, pieces, parts: Vec::new(), spill: None });
    }
    for part in parts {
        let Some((name, path)) = pieces::split_name(&part.name) else { continue };
        let owner = |c: &&mut Candidate<'_>| c.name == name && c.variable.function == part.function;
        let place = candidates.iter_mut().filter(owner).min_by_key(|c| c.variable.depth.abs_diff(part.depth));
        match place.and_then(|owner| Some((pieces::part_offset(owner.variable.ty, path, types)?, owner))) {
            Some((offset, owner)) => owner
                .parts
                .extend(part.pieces.iter().filter_map(|p| Some(Piece { offset: offset.checked_add(p.offset)?, ..*p }))),
            None => {
                let pieces = part.pieces.clone();
                candidates.push(Candidate { variable: part, name, pieces, parts: Vec::new(), spill: None });
            }
        }
    }
    candidates
}

/// Adds the places that the same variables have at the return address.
fn add_returned(candidates: &mut [Candidate<'_>], after: &[LocalVariable], types: &TypeTable, window: &Window<'_>) {
    let mut from = 0;
    for variable in after {
        // Both lists have the same order; what is new at the return address is out of scope during the call.
        let same = |c: &Candidate<'_>| {
            let v = c.variable;
            (&v.name, &v.function, v.depth, v.ty) == (&variable.name, &variable.function, variable.depth, variable.ty)
        };
        if let Some(i) = candidates[from..].iter().position(same) {
            let mut pieces = variable.pieces.clone();
            if let [piece] = &mut pieces[..]
                && window.is_sole_slot(piece, variable, after, types)
            {
                piece.size = 8;
            }
            let pieces = pieces::place(&pieces, variable.ty, types, |offset| window.is_live(offset));
            candidates[from + i].parts.extend(pieces);
            from += i + 1;
        }
    }
}

/// Adds the spill slots of the function's own register arguments.
fn add_spill_slots(candidates: &mut [Candidate<'_>], architecture: &Architecture, code: &FrameCode, types: &TypeTable) {
    let Some(arg_words) = code.arg_words.filter(|n| *n > 0) else { return };
    let mut params: Vec<&mut Candidate<'_>> =
        candidates.iter_mut().filter(|c| c.variable.is_param && c.variable.depth == 0).collect();
    let tys: Vec<TypeId> = params.iter().map(|c| c.variable.ty).collect();
    let slots = spill::slots(&tys, types, architecture, code.argp, u64::from(arg_words) * 8);
    for (param, slot) in params.iter_mut().zip(slots) {
        if let Some(slot) = slot {
            let size = types.get(param.variable.ty).size;
            param.spill = Some(Piece { offset: 0, size, at: Location::Cfa(slot) });
        }
    }
}

impl Candidate<'_> {
    /// Nothing tells where it is.
    fn is_lost(&self) -> bool {
        self.pieces.is_empty() && self.parts.is_empty() && self.spill.is_none()
    }

    fn display_name(&self) -> Name {
        let function = &*self.variable.function;
        // An escaped variable's slot `&x` holds its address; users know it as x.
        let name = self.name.strip_prefix('&').unwrap_or(self.name);
        // Instances of its generic functions are compiled with the packages that use them.
        let runtime = is_runtime_package(&self.variable.package) || is_runtime_symbol(function);
        Name { text: format!("{function}.{name}").into(), runtime }
    }

    /// Where its real type is found if its own is only a shape: the dictionary must still be in the frame.
    fn dictionary(&self, all: &[Candidate<'_>], window: &Window<'_>, argp: i64) -> Option<Entry> {
        let index = self.variable.dict_index?;
        let owner = |c: &&Candidate<'_>| c.name == ".dict" && c.variable.function == self.variable.function;
        let offset = |p: &Piece| match p.at {
            Location::Cfa(offset) if window.index(offset).is_some() => Some(offset),
            _ => None,
        };
        let places = |c: &Candidate<'_>| c.pieces.iter().chain(&c.parts).chain(&c.spill).find_map(offset);
        let dictionary = match all.iter().filter(owner).min_by_key(|c| c.variable.depth.abs_diff(self.variable.depth)) {
            Some(dictionary) => places(dictionary)?,
            // Go 1.24 does not describe it: the first argument, or the one behind the receiver, live and not a variable's.
            None => {
                let taken = |offset: i64| all.iter().any(|c| places(c) == Some(offset));
                (0..4).map(|i| argp + i * 8).find(|o| window.is_live(*o) && !taken(*o))?
            }
        };
        Some(Entry { dictionary, index })
    }

    /// The variable's name if its whole value begins at this CFA offset.
    fn object_name(&self, offset: i64, types: &TypeTable) -> Option<(Name, TypeId)> {
        let size = types.get(self.variable.ty).size;
        let begins = |p: &Piece| p.at == Location::Cfa(offset) && p.offset == 0 && p.size >= size;
        let there = self.pieces.iter().chain(&self.parts).chain(&self.spill).any(begins);
        there.then(|| (self.display_name(), self.variable.ty))
    }
}

#[cfg(test)]
mod tests;
