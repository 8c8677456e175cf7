//! Puts what was gathered for a level in order: one part per group and shard, items in slot order, long runs cut.

use super::frontier::{Group, Part};
use super::items::{Depot, Item, Items, Stretch, TAIL};
use super::scan::Programs;

/// Elements of one item; longer runs are cut.
pub const MAX_RUN: u32 = 4096;
/// Words of a bitmap per item up to which it is faster than sorting.
const SPARSE: usize = 4;

/// How one shard's parts are put in order.
pub(super) struct Order<'a> {
    pub(super) groups: &'a [Group],
    pub(super) programs: &'a Programs,
    pub(super) depot: &'a Depot,
    pub(super) shard: u16,
}

impl Order<'_> {
    /// Appends the parts whose group `keep`s to `out`, one part per group, items in slot order, long runs cut.
    pub(super) fn arrange(
        &self,
        parts: &[(u32, Stretch)],
        from: &Items,
        keep: impl Fn(&Group) -> bool,
        (out, out_parts): (&mut Items, &mut Vec<Part>),
        sorter: &mut Sorter,
    ) {
        let shard = self.shard;
        if let [(group, stretch)] = parts {
            // One part: nothing to merge, which is all that a list ever has.
            if keep(&self.groups[*group as usize]) {
                let stretch = self.merge(&[(*group, *stretch)], from, out, sorter);
                out_parts.push(Part { group: *group, shard, stretch });
            }
            return;
        }
        let mut order: Vec<_> = parts.iter().filter(|(g, _)| keep(&self.groups[*g as usize])).copied().collect();
        order.sort_by_key(|(group, _)| *group);
        for run in order.chunk_by(|a, b| a.0 == b.0) {
            let stretch = self.merge(run, from, out, sorter);
            out_parts.push(Part { group: run[0].0, shard, stretch });
        }
    }

    /// The items of several parts of one group as one stretch.
    fn merge(&self, run: &[(u32, Stretch)], from: &Items, out: &mut Items, sorter: &mut Sorter) -> Stretch {
        if run.iter().all(|(_, stretch)| stretch.counts.is_none() && stretch.restrict.is_none()) {
            let start = out.granules.len();
            let pieces = || run.iter().flat_map(|(_, stretch)| from.granules.pieces(stretch.start, stretch.len));
            sorter.sorted(pieces, |granules| out.granules.extend(self.depot, granules));
            return Stretch { start, len: out.granules.len() - start, counts: None, restrict: None };
        }
        let size = self.programs.get(self.groups[run[0].0 as usize].program).size;
        let mut items = Vec::new();
        for (_, stretch) in run {
            for i in 0..stretch.len {
                cut(from.get(stretch, i), size, &mut items);
            }
        }
        if items.iter().all(|item| item.restrict == !0) {
            // In the order of items, and one number to compare.
            let packed = |item: &Item| u64::from(item.granule) << 32 | u64::from(item.count);
            items.sort_unstable_by_key(packed);
        } else {
            items.sort_unstable();
        }
        out.push(self.depot, &items)
    }
}

/// Sorts granules, each of which occurs once: a group counts a slot once, and enters it at one place.
#[derive(Default, Debug)]
pub(super) struct Sorter {
    list: Vec<u32>,
    bits: Vec<u64>,
}

impl Sorter {
    /// Calls `each` for the entries of all pieces in order, many at a time.
    ///
    /// Dense ones go through a bitmap, which is linear; the others are sorted.
    fn sorted<'p, P: Iterator<Item = &'p [u32]>>(&mut self, pieces: impl Fn() -> P, mut each: impl FnMut(&[u32])) {
        let (mut len, mut low, mut high, mut before, mut sorted) = (0usize, u32::MAX, 0, None, true);
        pieces().flatten().for_each(|&entry| {
            len += 1;
            (low, high) = (low.min(entry), high.max(entry));
            sorted &= before < Some(entry);
            before = Some(entry);
        });
        if sorted {
            pieces().for_each(each);
            return;
        }
        let words = ((high - low) / 64) as usize + 1;
        if words > len.saturating_mul(SPARSE) {
            self.list.clear();
            pieces().for_each(|piece| self.list.extend_from_slice(piece));
            self.list.sort_unstable();
            each(&self.list);
            return;
        }
        self.bits.clear();
        self.bits.resize(words, 0);
        let bits = &mut self.bits[..];
        pieces().flatten().for_each(|entry| {
            let at = entry - low;
            bits[(at / 64) as usize] |= 1 << (at % 64);
        });
        let mut in_word = [0; 64];
        for (word, &bits) in self.bits.iter().enumerate() {
            let (mut bits, mut len) = (bits, 0);
            while bits != 0 {
                in_word[len] = low + word as u32 * 64 + bits.trailing_zeros();
                len += 1;
                bits &= bits - 1;
            }
            each(&in_word[..len]);
        }
    }
}

/// Cuts a run longer than [`MAX_RUN`] into several items.
fn cut(item: Item, size: u64, out: &mut Vec<Item>) {
    let words = u32::try_from(size / 8).unwrap_or(0);
    if item.count & TAIL != 0 || item.count <= MAX_RUN || words == 0 {
        out.push(item);
        return;
    }
    out.push(Item { count: MAX_RUN, ..item });
    let (mut granule, mut left) = (item.granule, item.count - MAX_RUN);
    while left > 0 {
        // A granule past 32 bits would lie outside of the shard: the run is clamped there.
        let Some(next) = MAX_RUN.checked_mul(words).and_then(|d| granule.checked_add(d)) else { return };
        granule = next;
        let count = left.min(MAX_RUN);
        out.push(Item { granule, count: count | TAIL, restrict: !0 });
        left -= count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(pieces: &[&[u32]]) -> Vec<u32> {
        let mut all = Vec::new();
        Sorter::default().sorted(|| pieces.iter().copied(), |entries| all.extend_from_slice(entries));
        all
    }

    #[test]
    fn dense_sparse_and_sorted_pieces_come_out_in_order() {
        assert_eq!(sorted(&[&[1, 2], &[3]]), [1, 2, 3]);
        assert_eq!(sorted(&[&[64, 0], &[63, 65, 1]]), [0, 1, 63, 64, 65]);
        assert_eq!(sorted(&[&[u32::MAX, 5], &[0]]), [0, 5, u32::MAX]);
        assert!(sorted(&[]).is_empty());
        let shuffled: Vec<u32> = (0..10_000u32).map(|i| i * 7919 % 10_000 + 77).collect();
        assert_eq!(sorted(&[&shuffled[..3000], &shuffled[3000..]]), (77..10_077).collect::<Vec<_>>());
    }

    #[test]
    fn long_runs_are_cut_and_labelled_once() {
        let mut items = Vec::new();
        cut(Item { granule: 10, count: 10_000, restrict: !0 }, 24, &mut items);
        let all: Vec<_> = items.iter().map(|item| (item.granule, item.count & !TAIL, item.count & TAIL != 0)).collect();
        let step = MAX_RUN * 3;
        assert_eq!(
            all,
            [(10, MAX_RUN, false), (10 + step, MAX_RUN, true), (10 + 2 * step, 10_000 - 2 * MAX_RUN, true)]
        );
    }
}
