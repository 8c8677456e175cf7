//! Everything the typed reference needs of a dump, read by the model's own constructors, apart from the product's pipeline.

use super::heap::Memory;
use goref_fast::address::Addr;
use goref_fast::image::{Image, Process};
use goref_fast::model::closures::{Closures, Surroundings};
use goref_fast::model::descriptors::{ClosureStruct, Descriptors, ModuleTypes};
use goref_fast::model::dwarf::{Capture, DebugInfo};
use goref_fast::model::heap::{Heap, TypeMasks};
use goref_fast::model::layout::RuntimeLayout;
use goref_fast::model::modules::{Module, Modules};
use goref_fast::model::queues::Queues;
use goref_fast::model::release;
use goref_fast::model::types::{TypeId, TypeTable};
use goref_fast::roots::{self, Roots, Sources};

/// A dump with its types.
pub struct Dump<'p, 'img> {
    pub process: &'p Process<'img>,
    pub debug: DebugInfo<'img>,
    /// Taken from `debug`, and extended by types that only descriptors know.
    pub types: TypeTable,
    pub modules: Modules,
    pub heap: Heap,
    pub masks: TypeMasks,
    pub descriptors: Descriptors,
    pub roots: Roots,
    module_types: Vec<ModuleTypes>,
    closures: Closures,
}

impl<'p, 'img> Dump<'p, 'img> {
    pub fn read(process: &'p Process<'img>) -> Self {
        let image: &dyn Image = &process.image;
        let bias = process.load_bias;
        // As the product does: what DWARF says, else the table of the release.
        let libraries = process.libraries.iter();
        let libraries: Vec<_> = libraries.map(|l| (&l.executable, l.load_bias.wrapping_sub(bias))).collect();
        let substitute = || release::substitute(&process.executable, &libraries, image, bias).map(|s| s.debug);
        let dwarf = DebugInfo::load(&process.executable).ok().filter(DebugInfo::has_program);
        let mut debug = dwarf.map_or_else(substitute, Ok).expect("debug information");
        let layout = RuntimeLayout::find(&debug.types, &debug.variables, &debug.constants, bias).expect("layout");
        let modules = Modules::read(image, &layout).expect("modules");
        let heap = Heap::read(image, &layout).expect("heap");
        let masks = TypeMasks::new(&layout, heap.largest_slot());
        let queues = Queues::read(image, &layout, &modules);
        roots::declare_arguments(&mut debug, image, &heap, &queues, bias);
        let descriptors = Descriptors::new(&debug.types, &debug.constants).expect("descriptors");
        let roots = roots::collect(&Sources {
            image,
            descriptors: &descriptors,
            threads: &process.threads,
            debug: &debug,
            executable: &process.executable,
            modules: &modules,
            heap: &heap,
            masks: &masks,
            queues: &queues,
            load_bias: bias,
        })
        .expect("roots");
        let types = std::mem::take(&mut debug.types);
        let module_types =
            modules.list.iter().map(|m| ModuleTypes { types: m.types.start, etypes: m.types.end() }).collect();
        Self {
            process,
            debug,
            types,
            modules,
            heap,
            masks,
            descriptors,
            roots,
            module_types,
            closures: Closures::default(),
        }
    }

    pub fn image(&self) -> &dyn Image {
        &self.process.image
    }

    pub fn memory(&self) -> Memory<'_> {
        Memory { image: self.image(), heap: &self.heap, masks: &self.masks }
    }

    /// The type of a descriptor.
    pub fn type_of(&mut self, rtype: u64) -> Option<TypeId> {
        self.descriptors.type_of(&self.process.image, &self.module_types, &mut self.types, Addr(rtype))
    }

    /// What closures are allocated as whose code starts at `entry`, with the descriptor's address.
    pub fn closure_struct(&self, entry: u64) -> Option<(u64, ClosureStruct)> {
        let rtype = self.closures.descriptor(&self.surroundings(), entry)?;
        Some((rtype.0, self.descriptors.closure_struct(self.image(), rtype)?))
    }

    fn surroundings(&self) -> Surroundings<'_, 'img> {
        Surroundings {
            image: &self.process.image,
            modules: &self.modules,
            debug: &self.debug,
            descriptors: &self.descriptors,
            load_bias: self.process.load_bias,
        }
    }

    /// What closure objects of `room` bytes captured, whose code starts at `entry`, and the function's name.
    pub fn captures(&mut self, entry: u64, room: u64) -> (Option<String>, Vec<Capture>) {
        let from = Surroundings {
            image: &self.process.image,
            modules: &self.modules,
            debug: &self.debug,
            descriptors: &self.descriptors,
            load_bias: self.process.load_bias,
        };
        let (function, captures) = self.closures.captures(&from, &mut self.types, entry, room);
        (function.map(String::from), captures)
    }

    /// The place of a type's descriptor among all modules' descriptors, which orders dynamic types; 0 if it is none.
    pub fn rank_of_type(&self, rtype: u64) -> u64 {
        let place = |(i, m): (usize, &Module)| {
            let inside = m.descriptors.contains(Addr(rtype)) && rtype.is_multiple_of(8);
            inside.then(|| (i as u64) << 48 | (rtype - m.types.start.0 + 8))
        };
        self.modules.list.iter().enumerate().find_map(place).unwrap_or(0)
    }

    /// The type of an itab.
    pub fn itab_type(&self, itab: u64) -> u64 {
        self.descriptors.itab_type(self.image(), Addr(itab)).map_or(0, |t| t.0)
    }

    /// The name of the function whose code starts at or around `pc`, and its entry's address.
    pub fn function(&self, pc: u64) -> Option<(u64, String)> {
        let func = self.modules.find_func(self.image(), pc)?;
        let name = self.modules.func_name(self.image(), &func).unwrap_or_else(|| "(unnamed function)".into());
        Some((func.entry, name))
    }
}
