//! The second reference: types and paths. One level after the other, one value after the other; the edges of a wave are sorted by
//! what they are and settled one by one ([`claim`]). No shards, no scan programs, no marks in bitmaps.

mod claim;
mod expand;

use super::dump::Dump;
use super::heap::Object;
use super::paths::Paths;
use super::values::{self, Reader, Step, What, Word, closure, size_of};
use goref_fast::model::types::TypeId;
use goref_fast::roots::{Root, Segment, Stratum};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

/// Elements between two settlements of a level: a constant of the product that enters the answer.
const WAVE: u64 = 1 << 16;
/// Longest run of elements that is scanned as one.
const RUN: u64 = 4096;

/// A value in the heap, or copied to the pool of words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    pooled: bool,
    at: u64,
    count: u64,
    /// Only these words: bit `i` is the word `8 * i` bytes on.
    only: u64,
    /// All its elements are past the individually named ones.
    tail: bool,
}

/// Items with one path and one meaning.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Group {
    path: usize,
    what: What,
    /// The type does not say all that the mask says.
    checked: bool,
}

/// Groups in the order in which they were fed first, and their items.
#[derive(Default)]
struct Level {
    groups: Vec<Group>,
    numbers: HashMap<Group, usize>,
    items: Vec<(usize, Item)>,
}

impl Level {
    fn push(&mut self, group: Group, item: Item) {
        let i = *self.numbers.entry(group).or_insert_with_key(|group| {
            self.groups.push(group.clone());
            self.groups.len() - 1
        });
        self.items.push((i, item));
    }
}

/// What an edge is, in the order in which edges are settled: group, element, place in the type, dynamic type.
type Key = (usize, u64, Vec<u32>, u64);

/// An edge with its word.
struct Edge {
    key: Key,
    /// Item, element, repetition: the order among edges of one key.
    order: (usize, u64, Vec<u64>),
    addr: u64,
    to: What,
    count: u64,
    /// Frames below the item's own path.
    steps: Vec<Step>,
}

/// What an object's own memory says of its type, in the order of groups.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Own {
    Nothing,
    /// It is large, and nothing records its type.
    Unrecorded,
    Header(u64),
    Closure(u64, u64),
    Trie(u64),
    /// What the edge leads to is part of it.
    Whole(TypeId),
}

/// Words of an object that nobody explained yet; of a large object without a recorded type how often it may be scanned again.
struct Open {
    words: u64,
    path: usize,
}

pub struct Walker<'d, 'p, 'img> {
    dump: &'d mut Dump<'p, 'img>,
    paths: Paths,
    reached: HashSet<Object>,
    open: BTreeMap<Object, Open>,
    loose: Vec<(usize, u64, u64)>,
    later: Vec<(usize, u64, u64)>,
    pool: Vec<(u64, bool)>,
    segments: Vec<Segment>,
    pointery: HashMap<TypeId, bool>,
    shapes: HashMap<What, Rc<Vec<Word>>>,
    /// Objects whose memory contradicts the type that the edge says.
    contradictions: BTreeSet<String>,
    /// Objects that no type explains, or not all of them, and the path of what is unexplained.
    unexplained: HashMap<Object, usize>,
    /// Objects of which one value explains every such word, whatever other values in them left.
    complete: HashSet<Object>,
}

/// What a walk found.
pub struct Found {
    /// Objects and bytes by path.
    pub paths: BTreeMap<String, (u64, u64)>,
    pub reached: HashSet<Object>,
    pub contradictions: BTreeSet<String>,
    /// Objects under `$sub_objects$`, and those with a mask word that no type explains and that leads to an object (nil and pointers to
    /// static data hold nothing), with a path that says where.
    pub unexplained: HashMap<Object, String>,
}

/// Walks everything.
pub fn walk(dump: &mut Dump<'_, '_>, max_depth: u32, fold: bool) -> Found {
    let mut walker = Walker {
        paths: Paths::new(max_depth, fold),
        reached: HashSet::new(),
        open: BTreeMap::new(),
        loose: Vec::new(),
        later: Vec::new(),
        pool: dump.roots.words.iter().map(|w| (*w, false)).collect(),
        segments: dump.roots.segments.clone(),
        pointery: HashMap::new(),
        shapes: HashMap::new(),
        contradictions: BTreeSet::new(),
        unexplained: HashMap::new(),
        complete: HashSet::new(),
        dump,
    };
    for (i, word) in walker.pool.iter_mut().enumerate() {
        word.1 = walker.dump.roots.mask[i / 64] >> (i % 64) & 1 != 0;
    }
    for stratum in [Stratum::Package, Stratum::Runtime, Stratum::Unnamed, Stratum::Specials] {
        walker.stratum(stratum);
    }
    walker.segments();
    walker.stratum(Stratum::Conservative);
    let Walker { paths, reached, contradictions, unexplained, complete, .. } = walker;
    let masked = |(object, path): &(Object, usize)| paths.is_masked(*path) || !complete.contains(object);
    let unexplained = unexplained.into_iter().filter(masked).map(|(object, path)| (object, paths.text(path))).collect();
    Found { paths: paths.counted(), reached, contradictions, unexplained }
}

impl Walker<'_, '_, '_> {
    fn stratum(&mut self, stratum: Stratum) {
        let mut first = Level::default();
        let roots: Vec<Root> = self.dump.roots.roots.iter().filter(|r| r.stratum == stratum).copied().collect();
        for root in &roots {
            let frames = self.dump.roots.labels.frames(root.label);
            let mut path = None;
            for (i, frame) in frames.iter().enumerate() {
                let step = ((*frame).to_owned(), root.ty.filter(|_| i + 1 == frames.len()));
                path = Some(match path {
                    Some(path) => self.paths.child(path, &step),
                    None => self.paths.root(step),
                });
            }
            let typed = root.ty.filter(|ty| self.dump.types.get(*ty).size.div_ceil(8) <= u64::from(root.nwords));
            let (what, count) = match typed {
                Some(ty) => (values::map_on_stack(&self.dump.types, ty, root.nwords).unwrap_or(What::Value(ty)), 1),
                None => (What::Raw, u64::from(root.nwords)),
            };
            let path = path.expect("a root has a name");
            let group = Group { path, what: what.clone(), checked: false };
            first.push(group, Item { pooled: true, at: root.first_word, count, only: !0, tail: false });
            if what == What::Raw {
                continue;
            }
            // What the collector scans and the type does not have is followed without a name.
            let by_type: HashSet<u64> = self.shape(&what).iter().map(|w| root.first_word + w.offset / 8).collect();
            for at in root.first_word..root.first_word + u64::from(root.nwords) {
                if self.pool[at as usize].1 && !by_type.contains(&at) {
                    let group = Group { path, what: What::Raw, checked: false };
                    first.push(group, Item { pooled: true, at, count: 1, only: !0, tail: false });
                }
            }
        }
        self.levels(first, stratum != Stratum::Package);
    }

    /// Data and bss words that neither a variable nor a pointer has claimed.
    fn segments(&mut self) {
        let mut first = Level::default();
        for s in 0..self.segments.len() {
            let segment = &mut self.segments[s];
            let start = segment.range.start.0;
            let free: Vec<usize> = (0..(segment.range.len / 8) as usize).filter(|i| segment.take(*i)).collect();
            let words = free.into_iter().map(|i| self.dump.memory().word(start + i as u64 * 8));
            let words: Vec<u64> = words.filter(|word| *word != 0).collect();
            if words.is_empty() {
                continue;
            }
            let name = if segment.is_bss { "bss" } else { "data" };
            let path = self.paths.root((format!("{name} segment[{}]", segment.module), None));
            let item =
                Item { pooled: true, at: self.pool.len() as u64, count: words.len() as u64, only: !0, tail: false };
            self.pool.extend(words.into_iter().map(|word| (word, true)));
            first.push(Group { path, what: What::Raw, checked: false }, item);
        }
        self.levels(first, true);
    }

    fn levels(&mut self, first: Level, later: bool) {
        let mut collected = first;
        loop {
            // What belongs to a map or channel itself is reached in the level of its header.
            let mut done = 0;
            while done < collected.items.len() {
                let fresh = collected.items[done..].to_vec();
                done = collected.items.len();
                let keep = |w: &mut Self, g: &Group| w.shape(&g.what).iter().any(|word| word.storage);
                let waves = self.waves(&collected.groups, &fresh, keep);
                for wave in waves {
                    self.wave(&wave, true, &mut collected);
                }
            }
            let Level { groups, items, .. } = self.by_function(std::mem::take(&mut collected));
            let keep = |w: &mut Self, g: &Group| {
                let always = matches!(g.what, What::Raw | What::Masked | What::Closure(..));
                always || g.checked || w.shape(&g.what).iter().any(|word| !word.storage)
            };
            let mut next = Level::default();
            let waves = self.waves(&groups, &items, keep);
            if waves.is_empty() {
                self.leftover(&mut next);
                if next.items.is_empty() && later {
                    self.loose = std::mem::take(&mut self.later);
                    self.leftover(&mut next);
                }
                if next.items.is_empty() {
                    return;
                }
            }
            for wave in waves {
                self.wave(&wave, false, &mut next);
            }
            collected = next;
        }
    }

    /// Replaces the groups of func values by one for each function, in the order of code pointers.
    fn by_function(&mut self, level: Level) -> Level {
        let mut told = Level::default();
        for (g, group) in level.groups.iter().enumerate() {
            let items = level.items.iter().filter(|(of, _)| *of == g).map(|(_, item)| item.clone());
            let first = told.groups.len();
            if group.what != What::Func {
                told.groups.push(group.clone());
                told.items.extend(items.map(|item| (first, item)));
                continue;
            }
            let mut by_code: BTreeMap<(u64, u64), Vec<(Object, Item)>> = BTreeMap::new();
            for item in items {
                let memory = self.dump.memory();
                let object = memory.slot_at(item.at).expect("it was claimed");
                by_code.entry((memory.word(item.at), memory.size(object))).or_default().push((object, item));
            }
            for ((pc, room), closures) in by_code {
                let known = closure(self.dump, pc, room);
                let (path, what) = match known {
                    Some((name, what)) => (self.paths.child(group.path, &(name, None)), what),
                    None => (group.path, What::Untyped),
                };
                let checked = what == What::Untyped;
                let g = told.groups.len();
                told.groups.push(Group { path, what: what.clone(), checked });
                for (object, item) in closures {
                    self.check_words(object, &what, &item);
                    if !checked {
                        self.open_rest(object, &what, &item, path);
                    }
                    told.items.push((g, item));
                }
            }
        }
        told
    }

    /// The words that a type explains, without looking at a value.
    fn shape(&mut self, what: &What) -> Rc<Vec<Word>> {
        if let Some(known) = self.shapes.get(what) {
            return known.clone();
        }
        let words = Rc::new(Reader::new(self.dump, &|_| 0, &mut self.pointery).read(what));
        self.shapes.insert(what.clone(), words.clone());
        words
    }

    /// Items in canonical order, cut into waves.
    fn waves(
        &mut self,
        groups: &[Group],
        items: &[(usize, Item)],
        keep: impl Fn(&mut Self, &Group) -> bool,
    ) -> Vec<Vec<(usize, Group, Item)>> {
        let kept: Vec<bool> = groups.iter().map(|g| keep(self, g)).collect();
        let mut order = Vec::new();
        for (g, item) in items.iter().filter(|(g, _)| kept[*g]) {
            let size = size_of(&self.dump.types, &groups[*g].what);
            let mut item = item.clone();
            while item.count > RUN && size >= 8 {
                order.push((*g, Item { count: RUN, ..item.clone() }));
                let at = item.at + if item.pooled { RUN * (size / 8) } else { RUN * (size / 8 * 8) };
                item = Item { at, count: item.count - RUN, tail: true, ..item };
            }
            order.push((*g, item));
        }
        order.sort();
        let mut waves: Vec<Vec<_>> = Vec::new();
        let mut elements = WAVE;
        for (g, item) in order {
            if elements >= WAVE {
                waves.push(Vec::new());
                elements = 0;
            }
            elements += item.count.max(1);
            waves.last_mut().expect("just pushed").push((g, groups[g].clone(), item));
        }
        waves
    }

    fn wave(&mut self, wave: &[(usize, Group, Item)], storage: bool, next: &mut Level) {
        let mut edges = Vec::new();
        for (i, (g, group, item)) in wave.iter().enumerate() {
            self.expand(i, *g, group, item, storage, &mut edges);
        }
        edges.sort_by(|a, b| (&a.key, &a.order).cmp(&(&b.key, &b.order)));
        let path_of: HashMap<usize, usize> = wave.iter().map(|(g, group, _)| (*g, group.path)).collect();
        let mut known: HashMap<Key, usize> = HashMap::new();
        let mut won = Vec::new();
        for edge in &edges {
            let Some(object) = self.dump.memory().object_at(edge.addr) else { continue };
            let claim = self.claim(object, edge);
            let Some(claim) = claim else { continue };
            let path = *known.entry(edge.key.clone()).or_insert_with(|| self.path(path_of[&edge.key.0], edge, storage));
            if claim.counts {
                self.paths.count(path, self.dump.memory().size(object));
                if self.paths.is_masked(path) {
                    self.unexplained.insert(object, path);
                }
            }
            if let Some(open) = self.open.get_mut(&object).filter(|open| open.path == usize::MAX) {
                open.path = path;
            }
            if let Some((own, item)) = claim.item {
                // A later edge of this very wave may explain the rest.
                if claim.counts && own == Own::Nothing && edge.to != What::Func {
                    self.open_rest(object, &edge.to, &item, path);
                }
                won.push((edge, own, item, object, path, claim.counts));
            }
        }
        // Sorting is stable: objects of one key and type stay in order.
        won.sort_by(|a, b| (&a.0.key, &a.1).cmp(&(&b.0.key, &b.1)));
        for (edge, own, item, object, mut path, counts) in won {
            let (what, checked) = self.retype(&own, edge, &mut path);
            if what == What::Func {
                next.push(Group { path, what, checked }, item);
                continue;
            }
            if counts {
                self.check_type(object, &own, edge, &what, &item);
            }
            if counts && !checked && own != Own::Nothing {
                self.open_rest(object, &what, &item, path);
            }
            if counts && own == Own::Nothing && self.explained(object, &what, &item) == 0 && what != What::Masked {
                continue;
            }
            next.push(Group { path, what, checked }, item);
        }
        for edge in &edges {
            if self.dump.memory().slot_at(edge.addr).is_some() {
                continue;
            }
            let size = size_of(&self.dump.types, &edge.to).saturating_mul(edge.count);
            if size == 0 || self.shape(&edge.to).is_empty() {
                continue;
            }
            let at = self.pool.len() as u64;
            if self.claim_static(edge.addr, size) {
                let path = self.path(path_of[&edge.key.0], edge, storage);
                let item = Item { pooled: true, at, count: edge.count, only: !0, tail: false };
                next.push(Group { path, what: edge.to.clone(), checked: false }, item);
            }
        }
    }

    fn path(&mut self, from: usize, edge: &Edge, storage: bool) -> usize {
        if storage {
            return from;
        }
        edge.steps.iter().fold(from, |path, step| self.paths.child(path, step))
    }
}
