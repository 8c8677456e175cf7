//! Roots of the modules' data and bss: package variables by DWARF, then the words that no variable covers.

use super::store::{Head, Store};
use super::{RootKind, Sources, Stratum, is_runtime_symbol};
use crate::address::{Addr, AddrRange, WORD};
use crate::image::Scratch;
use crate::model::dwarf::GlobalVariable;
use crate::model::modules::{Mask, Module};
use crate::model::types::{Kind, TypeId};

/// Data or bss of a module: memory with pointer words that is not heap.
#[derive(Clone, Debug)]
pub struct Segment {
    /// `[data, edata)` or `[bss, ebss)`.
    pub range: AddrRange,
    /// Bit `i % 64` of element `i / 64`: word `range.start + 8 * i` is a pointer to the collector.
    pub mask: Vec<u64>,
    /// Same index: a named variable covers the word.
    pub claimed: Vec<u64>,
    /// Index of the module in `moduledata` order.
    pub module: u32,
    /// Bss, not data.
    pub is_bss: bool,
}

impl Segment {
    /// Whether word `i` is a pointer that nobody claimed.
    #[must_use]
    pub fn is_free(&self, i: usize) -> bool {
        let word = |bits: &[u64]| bits.get(i / 64).is_some_and(|w| w >> (i % 64) & 1 != 0);
        word(&self.mask) && !word(&self.claimed)
    }

    /// Claims word `i`; true if it is a pointer that nobody claimed before.
    pub fn take(&mut self, i: usize) -> bool {
        let free = self.is_free(i);
        if free {
            self.claimed[i / 64] |= 1 << (i % 64);
        }
        free
    }

    /// Whether one of `n` words from `first` on is a pointer that nobody claimed.
    #[must_use]
    pub fn any_free(&self, first: u64, n: u64) -> bool {
        let free = self.mask.iter().zip(&self.claimed).map(|(mask, claimed)| mask & !claimed);
        let end = first.saturating_add(n);
        let from = usize::try_from(first / 64).unwrap_or(usize::MAX);
        (first / 64..end.div_ceil(64)).zip(free.skip(from)).any(|(e, free)| {
            let at = |bit: u64| bit.saturating_sub(e * 64).min(64);
            let below = |bits: u64| if bits == 64 { !0 } else { (1 << bits) - 1 };
            free & below(at(end)) & !below(at(first)) != 0
        })
    }

    /// Claims all pointers that nobody claimed, and returns their indices.
    pub fn take_all(&mut self) -> Vec<u64> {
        let mut all = Vec::new();
        for (e, (mask, claimed)) in (0u64..).zip(self.mask.iter().zip(&mut self.claimed)) {
            let mut free = mask & !*claimed;
            *claimed |= free;
            while free != 0 {
                all.push(e * 64 + u64::from(free.trailing_zeros()));
                free &= free - 1;
            }
        }
        all
    }

    fn new(range: AddrRange, mask: &Mask, module: u32, is_bss: bool) -> Self {
        // Words that the mask has and the segment does not are not scanned.
        let nwords = (range.len / WORD).min(mask.nbits) as usize;
        let mut words = mask.words.clone();
        words.truncate(nwords.div_ceil(64));
        if let Some(last) = words.last_mut().filter(|_| !nwords.is_multiple_of(64)) {
            *last &= (1 << (nwords % 64)) - 1;
        }
        Self { range, claimed: vec![0; words.len()], mask: words, module, is_bss }
    }

    /// Word indices from `from` to before `to` whose bit is set.
    fn pointers(&self, from: u64, to: u64) -> impl Iterator<Item = u64> + '_ {
        let elements = (from / 64) as usize..(to.div_ceil(64) as usize).min(self.mask.len());
        elements.flat_map(move |e| {
            let first = e as u64 * 64;
            let mut bits = self.mask[e];
            if first < from {
                bits &= !0 << (from - first);
            }
            if to < first + 64 {
                bits &= (1 << (to - first)) - 1;
            }
            std::iter::from_fn(move || {
                (bits != 0).then(|| {
                    let bit = bits.trailing_zeros();
                    bits &= bits - 1;
                    first + u64::from(bit)
                })
            })
        })
    }
}

fn bit(words: &[u64], i: u64) -> bool {
    words.get((i / 64) as usize).is_some_and(|w| w >> (i % 64) & 1 != 0)
}

/// A package variable at its address in the process.
struct Variable<'a> {
    name: &'a str,
    addr: u64,
    size: u64,
    /// Not known without debug information.
    ty: Option<TypeId>,
}

impl<'a> Variable<'a> {
    fn all(variables: &'a [GlobalVariable], sources: &Sources<'_, '_>) -> Vec<Self> {
        let types = &sources.debug.types;
        let at_its_address = |v: &'a GlobalVariable| Self {
            name: &v.name,
            addr: v.address.wrapping_add(sources.load_bias),
            size: types.get(v.ty).size,
            ty: Some(v.ty).filter(|ty| types.get(*ty).kind != Kind::Opaque),
        };
        variables.iter().map(at_its_address).collect()
    }
}

/// Adds the roots of all segments, and returns those.
pub(super) fn collect(sources: &Sources<'_, '_>, store: &mut Store) -> Vec<Segment> {
    let own = Variable::all(&sources.debug.variables, sources);
    let libraries = Variable::all(&sources.debug.library_variables, sources);
    let mut segments = Vec::new();
    let mut scratch = Scratch::default();
    for module in sources.modules.list.iter().filter(|m| !m.bad) {
        for (range, mask, is_bss) in parts(module) {
            let mut segment = Segment::new(range, mask, module.index, is_bss);
            let variables = if module.is_main { &own } else { &libraries };
            let mut reader = Reader { sources, scratch: &mut scratch };
            add_segment(&mut segment, variables, &mut reader, store);
            segments.push(segment);
        }
    }
    segments
}

fn parts(module: &Module) -> [(AddrRange, &Mask, bool); 2] {
    [(module.data, &module.gcdata_mask, false), (module.bss, &module.gcbss_mask, true)]
}

fn add_segment(segment: &mut Segment, variables: &[Variable<'_>], reader: &mut Reader<'_, '_, '_>, store: &mut Store) {
    let (start, end) = (segment.range.start.0, segment.range.end().0);
    let from = variables.partition_point(|v| v.addr < start);
    for variable in variables[from..].iter().take_while(|v| v.addr < end) {
        let first = (variable.addr - start).div_ceil(WORD);
        let last = (variable.addr.saturating_add(variable.size).min(end) - start).div_ceil(WORD);
        let pointers: Vec<u64> = segment.pointers(first, last).filter(|i| !bit(&segment.claimed, *i)).collect();
        if pointers.is_empty() || !variable.addr.is_multiple_of(WORD) {
            continue;
        }
        for i in &pointers {
            segment.claimed[(*i / 64) as usize] |= 1 << (i % 64);
        }
        let runtime = is_runtime_symbol(variable.name);
        let label = store.label(variable.name);
        let head = Head {
            stratum: if runtime { Stratum::Runtime } else { Stratum::Package },
            kind: RootKind::Global,
            conservative: false,
            label,
            ty: variable.ty,
            goid: 0,
            addr: Addr(variable.addr),
        };
        let pointers = match head.ty {
            Some(_) => pointers,
            None => reader.add_interfaces(segment, first, &pointers, head, store),
        };
        if !pointers.is_empty() {
            reader.add(segment, first..last, &pointers, head, store);
        }
    }
    let mut left: Vec<u64> =
        segment.pointers(0, segment.range.len / WORD).filter(|i| !bit(&segment.claimed, *i)).collect();
    if left.is_empty() {
        return;
    }
    let name = if segment.is_bss { "bss segment" } else { "data segment" };
    let label = store.label(&format!("{name}[{}]", segment.module));
    if !reader.sources.debug.is_dwarf() {
        let kind = if segment.is_bss { RootKind::Bss } else { RootKind::Data };
        let stratum = Stratum::Segments;
        let head = Head { stratum, kind, conservative: false, label, ty: None, goid: 0, addr: Addr::NULL };
        let rest = reader.add_interfaces(segment, 0, &left, head, store);
        left.iter().filter(|i| rest.binary_search(i).is_err()).for_each(|i| {
            segment.claimed[(*i / 64) as usize] |= 1 << (i % 64);
        });
        left = rest;
    }
    // One root for each run of consecutive words.
    for run in left.chunk_by(|a, b| a + 1 == *b) {
        let (first, last) = (run[0], run[run.len() - 1] + 1);
        let head = Head {
            stratum: Stratum::Segments,
            kind: if segment.is_bss { RootKind::Bss } else { RootKind::Data },
            conservative: false,
            label,
            ty: None,
            goid: 0,
            addr: Addr(start + first * WORD),
        };
        reader.add(segment, first..last, run, head, store);
    }
}

/// Copies segment words into the store.
struct Reader<'s, 'a, 'img> {
    sources: &'s Sources<'a, 'img>,
    scratch: &'s mut Scratch,
}

impl Reader<'_, '_, '_> {
    /// Without debug information a variable's type is not known, but interfaces are: their first word is no pointer to the collector and
    /// leads to a type. Adds a root for each; returns the pointers that are left.
    ///
    /// * `first`: first word of the variable.
    fn add_interfaces(
        &mut self,
        segment: &Segment,
        first: u64,
        pointers: &[u64],
        head: Head,
        store: &mut Store,
    ) -> Vec<u64> {
        let mut left = Vec::with_capacity(pointers.len());
        for (n, &i) in pointers.iter().enumerate() {
            let behind_pointer = n > 0 && pointers[n - 1] + 1 == i;
            let type_word = i.checked_sub(1).filter(|before| *before >= first && !behind_pointer);
            let ty = type_word.and_then(|before| {
                let addr = segment.range.start.add(before * WORD);
                interface_type(self.sources, self.sources.image.read_u64(addr).ok()?)
            });
            match (type_word, ty) {
                (Some(before), Some(ty)) => {
                    let addr = segment.range.start.add(before * WORD);
                    self.add(segment, before..i + 1, &[i], Head { ty: Some(ty), addr, ..head }, store);
                }
                _ => left.push(i),
            }
        }
        left
    }

    /// Adds words `words` of `segment` as one root; `pointers` are those of them that are pointers.
    fn add(&mut self, segment: &Segment, words: std::ops::Range<u64>, pointers: &[u64], head: Head, store: &mut Store) {
        let range =
            AddrRange { start: segment.range.start.add(words.start * WORD), len: (words.end - words.start) * WORD };
        let loaded = self.sources.image.load(&[range], self.scratch);
        let bytes = loaded.get(0);
        if bytes.is_empty() {
            store.incidents.count("globals.unreadable");
            return;
        }
        let first = store.words.len();
        let mut next = pointers.iter().copied().peekable();
        for (i, word) in words.zip(bytes.chunks_exact(8)) {
            let pointer = next.next_if_eq(&i).is_some();
            store.push(u64::from_le_bytes(word.try_into().expect("8 bytes")), pointer);
        }
        store.finish(first, head);
    }
}

/// The interface type of which `word` may be the first word: a type, or an itab, which starts with two types.
fn interface_type(sources: &Sources<'_, '_>, word: u64) -> Option<TypeId> {
    let is_type = |at: u64| {
        let mut modules = sources.modules.list.iter();
        let is_inside = at.is_multiple_of(WORD) && modules.any(|m| m.descriptors.contains(Addr(at)));
        // Other things are there as well: func values in shared libraries.
        is_inside && sources.descriptors.is_direct_iface(sources.image, Addr(at)).is_some()
    };
    let name = if is_type(word) {
        "interface {}"
    } else {
        let word_at = |at: u64| sources.image.read_u64(Addr(word).add(at)).unwrap_or(0);
        let is_itab = word != 0 && word.is_multiple_of(WORD) && is_type(word_at(0)) && is_type(word_at(WORD));
        is_itab.then_some("interface { ... }")?
    };
    sources.debug.types.find(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_words_of_a_range() {
        let mask = Mask { nbits: 192, words: vec![1 << 63, 0, 1] };
        let range = AddrRange { start: Addr(0x1000), len: u64::MAX };
        let mut segment = Segment::new(range, &mask, 0, false);
        for first in [0, 1, 62, 63, 64, 127, 128, 129, 200, u64::MAX] {
            for n in [0, 1, 2, 64, 65, 66, 1000, u64::MAX] {
                let slowly = [63, 128].iter().any(|&w| w >= first && w < first.saturating_add(n));
                assert_eq!(segment.any_free(first, n), slowly, "{first} {n}");
            }
        }
        assert_eq!(segment.take_all(), [63, 128]);
        assert!(segment.take_all().is_empty() && !segment.any_free(0, u64::MAX));
    }

    #[test]
    fn pointers_in_a_range_of_words() {
        let mask = Mask { nbits: 130, words: vec![1 | 1 << 63, 3, !0] };
        let segment = Segment::new(AddrRange { start: Addr(0x1000), len: 129 * 8 + 7 }, &mask, 0, false);
        let words = |from, to| segment.pointers(from, to).collect::<Vec<_>>();
        assert_eq!(words(0, 1 << 40), [0, 63, 64, 65, 128]);
        assert_eq!(words(1, 65), [63, 64]);
        assert!(words(64, 64).is_empty());
        assert_eq!(words(128, 129), [128]);
    }
}
