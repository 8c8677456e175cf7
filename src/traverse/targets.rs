//! What an edge leads to, decided once per (edge, dynamic type) of a wave instead of once per pointer.

use super::library::{self, Part};
use super::observe::Operation;
use super::scan::{Closure, Edge, INDIRECT, NO_TYPE, ProgramId, ProgramKey, Programs, Step};
use super::world::World;
use crate::incident::Incidents;
use crate::model::closures::{Closures, Surroundings};
use crate::model::dwarf::DebugInfo;
use crate::model::modules::Func;
use crate::model::types::{Field, Kind, TypeId, TypeTable};
use rustc_hash::FxHashMap;

/// How the program of a claimed object is decided, beyond the edge's own target.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Retype {
    /// It is the target's.
    No,
    /// By the code pointer in its first word.
    Closure,
    /// By its first byte.
    TrieNode(TypeId),
}

/// One edge's target.
#[derive(Clone, Debug)]
pub struct Target {
    /// How the target is scanned.
    pub program: ProgramId,
    /// Size of one element, 0 if unknown.
    pub size: u64,
    /// The words of up to 64 that one element explains.
    pub typed: u64,
    /// The type explains nothing: all words of the object stay open.
    pub untyped: bool,
    /// Every mask word is followed, whatever the type.
    pub masked: bool,
    /// See [`Retype`].
    pub retype: Retype,
    /// What the target is part of where it lies behind the start of its object.
    pub part: Option<Part>,
    /// Labels below the edge's own: of the field of a struct stored directly in an interface.
    pub chain: Box<[Step]>,
}

/// What the keys of one wave lead to: a number for each key, in key order.
#[derive(Default, Debug)]
pub struct Targets {
    keys: Vec<u64>,
    targets: Vec<Target>,
    operations: Vec<Operation>,
}

impl Targets {
    /// Starts a wave.
    pub fn reset(&mut self) {
        self.targets.clear();
        self.operations.clear();
        self.keys.clear();
    }

    /// Adds keys of the wave, in any order, with repetitions.
    pub fn add(&mut self, keys: impl Iterator<Item = u64>) {
        for key in keys {
            if self.keys.last() != Some(&key) {
                self.keys.push(key);
            }
        }
    }

    /// Numbers the keys.
    pub fn sort(&mut self) {
        if !self.keys.is_sorted() {
            self.keys.sort_unstable();
        }
        self.keys.dedup();
        self.targets.reserve(self.keys.len());
    }

    /// All keys, by number.
    #[must_use]
    pub fn keys(&self) -> &[u64] {
        &self.keys
    }

    /// Says where the next key leads.
    pub fn push(&mut self, target: Target, operation: Operation) {
        self.targets.push(target);
        self.operations.push(operation);
    }

    /// The number of a key of the wave.
    #[inline]
    #[must_use]
    pub fn number(&self, key: u64) -> u32 {
        self.keys.partition_point(|&k| k < key) as u32
    }

    /// The target of key `number`.
    #[inline]
    #[must_use]
    pub fn target(&self, number: u32) -> &Target {
        &self.targets[number as usize]
    }

    /// The operation of key `number`.
    #[inline]
    #[must_use]
    pub fn operation(&self, number: u32) -> Operation {
        self.operations[number as usize]
    }
}

/// Types and programs while they grow. Used only between the parallel phases.
pub struct Resolver<'a, 'img> {
    /// All programs.
    pub programs: Programs,
    /// All types.
    pub types: TypeTable,
    debug: &'a DebugInfo<'img>,
    load_bias: u64,
    allocated: Closures,
    dynamic: FxHashMap<u32, Option<TypeId>>,
    closures: FxHashMap<(u32, u32), (ProgramId, Step)>,
    headers: FxHashMap<(u32, ProgramId), (ProgramId, bool)>,
    /// Soft errors.
    pub incidents: Incidents,
}

impl<'a, 'img> Resolver<'a, 'img> {
    /// A resolver over the debug information; `types` is its type table, to be extended.
    pub fn new(debug: &'a DebugInfo<'img>, types: TypeTable, load_bias: u64, typed: bool) -> Self {
        Self {
            programs: Programs::new(typed),
            types,
            debug,
            load_bias,
            allocated: Closures::default(),
            dynamic: FxHashMap::default(),
            closures: FxHashMap::default(),
            headers: FxHashMap::default(),
            incidents: Incidents::default(),
        }
    }

    /// Compiles `key`.
    pub fn compile(&mut self, key: ProgramKey) -> ProgramId {
        self.programs.compile(&self.types, key)
    }

    /// Compiles the targets of a program about to be scanned.
    pub fn link(&mut self, id: ProgramId) {
        self.programs.link(&self.types, id);
    }

    /// The type with this dynamic type number.
    fn dynamic_type(&mut self, world: &World<'_>, number: u32) -> Option<TypeId> {
        if number == 0 {
            return None;
        }
        if let Some(known) = self.dynamic.get(&number) {
            return *known;
        }
        let ty = world
            .rtype(number)
            .and_then(|rtype| world.descriptors.type_of(world.image, &world.module_types, &mut self.types, rtype));
        if ty.is_none() {
            self.incidents.count("type.unreadable_descriptor");
        }
        self.dynamic.insert(number, ty);
        ty
    }

    /// The same for a word that only looks like an interface's: it lies before a pointer and leads to where descriptors are. Other things
    /// are there as well (up to Go 1.19 the dictionaries of generic functions, which closures capture), and finding one of them is no
    /// damage.
    fn guessed_type(&mut self, world: &World<'_>, number: u32) -> Option<TypeId> {
        if !self.dynamic.contains_key(&number) {
            world.descriptors.is_direct_iface(world.image, world.rtype(number)?)?;
        }
        self.dynamic_type(world, number)
    }

    /// Target of operation `op` of `program` (for masked programs: of its words), with the dynamic type number of the key.
    pub fn target(&mut self, world: &World<'_>, program: ProgramId, op: usize, number: u32) -> Target {
        let source = self.programs.get(program);
        let id = match source.key {
            ProgramKey::Masked => match self.guessed_type(world, number) {
                Some(ty) => return self.interface(world, ty, number, ProgramKey::Masked),
                None => self.compile(ProgramKey::Masked),
            },
            ProgramKey::Raw => self.compile(ProgramKey::Untyped),
            _ => match source.ops[op].edge {
                Edge::Eface | Edge::Iface => match self.dynamic_type(world, number) {
                    Some(ty) => return self.interface(world, ty, number, ProgramKey::Untyped),
                    None => self.compile(ProgramKey::Untyped),
                },
                Edge::Reflected { .. } => match self.dynamic_type(world, number & !INDIRECT) {
                    Some(ty) if number & INDIRECT != 0 => self.compile(ProgramKey::Value(ty)),
                    Some(ty) => return self.interface(world, ty, number, ProgramKey::Untyped),
                    None => self.compile(ProgramKey::Untyped),
                },
                Edge::MapDir { .. } if number == 1 => match source.ops[op].target {
                    ProgramKey::MapDirectory(map) => self.compile(ProgramKey::MapGroups(map)),
                    other => self.compile(other),
                },
                _ => source.targets[op],
            },
        };
        self.plain(id, Box::default())
    }

    fn plain(&mut self, id: ProgramId, chain: Box<[Step]>) -> Target {
        let program = self.programs.get(id);
        let part = match program.key {
            ProgramKey::Value(ty) => library::part_of(&self.types, ty),
            _ => None,
        };
        Target {
            program: id,
            part,
            size: program.size,
            typed: program.typed.first().copied().unwrap_or(0),
            untyped: program.key == ProgramKey::Untyped,
            masked: program.key == ProgramKey::Masked,
            retype: match program.key {
                ProgramKey::Funcval => Retype::Closure,
                ProgramKey::TrieNode(ty) => Retype::TrieNode(ty),
                _ => Retype::No,
            },
            chain,
        }
    }

    /// Target of an interface's data word: the value itself if the type is stored directly, else a copy of it.
    fn interface(&mut self, world: &World<'_>, ty: TypeId, number: u32, unknown: ProgramKey) -> Target {
        let rtype = world.rtype(number);
        let direct = rtype.and_then(|rtype| world.descriptors.is_direct_iface(world.image, rtype));
        let value = self.compile(ProgramKey::Value(ty));
        match direct {
            Some(false) => self.plain(value, Box::default()),
            Some(true) => {
                self.link(value);
                let program = self.programs.get(value);
                match (program.ops.first(), program.targets.first()) {
                    (Some(op), Some(&target)) if op.offset == 0 => {
                        let chain = op.chain.clone();
                        self.plain(target, chain)
                    }
                    _ => {
                        let id = self.compile(unknown);
                        self.plain(id, Box::default())
                    }
                }
            }
            None => {
                let id = self.compile(unknown);
                self.plain(id, Box::default())
            }
        }
    }

    /// The program of an object whose allocation type has this number, reached by an edge to `claimed`: its own type's, labelled by
    /// element if the edge says that it leads to elements of that type. The flag says that program and mask disagree.
    pub fn header(&mut self, world: &World<'_>, number: u32, claimed: ProgramId) -> (ProgramId, bool) {
        if let Some(known) = self.headers.get(&(number, claimed)) {
            return *known;
        }
        let key = self.programs.get(claimed).key;
        let ty = self.dynamic_type(world, number);
        let id = match (ty, key) {
            // A stand-in for a type that has a GC program (1.22, 1.23): its mask is right, and the edge knows the type.
            (None, ProgramKey::Value(_) | ProgramKey::Elems(_)) if number == 0 => return (claimed, true),
            (None, _) => self.compile(ProgramKey::Untyped),
            // The storage of maps has programs of its own, which know more than the descriptor of its memory.
            (Some(ty), _) if self.is_storage(key, ty) => claimed,
            (Some(ty), ProgramKey::Elems(elem)) if self.same(elem, ty) => claimed,
            // Shaped code may allocate by the shape: a pointer with a type of its own knows more.
            (Some(ty), ProgramKey::Elems(known) | ProgramKey::Value(known)) if self.is_shape_of(ty, known) => claimed,
            (Some(ty), _) => self.compile(ProgramKey::Value(ty)),
        };
        let checked = match world.rtype(number).and_then(|rtype| world.masks.get(world.image, rtype.0)) {
            Some(mask) => {
                let program = self.programs.get(id);
                let mut a = mask.bits.iter().copied().chain(std::iter::repeat(0));
                let mut b = program.typed.iter().copied().chain(std::iter::repeat(0));
                let n = mask.bits.len().max(program.typed.len());
                program.size != mask.size || (0..n).any(|_| a.next() != b.next())
            }
            None => true,
        };
        self.headers.insert((number, claimed), (id, checked));
        (id, checked)
    }

    fn same(&self, a: TypeId, b: TypeId) -> bool {
        a == b || self.types.get(a).name == self.types.get(b).name
    }

    /// Whether `shape` is a type of shaped code that `known`, which has no shapes, may stand for.
    fn is_shape_of(&self, shape: TypeId, known: TypeId) -> bool {
        const SHAPE: &str = "go.shape.";
        let (shape, known) = (self.types.get(shape), self.types.get(known));
        shape.name.contains(SHAPE) && !known.name.contains(SHAPE) && shape.size == known.size
    }

    fn is_storage(&self, key: ProgramKey, ty: TypeId) -> bool {
        match key {
            ProgramKey::MapGroups(_) => self.types.get(ty).name.contains("map.group["),
            ProgramKey::MapBuckets(_) => self.types.get(ty).name.contains("map.bucket["),
            ProgramKey::MapDirectory(_) | ProgramKey::MapOverflowList(_) => {
                matches!(self.types.get(ty).kind, Kind::Pointer(_))
            }
            _ => false,
        }
    }

    /// The program of a closure by the function that its code pointer is the entry of, and the frame that names it.
    ///
    /// * `room`: bytes of the closure object's slot; a large variable captured by value is told by it.
    pub fn closure(&mut self, world: &World<'_>, func: &Func, room: u32) -> (ProgramId, Step) {
        if let Some(known) = self.closures.get(&(func.index, room)) {
            return *known;
        }
        let link_pc = func.entry.wrapping_sub(self.load_bias);
        let from = Surroundings {
            image: world.image,
            modules: world.modules,
            debug: self.debug,
            descriptors: world.descriptors,
            load_bias: self.load_bias,
        };
        let (function, captures) = self.allocated.captures(&from, &mut self.types, func.entry, u64::from(room));
        let name = match (function, self.debug.function_name(link_pc)) {
            (Some(function), _) => function.into_string(),
            (None, Some(name)) => name.to_string(),
            (None, None) => world.modules.func_name(world.image, func).unwrap_or_else(|| "(unnamed function)".into()),
        };
        let label = self.programs.labels.intern(&name);
        let mut captures: Vec<_> = captures.into_iter().map(|(name, offset, ty)| Field { name, offset, ty }).collect();
        if captures.is_empty() {
            captures.extend(library::method_value_receiver(&self.types, &name));
        }
        // A capture outside of the object is damaged debug information.
        captures.retain(|f| {
            let end = f.offset.checked_add(self.types.get(f.ty).size);
            end.is_some_and(|end| end <= u64::from(room))
        });
        let index = u32::try_from(self.programs.closures.len()).expect("fewer closures than functions");
        self.programs.closures.push(Closure { function: label, captures });
        let known = (self.compile(ProgramKey::Closure(index)), Step { label, ty: NO_TYPE });
        self.closures.insert((func.index, room), known);
        known
    }

    /// The program of what the target `part` is part of.
    pub fn whole(&mut self, part: Part) -> ProgramId {
        self.compile(ProgramKey::TimeTimer(part.whole))
    }

    /// The program of a trie node: 1 is an entry, 2 an inner node.
    pub fn trie_node(&mut self, node: TypeId, kind: u32) -> ProgramId {
        let ty =
            if kind == 1 { library::trie_entry(&mut self.types, node) } else { library::trie_inner(&self.types, node) };
        self.compile(ty.map_or(ProgramKey::Untyped, ProgramKey::Value))
    }
}
