//! Values read by walking their types, one word at a time: every word that a type says is an edge, with the frames that name it.
//!
//! Nothing is compiled or flattened: a value is visited as a person would read it.

mod maps;

use super::dump::Dump;
use goref_fast::model::types::{Field, Kind, TypeId, TypeTable};
use goref_fast::traverse::library;
use maps::{bucket_type, group_type, table_type};
use std::collections::HashMap;

pub use maps::map_on_stack;

/// A frame: its text and the type of the value that it names (`None` where there is none).
pub type Step = (String, Option<TypeId>);

/// What memory is taken for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum What {
    Value(TypeId),
    /// Elements of an array, slice or channel buffer, each with its own frame.
    Elements(TypeId),
    /// A func value's object, to be told by its code.
    Func,
    /// The same, told by its code's entry and the room that it has: size and captured variables.
    Closure(u64, u64, u64, Vec<(String, u64, TypeId)>),
    Chan(TypeId),
    /// A `runtime.timeTimer` that was reached by the timer in it.
    TimeTimer(TypeId),
    MapHeader(TypeId),
    MapDirectory(TypeId),
    MapTable(TypeId),
    MapGroups(TypeId),
    /// Buckets of a classic map.
    MapBuckets(TypeId),
    /// `runtime.mapextra` of a classic map, its lists of buckets, and the pointers of such a list.
    MapExtra(TypeId),
    MapList(TypeId),
    MapListed(TypeId),
    /// A node of a hash trie, to be told by its first byte.
    TrieNode(TypeId),
    Bytes,
    /// A type that explains nothing.
    Untyped,
    /// Root words without a type.
    Raw,
    /// Followed by its mask alone, under `$sub_objects$`.
    Masked,
}

/// Where a word leads.
#[derive(Clone, Debug)]
pub enum Leads {
    To(What, u64),
    /// To the value of an interface: the address of the dynamic type's descriptor, 0 if unknown.
    Interface(u64),
    /// As an interface, but if the flag is set to the value itself, which may be a pointer.
    Reflected(u64, bool),
    /// To the runtime's own structures.
    Later,
    /// Nowhere by its type: the slot of a map group that is not in use.
    Nowhere,
}

/// One word of a value that its type explains.
#[derive(Clone, Debug)]
pub struct Word {
    /// Byte offset in the value.
    pub offset: u64,
    /// Position of the field in the type, and of the element among the first ten: orders edges before their values do.
    pub place: Vec<u32>,
    /// Frames between the value and the word.
    pub steps: Vec<Step>,
    /// Indices of elements from the tenth on: orders words of one place.
    pub repeat: Vec<u64>,
    pub leads: Leads,
    /// Leads to memory that belongs to the value itself.
    pub storage: bool,
    /// Points to memory that the collector does not manage, by its type: no mask has the word.
    pub not_in_heap: bool,
}

/// Elements that have a frame of their own.
pub const INDEXED: u64 = 10;

/// The frame of element `i`.
pub fn index_step(types: &TypeTable, elem: TypeId, i: u64) -> Step {
    let index = if i < INDEXED { i.to_string() } else { format!("{INDEXED}+") };
    (format!("[{index}]. ({})", types.get(elem).name), Some(elem))
}

fn field_step(types: &TypeTable, name: &str, ty: TypeId) -> Step {
    (format!("{name}. ({})", types.get(ty).name), Some(ty))
}

/// What a pointer to `elem` leads to.
fn pointer(types: &TypeTable, elem: TypeId) -> What {
    let t = types.get(elem);
    if matches!(&*t.name, "time.Timer" | "time.Ticker") {
        let whole = types.find("time.runtimeTimer").or(types.find("runtime.timeTimer"));
        return What::Value(whole.filter(|whole| types.get(*whole).size > t.size).unwrap_or(elem));
    }
    if &*t.name == "iter.coro" {
        return types.find("runtime.coro").map_or(What::Untyped, What::Value);
    }
    let trie = t.name.contains(".node[")
        && ["internal/sync.", "internal/concurrent.", "unique."].iter().any(|package| t.name.starts_with(package));
    match &t.kind {
        Kind::Opaque => What::Untyped,
        Kind::Struct(_) if trie => What::TrieNode(elem),
        _ => What::Value(elem),
    }
}

fn pointee(types: &TypeTable, ty: TypeId) -> Option<TypeId> {
    match types.get(ty).kind {
        Kind::Pointer(elem) => Some(elem),
        _ => None,
    }
}

/// Reads values.
pub struct Reader<'r, 'p, 'img> {
    pub dump: &'r Dump<'p, 'img>,
    /// The word at an offset of the value; 0 beyond what is there.
    pub word: &'r dyn Fn(u64) -> u64,
    /// Whether a type may hold pointers, as far as known.
    pub pointery: &'r mut HashMap<TypeId, bool>,
    words: Vec<Word>,
    place: Vec<u32>,
    steps: Vec<Step>,
    repeat: Vec<u64>,
    in_use: bool,
}

impl<'r, 'p, 'img> Reader<'r, 'p, 'img> {
    pub fn new(
        dump: &'r Dump<'p, 'img>,
        word: &'r dyn Fn(u64) -> u64,
        pointery: &'r mut HashMap<TypeId, bool>,
    ) -> Self {
        Self { dump, word, pointery, words: vec![], place: vec![], steps: vec![], repeat: vec![], in_use: true }
    }

    /// The words of one element of `what`.
    pub fn read(mut self, what: &What) -> Vec<Word> {
        let types = &self.dump.types;
        match what {
            What::Value(ty) | What::Elements(ty) => self.value(*ty, 0),
            What::Closure(_, _, _, captures) => self.captures(captures),
            What::Chan(ty) => self.chan(*ty),
            What::TimeTimer(ty) => {
                let Kind::Struct(fields) = &types.get(*ty).kind else { return self.words };
                for (i, field) in fields.iter().enumerate() {
                    let times = types.find("chan time.Time").filter(|_| &*field.name == "c");
                    if matches!(&*field.name, "timer" | "r") {
                        self.place.push(i as u32);
                        self.value(field.ty, field.offset);
                        self.place.pop();
                    } else if self.has_pointers(field.ty) {
                        let ty = times.unwrap_or(field.ty);
                        let step = field_step(types, &field.name, ty);
                        self.under(i as u64, step, |s| s.value(ty, field.offset));
                    }
                }
            }
            _ => self.map(what),
        }
        self.words
    }

    fn push(&mut self, offset: u64, leads: Leads, storage: bool) {
        let leads = if self.in_use { leads } else { Leads::Nowhere };
        let (place, steps, repeat) = (self.place.clone(), self.steps.clone(), self.repeat.clone());
        if offset.is_multiple_of(8) {
            let not_in_heap = matches!(leads, Leads::To(What::Value(ty), _) if is_not_in_heap(&self.dump.types, ty));
            self.words.push(Word { offset, place, steps, repeat, leads, storage, not_in_heap });
        }
    }

    fn one(&mut self, offset: u64, what: What) {
        self.push(offset, Leads::To(what, 1), false);
    }

    /// Runs `f` below a frame.
    fn under(&mut self, place: u64, step: Step, f: impl FnOnce(&mut Self)) {
        self.place.push(place as u32);
        self.steps.push(step);
        f(self);
        self.steps.pop();
        self.place.pop();
    }

    fn has_pointers(&mut self, ty: TypeId) -> bool {
        if let Some(known) = self.pointery.get(&ty) {
            return *known;
        }
        let has = match &self.dump.types.get(ty).kind {
            Kind::Scalar | Kind::Opaque => false,
            Kind::Array(elem, len) => *len > 0 && self.has_pointers(*elem),
            Kind::Struct(fields) => fields.iter().any(|f| self.has_pointers(f.ty)),
            _ => true,
        };
        self.pointery.insert(ty, has);
        has
    }

    fn value(&mut self, ty: TypeId, at: u64) {
        let types = &self.dump.types;
        let t = types.get(ty);
        match &t.kind {
            Kind::Scalar | Kind::Opaque => {}
            Kind::Pointer(elem) => self.one(at, pointer(types, *elem)),
            Kind::UnsafePointer => self.one(at, What::Untyped),
            Kind::String => self.one(at, What::Bytes),
            Kind::Slice(elem) => {
                let capacity = (self.word)(at + 16);
                self.push(at, Leads::To(What::Elements(*elem), capacity), false);
            }
            Kind::Eface => self.push(at + 8, Leads::Interface((self.word)(at)), false),
            Kind::Iface => {
                let rtype = self.dump.itab_type((self.word)(at));
                self.push(at + 8, Leads::Interface(rtype), false);
            }
            Kind::Func => self.one(at, What::Func),
            Kind::Map { header: Some(_), .. } => self.one(at, What::MapHeader(ty)),
            Kind::Chan { header: Some(_), .. } => self.one(at, What::Chan(ty)),
            Kind::Map { .. } | Kind::Chan { .. } => self.one(at, What::Untyped),
            Kind::Array(elem, len) => self.array(*elem, *len, at),
            Kind::Struct(fields) => self.fields(&t.name, fields, at),
        }
    }

    fn array(&mut self, elem: TypeId, len: u64, at: u64) {
        let types = &self.dump.types;
        let size = types.get(elem).size;
        if size == 0 || !self.has_pointers(elem) {
            return;
        }
        for i in 0..len {
            if i >= INDEXED {
                self.repeat.push(i);
            }
            self.under(i.min(INDEXED), index_step(types, elem, i), |s| s.value(elem, at + i * size));
            if i >= INDEXED {
                self.repeat.pop();
            }
        }
    }

    fn fields(&mut self, name: &str, fields: &[Field], at: u64) {
        let types = &self.dump.types;
        let atomic = name.starts_with("sync/atomic.Pointer[") || name.starts_with("internal/runtime/atomic.Pointer[");
        // The word is an unsafe.Pointer; an array of length 0 says of what.
        let of = fields.iter().find_map(|f| match types.get(f.ty).kind {
            Kind::Array(p, 0) => pointee(types, p),
            _ => None,
        });
        // Before Go 1.20 there is no such array, and the name alone says it.
        let named = || types.find(name.split_once('[')?.1.strip_suffix(']')?);
        let of = of.or_else(|| named().filter(|_| atomic));
        let word = fields.iter().find(|f| types.get(f.ty).kind == Kind::UnsafePointer);
        if let ("sync.entry", [field], Some(any)) = (name, fields, types.find("interface {}"))
            && word.is_some()
        {
            self.under(0, field_step(types, &field.name, any), |s| s.one(at + field.offset, What::Value(any)));
            return;
        }
        if let (true, Some(elem), Some(word)) = (atomic, of, word) {
            let step = (field_step(types, &word.name, word.ty).0, Some(elem));
            self.under(0, step, |s| s.one(at + word.offset, pointer(types, elem)));
            return;
        }
        let pools = types.find("sync.poolLocal").filter(|_| name == "sync.Pool");
        for (i, field) in fields.iter().enumerate() {
            if !self.has_pointers(field.ty) {
                continue;
            }
            let offset = at + field.offset;
            let step = field_step(types, &field.name, field.ty);
            let waits = name == "runtime.waitq" || name.starts_with("waitq<") || name.ends_with(".notifyList");
            if waits || (name, &*field.name) == ("runtime.timer", "ts") {
                self.under(i as u64, step, |s| s.push(offset, Leads::Later, false));
                continue;
            }
            let offset_of = |name: &str| fields.iter().find(|f| &*f.name == name).map(|f| at + f.offset);
            if name == "reflect.Value"
                && &*field.name == "ptr"
                && let (Some(ty), Some(flag)) = (offset_of("typ_").or(offset_of("typ")), offset_of("flag"))
            {
                let to = Leads::Reflected((self.word)(ty), (self.word)(flag) & 0x80 != 0);
                self.under(i as u64, step, |s| s.push(offset, to, false));
                continue;
            }
            match pools {
                Some(local) if matches!(&*field.name, "local" | "victim") => {
                    let count = (self.word)(offset + 8);
                    let to = Leads::To(What::Elements(local), count);
                    self.under(i as u64, step, |s| s.push(offset, to, false));
                }
                _ => self.under(i as u64, step, |s| s.value(field.ty, offset)),
            }
        }
    }

    fn captures(&mut self, captures: &[(String, u64, TypeId)]) {
        let types = &self.dump.types;
        for (i, (name, offset, ty)) in captures.iter().enumerate() {
            // By reference: named as the variable, not as its address.
            if let (Some(name), Some(elem)) = (name.strip_prefix('&'), pointee(types, *ty)) {
                let step = field_step(types, name, elem);
                self.under(i as u64, step, |s| s.one(*offset, pointer(types, elem)));
            } else if self.has_pointers(*ty) {
                let step = field_step(types, name.trim_start_matches('&'), *ty);
                self.under(i as u64, step, |s| s.value(*ty, *offset));
            }
        }
    }

    fn chan(&mut self, ty: TypeId) {
        let types = &self.dump.types;
        let Kind::Chan { elem, header: Some(header) } = types.get(ty).kind else { return };
        let Kind::Struct(fields) = &types.get(header).kind else { return };
        let count = types.field(header, "dataqsiz").map(|f| (self.word)(f.offset));
        for (i, field) in fields.iter().enumerate().filter(|(_, f)| f.offset % 8 == 0) {
            match count {
                Some(count) if &*field.name == "buf" => {
                    self.place.push(i as u32);
                    self.push(field.offset, Leads::To(What::Elements(elem), count), true);
                    self.place.pop();
                }
                _ if self.has_pointers(field.ty) => {
                    let step = field_step(types, &field.name, field.ty);
                    self.under(i as u64, step, |s| s.value(field.ty, field.offset));
                }
                _ => {}
            }
        }
    }
}

/// Whether a type is marked as outside of the heap.
fn is_not_in_heap(types: &TypeTable, ty: TypeId) -> bool {
    types.get(ty).name.ends_with("/sys.nih")
        || matches!(&types.get(ty).kind, Kind::Struct(fields) if fields.iter().any(|f| is_not_in_heap(types, f.ty)))
}

/// Whether a value of type `part` begins at a byte of a value of type `whole`.
pub fn holds(types: &TypeTable, whole: TypeId, offset: u64, part: TypeId) -> bool {
    if offset == 0 && (whole == part || types.get(whole).name == types.get(part).name) {
        return true;
    }
    match &types.get(whole).kind {
        Kind::Array(elem, _) if types.get(*elem).size > 0 => holds(types, *elem, offset % types.get(*elem).size, part),
        Kind::Struct(fields) => fields.iter().any(|f| {
            let inside = f.offset <= offset && offset < f.offset + types.get(f.ty).size;
            inside && holds(types, f.ty, offset - f.offset, part)
        }),
        _ => false,
    }
}

/// Bytes of one element; 0 if unknown.
pub fn size_of(types: &TypeTable, what: &What) -> u64 {
    match what {
        What::Value(ty) | What::Elements(ty) | What::TrieNode(ty) | What::TimeTimer(ty) => types.get(*ty).size,
        What::Closure(_, _, size, _) => *size,
        What::Chan(ty) => match types.get(*ty).kind {
            Kind::Chan { header: Some(header), .. } => types.get(header).size,
            _ => 0,
        },
        What::MapHeader(ty) => match types.get(*ty).kind {
            Kind::Map { header: Some(header), .. } => types.get(header).size,
            _ => 0,
        },
        What::MapTable(ty) => table_type(types, *ty).map_or(0, |t| types.get(t).size),
        What::MapGroups(ty) => group_type(types, *ty).map_or(0, |t| types.get(t).size),
        What::MapBuckets(ty) => bucket_type(types, *ty).map_or(0, |t| types.get(t).size),
        What::MapExtra(_) => types.find("runtime.mapextra").map_or(0, |t| types.get(t).size),
        What::MapList(_) => 24,
        What::MapListed(_) | What::MapDirectory(_) | What::Func => 8,
        What::Bytes => 1,
        What::Untyped | What::Raw | What::Masked => 0,
    }
}

/// What a closure's code says of it: the function's name and the captured variables.
pub fn closure(dump: &mut Dump<'_, '_>, pc: u64, room: u64) -> Option<(String, What)> {
    let (entry, symbol) = dump.function(pc)?;
    let link_pc = entry.wrapping_sub(dump.process.load_bias);
    let (function, captures) = dump.captures(entry, room);
    let name = match function {
        Some(function) => function,
        None => dump.debug.function_name(link_pc).map_or(symbol, str::to_owned),
    };
    let mut captures: Vec<(String, u64, TypeId)> =
        captures.into_iter().map(|(name, offset, ty)| (name.to_string(), offset, ty)).collect();
    if captures.is_empty() {
        let receiver = library::method_value_receiver(&dump.types, &name);
        captures.extend(receiver.map(|f| (f.name.to_string(), f.offset, f.ty)));
    }
    let end = captures.iter().map(|(_, offset, ty)| offset + dump.types.get(*ty).size).max().unwrap_or(0);
    Some((name, What::Closure(entry, room, end.max(8).next_multiple_of(8), captures)))
}
