//! A dump and the pipeline's values for it, built as the pipeline builds them.

use goref_fast::aggregate::Amount;
use goref_fast::config::Config;
use goref_fast::image::Process;
use goref_fast::model::descriptors::Descriptors;
use goref_fast::model::dwarf::DebugInfo;
use goref_fast::model::heap::{Heap, TypeMasks};
use goref_fast::model::layout::RuntimeLayout;
use goref_fast::model::modules::Modules;
use goref_fast::model::queues::Queues;
use goref_fast::roots::{self, Roots, Sources};
use goref_fast::traverse::targets::Resolver;
use goref_fast::traverse::world::World;
use goref_fast::traverse::{self, Options, Walked};
use std::path::{Path, PathBuf};

/// An executable and its core.
pub struct Dump {
    pub name: String,
    pub exe: PathBuf,
    pub core: PathBuf,
}

/// The bundled sample, and the folders that `GOREF_BENCH_DUMPS` names.
pub fn dumps() -> Vec<Dump> {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/sample");
    let mut dumps =
        vec![Dump { name: "sample".to_owned(), exe: sample.join("cacheserver.zst"), core: sample.join("core.zst") }];
    let folders = std::env::var_os("GOREF_BENCH_DUMPS").unwrap_or_default();
    dumps.extend(std::env::split_paths(&folders).filter(|f| !f.as_os_str().is_empty()).map(|folder| {
        let name = folder.file_name().map_or_else(|| "given".into(), |name| name.to_string_lossy());
        Dump { name: name.into_owned(), exe: folder.join("exe"), core: folder.join("core") }
    }));
    dumps
}

/// What the collector counted as live, from the line `TRUTH heapalloc=BYTES objects=OBJECTS` of `truth.txt` beside the core.
pub fn truth(core: &Path) -> Option<Amount> {
    let text = std::fs::read_to_string(core.with_file_name("truth.txt")).ok()?;
    let line = text.lines().find(|line| line.starts_with("TRUTH "))?;
    let number = |key| line.split(' ').find_map(|word| word.strip_prefix(key)?.parse().ok());
    Some(Amount { objects: number("objects=")?, bytes: number("heapalloc=")? })
}

/// STAGE 2 as the pipeline builds it.
pub struct Model<'img> {
    pub debug: DebugInfo<'img>,
    pub heap: Heap,
    pub modules: Modules,
    pub masks: TypeMasks,
    pub queues: Queues,
    pub descriptors: Descriptors,
}

pub fn debug_information<'img>(process: &Process<'img>) -> DebugInfo<'img> {
    DebugInfo::load(&process.executable).expect("debug information")
}

pub fn model<'img>(process: &Process<'img>, debug: DebugInfo<'img>) -> Model<'img> {
    let image = &process.image;
    let layout = RuntimeLayout::find(&debug.types, &debug.variables, &debug.constants, process.load_bias);
    let layout = layout.expect("layout");
    let modules = Modules::read(image, &layout).expect("modules");
    let heap = Heap::read(image, &layout).expect("heap");
    let masks = TypeMasks::new(&layout, heap.largest_slot());
    let queues = Queues::read(image, &layout, &modules);
    let descriptors = Descriptors::new(&debug.types, &debug.constants).expect("descriptors");
    Model { debug, heap, modules, masks, queues, descriptors }
}

pub fn collect<'img>(process: &Process<'img>, model: &Model<'img>) -> Roots {
    let Model { debug, heap, modules, masks, queues, descriptors } = model;
    let sources = Sources {
        image: &process.image,
        threads: &process.threads,
        executable: &process.executable,
        debug,
        modules,
        heap,
        descriptors,
        masks,
        queues,
        load_bias: process.load_bias,
    };
    roots::collect(&sources).expect("roots")
}

pub fn walk<'img>(process: &Process<'img>, model: &mut Model<'img>, roots: &Roots, config: &Config) -> Walked {
    let types = std::mem::take(&mut model.debug.types);
    let Model { debug, heap, modules, masks, descriptors, .. } = model;
    let world = World::new(&process.image, heap, masks, modules, descriptors);
    let resolver = Resolver::new(debug, types, process.load_bias, config.types);
    traverse::walk(&world, resolver, roots, Options { max_depth: config.max_depth, fold: config.fold }, &|_| ())
}
