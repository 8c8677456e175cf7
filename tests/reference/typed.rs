//! The second reference: types and paths. One level after the other, one value after the other; the edges of a wave are sorted by
//! what they are and settled one by one. No shards, no scan programs, no marks in bitmaps.

use super::dump::Dump;
use super::heap::Object;
use super::paths::{Paths, SUB_OBJECTS};
use super::values::{self, INDEXED, Leads, Reader, Step, What, Word, closure, holds, index_step, size_of};
use goref_fast::model::heap::{MaskSource, SpanId};
use goref_fast::model::types::{Kind, TypeId};
use goref_fast::roots::{Root, Segment, Stratum};
use goref_fast::traverse::library;
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

/// Sizes of slots from 512 bytes on (`class_to_size`).
const SIZES: [u64; 42] = [
    512, 576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536, 1792, 2048, 2304, 2688, 3072, 3200, 3456, 4096, 4864,
    5120, 5376, 6144, 6528, 6784, 6912, 8192, 9472, 9728, 10240, 10880, 12288, 13568, 14336, 16384, 18432, 19072,
    20480, 21760, 24576, 27264, 28672,
];

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
    let Walker { paths, reached, contradictions, unexplained, .. } = walker;
    let unexplained = unexplained.into_iter().map(|(object, path)| (object, paths.text(path))).collect();
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

    /// All edges of one item.
    fn expand(&mut self, i: usize, g: usize, group: &Group, item: &Item, storage: bool, edges: &mut Vec<Edge>) {
        let what = &group.what;
        let size = size_of(&self.dump.types, what);
        let unknown = matches!(what, What::Raw | What::Masked);
        // Where the item's pointers lie, and the words that it has, by offset.
        let len;
        let pointers: BTreeSet<u64>;
        let small;
        if item.pooled {
            let bytes = item.count.saturating_mul(if unknown { 8 } else { size }) / 8 * 8;
            len = bytes.min((self.pool.len() as u64 - item.at) * 8);
            pointers = (0..len).step_by(8).filter(|at| self.pool[(item.at + at / 8) as usize].1).collect();
            small = false;
        } else {
            let memory = self.dump.memory();
            let Some(object) = memory.slot_at(item.at) else { return };
            len = memory.end(object) - item.at;
            // A run of a known type is all that the item is.
            let run = if group.checked || unknown { len } else { item.count.saturating_mul(size) };
            let words = memory.pointer_words_in(object, item.at, item.at + len.min(run));
            small = memory.size(object) <= 512;
            let all = words.into_iter().map(|at| at - item.at);
            pointers = all.filter(|at| !small || item.only >> (at / 8) & 1 != 0).collect();
        }
        let pool = std::mem::take(&mut self.pool);
        let memory = self.dump.memory();
        let word = |at: u64| match item.pooled {
            _ if at + 8 > len => 0,
            true => pool[(item.at + at / 8) as usize].0,
            false => memory.word(item.at + at),
        };
        let mut found: Vec<(u64, u64, Word)> = Vec::new();
        if unknown {
            for &at in &pointers {
                let mut rtype = 0;
                if *what == What::Masked && at >= 8 && !pointers.contains(&(at - 8)) {
                    rtype = self.type_word(word(at - 8));
                }
                let leads = if rtype != 0 { Leads::Interface(rtype) } else { Leads::To(What::Untyped, 1) };
                let (place, steps, repeat) = (vec![], vec![], vec![at]);
                let word = Word { offset: at, place, steps, repeat, leads, storage: false, not_in_heap: false };
                found.push((0, at, word));
            }
        } else {
            let count = len.checked_div(size).map_or(1, |room| item.count.min(room).max(1));
            for e in 0..count {
                let read = |at: u64| word(e * size + at);
                let words = Reader::new(self.dump, &read, &mut self.pointery).read(what);
                found.extend(words.into_iter().map(|word| (e, e * size + word.offset, word)));
            }
        }
        let values: Vec<u64> = found.iter().map(|(_, at, _)| word(*at)).collect();
        // Words that no type explains. Those of small objects are open since the object was claimed.
        if !unknown && !storage && (!small || group.checked) {
            let explained: HashSet<u64> = found.iter().map(|(_, at, _)| *at).collect();
            for at in pointers.iter().filter(|at| !explained.contains(at) && word(**at) != 0) {
                let place = if item.pooled { (item.at * 8) + at } else { item.at + at };
                if memory.object_at(word(*at)).is_some() {
                    self.unexplained.extend(memory.object_at(place).map(|holder| (holder, group.path)));
                }
                self.loose.push((group.path, place, word(*at)));
            }
        }
        self.pool = pool;
        for ((e, at, word), addr) in found.into_iter().zip(values) {
            if !pointers.contains(&at) || addr == 0 || word.storage != storage {
                continue;
            }
            let mut steps = Vec::new();
            let mut bucket = 0;
            if let What::Elements(elem) = what {
                bucket = if item.tail { INDEXED } else { e.min(INDEXED) };
                steps.push(index_step(&self.dump.types, *elem, bucket));
            }
            if *what == What::Masked {
                steps.push((SUB_OBJECTS.to_owned(), None));
            }
            steps.extend(word.steps);
            let unknown = if *what == What::Masked { What::Masked } else { What::Untyped };
            let (rank, to, count) = match word.leads {
                Leads::Later => {
                    self.later.push((group.path, addr, addr));
                    continue;
                }
                Leads::Nowhere => {
                    let place = if item.pooled { item.at * 8 + at } else { item.at + at };
                    if self.dump.memory().object_at(addr).is_some() {
                        let holder = self.dump.memory().object_at(place);
                        self.unexplained.extend(holder.map(|holder| (holder, group.path)));
                    }
                    self.loose.push((group.path, place, addr));
                    continue;
                }
                // A map of one group comes after those with a directory.
                Leads::To(to @ What::MapGroups(_), count) if matches!(what, What::MapHeader(_)) => (1, to, count),
                Leads::To(What::Untyped, _) if *what == What::Masked => (0, What::Masked, 1),
                Leads::To(to, count) => (0, to, count),
                Leads::Reflected(rtype, true) => match self.dump.rank_of_type(rtype) {
                    0 => (0, unknown, 1),
                    rank => match self.dump.type_of(rtype) {
                        Some(ty) => (rank | 1 << 31, What::Value(ty), 1),
                        None => (rank | 1 << 31, unknown, 1),
                    },
                },
                Leads::Interface(rtype) | Leads::Reflected(rtype, false) => {
                    let rank = self.dump.rank_of_type(rtype);
                    let (to, more) = self.interface(if rank == 0 { 0 } else { rtype }, unknown);
                    steps.extend(more);
                    (rank, to, 1)
                }
            };
            let key = (g, bucket, word.place, rank);
            edges.push(Edge { key, order: (i, e, word.repeat), addr, to, count, steps });
        }
    }

    /// The descriptor that a word before a pointer names, if that makes the two an interface; else 0.
    fn type_word(&self, word: u64) -> u64 {
        if word == 0 || self.dump.rank_of_type(word) != 0 {
            return word;
        }
        let is_static = |m: &goref_fast::model::modules::Module| {
            let low = m.text.start.0.min(m.types.start.0);
            let high = m.types.end().0.max(m.data.end().0).max(m.bss.end().0);
            word >= low && word < high && word.is_multiple_of(8)
        };
        if !self.dump.modules.list.iter().any(is_static) {
            return 0;
        }
        let rtype = self.dump.itab_type(word);
        if self.dump.rank_of_type(rtype) == 0 { 0 } else { rtype }
    }

    /// What an interface's data word leads to, and frames that belong to it.
    fn interface(&mut self, rtype: u64, unknown: What) -> (What, Vec<Step>) {
        let Some(ty) = Some(rtype).filter(|r| *r != 0).and_then(|rtype| self.dump.type_of(rtype)) else {
            return (unknown, vec![]);
        };
        let descriptor = goref_fast::address::Addr(rtype);
        match self.dump.descriptors.is_direct_iface(self.dump.image(), descriptor) {
            Some(false) => (What::Value(ty), vec![]),
            // The word is the value: of a pointer, or of a struct or array of one.
            Some(true) => match self.shape(&What::Value(ty)).first() {
                Some(Word { offset: 0, leads: Leads::To(to, _), steps, .. }) => (to.clone(), steps.clone()),
                _ => (unknown, vec![]),
            },
            None => (unknown, vec![]),
        }
    }
}

/// What an edge got.
struct Claim {
    counts: bool,
    item: Option<(Own, Item)>,
}

/// One object and one edge.
impl Walker<'_, '_, '_> {
    fn claim(&mut self, object: Object, edge: &Edge) -> Option<Claim> {
        let memory = self.dump.memory();
        let size = memory.size(object);
        let room = memory.end(object).saturating_sub(edge.addr).checked_div(size_of(&self.dump.types, &edge.to));
        let count = edge.count.min(room.unwrap_or(u64::MAX).max(1));
        let item = Item { pooled: false, at: edge.addr, count, only: !0, tail: false };
        let unrecorded = memory.heap.mask_source(SpanId(object.span)) == MaskSource::Arena;
        let told_later = matches!(edge.to, What::Func | What::TrieNode(_));
        if !self.reached.insert(object) {
            let open = self.open.get_mut(&object)?;
            if told_later || matches!(edge.to, What::Untyped | What::Masked) {
                return None;
            }
            if unrecorded {
                return self.unrecorded(object, edge, item, false);
            }
            let open_words = open.words;
            let words = open_words & self.explained(object, &edge.to, &item);
            self.open.get_mut(&object)?.words &= !words;
            let only = words >> ((edge.addr - object.addr) / 8);
            return (words != 0).then_some(Claim { counts: false, item: Some((Own::Nothing, Item { only, ..item })) });
        }
        let nothing = Some(Claim { counts: true, item: None });
        if memory.noscan(object) {
            return nothing;
        }
        let source = memory.heap.mask_source(SpanId(object.span));
        let item = match source {
            MaskSource::Noscan => return nothing,
            MaskSource::Arena => return self.unrecorded(object, edge, item, true),
            MaskSource::InSpan { .. } => match edge.to {
                // Its code is looked at before the next level.
                What::Func => (Own::Nothing, Item { count: 1, ..item }),
                What::TrieNode(_) => (Own::Trie(if memory.word(edge.addr) & 0xff != 0 { 1 } else { 2 }), item),
                What::Masked => (Own::Nothing, Item { at: object.addr, count: 1, ..item }),
                What::Value(ty) => match self.whole_timer(ty, edge.addr - object.addr, size) {
                    Some(whole) => (Own::Whole(whole), Item { at: object.addr, count: 1, ..item }),
                    None => (Own::Nothing, item),
                },
                _ => (Own::Nothing, item),
            },
            MaskSource::Header if edge.to == What::Func => {
                let at = object.addr + 8;
                (Own::Closure(memory.word(at), size - 8), Item { at, count: 1, ..item })
            }
            MaskSource::Header | MaskSource::Large { .. } => {
                let header = source == MaskSource::Header;
                let at = if header { object.addr + 8 } else { object.addr };
                let rtype = memory.heap.recorded_type(memory.image, SpanId(object.span), object.slot);
                let Some(rtype) = rtype else { return nothing };
                let Some(mask) = memory.masks.get(memory.image, rtype).filter(|m| m.ptr_words > 0) else {
                    return nothing;
                };
                let count = ((memory.end(object) - at) / mask.size).max(1);
                (Own::Header(rtype), Item { at, count, ..item })
            }
        };
        Some(Claim { counts: true, item: Some(item) })
    }

    /// What `time.NewTimer` made, if the timer in it is at `offset` of an object of `size` bytes.
    fn whole_timer(&self, ty: TypeId, offset: u64, size: u64) -> Option<TypeId> {
        let types = &self.dump.types;
        if &*types.get(ty).name != "runtime.timer" {
            return None;
        }
        // Before Go 1.23 package time allocates the timer, with a struct of its own for what the runtime has of it.
        let Some(whole) = types.find("runtime.timeTimer") else {
            let whole = types.find("time.Timer")?;
            let (at, own) = types.field_path(whole, "r")?;
            let alike = types.get(own).size == types.get(ty).size && at == offset && at > 0;
            return (alike && types.get(whole).size.next_multiple_of(16) == size).then_some(whole);
        };
        // Slots around this size are multiples of 16 bytes.
        let fits = types.get(whole).size.next_multiple_of(16) == size;
        (fits && offset > 0 && types.field_path(whole, "timer")? == (offset, ty)).then_some(whole)
    }

    /// An object over 512 bytes whose type nothing records: a value that fills it from its start is what it is. Others are read as far as
    /// they go, eight of them at most, and whatever is left over goes by the mask.
    fn unrecorded(&mut self, object: Object, edge: &Edge, item: Item, first: bool) -> Option<Claim> {
        let memory = self.dump.memory();
        let (offset, size) = (edge.addr - object.addr, memory.size(object));
        let total = size_of(&self.dump.types, &edge.to).saturating_mul(item.count);
        let large = memory.heap.spans()[object.span as usize].is_large();
        // Otherwise the allocator had chosen the next smaller size.
        let below = SIZES.iter().copied().take_while(|s| *s < size).last().unwrap_or(512);
        let filled = if large { total + 8 > memory.end(object).saturating_sub(edge.addr) } else { total > below };
        let masked = edge.to == What::Masked;
        let whole = masked || offset == 0 && (filled || edge.to == What::Func);
        match self.open.get_mut(&object) {
            Some(open) if open.words == 0 => return None,
            Some(open) if whole => open.words = 0,
            Some(open) if open.words > 1 => open.words -= 1,
            Some(_) => return None,
            None if whole => {}
            None => {
                self.open.insert(object, Open { words: 8, path: usize::MAX });
            }
        }
        let item = match &edge.to {
            What::Func if offset == 0 => Some((Own::Closure(memory.word(edge.addr), size), item)),
            What::Masked => Some((Own::Unrecorded, Item { at: object.addr, count: 1, ..item })),
            What::Func | What::TrieNode(_) | What::Untyped => None,
            _ => Some((Own::Unrecorded, item)),
        };
        Some(Claim { counts: first, item })
    }

    /// The words of an object of at most 512 bytes that a value in it explains.
    fn explained(&mut self, object: Object, what: &What, item: &Item) -> u64 {
        let size = size_of(&self.dump.types, what);
        let end = self.dump.memory().size(object);
        let mut words = 0;
        let shape = self.shape(what);
        if item.count == 0 || end > 512 {
            return if end > 512 { !0 } else { 0 };
        }
        let count = if size < 8 { 1 } else { item.count.min(64) };
        for e in 0..count {
            for word in shape.iter() {
                let at = item.at - object.addr + e * size + word.offset;
                if at < end {
                    words |= 1 << (at / 8);
                }
            }
        }
        let is_pointer: u64 = self
            .dump
            .memory()
            .pointer_words(object)
            .into_iter()
            .map(|at| 1 << ((at - object.addr) / 8))
            .fold(0, |a, b| a | b);
        words & is_pointer
    }

    /// Notes the words of a new object that its type leaves.
    fn open_rest(&mut self, object: Object, what: &What, item: &Item, path: usize) {
        let memory = self.dump.memory();
        if memory.size(object) > 512 || *what == What::Masked {
            return;
        }
        let all = memory.pointer_words(object).into_iter().map(|at| 1u64 << ((at - object.addr) / 8));
        let all = all.fold(0, |a, b| a | b);
        let words = all & !self.explained(object, what, item);
        if words != 0 {
            self.open.insert(object, Open { words, path });
        }
    }

    /// What the object is, after a look at it. The flag says that its mask may say more than its type.
    fn retype(&mut self, own: &Own, edge: &Edge, path: &mut usize) -> (What, bool) {
        match own {
            Own::Nothing => (edge.to.clone(), false),
            Own::Unrecorded => (edge.to.clone(), true),
            Own::Whole(whole) => (What::TimeTimer(*whole), false),
            Own::Closure(pc, room) => match closure(self.dump, *pc, *room) {
                Some((name, what)) => {
                    *path = self.paths.child(*path, &(name, None));
                    (what, *room > 512)
                }
                None => (What::Untyped, true),
            },
            Own::Trie(kind) => {
                let What::TrieNode(node) = edge.to else { unreachable!("only trie nodes are asked") };
                let ty = match kind {
                    1 => library::trie_entry(&mut self.dump.types, node),
                    _ => library::trie_inner(&self.dump.types, node),
                };
                ty.map_or((What::Untyped, true), |ty| (What::Value(ty), false))
            }
            Own::Header(rtype) => {
                let Some(ty) = self.dump.type_of(*rtype) else {
                    // In no module: it stands in for a type with a GC program (Go 1.22 and 1.23), and the edge knows which.
                    let known =
                        matches!(edge.to, What::Value(_) | What::Elements(_)) && self.dump.rank_of_type(*rtype) == 0;
                    return (if known { edge.to.clone() } else { What::Untyped }, true);
                };
                let t = self.dump.types.get(ty);
                let keep = match &edge.to {
                    // The descriptor of a map's memory says less than the map's own type.
                    What::MapGroups(_) => t.name.contains("map.group["),
                    What::MapBuckets(_) => t.name.contains("map.bucket["),
                    What::MapDirectory(_) | What::MapListed(_) => matches!(t.kind, Kind::Pointer(_)),
                    What::Elements(elem) if *elem == ty || self.dump.types.get(*elem).name == t.name => true,
                    // A shape stands for the types that it was compiled for.
                    What::Elements(known) | What::Value(known) => {
                        let known = self.dump.types.get(*known);
                        known.size == t.size && t.name.contains("go.shape.") && !known.name.contains("go.shape.")
                    }
                    _ => false,
                };
                let what = if keep { edge.to.clone() } else { What::Value(ty) };
                let mask = self.dump.masks.get(self.dump.image(), *rtype).expect("it was read before");
                let is_pointer = |w: &u64| mask.bits[(w / 64) as usize] >> (w % 64) & 1 != 0;
                let by_mask: BTreeSet<u64> = (0..mask.ptr_words).filter(is_pointer).collect();
                let by_type: BTreeSet<u64> = self.shape(&what).iter().map(|w| w.offset / 8).collect();
                let checked = size_of(&self.dump.types, &what) != mask.size || by_mask != by_type;
                (what, checked)
            }
        }
    }

    /// Notes where an object's memory says something else than the edge to it.
    fn check_type(&mut self, object: Object, own: &Own, edge: &Edge, what: &What, item: &Item) {
        let types = &self.dump.types;
        // `go.shape.*uint8` stands for all pointers.
        let shaped = edge.steps.last().is_some_and(|step| step.0.contains("go.shape."));
        if let (Own::Header(_), What::Value(made) | What::Elements(made), false) = (own, what, shaped) {
            let offset = (edge.addr - item.at) % types.get(*made).size;
            if let What::Value(claimed) | What::Elements(claimed) = edge.to
                && !holds(types, *made, offset, claimed)
            {
                let (claimed, made) = (&types.get(claimed).name, &types.get(*made).name);
                self.contradictions.insert(format!("{made} was made; {claimed} is not at byte {offset} of it"));
            }
        }
        if self.dump.memory().size(object) <= 512 {
            self.check_words(object, what, item);
        }
    }

    /// Notes pointers of the type that are none to the collector, in an object of at most 512 bytes.
    fn check_words(&mut self, object: Object, what: &What, item: &Item) {
        let types = &self.dump.types;
        let pointers = self.dump.memory().pointer_words(object);
        let end = self.dump.memory().end(object);
        let size = size_of(types, what);
        let count = if size < 8 { 1 } else { item.count.min((end - item.at) / size) };
        for word in self.shape(what).iter().filter(|w| !w.not_in_heap) {
            for at in (0..count).map(|e| item.at + e * size + word.offset) {
                if at < end && !pointers.contains(&at) {
                    let frames: Vec<_> = word.steps.iter().map(|s| &*s.0).collect();
                    self.contradictions
                        .insert(format!("not a pointer to the collector: {what:?} {}", frames.join(" ")));
                }
            }
        }
    }

    /// Copies a value out of data or bss if it has a pointer word that nobody claimed; those it has then.
    fn claim_static(&mut self, addr: u64, bytes: u64) -> bool {
        let inside = |s: &&mut Segment| s.range.start.0 <= addr && addr < s.range.end().0;
        let Some(segment) = self.segments.iter_mut().find(inside) else { return false };
        let offset = addr - segment.range.start.0;
        let words = offset / 8..(offset + bytes.min(segment.range.len - offset)) / 8;
        if !offset.is_multiple_of(8) || !words.clone().any(|w| segment.is_free(w as usize)) {
            return false;
        }
        for w in words {
            let word = self.dump.memory().word(segment.range.start.0 + w * 8);
            self.pool.push((word, segment.take(w as usize)));
        }
        true
    }

    /// Starts over from what types left open, by masks.
    fn leftover(&mut self, next: &mut Level) {
        let open = std::mem::take(&mut self.open);
        let memory = self.dump.memory();
        let large = |object: &Object| memory.size(*object) > 512;
        let mut open: Vec<_> = open.into_iter().map(|(object, o)| (o.path, large(&object), object, o.words)).collect();
        open.sort();
        for (path, checked, object, only) in open.into_iter().filter(|o| o.3 != 0) {
            let at = |i: u64| memory.word(object.addr + i * 8);
            if checked || (0..64).any(|i| only >> i & 1 != 0 && memory.object_at(at(i)).is_some()) {
                self.unexplained.entry(object).or_insert(path);
            }
            let only = if checked { !0 } else { only };
            let group = Group { path, what: What::Masked, checked };
            next.push(group, Item { pooled: false, at: object.addr, count: 1, only, tail: false });
        }
        let mut loose = std::mem::take(&mut self.loose);
        loose.sort();
        for run in loose.chunk_by(|a, b| a.0 == b.0) {
            let at = self.pool.len() as u64;
            for (_, _, value) in run {
                self.pool.extend([(0, false), (*value, true)]);
            }
            let group = Group { path: run[0].0, what: What::Masked, checked: false };
            next.push(group, Item { pooled: true, at, count: run.len() as u64 * 2, only: !0, tail: false });
        }
    }
}
