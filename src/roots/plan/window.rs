//! The live words of one frame, and which variable gets which of them.

use super::{Candidate, MAX_REGISTER_WORDS, Part, Run, Source, Variable};
use crate::model::dwarf::{LocalVariable, Location, Piece};
use crate::model::stacks::{Bits, FrameCode, FrameMode, StackObject};
use crate::model::types::{Kind, TypeId, TypeTable};
use crate::roots::pieces;

/// The words of a frame from SP to the end of its arguments, and which of them are live and not named yet.
pub(super) struct Window<'m> {
    maps: Option<&'m FrameCode>,
    /// CFA offset of bit 0.
    pub(super) low: i64,
    live: Bits,
    pub(super) conservative: bool,
    /// The frame stands at any instruction.
    any_pc: bool,
    /// The function has no frame yet.
    frameless: bool,
}

impl<'m> Window<'m> {
    pub(super) fn new(code: &FrameCode, maps: Option<&'m FrameCode>, mode: FrameMode) -> Self {
        let conservative = matches!(mode, FrameMode::Conservative | FrameMode::ConservativeAnyPc);
        let words = usize::try_from(code.span_words()).unwrap_or(0);
        let mut window = Self {
            maps,
            low: code.sp,
            live: Bits::zeros(words),
            conservative,
            any_pc: mode == FrameMode::ConservativeAnyPc,
            frameless: code.frameless,
        };
        if conservative {
            window.mark(code.sp, 0..(code.conservative_end - code.sp).max(0) as usize / 8);
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

    pub(super) fn index(&self, offset: i64) -> Option<usize> {
        let distance = offset.checked_sub(self.low).filter(|d| *d >= 0 && d % 8 == 0)?;
        usize::try_from(distance / 8).ok().filter(|i| *i < self.live.len())
    }

    pub(super) fn is_live(&self, offset: i64) -> bool {
        self.index(offset).is_some_and(|i| self.live.get(i))
    }

    /// Whether `piece` is one word of a split variable that DWARF takes for all of it: the compiler writes no size when all other
    /// slots are gone. Then the words behind are not the variable's.
    pub(super) fn is_sole_slot(
        &self,
        piece: &Piece,
        of: &LocalVariable,
        all: &[LocalVariable],
        types: &TypeTable,
    ) -> bool {
        let (Location::Cfa(from), 0, 9..) = (piece.at, piece.offset, piece.size) else { return false };
        let whole = |o: &StackObject| o.offset == from && o.size >= piece.size;
        // Arguments lie in their home; a stack object is never split.
        if from >= 0 || self.conservative || self.maps.is_some_and(|m| m.maps.objects.iter().any(whole)) {
            return false;
        }
        let behind = from..from.saturating_add_unsigned(piece.size);
        let inside = |p: &Piece| matches!(p.at, Location::Cfa(at) if at > from && behind.contains(&at));
        if all.iter().any(|v| !std::ptr::eq(v, of) && v.pieces.iter().any(inside)) {
            return true;
        }
        // A variable that is not split is live as a whole or not at all.
        let nwords = (piece.size.div_ceil(8) as usize).min(self.live.len());
        let pointers = pieces::pointer_words(of.ty, nwords, types);
        (0..nwords).any(|i| self.is_live(from + i as i64 * 8) != pointers.get(i))
    }

    /// Gives the variable its live words that nobody has yet; `None` if there are none.
    pub(super) fn claim(&mut self, candidate: &Candidate<'_>, types: &TypeTable) -> Option<Variable> {
        let ty = candidate.variable.ty;
        let nwords = types.get(ty).size.div_ceil(8);
        if nwords > self.live.len() as u64 + MAX_REGISTER_WORDS {
            return None;
        }
        let nwords = nwords as usize;
        let pointers = pieces::pointer_words(ty, nwords, types);
        let mut words: Vec<Option<Source>> = vec![None; nwords];
        let mut live = Bits::zeros(nwords);
        for piece in candidate.pieces.iter().chain(&candidate.parts) {
            self.add(piece, true, &pointers, &mut words, &mut live);
        }
        if let Some(piece) = &candidate.spill {
            // Until the frame is set up, the prologue has spilled everything for runtime.morestack; later only what is live.
            self.add(piece, self.frameless, &pointers, &mut words, &mut live);
        }
        if !live.any() {
            return None;
        }
        // A live word is claimed once, whoever else DWARF places there.
        for word in live.ones() {
            if let Some(Source::Frame(offset)) = words[word] {
                let index = self.index(offset).expect("sources lie in the window");
                self.live.set(index, false);
            }
        }
        let completion = complete(ty, types, &mut words);
        let offset = words.iter().find_map(|w| match w {
            Some(Source::Frame(offset)) => Some(*offset),
            _ => None,
        });
        let elem = match types.get(ty).kind {
            Kind::Slice(elem) => Some(elem),
            _ => None,
        };
        Some(Variable {
            name: candidate.display_name(),
            ty: (completion != Completion::Untyped).then_some(ty),
            nwords: nwords as u32,
            parts: join(&words),
            live,
            offset: offset.unwrap_or(self.low),
            extent_of: elem.map(|elem| types.get(elem).size),
            dictionary: None,
        })
    }

    /// Enters where a piece's words are: live memory before other memory (if the piece `holds` the value even where it is not
    /// live) before registers.
    fn add(&self, piece: &Piece, holds: bool, pointers: &Bits, words: &mut [Option<Source>], live: &mut Bits) {
        if !piece.offset.is_multiple_of(8) || piece.offset / 8 >= words.len() as u64 {
            return;
        }
        let first = (piece.offset / 8) as usize;
        let n = piece.size.div_ceil(8).min((words.len() - first) as u64) as usize;
        match piece.at {
            Location::Cfa(from) => {
                for i in 0..n {
                    let Some(offset) = from.checked_add(i as i64 * 8).filter(|o| self.index(*o).is_some()) else {
                        break;
                    };
                    let (word, source) = (first + i, Source::Frame(offset));
                    // Where the type has no pointer the mask cannot have one: that word is another variable's.
                    if self.is_live(offset) && pointers.get(word) && !live.get(word) {
                        words[word] = Some(source);
                        live.set(word, true);
                    } else if holds && !matches!(words[word], Some(Source::Frame(_))) {
                        words[word] = Some(source);
                    }
                }
            }
            // Registers are known, and roots, only where a thread was stopped at any instruction: a call overwrites them.
            Location::Register(register) if n == 1 && self.any_pc && words[first].is_none() => {
                live.set(first, pointers.get(first));
                words[first] = Some(Source::Register(register));
            }
            Location::Register(_) | Location::CfaDeref(_) | Location::Gone => {}
        }
    }

    /// What is left.
    pub(super) fn unnamed(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for i in self.live.ones() {
            let offset = self.low + i as i64 * 8;
            match runs.last_mut() {
                Some(run) if run.offset + i64::from(run.nwords) * 8 == offset => run.nwords += 1,
                _ => runs.push(Run { offset, nwords: 1, lost: None }),
            }
        }
        runs
    }
}

/// Consecutive words with consecutive sources.
fn join(words: &[Option<Source>]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (word, from) in words.iter().enumerate() {
        let (word, Some(from)) = (word as u32, *from) else { continue };
        match (parts.last_mut(), from) {
            (Some(Part { word: first, nwords, from: Source::Frame(start) }), Source::Frame(offset))
                if *first + *nwords == word && *start + i64::from(*nwords) * 8 == offset =>
            {
                *nwords += 1;
            }
            _ => parts.push(Part { word, nwords: 1, from }),
        }
    }
    parts
}

/// Whether a value is whole enough for its type.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Completion {
    /// The type applies.
    Typed,
    /// The type says nothing without the missing words.
    Untyped,
}

/// Makes up for unknown words.
fn complete(ty: TypeId, types: &TypeTable, words: &mut [Option<Source>]) -> Completion {
    if words.iter().all(Option::is_some) {
        return Completion::Typed;
    }
    match types.get(ty).kind {
        Kind::String if words[1].is_none() => Completion::Untyped,
        Kind::Eface | Kind::Iface if words[0].is_none() => Completion::Untyped,
        Kind::Slice(_) => {
            complete_slice(words);
            Completion::Typed
        }
        // Inside of structs and arrays: other missing words read as 0, and so as an empty string or an interface without type,
        // whose pointer word the walk takes as untyped.
        _ => {
            for offset in pieces::slices(ty, words.len(), types) {
                if let Some(words) = words.get_mut((offset / 8) as usize..).filter(|w| w.len() >= 3) {
                    complete_slice(&mut words[..3]);
                }
            }
            Completion::Typed
        }
    }
}

/// The compiler forgets capacities that the code no longer needs. The length then bounds the scan: what lies behind it is found by
/// mask.
fn complete_slice(words: &mut [Option<Source>]) {
    if words[2].is_none() {
        words[2] = words[1];
    }
}
