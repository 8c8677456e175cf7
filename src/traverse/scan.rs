//! Scan programs: a type compiled once to a flat list of operations, so that the loop sees no DIE, no string and no recursion.
//!
//! An operation is one word of a value that names an edge: its offset, what kind of edge it is, the chain of labels that leads
//! to it inside the value, and what lies behind it. Structs and arrays by value are flattened: a struct field adds `field. (type)`,
//! an array element `[0]. (type)` .. `[9]. (type)`, the others share `[10+]. (type)` and become one repeated operation.
//!
//! Library types whose static type hides what they hold (maps, channels, `sync.Pool`, `atomic.Pointer`, timers, trie nodes) are
//! recognised here, by name and fields, once per type: see [`Programs::compile`]. To add one, give its word an [`Edge`] and,
//! if the target needs a layout of its own, a [`ProgramKey`].

use super::labels::{LabelId, Labels};
use crate::model::heap::masks::fill;
use crate::model::types::{Field, Kind, TypeId, TypeTable};
use rustc_hash::FxHashMap;

/// Elements with a label of their own; the rest share the bucket `[10+]`.
pub const INDEXED: u64 = 10;
/// Operations of one program; words beyond are left to the mask. The largest struct of the Go standard library needs under 400.
const MAX_OPS: usize = 1 << 14;
/// Nesting of structs and arrays by value; deeper types only exist in forged input.
const MAX_DEPTH: u32 = 100;
/// Values visited while one program is compiled; each leads to an operation unless the type is forged.
const MAX_VALUES: usize = 1 << 17;
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
    /// A func value's object: resolved to [`ProgramKey::Value`] of the closure's struct by its code pointer.
    Funcval,
    /// The captured variables of a closure (index into the resolver's closures).
    Closure(u32),
    /// The header of a channel of this type (a `Kind::Chan`).
    Chan(TypeId),
    /// Header, directory, table and run of groups of a swiss map of this type (a `Kind::Map`).
    MapHeader(TypeId),
    /// See [`ProgramKey::MapHeader`].
    MapDirectory(TypeId),
    /// See [`ProgramKey::MapHeader`].
    MapTable(TypeId),
    /// See [`ProgramKey::MapHeader`].
    MapGroups(TypeId),
    /// A `node` of a hash trie (static type): entry or inner node, told apart by its first byte.
    TrieNode(TypeId),
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
    /// `dirPtr` of a map header: one group if the directory length (at this distance) is 0, else the directory.
    MapDir {
        /// Byte distance to the directory length.
        delta: i32,
    },
    /// Data word of an `interface{}`; the type word lies before it.
    Eface,
    /// Data word of an interface with methods; the itab lies before it.
    Iface,
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
    /// The first repetition counts the slots of a map group, and is taken only where the slot's control byte says full.
    pub guarded: bool,
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
    /// The `size` bytes that a second program needs are not all the value may have (a `time.Timer` is the front of a larger one).
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

/// Types by whether their values may hold pointers. A memo, since forged types may nest exponentially often.
type Pointery = FxHashMap<TypeId, bool>;

/// A flattening in progress.
struct Flatten<'a> {
    types: &'a TypeTable,
    labels: &'a mut Labels,
    pointery: &'a mut Pointery,
    ops: Vec<Op>,
    chain: Vec<Step>,
    reps: Vec<(u64, u64)>,
    guarded: bool,
    /// Values visited, against [`MAX_VALUES`].
    values: usize,
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
            guarded: false,
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
            ProgramKey::MapHeader(ty) => flat.map_header(ty),
            ProgramKey::MapDirectory(ty) => {
                flat.push(0, Edge::Pointer, ProgramKey::MapTable(ty), true);
                (8, types.get(ty).name.to_string())
            }
            ProgramKey::MapTable(ty) => flat.map_table(ty),
            ProgramKey::MapGroups(ty) => flat.map_groups(ty),
            ProgramKey::Funcval => (8, "func".into()),
            ProgramKey::Bytes => (1, "string".into()),
            ProgramKey::Untyped | ProgramKey::Masked | ProgramKey::Raw => (0, "(untyped)".into()),
        };
        let mut ops = flat.ops;
        // Overlapping words exist only in forged types; the first operation of a word keeps it.
        ops.truncate(MAX_OPS);
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
fn index_steps(types: &TypeTable, labels: &mut Labels, elem: TypeId) -> Vec<Step> {
    let name = &types.get(elem).name;
    let mut steps: Vec<_> =
        (0..INDEXED).map(|i| Step { label: labels.intern(&format!("[{i}]. ({name})")), ty: elem }).collect();
    steps.push(Step { label: labels.intern(&format!("[{INDEXED}+]. ({name})")), ty: elem });
    steps
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
pub fn for_each_rep(reps: &[(u64, u64)], offset: u64, f: &mut impl FnMut(u64, u64) -> bool) {
    fn inner(reps: &[(u64, u64)], offset: u64, outer: Option<u64>, f: &mut impl FnMut(u64, u64) -> bool) -> bool {
        let Some(((stride, count), rest)) = reps.split_first() else { return f(offset, outer.unwrap_or(0)) };
        (0..*count).all(|i| {
            let Some(at) = i.checked_mul(*stride).and_then(|d| offset.checked_add(d)) else { return false };
            inner(rest, at, outer.or(Some(i)), f)
        })
    }
    inner(reps, offset, None, f);
}

impl Flatten<'_> {
    fn push(&mut self, offset: u64, edge: Edge, target: ProgramKey, storage: bool) {
        if self.ops.len() >= MAX_OPS || !offset.is_multiple_of(8) {
            return;
        }
        let (chain, reps) = (self.chain.clone().into(), self.reps.clone().into());
        self.ops.push(Op { offset, edge, target, chain, reps, guarded: self.guarded, storage });
    }

    /// The operations of a value of type `ty` at `offset`.
    fn value(&mut self, ty: TypeId, offset: u64, depth: u32) {
        let types = self.types;
        let t = types.get(ty);
        self.values += 1;
        if depth > MAX_DEPTH || self.ops.len() >= MAX_OPS || self.values > MAX_VALUES {
            return;
        }
        match &t.kind {
            Kind::Scalar | Kind::Opaque => {}
            Kind::Pointer(elem) => self.push(offset, Edge::Pointer, pointer_target(types, *elem), false),
            Kind::UnsafePointer => self.push(offset, Edge::Pointer, ProgramKey::Untyped, false),
            // A string's length is not needed: its bytes are one noscan object, counted whole.
            Kind::String => self.push(offset, Edge::Pointer, ProgramKey::Bytes, false),
            Kind::Slice(elem) => self.push(offset, Edge::Slice, ProgramKey::Elems(*elem), false),
            Kind::Eface => self.push(offset.saturating_add(8), Edge::Eface, ProgramKey::Untyped, false),
            Kind::Iface => self.push(offset.saturating_add(8), Edge::Iface, ProgramKey::Untyped, false),
            Kind::Func => self.push(offset, Edge::Pointer, ProgramKey::Funcval, false),
            Kind::Map { header, .. } => {
                let target = if header.is_some() { ProgramKey::MapHeader(ty) } else { ProgramKey::Untyped };
                self.push(offset, Edge::Pointer, target, false);
            }
            Kind::Chan { header, .. } => {
                let target = if header.is_some() { ProgramKey::Chan(ty) } else { ProgramKey::Untyped };
                self.push(offset, Edge::Pointer, target, false);
            }
            Kind::Array(elem, len) => self.array(*elem, *len, offset, depth),
            Kind::Struct(fields) => {
                if let Some((field, elem)) = atomic_pointer(types, &t.name, fields) {
                    self.step(&field.name, field.ty);
                    // Folding goes by what is pointed to: every `atomic.Pointer` has this label.
                    if let Some(step) = self.chain.last_mut() {
                        step.ty = elem;
                    }
                    self.push(offset.saturating_add(field.offset), Edge::Pointer, pointer_target(types, elem), false);
                    self.chain.pop();
                } else if &*t.name == "sync.Pool" {
                    self.sync_pool(fields, offset, depth);
                } else {
                    for field in fields {
                        self.field(field, offset, depth);
                    }
                }
            }
        }
    }

    fn step(&mut self, name: &str, ty: TypeId) {
        let label = self.labels.intern(&format!("{name}. ({})", self.types.get(ty).name));
        self.chain.push(Step { label, ty });
    }

    /// A captured variable. One captured by reference (`&x` of type `*T`) is named as the variable that it is: `x. (T)`.
    fn capture(&mut self, capture: &Field) {
        match (capture.name.strip_prefix('&'), pointee(self.types, capture.ty)) {
            (Some(name), Some(elem)) => {
                self.step(name, elem);
                self.push(capture.offset, Edge::Pointer, pointer_target(self.types, elem), false);
                self.chain.pop();
            }
            (name, _) => {
                let name = name.unwrap_or(&capture.name).into();
                self.field(&Field { name, ..*capture }, 0, 0);
            }
        }
    }

    fn field(&mut self, field: &Field, base: u64, depth: u32) {
        if !may_hold_pointers(self.types, self.pointery, field.ty, 0) {
            return;
        }
        self.step(&field.name, field.ty);
        self.value(field.ty, base.saturating_add(field.offset), depth + 1);
        self.chain.pop();
    }

    fn array(&mut self, elem: TypeId, len: u64, offset: u64, depth: u32) {
        let size = self.types.get(elem).size;
        if len == 0 || size == 0 || !may_hold_pointers(self.types, self.pointery, elem, 0) {
            return;
        }
        let steps = index_steps(self.types, self.labels, elem);
        for (i, step) in (0..len.min(INDEXED)).zip(&steps) {
            self.chain.push(*step);
            self.value(elem, offset.saturating_add(i.saturating_mul(size)), depth + 1);
            self.chain.pop();
        }
        if len > INDEXED {
            self.chain.push(steps[INDEXED as usize]);
            self.reps.push((size, len - INDEXED));
            self.value(elem, offset.saturating_add(INDEXED * size), depth + 1);
            self.reps.pop();
            self.chain.pop();
        }
    }

    /// `local` and `victim` point to as many per-P pools as the word behind them says.
    fn sync_pool(&mut self, fields: &[Field], offset: u64, depth: u32) {
        let locals = self.types.find("sync.poolLocal");
        for field in fields {
            match (&*field.name, locals) {
                ("local" | "victim", Some(local)) => {
                    self.step(&field.name, field.ty);
                    let edge = Edge::Counted { delta: 8, minus_one: false };
                    self.push(offset.saturating_add(field.offset), edge, ProgramKey::Elems(local), false);
                    self.chain.pop();
                }
                _ => self.field(field, offset, depth),
            }
        }
    }

    /// `hchan<T>`: the buffer is storage, waiting senders and receivers are fields like any other.
    fn chan(&mut self, ty: TypeId) -> (u64, String) {
        let types = self.types;
        let t = types.get(ty);
        let Kind::Chan { elem, header: Some(header) } = t.kind else { return (0, t.name.to_string()) };
        let size = types.get(header).size;
        let Kind::Struct(fields) = &types.get(header).kind else { return (size, t.name.to_string()) };
        let count = fields.iter().find(|f| &*f.name == "dataqsiz").map(|f| f.offset);
        for field in fields {
            match (&*field.name, count) {
                ("buf", Some(count)) => {
                    let edge = Edge::Counted { delta: distance(field.offset, count), minus_one: false };
                    self.push(field.offset, edge, ProgramKey::Elems(elem), true);
                }
                _ => self.field(field, 0, 0),
            }
        }
        (size, t.name.to_string())
    }

    /// `map<K,V>`: only `dirPtr` leads anywhere.
    fn map_header(&mut self, ty: TypeId) -> (u64, String) {
        let types = self.types;
        let t = types.get(ty);
        let Kind::Map { header: Some(header), .. } = t.kind else { return (0, t.name.to_string()) };
        let dir = types.field_path(header, "dirPtr");
        let len = types.field_path(header, "dirLen");
        if let (Some((dir, _)), Some((len, _))) = (dir, len) {
            let edge = Edge::MapDir { delta: distance(dir, len) };
            self.push(dir, edge, ProgramKey::MapDirectory(ty), true);
        }
        (types.get(header).size, t.name.to_string())
    }

    fn map_table(&mut self, ty: TypeId) -> (u64, String) {
        let types = self.types;
        let Some(table) = map_table_type(types, ty) else { return (0, types.get(ty).name.to_string()) };
        let data = types.field_path(table, "groups.data");
        let mask = types.field_path(table, "groups.lengthMask");
        if let (Some((data, _)), Some((mask, _))) = (data, mask) {
            let edge = Edge::Counted { delta: distance(data, mask), minus_one: true };
            self.push(data, edge, ProgramKey::MapGroups(ty), true);
        }
        (types.get(table).size, types.get(ty).name.to_string())
    }

    /// One group: eight control bytes, then slots `{key, elem}` or (split groups) keys and elems.
    fn map_groups(&mut self, ty: TypeId) -> (u64, String) {
        let types = self.types;
        let name = types.get(ty).name.to_string();
        let Kind::Map { key, elem, .. } = types.get(ty).kind else { return (0, name) };
        let Some(group) = map_table_type(types, ty)
            .and_then(|table| types.field_path(table, "groups.data"))
            .and_then(|(_, data)| pointee(types, data))
        else {
            return (0, name);
        };
        self.guarded = true;
        if let Some(slots) = types.field(group, "slots") {
            if let Kind::Array(slot, len) = types.get(slots.ty).kind {
                self.reps.push((types.get(slot).size, len.min(8)));
                for (field, label, ty) in [("key", "$mapkey", key), ("elem", "$mapval", elem)] {
                    if let Some(f) = types.field(slot, field) {
                        self.map_cell(label, ty, f.ty, slots.offset.saturating_add(f.offset));
                    }
                }
                self.reps.pop();
            }
        } else {
            for (field, label, ty) in [("keys", "$mapkey", key), ("elems", "$mapval", elem)] {
                let Some(f) = types.field(group, field) else { continue };
                let Kind::Array(cell, len) = types.get(f.ty).kind else { continue };
                self.reps.push((types.get(cell).size, len.min(8)));
                self.map_cell(label, ty, cell, f.offset);
                self.reps.pop();
            }
        }
        self.guarded = false;
        (types.get(group).size, name)
    }

    /// A key or element of type `ty`, stored as `cell`: itself, or a pointer to it if it is larger than 128 bytes.
    fn map_cell(&mut self, label: &str, ty: TypeId, cell: TypeId, offset: u64) {
        self.step(label, ty);
        if self.types.get(cell).size != self.types.get(ty).size && matches!(self.types.get(cell).kind, Kind::Pointer(_))
        {
            self.push(offset, Edge::Pointer, ProgramKey::Value(ty), false);
        } else {
            self.value(cell, offset, 0);
        }
        self.chain.pop();
    }
}

/// The signed distance between two offsets of one struct; out of range only for forged structs, which then read nothing useful.
fn distance(from: u64, to: u64) -> i32 {
    i32::try_from(to.wrapping_sub(from).cast_signed()).unwrap_or(i32::MAX - 7)
}

fn pointee(types: &TypeTable, ty: TypeId) -> Option<TypeId> {
    match types.get(ty).kind {
        Kind::Pointer(elem) => Some(elem),
        _ => None,
    }
}

/// `table<K,V>`, through `map<K,V>.dirPtr`.
fn map_table_type(types: &TypeTable, map: TypeId) -> Option<TypeId> {
    let Kind::Map { header: Some(header), .. } = types.get(map).kind else { return None };
    let (_, dir) = types.field_path(header, "dirPtr")?;
    pointee(types, pointee(types, dir)?)
}

/// What a pointer to `elem` leads to.
fn pointer_target(types: &TypeTable, elem: TypeId) -> ProgramKey {
    let t = types.get(elem);
    match (&*t.name, &t.kind) {
        // Only the front of the object is declared; the rest is the runtime's.
        ("time.Timer" | "time.Ticker", _) => {
            match types.find("time.runtimeTimer").or(types.find("runtime.timeTimer")) {
                Some(full) if types.get(full).size > t.size => ProgramKey::Value(full),
                _ => ProgramKey::Value(elem),
            }
        }
        // A name without fields for the runtime's own.
        ("iter.coro", _) => types.find("runtime.coro").map_or(ProgramKey::Untyped, ProgramKey::Value),
        (_, Kind::Opaque) => ProgramKey::Untyped,
        (name, Kind::Struct(_)) if is_trie_node(name) => ProgramKey::TrieNode(elem),
        _ => ProgramKey::Value(elem),
    }
}

/// `internal/sync.node[..]` and its kin: one byte that says which larger struct it starts.
fn is_trie_node(name: &str) -> bool {
    ["internal/sync.node[", "internal/concurrent.node[", "unique.node["].iter().any(|node| name.starts_with(node))
}

/// `sync/atomic.Pointer[T]`: the word is an `unsafe.Pointer`, T is known from the zero-length field.
fn atomic_pointer<'t>(types: &TypeTable, name: &str, fields: &'t [Field]) -> Option<(&'t Field, TypeId)> {
    if !name.starts_with("sync/atomic.Pointer[") && !name.starts_with("internal/runtime/atomic.Pointer[") {
        return None;
    }
    let word = fields.iter().find(|f| matches!(types.get(f.ty).kind, Kind::UnsafePointer))?;
    let elem = fields.iter().find_map(|f| match types.get(f.ty).kind {
        Kind::Array(ptr, 0) => pointee(types, ptr),
        _ => None,
    })?;
    Some((word, elem))
}

/// Whether a value may hold pointers: keeps labels of pointer-free fields out of the interner.
fn may_hold_pointers(types: &TypeTable, memo: &mut Pointery, ty: TypeId, depth: u32) -> bool {
    if let Some(known) = memo.get(&ty) {
        return *known;
    }
    if depth > MAX_DEPTH {
        return false;
    }
    let holds = match &types.get(ty).kind {
        Kind::Scalar | Kind::Opaque => false,
        Kind::Array(elem, len) => *len > 0 && may_hold_pointers(types, memo, *elem, depth + 1),
        Kind::Struct(fields) => fields.iter().any(|f| may_hold_pointers(types, memo, f.ty, depth + 1)),
        _ => true,
    };
    memo.insert(ty, holds);
    holds
}
