//! Names the live words of a frame, once per (PC, mode); all goroutines that stand there follow the same plan.
//!
//! Which words are live is the collector's business ([`FrameCode::maps`]), which variable a word belongs to is DWARF's. Both are
//! relative to the CFA, so the join does not depend on the goroutine. A word is named by at most one variable: innermost scope
//! first, then declaration order. What DWARF places in a register, or nowhere, has no live bit; it only completes a value that
//! has live words elsewhere.

use super::is_runtime_symbol;
use crate::model::dwarf::{LocalVariable, Location};
use crate::model::stacks::{Bits, FrameCode, FrameMode, StackObject};
use crate::model::types::{Kind, TypeId, TypeTable};
use std::sync::Arc;

/// Values with more words than their frame and this many registers are not followed (hostile sizes).
const MAX_REGISTER_WORDS: u64 = 64;
/// Nesting of structs and arrays that is searched for slices without a known capacity.
const MAX_NESTING: u32 = 8;
/// Types visited in that search: hostile types may overlap their fields.
const MAX_VISITS: u32 = 4096;
/// Elements of an array that are searched likewise: the compiler decomposes arrays of one element only.
const MAX_ELEMENTS: u64 = 4;

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

/// A variable with live words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) name: Name,
    pub(super) ty: Option<TypeId>,
    pub(super) nwords: u32,
    pub(super) parts: Vec<Part>,
    /// Live words.
    pub(super) live: Bits,
    /// CFA offset of its first part in the frame.
    pub(super) offset: i64,
    /// If it is a single pointer: what it points to. A stack object without a variable of its own takes its name.
    pub(super) pointee: Option<TypeId>,
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
}

/// What to do with a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) variables: Vec<Variable>,
    /// Runs `(CFA offset, words)` of live words that no variable names, ascending.
    pub(super) unnamed: Vec<(i64, u32)>,
    /// Stack objects; a conservatively scanned frame has none.
    pub(super) objects: Vec<Object>,
    /// Every word counts, whatever the maps say.
    pub(super) conservative: bool,
}

/// Builds the plan of a frame.
///
/// * `code`: the frame's geometry.
/// * `maps`: the code whose maps apply: `code` itself, or the one at its deferreturn call; `None`: nothing is live.
/// * `variables`: those in scope, in declaration order.
pub(super) fn build(
    code: &FrameCode,
    maps: Option<&FrameCode>,
    mode: FrameMode,
    variables: &[LocalVariable],
    types: &TypeTable,
) -> Plan {
    let mut window = Window::new(code, maps, mode);
    let mut order: Vec<&LocalVariable> = variables.iter().collect();
    order.sort_by_key(|v| std::cmp::Reverse(v.depth));
    let mut plan = Plan { conservative: window.conservative, ..Plan::default() };
    plan.variables = order.iter().filter_map(|v| window.claim(v, types)).collect();
    plan.unnamed = window.unnamed();
    if let Some(maps) = maps.filter(|_| !window.conservative) {
        let objects = maps.maps.objects.iter().map(|StackObject { offset, size, mask }| {
            let name = order.iter().find_map(|v| object_name(v, *offset));
            Object { offset: *offset, size: *size, mask: mask.clone(), name }
        });
        plan.objects = objects.collect();
    }
    plan
}

fn name_of(variable: &LocalVariable) -> Name {
    let (function, name) = (&*variable.function, &*variable.name);
    // An escaped variable's slot `&x` holds its address; users know it as x.
    let name = name.strip_prefix('&').unwrap_or(name);
    Name { text: format!("{function}.{name}").into(), runtime: is_runtime_symbol(function) }
}

/// The variable's name if its whole value begins at this CFA offset.
fn object_name(variable: &LocalVariable, offset: i64) -> Option<(Name, TypeId)> {
    let [piece] = &*variable.pieces else { return None };
    let there = piece.at == Location::Cfa(offset) && piece.offset == 0;
    there.then(|| (name_of(variable), variable.ty))
}

/// The words of a frame from SP to the end of its arguments, and which of them are live and not named yet.
struct Window {
    /// CFA offset of bit 0.
    low: i64,
    live: Bits,
    conservative: bool,
}

impl Window {
    fn new(code: &FrameCode, maps: Option<&FrameCode>, mode: FrameMode) -> Self {
        let conservative = matches!(mode, FrameMode::Conservative | FrameMode::ConservativeAnyPc);
        let words = usize::try_from(code.span_words()).unwrap_or(0);
        let mut window = Self { low: code.sp, live: Bits::zeros(words), conservative };
        if conservative {
            window.mark(code.sp, 0..(code.varp - code.sp).max(0) as usize / 8);
            window.mark(code.argp, 0..code.arg_words.unwrap_or(0) as usize);
        } else if let Some(maps) = maps.map(|m| &m.maps) {
            window.mark(maps.locals_offset, maps.locals.ones());
            window.mark(code.argp, maps.args.ones());
        }
        window
    }

    fn mark(&mut self, from: i64, words: impl Iterator<Item = usize>) {
        for word in words {
            if let Some(i) = self.index(from + word as i64 * 8) {
                self.live.set(i, true);
            }
        }
    }

    fn index(&self, offset: i64) -> Option<usize> {
        let distance = offset.checked_sub(self.low).filter(|d| *d >= 0 && d % 8 == 0)?;
        usize::try_from(distance / 8).ok().filter(|i| *i < self.live.len())
    }

    /// Gives the variable its live words that nobody has yet; `None` if there are none.
    fn claim(&mut self, variable: &LocalVariable, types: &TypeTable) -> Option<Variable> {
        let size = types.get(variable.ty).size;
        let nwords = size.div_ceil(8);
        if nwords > self.live.len() as u64 + MAX_REGISTER_WORDS {
            return None;
        }
        let mut value = Value { parts: Vec::new(), known: Bits::zeros(nwords as usize) };
        let mut live = Bits::zeros(nwords as usize);
        let mut first = None;
        for piece in &variable.pieces {
            if !piece.offset.is_multiple_of(8) || piece.offset >= size {
                continue;
            }
            let words = piece.size.min(size - piece.offset).div_ceil(8);
            let word = (piece.offset / 8) as u32;
            match piece.at {
                Location::Cfa(offset) => {
                    let Some(index) = self.index(offset) else { continue };
                    let words = words.min((self.live.len() - index) as u64) as u32;
                    value.add(word, words, Source::Frame(offset));
                    first.get_or_insert(offset);
                    for i in 0..words as usize {
                        if self.live.get(index + i) {
                            live.set(word as usize + i, true);
                        }
                    }
                }
                Location::Register(register) if words == 1 => value.add(word, 1, Source::Register(register)),
                Location::Register(_) | Location::CfaDeref(_) | Location::Gone => {}
            }
        }
        if !live.any() {
            return None;
        }
        for part in &value.parts {
            if let Source::Frame(offset) = part.from {
                let index = self.index(offset).expect("parts lie in the window");
                for i in 0..part.nwords as usize {
                    self.live.set(index + i, false);
                }
            }
        }
        let usable = value.complete(variable.ty, types);
        let pointee = match types.get(variable.ty).kind {
            Kind::Pointer(elem) => Some(elem),
            _ => None,
        };
        Some(Variable {
            name: name_of(variable),
            ty: usable.then_some(variable.ty),
            nwords: nwords as u32,
            parts: value.parts,
            live,
            offset: first?,
            pointee,
        })
    }

    /// What is left.
    fn unnamed(&self) -> Vec<(i64, u32)> {
        let mut runs: Vec<(i64, u32)> = Vec::new();
        for i in self.live.ones() {
            let offset = self.low + i as i64 * 8;
            match runs.last_mut() {
                Some((from, n)) if *from + i64::from(*n) * 8 == offset => *n += 1,
                _ => runs.push((offset, 1)),
            }
        }
        runs
    }
}

/// A value put together from its pieces.
struct Value {
    parts: Vec<Part>,
    /// Words that are somewhere.
    known: Bits,
}

impl Value {
    fn add(&mut self, word: u32, nwords: u32, from: Source) {
        self.parts.push(Part { word, nwords, from });
        for i in 0..nwords {
            self.known.set((word + i) as usize, true);
        }
    }

    /// Makes up for unknown words; false if the value's own type cannot be applied without them.
    fn complete(&mut self, ty: TypeId, types: &TypeTable) -> bool {
        if self.known.ones().count() == self.known.len() {
            return true;
        }
        match types.get(ty).kind {
            Kind::String | Kind::Eface | Kind::Iface => {
                let other = if matches!(types.get(ty).kind, Kind::String) { 1 } else { 0 };
                self.known.get(other)
            }
            Kind::Slice(_) => {
                self.complete_slice(0);
                self.known.get(2)
            }
            _ => {
                self.complete_nested(ty, 0, types, 0, &mut { MAX_VISITS });
                true
            }
        }
    }

    /// The compiler forgets capacities that the code no longer needs. The length then bounds the scan: what lies behind it is found
    /// by mask.
    fn complete_slice(&mut self, at: u32) {
        if self.known.get(at as usize + 2) || !self.known.get(at as usize + 1) {
            return;
        }
        let holds = |p: &&Part| p.word <= at + 1 && at + 1 < p.word + p.nwords;
        let Some(part) = self.parts.iter().find(holds).copied() else { return };
        let from = match part.from {
            Source::Frame(offset) => Source::Frame(offset + i64::from(at + 1 - part.word) * 8),
            register @ Source::Register(_) => register,
        };
        self.add(at + 2, 1, from);
    }

    /// Slices inside of decomposed structs and arrays. Other incomplete parts read as 0 and so as an empty string or an interface
    /// without type, whose pointer word the walk takes as untyped.
    fn complete_nested(&mut self, ty: TypeId, offset: u64, types: &TypeTable, nesting: u32, visits: &mut u32) {
        let end = self.known.len() as u64 * 8;
        if nesting > MAX_NESTING || *visits == 0 || !offset.is_multiple_of(8) || offset >= end {
            return;
        }
        *visits -= 1;
        match &types.get(ty).kind {
            Kind::Slice(_) if offset + 24 <= end => self.complete_slice((offset / 8) as u32),
            Kind::Struct(fields) => {
                for field in fields {
                    self.complete_nested(field.ty, offset.saturating_add(field.offset), types, nesting + 1, visits);
                }
            }
            Kind::Array(elem, n) => {
                let size = types.get(*elem).size;
                for i in 0..(*n).min(MAX_ELEMENTS) {
                    self.complete_nested(
                        *elem,
                        offset.saturating_add(size.saturating_mul(i)),
                        types,
                        nesting + 1,
                        visits,
                    );
                }
            }
            _ => {}
        }
    }
}
