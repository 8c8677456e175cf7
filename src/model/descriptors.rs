//! The runtime's own type descriptors (`abi.Type`) as a second source of types, joined to DWARF by `DW_AT_go_runtime_type`.
//!
//! Debug information has holes: a type used only behind interfaces may lack a DIE, and so has every type that `reflect` makes at run
//! time. Descriptors have none. A type is looked up by its descriptor's offset first; only what DWARF lacks is built here, with full
//! names and, for maps and channels, with the same header structs that Go's linker synthesises, so that nothing later needs to know
//! where a type came from.
//!
//! Descriptors come from the image and are hostile: counts are capped, cycles are cut, and what was built is checked like DWARF's types.

mod closures;
mod layout;
mod names;
mod synthetic;
#[cfg(test)]
mod tests;

pub use closures::ClosureStruct;

use crate::address::Addr;
use crate::error::Result;
use crate::image::Image;
use crate::incident::Incidents;
use crate::model::types::{Field, Kind, Type, TypeId, TypeTable};
use layout::{Header, Layout, kind};
use rustc_hash::FxHashMap;
use std::sync::{Mutex, RwLock};
use synthetic::Prototypes;

/// Memory that types built from descriptors may take over the whole run, in bytes, as [`Built::charge`] estimates it. All types of
/// the largest known programs take less; in a damaged image a thousand types may share one enormous name or field list.
const BUDGET: u64 = 256 << 20;

/// Where a module keeps its descriptors: `moduledata.types` and `.etypes`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ModuleTypes {
    /// First byte; name and type offsets count from here.
    pub types: Addr,
    /// One past the last byte.
    pub etypes: Addr,
}

/// Reads `abi.Type` descriptors. One for the whole run: it remembers what it built.
pub struct Descriptors {
    layout: Layout,
    prototypes: Prototypes,
    built: RwLock<Built>,
    incidents: Mutex<Incidents>,
}

/// What was built so far.
struct Built {
    /// By the descriptor's address.
    types: FxHashMap<u64, TypeId>,
    /// What is left of [`BUDGET`].
    budget: u64,
}

impl Built {
    /// Takes the room for a name and for fields or parts.
    fn charge(&mut self, name: &str, parts: usize) {
        self.budget = self.budget.saturating_sub(256 + name.len() as u64 + parts as u64 * 64);
    }
}

/// A type whose descriptor was read and whose name and header are still missing.
struct Pending {
    id: TypeId,
    header: Header,
    /// The name as the descriptor has it, with full package path if it is a named type; empty if it has none.
    name: String,
    kind: Kind,
    /// The element of a pointer, or the group of a map.
    extra: Option<TypeId>,
    rtype_offset: u64,
}

/// One call of [`Descriptors::type_of`].
struct Batch<'b> {
    image: &'b dyn Image,
    modules: &'b [ModuleTypes],
    table: &'b mut TypeTable,
    built: &'b mut Built,
    pending: Vec<Pending>,
    /// Descriptors to read: address, header, id.
    queue: Vec<(Addr, Header, TypeId)>,
    incidents: Incidents,
}

impl Descriptors {
    /// Finds the layout of descriptors in DWARF.
    ///
    /// # Errors
    /// A struct or field that every supported Go version has is missing.
    pub fn new(types: &TypeTable, constants: &FxHashMap<String, i64>) -> Result<Self> {
        Ok(Self {
            layout: Layout::find(types, constants)?,
            prototypes: Prototypes::find(types),
            built: RwLock::new(Built { types: FxHashMap::default(), budget: BUDGET }),
            incidents: Mutex::default(),
        })
    }

    /// The same for a table of its own: the names of types are known from descriptors alone. What was built for another table is
    /// not known to it, and maps and channels have no header structs.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self {
            layout: self.layout.clone(),
            prototypes: Prototypes::default(),
            built: RwLock::new(Built { types: FxHashMap::default(), budget: BUDGET }),
            incidents: Mutex::default(),
        }
    }

    /// The type of the descriptor at `rtype` if it has a DIE or was built already. Changes nothing: for parallel phases.
    ///
    /// * `modules`: in moduledata order; the first is the executable, the only one whose descriptors DWARF knows.
    #[must_use]
    pub fn find(&self, modules: &[ModuleTypes], table: &TypeTable, rtype: Addr) -> Option<TypeId> {
        find_die(modules, table, rtype)
            .or_else(|| self.built.read().unwrap_or_else(|e| e.into_inner()).types.get(&rtype.0).copied())
    }

    /// The type of the descriptor at `rtype`, built with all it refers to if it has no DIE. None if no descriptor lies there.
    ///
    /// New types get the next ids of `table`: call this in canonical order.
    pub fn type_of(
        &self,
        image: &dyn Image,
        modules: &[ModuleTypes],
        table: &mut TypeTable,
        rtype: Addr,
    ) -> Option<TypeId> {
        if let Some(found) = self.find(modules, table, rtype) {
            return Some(found);
        }
        let mut built = self.built.write().unwrap_or_else(|e| e.into_inner());
        let first = TypeId(u32::try_from(table.len()).ok()?);
        let mut batch = Batch {
            image,
            modules,
            table,
            built: &mut built,
            pending: Vec::new(),
            queue: Vec::new(),
            incidents: Incidents::default(),
        };
        let id = batch.resolve(&self.layout, rtype);
        if id.is_some() {
            batch.read_queue(&self.layout);
            batch.finish(&self.prototypes);
            batch.table.check_from(first, &mut batch.incidents);
        } else {
            batch.incidents.count("descriptors.unreadable");
        }
        self.incidents.lock().unwrap_or_else(|e| e.into_inner()).merge(&batch.incidents);
        id
    }

    /// Whether a value of the type at `rtype` is stored in an interface's data word itself (pointers and what wraps one pointer).
    #[must_use]
    pub fn is_direct_iface(&self, image: &dyn Image, rtype: Addr) -> Option<bool> {
        Some(self.layout.header(image, rtype)?.direct_iface)
    }

    /// The descriptor of the dynamic type that the itab at `itab` stands for.
    #[must_use]
    pub fn itab_type(&self, image: &dyn Image, itab: Addr) -> Option<Addr> {
        let rtype = image.read_u64(itab.add(self.layout.itab_type)).ok().map(Addr)?;
        (!rtype.is_null()).then_some(rtype)
    }

    /// What was damaged, so far.
    #[must_use]
    pub fn incidents(&self) -> Incidents {
        self.incidents.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }
}

fn module_of(modules: &[ModuleTypes], rtype: Addr) -> Option<&ModuleTypes> {
    modules.iter().find(|module| module.types <= rtype && rtype < module.etypes)
}

fn find_die(modules: &[ModuleTypes], table: &TypeTable, rtype: Addr) -> Option<TypeId> {
    let main = modules.first()?;
    (main.types < rtype && rtype < main.etypes).then(|| table.find_rtype(rtype.0 - main.types.0)).flatten()
}

impl Batch<'_> {
    /// The type at `rtype`: known, or a forward reference whose descriptor is queued. None if no descriptor lies there.
    fn resolve(&mut self, layout: &Layout, rtype: Addr) -> Option<TypeId> {
        if let Some(id) = find_die(self.modules, self.table, rtype) {
            return Some(id);
        }
        if let Some(&id) = self.built.types.get(&rtype.0) {
            return Some(id);
        }
        let header = layout.header(self.image, rtype)?;
        if self.built.budget == 0 {
            self.incidents.count("descriptors.too_many");
            return None;
        }
        let id = self.table.push_forward();
        self.built.types.insert(rtype.0, id);
        self.queue.push((rtype, header, id));
        Some(id)
    }

    /// Like [`Batch::resolve`] for a part of another type: what cannot be read is opaque.
    fn part(&mut self, layout: &Layout, rtype: Option<u64>) -> TypeId {
        match rtype.and_then(|rtype| self.resolve(layout, Addr(rtype))) {
            Some(id) => id,
            None => {
                self.incidents.count("descriptors.unreadable");
                let unknown = Type { name: names::UNKNOWN.into(), size: 0, kind: Kind::Opaque, rtype_offset: 0 };
                self.table.find(names::UNKNOWN).unwrap_or_else(|| self.table.push(unknown))
            }
        }
    }

    fn read_queue(&mut self, layout: &Layout) {
        while let Some((rtype, header, id)) = self.queue.pop() {
            let mut extra = None;
            let kind = match self.read_kind(layout, rtype, &header, &mut extra) {
                Some(kind) => kind,
                None => {
                    self.incidents.count("descriptors.damaged");
                    Kind::Opaque
                }
            };
            let name = self.read_name(layout, rtype, &header);
            let parts = match &kind {
                Kind::Struct(fields) => fields.len(),
                // The header structs that come with it.
                Kind::Map { .. } | Kind::Chan { .. } => 64,
                _ => 0,
            };
            self.built.charge(&name, parts);
            let main = self.modules.first().filter(|main| main.types <= rtype && rtype < main.etypes);
            let rtype_offset = main.map_or(0, |main| rtype.0 - main.types.0);
            self.pending.push(Pending { id, header, name, kind, extra, rtype_offset });
        }
    }

    fn read_kind(&mut self, layout: &Layout, rtype: Addr, header: &Header, extra: &mut Option<TypeId>) -> Option<Kind> {
        let image = self.image;
        let word = |offset: u64| image.read_u64(rtype.add(offset)).ok();
        Some(match header.kind {
            kind::STRING => Kind::String,
            kind::UNSAFE_POINTER => Kind::UnsafePointer,
            kind::FUNC => Kind::Func,
            kind::POINTER => Kind::Pointer(self.part(layout, word(layout.pointer_elem))),
            kind::SLICE => Kind::Slice(self.part(layout, word(layout.slice_elem))),
            kind::ARRAY => {
                let len = word(layout.array_len)?;
                Kind::Array(self.part(layout, word(layout.array_elem)), len)
            }
            kind::CHAN => Kind::Chan { elem: self.part(layout, word(layout.chan_elem)), header: None },
            kind::INTERFACE => match word(layout.interface_methods.wrapping_add(8))? {
                0 => Kind::Eface,
                _ => Kind::Iface,
            },
            kind::MAP => {
                let key = self.part(layout, word(layout.map_key));
                let elem = self.part(layout, word(layout.map_elem));
                *extra = Some(self.part(layout, word(layout.map_group)));
                Kind::Map { key, elem, header: None }
            }
            kind::STRUCT => {
                let raw = layout.struct_fields(image, rtype, header.size)?;
                let mut fields = Vec::with_capacity(raw.len());
                for field in raw {
                    let name = layout.name(image, Addr(field.name)).unwrap_or_default();
                    let name = if name.is_empty() { "_".into() } else { name.into_boxed_str() };
                    fields.push(Field { name, offset: field.offset, ty: self.part(layout, Some(field.ty)) });
                }
                Kind::Struct(fields)
            }
            _ => Kind::Scalar,
        })
    }

    /// The descriptor's own name; with the full package path if the type is a named one.
    fn read_name(&self, layout: &Layout, rtype: Addr, header: &Header) -> String {
        // Offsets of types made at run time go through a table of the runtime instead: those get composed names.
        let Some(module) = module_of(self.modules, rtype) else { return String::new() };
        let string = |offset: i32| layout.name(self.image, module.types.add(u64::try_from(offset).ok()?));
        let Some(mut name) = string(header.str_offset) else { return String::new() };
        if header.extra_star && name.starts_with('*') {
            name.remove(0);
        }
        match layout.pkg_path_offset(self.image, rtype, header).and_then(string) {
            Some(path) if header.named && !path.is_empty() => names::qualify(&name, &path),
            _ => name,
        }
    }

    /// Names what was read, gives maps and channels their header structs, and puts all into the table.
    fn finish(&mut self, prototypes: &Prototypes) {
        let mut pending = std::mem::take(&mut self.pending);
        let names = names::compose(&pending, self.table);
        for (entry, name) in pending.iter_mut().zip(&names) {
            entry.name.clone_from(name);
            self.built.charge(name, 0);
        }
        let full: FxHashMap<TypeId, &str> =
            pending.iter().map(|p| p.id).zip(names.iter().map(String::as_str)).collect();
        for entry in &mut pending {
            match &mut entry.kind {
                Kind::Map { key, elem, header } => {
                    *header = entry.extra.and_then(|group| prototypes.map(self.table, &full, *key, *elem, group));
                }
                Kind::Chan { elem, header } => *header = prototypes.chan(self.table, &full, *elem),
                _ => {}
            }
        }
        for Pending { id, header, name, kind, rtype_offset, .. } in pending {
            self.table.set(id, Type { name: name.into(), size: header.size, kind, rtype_offset });
        }
    }
}
