//! Where walks start: the roots of one stratum after the other, as items of a first level.

use super::Walker;
use super::flatten;
use super::frontier::Next;
use super::items::{Item, POOL};
use super::observe::Observer;
use super::paths::PathId;
use super::scan::{NO_TYPE, ProgramId, ProgramKey, Step};
use crate::model::types::{Kind, TypeId};
use crate::roots::{Root, Roots, Stratum};

impl<O: Observer> Walker<'_, '_, '_, O> {
    /// Walks one stratum to its end.
    pub(super) fn stratum(&mut self, roots: &Roots, stratum: Stratum) {
        let mut first = Next::default();
        // Words of a segment without a type are taken from the segment, where a typed pointer may have claimed them.
        let here = |r: &&Root| r.stratum == stratum && (stratum != Stratum::Segments || r.ty.is_some());
        for root in roots.roots.iter().filter(here) {
            let frames = roots.labels.frames(root.label);
            let Ok(granule) = u32::try_from(root.first_word) else {
                self.incidents.count("roots.beyond_pool");
                continue;
            };
            let mut path = None;
            for (i, frame) in frames.iter().enumerate() {
                let leaf = i + 1 == frames.len();
                let ty = root.ty.filter(|_| leaf).unwrap_or(NO_TYPE);
                let step = Step { label: self.resolver.programs.labels.intern(frame), ty };
                path = Some(match path {
                    Some(parent) => self.paths.child(parent, step),
                    None => self.paths.root(step),
                });
            }
            let Some(path) = path else { continue };
            let typed = root.ty.filter(|&ty| self.resolver.types.get(ty).size.div_ceil(8) <= u64::from(root.nwords));
            let (key, count) = match typed {
                // A map that did not escape: its header lies on the stack, and maybe its first slots, under the map's own name.
                Some(ty) if self.resolver.programs.typed() => {
                    (self.map_storage(ty, root.nwords).unwrap_or(ProgramKey::Value(ty)), 1)
                }
                _ => (ProgramKey::Raw, root.nwords),
            };
            let program = self.resolver.compile(key);
            let group = first.group(path, program, false);
            self.add(&mut first, POOL, group, &[Item { granule, count, restrict: !0 }]);
            if key != ProgramKey::Raw {
                self.beyond_type(&mut first, roots, root, path, program);
            }
        }
        self.levels(first, stratum != Stratum::Package);
    }

    /// Pointers of a root that its type does not explain (a map's header of an unknown form): followed all the same.
    fn beyond_type(&mut self, first: &mut Next, roots: &Roots, root: &Root, path: PathId, typed: ProgramId) {
        let program = self.resolver.programs.get(typed);
        let beyond: Vec<u64> = (0..root.nwords)
            .filter(|&i| roots.is_pointer(root, i) && !program.explains(u64::from(i)))
            .map(|i| root.first_word + u64::from(i))
            .collect();
        if beyond.is_empty() {
            return;
        }
        let program = self.resolver.compile(ProgramKey::Raw);
        let group = first.group(path, program, false);
        for word in beyond {
            // The whole root fits: its first word was converted, and pools are shorter than that.
            let Ok(granule) = u32::try_from(word) else { continue };
            self.add(first, POOL, group, &[Item { granule, count: 1, restrict: !0 }]);
        }
    }

    /// What a value of `nwords` words is that is said to be of map type `ty` (one word): the map's first group or bucket, or its header.
    fn map_storage(&self, ty: TypeId, nwords: u32) -> Option<ProgramKey> {
        let types = &self.resolver.types;
        let Kind::Map { header: Some(header), .. } = types.get(ty).kind else { return None };
        if nwords <= 1 || !self.resolver.programs.typed() {
            return None;
        }
        let words = |ty: TypeId| types.get(ty).size.div_ceil(8);
        let exact = |ty: TypeId| words(ty) == u64::from(nwords);
        if exact(header) {
            return Some(ProgramKey::MapHeader(ty));
        }
        if flatten::map_group_type(types, ty).is_some_and(exact) {
            return Some(ProgramKey::MapGroups(ty));
        }
        if flatten::map_bucket_type(types, ty).is_some_and(exact) {
            return Some(ProgramKey::MapBuckets(ty));
        }
        (words(header) <= u64::from(nwords)).then_some(ProgramKey::MapHeader(ty))
    }

    /// Data and bss words that neither a variable nor a typed pointer into them has claimed. Roots of that stratum with a type
    /// come first: without debug information there are some.
    pub(super) fn segments(&mut self, roots: &Roots) {
        self.stratum(roots, Stratum::Segments);
        let mut first = Next::default();
        let program = self.resolver.compile(ProgramKey::Raw);
        for (label, words) in self.statics.leftover(self.world.image, &mut self.incidents) {
            let label = self.resolver.programs.labels.intern(&label);
            let path = self.paths.root(Step { label, ty: NO_TYPE });
            let Ok(granule) = u32::try_from(self.pool.words()) else {
                self.incidents.count("roots.beyond_pool");
                continue;
            };
            let count = words.len() as u32;
            words.into_iter().for_each(|word| self.pool.push(word, true));
            let group = first.group(path, program, false);
            self.add(&mut first, POOL, group, &[Item { granule, count, restrict: !0 }]);
        }
        self.levels(first, true);
    }
}
