//! Scan programs: a type compiled once to a flat list of operations, so that the loop sees no DIE, no string and no recursion.
//!
//! An operation is one word of a value that names an edge: its offset, what kind of edge it is, the chain of labels that leads
//! to it inside the value, and what lies behind it. Structs and arrays by value are flattened: a struct field adds `field. (type)`,
//! an array element `[0]. (type)` .. `[9]. (type)`, the others share `[10+]. (type)` and become one repeated operation.
//!
//! Library types whose static type hides what they hold (maps, channels, `sync.Pool`, `atomic.Pointer`, `reflect.Value`, timers, trie nodes) are
//! recognised by name and fields, once per type, where types are flattened (`flatten.rs`). To add one, give its word an [`Edge`] there and,
//! if the target needs a layout of its own, a [`ProgramKey`].

use super::flatten::{Flatten, Pointery};
use super::labels::{LabelId, Labels};
use crate::model::heap::masks::fill;
use crate::model::types::{Field, TypeId, TypeTable};
use rustc_hash::FxHashMap;

/// Elements with a label of their own; the rest share the bucket `[10+]`.
pub const INDEXED: u64 = 10;
/// Operations of one program; words beyond are left to the mask. The largest struct of the Go standard library needs under 400.
pub(super) const MAX_OPS: usize = 1 << 14;
/// Words of one element for which the explained words are recorded (32 MB of element).
const MAX_TYPED_WORDS: u64 = 1 << 22;

/// Index of a [`Program`].
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProgramId(pub u32);

/// What an item is, before compilation.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum ProgramKey {
    /// One value (or several, unlabelled: an object tiled by its allocation type).
    Value(TypeId),
    /// A run of elements, labelled by index: array, slice or channel buffer.
    Elems(TypeId),
    /// A func value's object: its code pointer says which [`ProgramKey::Closure`] it is (`closures.rs`, `ask.rs`).
    Funcval,
    /// The captured variables of a closure (index into the resolver's closures).
    Closure(u32),
    /// The header of a channel of this type (a `Kind::Chan`).
    Chan(TypeId),
    /// Header of a map of this type (a `Kind::Map`), swiss or classic.
    MapHeader(TypeId),
    /// Directory of a swiss map.
    MapDirectory(TypeId),
    /// Table of a swiss map.
    MapTable(TypeId),
    /// Run of groups of a swiss map.
    MapGroups(TypeId),
    /// Run of buckets of a classic map.
    MapBuckets(TypeId),
    /// `mapextra` of a classic map.
    MapExtra(TypeId),
    /// A slice of pointers to overflow buckets, and the run of pointers behind it.
    MapOverflow(TypeId),
    /// See [`ProgramKey::MapOverflow`].
    MapOverflowList(TypeId),
    /// A `node` of a hash trie (static type): entry or inner node, told apart by its first byte.
    TrieNode(TypeId),
    /// A `runtime.timeTimer` (static type) that was reached by the timer in it.
    TimeTimer(TypeId),
    /// Known to hold no pointers, as bytes of a string.
    Bytes,
    /// A pointer's target of unknown type: explains nothing.
    Untyped,
    /// Every mask word is an edge to an untyped object, on the item's own path: roots without a type.
    Raw,
    /// Every mask word is an edge to a [`ProgramKey::Masked`] object, under `$sub_objects$`.
    Masked,
}

/// One label of a path with the type of the value that it names (for folding).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Step {
    /// The frame's text.
    pub label: LabelId,
    /// Type of the named value; `u32::MAX` where there is none.
    pub ty: TypeId,
}

/// The type of frames that name no value.
pub const NO_TYPE: TypeId = TypeId(u32::MAX);

/// How an operation's word leads on.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Edge {
    /// To one value of the target program.
    Pointer,
    /// To `capacity` elements; the capacity is two words on.
    Slice,
    /// To as many elements as another word of the value says: that word's offset from this one, in bytes.
    Counted {
        /// Byte distance to the word with the count.
        delta: i32,
        /// The word holds the count minus one.
        minus_one: bool,
    },
    /// To as many elements as fit the object.
    Whole,
    /// `dirPtr` of a map header: one group if the directory length (at this distance) is 0, else the directory.
    MapDir {
        /// Byte distance to the directory length.
        delta: i32,
    },
    /// Data word of an `interface{}`; the type word lies before it.
    Eface,
    /// Data word of an interface with methods; the itab lies before it.
    Iface,
    /// `ptr` of a `reflect.Value`: as an interface's data word, unless the value's flags say that it is a pointer to the value.
    Reflected {
        /// Byte distance to the type word.
        ty: i32,
        /// Byte distance to the flags.
        flag: i32,
    },
    /// Into the runtime's own structures, which have names of their own: followed when those are exhausted.
    Later,
}

/// In `reflect.Value.flag`: the pointer leads to the value, even if that is a pointer itself (`reflect.flagIndir`).
pub(super) const FLAG_INDIR: u64 = 1 << 7;
/// Added to the dynamic type number of an [`Edge::Reflected`] that leads to the value. Descriptors take less than 16 GiB.
pub(super) const INDIRECT: u32 = 1 << 31;

/// How eight bytes before the slots of a map say which slots are full.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Guard {
    /// The top bit of a group's control byte is clear.
    Control,
    /// The `tophash` byte of a bucket is at least `minTopHash`: it is neither empty nor evacuated.
    TopHash,
}

/// One operation. See the module text.
#[derive(Clone, Debug)]
pub struct Op {
    /// Byte offset of the pointer word in the element.
    pub offset: u64,
    /// Kind of edge.
    pub edge: Edge,
    /// What lies behind (for interfaces: unused).
    pub target: ProgramKey,
    /// Labels from the element to this word, empty for a bare pointer.
    pub chain: Box<[Step]>,
    /// Repetitions, outermost first: (stride in bytes, count).
    pub reps: Box<[(u64, u64)]>,
    /// The first repetition counts the slots of a map group or bucket, and is taken only where the slot's own byte says full.
    pub guard: Option<Guard>,
    /// The target belongs to the value itself (a map's or channel's storage): claimed within the level, on the same path.
    pub storage: bool,
}

/// A compiled type.
#[derive(Clone, Debug)]
pub struct Program {
    /// What it was compiled from.
    pub key: ProgramKey,
    /// Size of one element in bytes; 0 if unknown.
    pub size: u64,
    /// Items are runs of labelled elements.
    pub indexed: bool,
    /// The type to report for objects claimed as this.
    pub type_name: LabelId,
    /// Operations in canonical order.
    pub ops: Vec<Op>,
    /// Compiled targets of `ops`, filled by [`Programs::link`].
    pub targets: Vec<ProgramId>,
    /// Bit per word of one element that an operation explains.
    pub typed: Vec<u64>,
    /// `[i]. (type)` labels of the elements, if `indexed`: one per bucket, `INDEXED + 1` in all.
    pub index_steps: Vec<Step>,
    /// Some operation is a storage edge.
    pub has_storage: bool,
    /// Some operation is not a storage edge.
    pub has_edges: bool,
    /// [`Program::targets`] are there.
    pub linked: bool,
}

impl Program {
    /// Explained words of `count` tiled elements from word 0, for values within the first 64 words.
    #[must_use]
    pub fn typed_tile(&self, count: u64) -> u64 {
        let first = self.typed.first().copied().unwrap_or(0);
        let words = self.size / 8;
        if count <= 1 || words >= 64 || words == 0 || first == 0 {
            return first;
        }
        let mut tile = 0u64;
        let mut at = 0u64;
        for _ in 0..count.min(64) {
            if at >= 64 {
                break;
            }
            tile |= first << at;
            at += words;
        }
        tile
    }

    /// Number of edge ordinals: one per operation and element bucket.
    #[must_use]
    pub fn ordinals(&self) -> u64 {
        let per = match self.key {
            ProgramKey::Raw | ProgramKey::Masked => 1,
            _ => self.ops.len() as u64,
        };
        if self.indexed { per * (INDEXED + 1) } else { per }
    }

    /// Whether words are edges because of the mask alone.
    #[must_use]
    pub fn is_masked(&self) -> bool {
        matches!(self.key, ProgramKey::Raw | ProgramKey::Masked)
    }
}

/// The captured variables of one closure, as the resolver found them.
#[derive(Clone, Debug)]
pub struct Closure {
    /// The function's name: a frame of its own.
    pub function: LabelId,
    /// Captured variables: name, offset, type.
    pub captures: Vec<Field>,
}

/// All programs, their labels and the closures known so far.
#[derive(Debug)]
pub struct Programs {
    programs: Vec<Program>,
    by_key: FxHashMap<ProgramKey, ProgramId>,
    /// Label texts.
    pub labels: Labels,
    /// Closures by the index in [`ProgramKey::Closure`].
    pub closures: Vec<Closure>,
    /// With no types, every value is untyped (`--no-types`).
    typed: bool,
    pointery: Pointery,
}

impl Programs {
    /// No programs yet.
    #[must_use]
    pub fn new(typed: bool) -> Self {
        Self {
            programs: Vec::new(),
            by_key: FxHashMap::default(),
            labels: Labels::default(),
            closures: Vec::new(),
            typed,
            pointery: Pointery::default(),
        }
    }

    /// Whether types are used at all.
    #[must_use]
    pub fn typed(&self) -> bool {
        self.typed
    }

    /// The program `id`.
    #[inline]
    #[must_use]
    pub fn get(&self, id: ProgramId) -> &Program {
        &self.programs[id.0 as usize]
    }

    /// All programs, by id.
    #[must_use]
    pub fn all(&self) -> &[Program] {
        &self.programs
    }

    /// The program for `key`, compiled at first use.
    pub fn compile(&mut self, types: &TypeTable, key: ProgramKey) -> ProgramId {
        if let Some(id) = self.by_key.get(&key) {
            return *id;
        }
        let program = self.build(types, key);
        let id = ProgramId(u32::try_from(self.programs.len()).expect("fewer than 2^32 programs"));
        self.programs.push(program);
        self.by_key.insert(key, id);
        id
    }

    /// Compiles the direct targets of `id`, once.
    pub fn link(&mut self, types: &TypeTable, id: ProgramId) {
        if self.get(id).linked {
            return;
        }
        let keys: Vec<_> = self.get(id).ops.iter().map(|op| op.target).collect();
        let targets = keys.into_iter().map(|key| self.compile(types, key)).collect();
        let program = &mut self.programs[id.0 as usize];
        program.targets = targets;
        program.linked = true;
    }

    fn build(&mut self, types: &TypeTable, key: ProgramKey) -> Program {
        let key = if self.typed { key } else { untyped(key) };
        let closure = match key {
            ProgramKey::Closure(i) => self.closures.get(i as usize).cloned(),
            _ => None,
        };
        let mut flat = Flatten {
            types,
            labels: &mut self.labels,
            pointery: &mut self.pointery,
            ops: Vec::new(),
            chain: Vec::new(),
            reps: Vec::new(),
            guard: None,
            values: 0,
        };
        let (size, name): (u64, String) = match key {
            ProgramKey::Value(ty) | ProgramKey::Elems(ty) | ProgramKey::TrieNode(ty) => {
                flat.value(ty, 0, 0);
                let t = types.get(ty);
                let name =
                    if matches!(key, ProgramKey::Elems(_)) { format!("[]{}", t.name) } else { t.name.to_string() };
                (t.size, name)
            }
            ProgramKey::Closure(_) => {
                let Some(closure) = closure else { unreachable!("closures are registered before they are compiled") };
                let mut size = 8;
                for capture in &closure.captures {
                    flat.capture(capture);
                    size = size.max(capture.offset.saturating_add(types.get(capture.ty).size));
                }
                (size.next_multiple_of(8), format!("func {}", flat.labels.text(closure.function)))
            }
            ProgramKey::Chan(ty) => flat.chan(ty),
            ProgramKey::TimeTimer(ty) => flat.time_timer(ty),
            ProgramKey::MapHeader(ty) => flat.map_header(ty),
            ProgramKey::MapDirectory(ty) => {
                flat.push(0, Edge::Pointer, ProgramKey::MapTable(ty), true);
                (8, types.get(ty).name.to_string())
            }
            ProgramKey::MapTable(ty) => flat.map_table(ty),
            ProgramKey::MapGroups(ty) => flat.map_groups(ty),
            ProgramKey::MapBuckets(ty) => flat.map_buckets(ty),
            ProgramKey::MapExtra(ty) => flat.map_extra(ty),
            ProgramKey::MapOverflow(ty) => {
                flat.push(0, Edge::Slice, ProgramKey::MapOverflowList(ty), true);
                (24, types.get(ty).name.to_string())
            }
            ProgramKey::MapOverflowList(ty) => {
                flat.push(0, Edge::Pointer, ProgramKey::MapBuckets(ty), true);
                (8, types.get(ty).name.to_string())
            }
            ProgramKey::Funcval => (8, "func".into()),
            ProgramKey::Bytes => (1, "string".into()),
            ProgramKey::Untyped | ProgramKey::Masked | ProgramKey::Raw => (0, "(untyped)".into()),
        };
        let ops = flat.ops;
        let typed = typed_words(&ops, size);
        let (indexed, index_steps) = match key {
            ProgramKey::Elems(ty) => (true, index_steps(types, &mut self.labels, ty)),
            _ => (false, Vec::new()),
        };
        Program {
            key,
            size,
            indexed,
            type_name: self.labels.intern(&name),
            has_storage: ops.iter().any(|op| op.storage),
            has_edges: ops.iter().any(|op| !op.storage)
                // A closure was claimed before its captures were known: scanning finds the words that they do not explain.
                || matches!(key, ProgramKey::Raw | ProgramKey::Masked | ProgramKey::Closure(_)),
            ops,
            targets: Vec::new(),
            typed,
            index_steps,
            linked: false,
        }
    }
}

/// What is left of a key when types are not to be used.
fn untyped(key: ProgramKey) -> ProgramKey {
    match key {
        ProgramKey::Raw | ProgramKey::Masked | ProgramKey::Bytes => key,
        _ => ProgramKey::Untyped,
    }
}

/// `[0]. (T)` .. `[9]. (T)`, `[10+]. (T)`.
pub(super) fn index_steps(types: &TypeTable, labels: &mut Labels, elem: TypeId) -> Vec<Step> {
    let name = &types.get(elem).name;
    let mut steps: Vec<_> =
        (0..INDEXED).map(|i| Step { label: labels.intern(&format!("[{i}]. ({name})")), ty: elem }).collect();
    steps.push(Step { label: labels.intern(&format!("[{INDEXED}+]. ({name})")), ty: elem });
    steps
}

impl Program {
    /// Whether the type has an edge from word `i` of the first element; words that are too far out for the table count as explained.
    pub(super) fn explains(&self, i: u64) -> bool {
        i >= MAX_TYPED_WORDS || self.typed.get((i / 64) as usize).is_some_and(|bits| bits >> (i % 64) & 1 != 0)
    }
}

/// Bit per word of an element of `size` bytes that some operation reads as its pointer.
fn typed_words(ops: &[Op], size: u64) -> Vec<u64> {
    let words = (size / 8).min(MAX_TYPED_WORDS);
    let mut typed = vec![0u64; usize::try_from(words.div_ceil(64)).unwrap_or(0)];
    for op in ops {
        // Long arrays of pointers (`runtime.mheap.arenas` has four million) word by word would take longer than a small heap.
        if let [(8, count)] = *op.reps {
            let first = (op.offset / 8).min(words);
            fill(&mut typed, first, first.saturating_add(count).min(words));
            continue;
        }
        for_each_rep(&op.reps, op.offset, &mut |offset, _| {
            let word = offset / 8;
            if word < words {
                typed[(word / 64) as usize] |= 1 << (word % 64);
            }
            word < words
        });
    }
    typed
}

/// Calls `f(offset, outermost index)` for each repetition; `f` returns false to stop early.
#[inline]
pub fn for_each_rep(reps: &[(u64, u64)], offset: u64, f: &mut impl FnMut(u64, u64) -> bool) {
    fn inner(reps: &[(u64, u64)], offset: u64, outer: Option<u64>, f: &mut impl FnMut(u64, u64) -> bool) -> bool {
        let Some(((stride, count), rest)) = reps.split_first() else { return f(offset, outer.unwrap_or(0)) };
        (0..*count).all(|i| {
            let Some(at) = i.checked_mul(*stride).and_then(|d| offset.checked_add(d)) else { return false };
            inner(rest, at, outer.or(Some(i)), f)
        })
    }
    match reps {
        // Slots of a map's group, elements of a plain array: nearly all there are.
        [(stride, count)] => {
            let mut at = Some(offset);
            for i in 0..*count {
                let Some(offset) = at else { return };
                if !f(offset, i) {
                    return;
                }
                at = offset.checked_add(*stride);
            }
        }
        _ => {
            inner(reps, offset, None, f);
        }
    }
}
