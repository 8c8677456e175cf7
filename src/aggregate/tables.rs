//! The tables of the report: heaviest roots and heaviest types.

use rustc_hash::FxHashMap;

use super::{Amount, PathTree, ROOT, TypeTotal};

/// A table row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Root label or type name.
    pub name: String,
    /// Objects and bytes, cumulative for a root.
    pub amount: Amount,
}

/// The `limit` heaviest root labels by cumulative bytes, then objects, then name.
///
/// Call it on the full tree: `--max-stacks` may move a light root into a root-level `(other)`.
/// Cost: one pass and 4 bytes per node.
#[must_use]
pub fn heaviest_roots(tree: &PathTree, limit: usize) -> Vec<Row> {
    // A node's root label is its parent's, and parents come first.
    let mut root_labels: Vec<u32> = Vec::with_capacity(tree.nodes.len());
    let mut sums: FxHashMap<u32, Amount> = FxHashMap::default();
    // Siblings mostly follow each other, so most additions hit the same root: keep it out of the map.
    let mut run = (ROOT, Amount::default());
    for node in &tree.nodes {
        let label = if node.parent == ROOT { node.label } else { root_labels[node.parent as usize] };
        root_labels.push(label);
        if run.0 != label {
            *sums.entry(run.0).or_default() += run.1;
            run = (label, Amount::default());
        }
        run.1 += node.own();
    }
    *sums.entry(run.0).or_default() += run.1;
    let named = sums.into_iter().filter(|(_, sum)| !sum.is_zero());
    heaviest(named.map(|(label, sum)| (&*tree.labels[label as usize], sum)), limit)
}

/// The `limit` heaviest types by bytes, then objects, then name; rows of the same name are one row.
#[must_use]
pub fn heaviest_types(types: &[TypeTotal], limit: usize) -> Vec<Row> {
    let named = types.iter().map(|t| (t.name.as_str(), Amount { objects: t.objects, bytes: t.bytes }));
    heaviest(named.filter(|(_, sum)| !sum.is_zero()), limit)
}

/// Merges equal names and keeps the heaviest. The result does not depend on the order of `named`.
fn heaviest<'a>(named: impl Iterator<Item = (&'a str, Amount)>, limit: usize) -> Vec<Row> {
    let mut merged: FxHashMap<&str, Amount> = FxHashMap::default();
    for (name, amount) in named {
        *merged.entry(name).or_default() += amount;
    }
    let mut rows: Vec<(&str, Amount)> = merged.into_iter().collect();
    rows.sort_unstable_by(|(a, x), (b, y)| {
        y.bytes.cmp(&x.bytes).then(y.objects.cmp(&x.objects)).then_with(|| a.cmp(b))
    });
    rows.truncate(limit);
    rows.into_iter().map(|(name, amount)| Row { name: name.to_owned(), amount }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::select::tests::tree;

    fn rows(rows: &[Row]) -> Vec<(&str, u64, u64)> {
        rows.iter().map(|r| (r.name.as_str(), r.amount.objects, r.amount.bytes)).collect()
    }

    #[test]
    fn roots_are_cumulative_and_merged_by_text() {
        let mut t = tree(&[
            (ROOT, "main.a", 1, 16),
            (ROOT, "main.b", 1, 48),
            (0, "x.", 2, 32),
            (1, "x.", 0, 0),
            (2, "y.", 1, 8),
            (ROOT, "main.none", 0, 0),
            (ROOT, "main.a", 1, 8),
        ]);
        assert_eq!(rows(&heaviest_roots(&t, 10)), [("main.a", 5, 64), ("main.b", 1, 48)]);
        assert_eq!(rows(&heaviest_roots(&t, 1)), [("main.a", 5, 64)]);
        // The same text under two label ids is one row.
        t.labels.push("main.a".into());
        t.nodes[6].label = t.labels.len() as u32 - 1;
        assert_eq!(rows(&heaviest_roots(&t, 10)), [("main.a", 5, 64), ("main.b", 1, 48)]);
    }

    #[test]
    fn types_tie_by_objects_then_name() {
        let row = |name: &str, objects, bytes| TypeTotal { name: name.into(), objects, bytes };
        let types =
            [row("z", 1, 64), row("b", 2, 64), row("a", 2, 64), row("c", 1, 32), row("c", 1, 33), row("0", 0, 0)];
        assert_eq!(rows(&heaviest_types(&types, 10)), [("c", 2, 65), ("a", 2, 64), ("b", 2, 64), ("z", 1, 64)]);
    }

    #[test]
    fn nothing_gives_no_rows() {
        assert!(heaviest_roots(&PathTree::default(), 5).is_empty());
        assert!(heaviest_types(&[], 5).is_empty());
    }
}
