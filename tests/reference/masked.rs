//! The first reference: reachability by masks alone. A queue and a set; every mask word of every object is followed, whatever its
//! type, from all words of data and bss and all words of the other roots.

use super::heap::{Memory, Object};
use goref_fast::roots::Roots;
use std::collections::{HashSet, VecDeque};

/// Everything that the collector would mark.
pub fn reach(memory: Memory<'_>, roots: &Roots) -> HashSet<Object> {
    let mut reached = HashSet::new();
    let mut queue = VecDeque::new();
    let mut follow = |word: u64, queue: &mut VecDeque<Object>| {
        if let Some(object) = memory.object_at(word)
            && reached.insert(object)
        {
            queue.push_back(object);
        }
    };
    for root in &roots.roots {
        for word in roots.pointers(root) {
            follow(word, &mut queue);
        }
    }
    // Again from the masks of the segments: what variables made of them must not matter.
    for segment in &roots.segments {
        for (i, bits) in segment.mask.iter().enumerate() {
            for bit in (0..64).filter(|bit| bits >> bit & 1 != 0) {
                follow(memory.word(segment.range.start.0 + (i as u64 * 64 + bit) * 8), &mut queue);
            }
        }
    }
    while let Some(object) = queue.pop_front() {
        for at in memory.pointer_words(object) {
            follow(memory.word(at), &mut queue);
        }
    }
    reached
}
