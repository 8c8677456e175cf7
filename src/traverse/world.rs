//! What a walk reads and never changes: image, heap, masks, modules; and how a word becomes a *dynamic type number*.
//!
//! A dynamic type number is a link-time fact: the position of the type's descriptor among all modules' descriptors. So it can break ties
//! without depending on which thread met a type first. 0 means unknown.

use crate::address::{Addr, AddrRange};
use crate::image::Image;
use crate::model::descriptors::{Descriptors, ModuleTypes};
use crate::model::heap::{Heap, TypeMasks};
use crate::model::modules::Modules;
use dashmap::DashMap;
use rustc_hash::FxBuildHasher;

/// Read-only surroundings of a walk, shared by all workers.
pub struct World<'a> {
    /// The dumped process.
    pub image: &'a dyn Image,
    /// Spans and shards.
    pub heap: &'a Heap,
    /// Masks of allocation types.
    pub masks: &'a TypeMasks,
    /// Function tables.
    pub modules: &'a Modules,
    /// Runtime type descriptors.
    pub descriptors: &'a Descriptors,
    /// Where descriptors lie, by module.
    pub module_types: Vec<ModuleTypes>,
    /// The descriptors of each module with the number of its first descriptor.
    types: Vec<(AddrRange, u32)>,
    /// itab address to dynamic type number. Read once per itab, not per pointer: workers remember the last one.
    itabs: DashMap<u64, u32, FxBuildHasher>,
    /// Data and bss of all modules: lowest and highest address, for a quick no.
    segments: (u64, u64),
    /// Modules with everything static in them: where an itab may lie that is not made at run time.
    statics: (u64, u64),
}

impl<'a> World<'a> {
    /// Surroundings from the model.
    pub fn new(
        image: &'a dyn Image,
        heap: &'a Heap,
        masks: &'a TypeMasks,
        modules: &'a Modules,
        descriptors: &'a Descriptors,
    ) -> Self {
        let mut types = Vec::new();
        let mut first = 1u32;
        for module in &modules.list {
            types.push((module.descriptors, first));
            first = first.saturating_add(u32::try_from(module.types.len / 8).unwrap_or(u32::MAX));
        }
        let module_types =
            modules.list.iter().map(|m| ModuleTypes { types: m.types.start, etypes: m.types.end() }).collect();
        let ranges = || modules.list.iter().flat_map(|m| [m.data, m.bss]).filter(|r| r.len > 0);
        let low = ranges().map(|r| r.start.0).min().unwrap_or(u64::MAX);
        let high = ranges().map(|r| r.end().0).max().unwrap_or(0);
        let lowest = modules.list.iter().map(|m| m.text.start.0.min(m.types.start.0)).min().unwrap_or(u64::MAX);
        let statics = (lowest, high.max(modules.list.iter().map(|m| m.types.end().0).max().unwrap_or(0)));
        Self {
            image,
            heap,
            masks,
            modules,
            descriptors,
            module_types,
            types,
            itabs: DashMap::default(),
            segments: (low, high),
            statics,
        }
    }

    /// Number of the type whose descriptor lies at `rtype`; 0 if it is no module's (made by reflection, or no type at all).
    #[inline]
    #[must_use]
    pub fn type_number(&self, rtype: u64) -> u32 {
        for (range, first) in &self.types {
            let offset = rtype.wrapping_sub(range.start.0);
            if offset < range.len {
                return if offset % 8 == 0 { first.saturating_add((offset / 8) as u32) } else { 0 };
            }
        }
        0
    }

    /// The descriptor with this number.
    #[must_use]
    pub fn rtype(&self, number: u32) -> Option<Addr> {
        self.types.iter().find_map(|(range, first)| {
            let offset = u64::from(number.checked_sub(*first)?) * 8;
            (offset < range.len).then(|| range.start.add(offset))
        })
    }

    /// Number of the dynamic type of an interface with this itab.
    #[must_use]
    pub fn itab_number(&self, itab: u64) -> u32 {
        if let Some(number) = self.itabs.get(&itab) {
            return *number;
        }
        let rtype = self.descriptors.itab_type(self.image, Addr(itab));
        let number = rtype.map_or(0, |rtype| self.type_number(rtype.0));
        self.itabs.insert(itab, number);
        number
    }

    /// As [`World::itab_number`] for a word that need not be an itab: 0 unless it points to static memory that reads as one.
    #[must_use]
    pub fn itab_number_if_static(&self, word: u64) -> u32 {
        if word < self.statics.0 || word >= self.statics.1 || !word.is_multiple_of(8) {
            return 0;
        }
        self.itab_number(word)
    }

    /// Whether `addr` may lie in data or bss.
    #[inline]
    #[must_use]
    pub fn in_segments(&self, addr: u64) -> bool {
        addr >= self.segments.0 && addr < self.segments.1
    }
}
