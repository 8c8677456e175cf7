//! Flattens a type into the operations of its scan program: fields and arrays by value become labels, words that lead on become edges.
//!
//! Library types whose static type hides what they hold are recognised here.

use super::labels::Labels;
use super::scan::{Edge, Guard, INDEXED, MAX_OPS, Op, ProgramKey, Step, index_steps};
use crate::model::types::{Field, Kind, TypeId, TypeTable};
use rustc_hash::FxHashMap;

/// Nesting of structs and arrays by value; deeper types only exist in forged input.
const MAX_DEPTH: u32 = 100;
/// Values visited while one program is compiled; each leads to an operation unless the type is forged.
const MAX_VALUES: usize = 1 << 17;

/// Types by whether their values may hold pointers. A memo, since forged types may nest exponentially often.
pub(super) type Pointery = FxHashMap<TypeId, bool>;

/// A flattening in progress.
pub(super) struct Flatten<'a> {
    pub(super) types: &'a TypeTable,
    pub(super) labels: &'a mut Labels,
    pub(super) pointery: &'a mut Pointery,
    pub(super) ops: Vec<Op>,
    pub(super) chain: Vec<Step>,
    pub(super) reps: Vec<(u64, u64)>,
    pub(super) guard: Option<Guard>,
    /// Values visited, against [`MAX_VALUES`].
    pub(super) values: usize,
}

impl Flatten<'_> {
    pub(super) fn push(&mut self, offset: u64, edge: Edge, target: ProgramKey, storage: bool) {
        if self.ops.len() >= MAX_OPS || !offset.is_multiple_of(8) {
            return;
        }
        let (chain, reps) = (self.chain.clone().into(), self.reps.clone().into());
        self.ops.push(Op { offset, edge, target, chain, reps, guard: self.guard, storage });
    }

    /// The operations of a value of type `ty` at `offset`.
    pub(super) fn value(&mut self, ty: TypeId, offset: u64, depth: u32) {
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
                } else if let Some(value) = sync_map_entry(types, &t.name, fields) {
                    self.step(&fields[0].name, value);
                    self.push(offset.saturating_add(fields[0].offset), Edge::Pointer, ProgramKey::Value(value), false);
                    self.chain.pop();
                } else if &*t.name == "sync.Pool" {
                    self.sync_pool(fields, offset, depth);
                } else {
                    for field in fields {
                        let special = match &*field.name {
                            "ptr" => reflected(&t.name, fields),
                            name => leads_to_runtime(&t.name, name).then_some(Edge::Later),
                        };
                        match special {
                            Some(edge) => {
                                self.step(&field.name, field.ty);
                                self.push(offset.saturating_add(field.offset), edge, ProgramKey::Untyped, false);
                                self.chain.pop();
                            }
                            None => self.field(field, offset, depth),
                        }
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
    pub(super) fn capture(&mut self, capture: &Field) {
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
    pub(super) fn chan(&mut self, ty: TypeId) -> (u64, String) {
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

    /// `runtime.timeTimer` (`time.Timer` before Go 1.23) by the timer in it, whose fields keep the names that they have without what surrounds
    /// them.
    pub(super) fn time_timer(&mut self, ty: TypeId) -> (u64, String) {
        let t = self.types.get(ty);
        if let Kind::Struct(fields) = &t.kind {
            for field in fields {
                match (&*field.name, self.types.find("chan time.Time")) {
                    ("timer" | "r", _) => self.value(field.ty, field.offset, 0),
                    // Declared as an `unsafe.Pointer`.
                    ("c", Some(times)) if matches!(self.types.get(times).kind, Kind::Chan { header: Some(_), .. }) => {
                        self.field(&Field { ty: times, ..field.clone() }, 0, 0);
                    }
                    _ => self.field(field, 0, 0),
                }
            }
        }
        (t.size, t.name.to_string())
    }

    /// `map<K,V>`: only `dirPtr` leads anywhere. `hash<K,V>`: two arrays of buckets while it grows, and what `mapextra` keeps alive.
    pub(super) fn map_header(&mut self, ty: TypeId) -> (u64, String) {
        let types = self.types;
        let t = types.get(ty);
        let Kind::Map { header: Some(header), .. } = t.kind else { return (0, t.name.to_string()) };
        let dir = types.field_path(header, "dirPtr");
        let len = types.field_path(header, "dirLen");
        if let (Some((dir, _)), Some((len, _))) = (dir, len) {
            let edge = Edge::MapDir { delta: distance(dir, len) };
            self.push(dir, edge, ProgramKey::MapDirectory(ty), true);
        }
        // An array of buckets has spare ones for overflow at its end: every bucket that fits is looked at.
        for array in ["buckets", "oldbuckets"] {
            if let Some((at, _)) = types.field_path(header, array) {
                self.push(at, Edge::Whole, ProgramKey::MapBuckets(ty), true);
            }
        }
        if let Some((at, _)) = types.field_path(header, "extra") {
            self.push(at, Edge::Pointer, ProgramKey::MapExtra(ty), true);
        }
        (types.get(header).size, t.name.to_string())
    }

    /// `mapextra`: overflow buckets without pointers are kept alive by lists here.
    pub(super) fn map_extra(&mut self, ty: TypeId) -> (u64, String) {
        let types = self.types;
        let name = types.get(ty).name.to_string();
        let Some(extra) = types.find("runtime.mapextra") else { return (0, name) };
        for list in ["overflow", "oldoverflow"] {
            if let Some((at, _)) = types.field_path(extra, list) {
                self.push(at, Edge::Pointer, ProgramKey::MapOverflow(ty), true);
            }
        }
        // Into the array of buckets, which is there already.
        if let Some((at, _)) = types.field_path(extra, "nextOverflow") {
            self.push(at, Edge::Pointer, ProgramKey::MapBuckets(ty), true);
        }
        (types.get(extra).size, name)
    }

    /// One bucket: eight bytes of hashes, keys, elements, the next bucket of its chain.
    pub(super) fn map_buckets(&mut self, ty: TypeId) -> (u64, String) {
        let types = self.types;
        let name = types.get(ty).name.to_string();
        let Kind::Map { key, elem, .. } = types.get(ty).kind else { return (0, name) };
        let Some(bucket) = map_bucket_type(types, ty) else { return (0, name) };
        self.guard = Some(Guard::TopHash);
        // Names as the linker gives them, and as the compiler does in descriptors.
        for (fields, label, ty) in [(["keys", "keys"], "$mapkey", key), (["values", "elems"], "$mapval", elem)] {
            let Some(f) = fields.iter().find_map(|field| types.field(bucket, field)) else { continue };
            let Kind::Array(cell, len) = types.get(f.ty).kind else { continue };
            self.reps.push((types.get(cell).size, len.min(8)));
            self.map_cell(label, ty, cell, f.offset);
            self.reps.pop();
        }
        self.guard = None;
        if let Some(overflow) = types.field(bucket, "overflow") {
            self.push(overflow.offset, Edge::Pointer, ProgramKey::MapBuckets(ty), true);
        }
        (types.get(bucket).size, name)
    }

    pub(super) fn map_table(&mut self, ty: TypeId) -> (u64, String) {
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
    pub(super) fn map_groups(&mut self, ty: TypeId) -> (u64, String) {
        let types = self.types;
        let name = types.get(ty).name.to_string();
        let Kind::Map { key, elem, .. } = types.get(ty).kind else { return (0, name) };
        let Some(group) = map_group_type(types, ty) else { return (0, name) };
        self.guard = Some(Guard::Control);
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
        self.guard = None;
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

/// The group of a swiss map, through `table<K,V>.groups`.
pub(super) fn map_group_type(types: &TypeTable, map: TypeId) -> Option<TypeId> {
    let (_, data) = types.field_path(map_table_type(types, map)?, "groups.data")?;
    pointee(types, data)
}

/// `bucket<K,V>`, through `hash<K,V>.buckets`.
pub(super) fn map_bucket_type(types: &TypeTable, map: TypeId) -> Option<TypeId> {
    let Kind::Map { header: Some(header), .. } = types.get(map).kind else { return None };
    let (_, buckets) = types.field_path(header, "buckets")?;
    pointee(types, buckets)
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

/// Fields by which a program's own values hang on to the runtime's: a timer on its processor's timers, a channel or condition on the
/// goroutines that wait. Whatever they reach (processors, threads, all other timers, other goroutines) is nothing that the value's
/// owner holds, and has a root of the runtime's.
fn leads_to_runtime(ty: &str, field: &str) -> bool {
    match field {
        "ts" => ty == "runtime.timer",
        "first" | "last" => ty == "runtime.waitq" || ty.starts_with("waitq<"),
        "head" | "tail" => ty == "sync.notifyList" || ty == "runtime.notifyList",
        _ => false,
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
    let by_field = fields.iter().find_map(|f| match types.get(f.ty).kind {
        Kind::Array(ptr, 0) => pointee(types, ptr),
        _ => None,
    });
    // Before Go 1.20 only the name tells.
    let by_name = || types.find(name.split_once('[')?.1.strip_suffix(']')?);
    Some((word, by_field.or_else(by_name)?))
}

/// `sync.entry` of the classic `sync.Map`: its one field is an `unsafe.Pointer` to an `interface{}` up to Go 1.19. Returns that type.
fn sync_map_entry(types: &TypeTable, name: &str, fields: &[Field]) -> Option<TypeId> {
    let [Field { ty, .. }] = fields else { return None };
    let untyped = name == "sync.entry" && matches!(types.get(*ty).kind, Kind::UnsafePointer);
    untyped.then(|| types.find("interface {}")).flatten()
}

/// How the `ptr` of a `reflect.Value` leads on.
fn reflected(name: &str, fields: &[Field]) -> Option<Edge> {
    let named = |name: &str| fields.iter().find(|f| &*f.name == name).map(|f| f.offset);
    if name != "reflect.Value" {
        return None;
    }
    let (ptr, ty, flag) = (named("ptr")?, named("typ_").or_else(|| named("typ"))?, named("flag")?);
    Some(Edge::Reflected { ty: distance(ptr, ty), flag: distance(ptr, flag) })
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
