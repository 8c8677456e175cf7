//! Data and bss as uncounted regions: which of their words are taken.
//!
//! Named variables take their extents from the start. An unnamed static (`..stmp_`, behind `var p = &T{}`) is taken by the
//! first typed pointer into it, in canonical order; its words then join the walk like a root's, under that pointer's path.
//! What is left in the end belongs to `data segment[i]` or `bss segment[i]`.

use super::expand::Pool;
use crate::address::Addr;
use crate::image::Image;
use crate::incident::Incidents;
use crate::roots::{Roots, Segment};

/// The regions.
#[derive(Debug)]
pub struct Statics {
    segments: Vec<Segment>,
}

impl Statics {
    /// Regions as the roots left them.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        Self { segments: roots.segments.clone() }
    }

    /// Takes the free pointer words of `[addr, addr + bytes)` and appends the whole value to `pool`, with just these as pointers.
    /// False, and nothing appended, if there are none.
    pub fn claim(&mut self, image: &dyn Image, addr: u64, bytes: u64, pool: &mut Pool) -> bool {
        let Some(segment) = self.segments.iter_mut().find(|s| s.range.contains(Addr(addr))) else { return false };
        let offset = addr - segment.range.start.0;
        if !offset.is_multiple_of(8) {
            return false;
        }
        let first = (offset / 8) as usize;
        let words = (bytes.min(segment.range.len - offset) / 8) as usize;
        if !(first..first + words).any(|w| segment.is_free(w)) {
            return false;
        }
        // One word at a time: such values are small, and a word that the core lacks must not cost its neighbours.
        for w in first..first + words {
            let word = image.read_u64(segment.range.start.add(w as u64 * 8)).unwrap_or(0);
            pool.push(word, segment.take(w));
        }
        true
    }

    /// All pointer words that nobody took, by segment label.
    pub fn leftover(&mut self, image: &dyn Image, incidents: &mut Incidents) -> Vec<(String, Vec<u64>)> {
        let mut all = Vec::new();
        for segment in &mut self.segments {
            let mut values = Vec::new();
            for w in 0..(segment.range.len / 8) as usize {
                if !segment.take(w) {
                    continue;
                }
                match image.read_u64(segment.range.start.add(w as u64 * 8)) {
                    Ok(0) => {}
                    Ok(word) => values.push(word),
                    Err(_) => incidents.count("roots.unreadable_segment_word"),
                }
            }
            if !values.is_empty() {
                let kind = if segment.is_bss { "bss" } else { "data" };
                all.push((format!("{kind} segment[{}]", segment.module), values));
            }
        }
        all
    }
}
