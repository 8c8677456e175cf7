//! Pointer masks of runtime types, for objects whose mask is their type's: malloc headers and large objects.
//!
//! A mask lies in read-only data, or is built on demand by the runtime (`TFlagGCMaskOnDemand`, Go 1.24+): then `GCData` is the
//! address of a slot that holds the mask, nil or a sentinel if the collector never needed it; we build it as `runtime.buildGCMask`.

use super::masks::{bits_at, or_bits};
use crate::address::{Addr, WORD};
use crate::image::Image;
use crate::model::layout::RuntimeLayout;
use dashmap::DashMap;
use rustc_hash::FxBuildHasher;
use std::sync::Arc;

/// Which words of a value the collector follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeMask {
    /// Size of a value in bytes (`Size_`), at least 1.
    pub size: u64,
    /// Words that the mask describes (`PtrBytes / 8`); there is no pointer beyond.
    pub ptr_words: u64,
    /// Bit `i % 64` of element `i / 64` is word `i`.
    pub bits: Box<[u64]>,
}

/// Masks by descriptor address, built once each.
#[derive(Debug)]
pub struct TypeMasks {
    cache: DashMap<u64, Option<Arc<TypeMask>>, FxBuildHasher>,
    layout: RuntimeLayout,
    /// Types larger than this cannot have an object in the heap: not read (hostile sizes).
    max_size: u64,
}

/// Longest mask in words (32 MiB of bits): longer pointer prefixes than 2 GiB do not exist outside of damage.
const MAX_PTR_WORDS: u64 = 1 << 28;
/// Deepest nesting of arrays and structs followed while a mask is built.
const MAX_DEPTH: u32 = 200;
/// Descriptors and fields looked at while one mask is built.
const MAX_STEPS: u32 = 1 << 22;
/// `abi.TFlagGCMaskOnDemand`.
const TFLAG_GC_MASK_ON_DEMAND: u8 = 1 << 4;
/// `abi.KindMask`: up to 1.25 `Kind_` carries a flag above it.
const KIND_MASK: u8 = 31;
/// `abi.Array` and `abi.Struct`.
const KIND_ARRAY: u8 = 17;
const KIND_STRUCT: u8 = 25;

/// What a mask needs of an `abi.Type`.
#[derive(Copy, Clone, Debug)]
struct Header {
    size: u64,
    ptr_words: u64,
    on_demand: bool,
    kind: u8,
    gcdata: u64,
}

impl TypeMasks {
    /// An empty cache. `max_size`: bytes of the largest slot of the heap ([`super::Heap::largest_slot`]); larger types have no mask.
    #[must_use]
    pub fn new(layout: &RuntimeLayout, max_size: u64) -> Self {
        Self { cache: DashMap::default(), layout: layout.clone(), max_size }
    }

    /// The mask of the type at `rtype`; `None` if there is no such type (or none that an object of this heap could have).
    ///
    /// Cost: one hash lookup once known.
    pub fn get(&self, image: &dyn Image, rtype: u64) -> Option<Arc<TypeMask>> {
        if let Some(known) = self.cache.get(&rtype) {
            return known.clone();
        }
        // Built outside of the lock: equal whoever builds it.
        let mask = self.build(image, rtype).map(Arc::new);
        self.cache.entry(rtype).or_insert(mask).clone()
    }

    fn header(&self, image: &dyn Image, rtype: u64) -> Option<Header> {
        let at = &self.layout.abi_type;
        let base = Addr(rtype);
        let size = image.read_u64(base.add(at.size_)).ok()?;
        let ptr_bytes = image.read_u64(base.add(at.ptr_bytes)).ok()?;
        let header = Header {
            size,
            ptr_words: ptr_bytes / WORD,
            // Up to 1.23 the bit marks a stand-in whose mask was unrolled from a GC program, and is there.
            on_demand: self.layout.globals.in_progress.is_some()
                && image.read_u8(base.add(at.tflag)).ok()? & TFLAG_GC_MASK_ON_DEMAND != 0,
            kind: image.read_u8(base.add(at.kind)).ok()? & KIND_MASK,
            gcdata: image.read_u64(base.add(at.gcdata)).ok()?,
        };
        let sane = ptr_bytes <= size && ptr_bytes.is_multiple_of(WORD) && (ptr_bytes == 0 || size.is_multiple_of(WORD));
        (sane && header.ptr_words <= MAX_PTR_WORDS).then_some(header)
    }

    fn build(&self, image: &dyn Image, rtype: u64) -> Option<TypeMask> {
        let header = self.header(image, rtype)?;
        if header.size == 0 || header.size > self.max_size {
            return None;
        }
        let mut bits = vec![0; header.ptr_words.div_ceil(64) as usize];
        if header.ptr_words > 0 {
            let mut builder = Builder { masks: self, image, steps: MAX_STEPS };
            builder.write(&header, rtype, &mut bits, 0, MAX_DEPTH)?;
            clear_beyond(&mut bits, header.ptr_words);
        }
        Some(TypeMask { size: header.size, ptr_words: header.ptr_words, bits: bits.into() })
    }

    /// The stored mask, or for one made on demand what the runtime built; `None` if it did not (yet).
    fn stored(&self, image: &dyn Image, header: &Header) -> Option<u64> {
        if !header.on_demand {
            return Some(header.gcdata);
        }
        let built = image.read_u64(Addr(header.gcdata)).ok()?;
        (built != 0 && Some(built) != self.layout.globals.in_progress).then_some(built)
    }
}

/// Builds one mask, with a budget: descriptors are hostile and may be cyclic.
struct Builder<'a> {
    masks: &'a TypeMasks,
    image: &'a dyn Image,
    steps: u32,
}

impl Builder<'_> {
    /// Sets the pointer bits of a value of the type at word `at` of `bits`, as `runtime.buildGCMask`.
    fn write(&mut self, header: &Header, rtype: u64, bits: &mut [u64], at: u64, depth: u32) -> Option<()> {
        if at + header.ptr_words > bits.len() as u64 * 64 {
            return None;
        }
        if let Some(stored) = self.masks.stored(self.image, header) {
            return self.copy(stored, header.ptr_words, bits, at);
        }
        let depth = depth.checked_sub(1)?;
        match header.kind {
            KIND_ARRAY => self.write_array(header, rtype, bits, at, depth),
            KIND_STRUCT => self.write_struct(header, rtype, bits, at, depth),
            // Only arrays and structs have masks on demand.
            _ => None,
        }
    }

    fn copy(&self, stored: u64, ptr_words: u64, bits: &mut [u64], at: u64) -> Option<()> {
        let mut buffer = [0; 4096];
        let mut done = 0;
        while done < ptr_words {
            let n = (ptr_words - done).min(buffer.len() as u64 * 8);
            let bytes = &mut buffer[..n.div_ceil(8) as usize];
            self.image.read(Addr(stored).add(done / 8), bytes).ok()?;
            for word in (0..n).step_by(64) {
                or_bits(bits, at + done + word, bits_at(bytes, word, (n - word).min(64)));
            }
            done += n;
        }
        Some(())
    }

    fn write_array(&mut self, header: &Header, rtype: u64, bits: &mut [u64], at: u64, depth: u32) -> Option<()> {
        let layout = &self.masks.layout.array_type;
        let elem = self.image.read_u64(Addr(rtype).add(layout.elem)).ok()?;
        let len = self.image.read_u64(Addr(rtype).add(layout.len)).ok()?;
        let elem_header = self.child(elem, header)?;
        let mut one = vec![0; elem_header.ptr_words.div_ceil(64) as usize];
        self.write(&elem_header, elem, &mut one, 0, depth)?;
        clear_beyond(&mut one, elem_header.ptr_words);
        let elem_mask = TypeMask { size: elem_header.size, ptr_words: elem_header.ptr_words, bits: one.into() };
        let words = header.ptr_words.min(len.saturating_mul(elem_mask.size / WORD));
        let mut all = vec![0; words.div_ceil(64) as usize];
        elem_mask.tile(0, words, 0, words, &mut all);
        for (i, word) in (0u64..).zip(all) {
            or_bits(bits, at + i * 64, word);
        }
        Some(())
    }

    fn write_struct(&mut self, header: &Header, rtype: u64, bits: &mut [u64], at: u64, depth: u32) -> Option<()> {
        let fields = Addr(rtype).add(self.masks.layout.struct_type.fields);
        let field = self.masks.layout.struct_field.clone();
        let array = self.image.read_u64(fields).ok()?;
        let len = self.image.read_u64(fields.add(8)).ok()?;
        for i in 0..len {
            self.steps = self.steps.checked_sub(1)?;
            let entry = Addr(array.wrapping_add(i.wrapping_mul(field.size)));
            let ty = self.image.read_u64(entry.add(field.typ)).ok()?;
            let offset = self.image.read_u64(entry.add(field.offset)).ok()?;
            let child = self.child(ty, header)?;
            if child.ptr_words == 0 {
                continue;
            }
            if !offset.is_multiple_of(WORD) || offset.checked_add(child.ptr_words * WORD)? > header.ptr_words * WORD {
                return None;
            }
            self.write(&child, ty, bits, at + offset / WORD, depth)?;
        }
        Some(())
    }

    /// The header of a part of `parent`, which cannot be larger.
    fn child(&mut self, rtype: u64, parent: &Header) -> Option<Header> {
        self.steps = self.steps.checked_sub(1)?;
        self.masks.header(self.image, rtype).filter(|child| child.size <= parent.size)
    }
}

/// Clears the bits from `n` on: masks are padded.
fn clear_beyond(bits: &mut [u64], n: u64) {
    if !n.is_multiple_of(64)
        && let Some(word) = bits.get_mut((n / 64) as usize)
    {
        *word &= (1 << (n % 64)) - 1;
    }
}
