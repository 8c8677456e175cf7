//! What damage is aimed at: where in the files of a dump the analysis finds what it trusts.

use goref_fast::address::Addr;
use goref_fast::image::executable::Executable;
use goref_fast::image::{Image, Inputs, Process};
use goref_fast::model::dwarf::DebugInfo;
use goref_fast::model::heap::Heap;
use goref_fast::model::layout::RuntimeLayout;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{Object, ObjectSection, ObjectSymbol};
use std::ops::Range;
use std::path::Path;

/// Something that the analysis reads, as ranges of a file.
pub struct Aim {
    pub name: &'static str,
    pub ranges: Vec<Range<u64>>,
}

/// Where the interesting memory of a core lies in its file.
pub fn memory_aims(exe: &Path, core: &Path) -> Vec<Aim> {
    let inputs = Inputs::open(exe, core, None).unwrap();
    let process = Process::parse(&inputs).unwrap();
    let debug = DebugInfo::load(&process.executable).unwrap();
    let layout = RuntimeLayout::find(&debug.types, &debug.variables, &debug.constants, process.load_bias).unwrap();
    let image = &process.image;
    let heap = Heap::read(image, &layout).unwrap();
    let bytes = inputs.core().data();
    let header = object::elf::FileHeader64::<object::LittleEndian>::parse(bytes).unwrap();
    let le = object::LittleEndian;
    let segments: Vec<(u64, Range<u64>)> = header
        .program_headers(le, bytes)
        .unwrap()
        .iter()
        .filter(|s| s.p_type(le) == object::elf::PT_LOAD)
        .map(|s| (s.p_vaddr(le), s.p_offset(le)..s.p_offset(le) + s.p_filesz(le)))
        .collect();
    // Ranges of memory to ranges of the file; what the core does not hold is left out.
    let in_file = |start: u64, len: u64| {
        segments.iter().find_map(|(vaddr, range)| {
            let at = range.start + start.checked_sub(*vaddr)?;
            (at < range.end && len > 0).then(|| at..range.end.min(at + len))
        })
    };
    let variable = |name: &str| {
        let of = debug.variables.iter().filter(|v| &*v.name == name);
        let size = |v: &goref_fast::model::dwarf::GlobalVariable| debug.types.get(v.ty).size;
        of.filter_map(|v| in_file(v.address.wrapping_add(process.load_bias), size(v))).collect::<Vec<_>>()
    };
    let word = |at: u64| image.read_u64(Addr(at)).unwrap_or(0);
    let slice = |at: u64, elem: u64| in_file(word(at), word(at + 8).min(1 << 20) * elem);
    let globals = &layout.globals;
    let allspans = globals.mheap + layout.mheap.allspans;
    let mut aims = vec![
        Aim { name: "mheap_.allspans", ranges: in_file(allspans, 24).into_iter().chain(slice(allspans, 8)).collect() },
        Aim {
            name: "mspan records",
            ranges: heap
                .spans()
                .iter()
                .enumerate()
                .filter_map(|(id, _)| {
                    let id = goref_fast::model::heap::SpanId(u32::try_from(id).unwrap());
                    in_file(heap.details(id).mspan, layout.mspan.size)
                })
                .collect(),
        },
        Aim {
            name: "allocation bits",
            ranges: heap
                .spans()
                .iter()
                .enumerate()
                .flat_map(|(id, _)| {
                    let details = heap.details(goref_fast::model::heap::SpanId(u32::try_from(id).unwrap()));
                    [in_file(details.alloc_bits, 64), in_file(details.gcmark_bits, 64), in_file(details.specials, 64)]
                })
                .flatten()
                .collect(),
        },
        Aim {
            name: "moduledata",
            ranges: in_file(globals.firstmoduledata, layout.moduledata.size).into_iter().collect(),
        },
        Aim {
            name: "pointer masks of data and bss",
            ranges: [layout.moduledata.gcdatamask, layout.moduledata.gcbssmask]
                .into_iter()
                .filter_map(|field| in_file(word(globals.firstmoduledata + field + layout.bitvector.bytedata), 4096))
                .collect(),
        },
        Aim {
            name: "collector state",
            ranges: [
                "runtime.work",
                "runtime.gcController",
                "runtime.gcphase",
                "runtime.memstats",
                "runtime.mheap_",
                "runtime.sched",
                "runtime.allfin",
                "runtime.gcCleanups",
            ]
            .iter()
            .flat_map(|n| variable(n))
            .collect(),
        },
        Aim {
            name: "package variables",
            ranges: debug
                .variables
                .iter()
                .filter_map(|v| in_file(v.address.wrapping_add(process.load_bias), debug.types.get(v.ty).size))
                .collect(),
        },
    ];
    let mut list = |name, spans: &dyn Fn(&goref_fast::model::heap::Span) -> bool, front: u64| {
        let ranges = heap.spans().iter().enumerate().filter(|(_, s)| spans(s)).filter_map(|(id, s)| {
            let pages = heap.details(goref_fast::model::heap::SpanId(u32::try_from(id).unwrap())).npages * 8192;
            in_file(s.start, if front == 0 { pages } else { front })
        });
        aims.push(Aim { name, ranges: ranges.collect() });
    };
    list("heap objects with pointers", &|s| !s.noscan(), 0);
    list("all heap pages", &|_| true, 0);
    list("malloc headers and large objects", &|s| !s.noscan() && s.elem_size() > 512, 64);
    let (mut gs, mut stacks) = (Vec::new(), Vec::new());
    let allgs = globals.allgs;
    for i in 0..word(allgs + 8).min(1000) {
        let g = word(word(allgs) + 8 * i);
        gs.extend(in_file(g, layout.g.size));
        let (sp, hi) = (word(g + layout.g.sched_sp), word(g + layout.g.stack_hi));
        stacks.extend(in_file(sp, hi.saturating_sub(sp).min(1 << 16)));
    }
    gs.extend(slice(allgs, 8));
    gs.extend(in_file(allgs, 24));
    let (mut ms, mut m) = (variable("runtime.allm"), word(globals.allm));
    while m != 0 && ms.len() < 100 {
        ms.extend(in_file(m, layout.m.size));
        m = word(m + layout.m.alllink);
    }
    ms.extend(variable("runtime.allp"));
    aims.push(Aim { name: "goroutines", ranges: gs });
    aims.push(Aim { name: "stacks", ranges: stacks });
    aims.push(Aim { name: "threads", ranges: ms });
    // Read-only data is in cores of the kernel only if its filter says so.
    for (name, start, end) in [
        ("type descriptors in the core", layout.moduledata.types, layout.moduledata.etypes),
        ("function tables in the core", layout.moduledata.pclntable, layout.moduledata.ftab),
    ] {
        let (start, end) = (word(globals.firstmoduledata + start), word(globals.firstmoduledata + end));
        aims.push(Aim { name, ranges: in_file(start, end.saturating_sub(start)).into_iter().collect() });
    }
    let threads = header.program_headers(le, bytes).unwrap().iter();
    let notes = threads.filter(|s| s.p_type(le) == object::elf::PT_NOTE);
    aims.push(Aim {
        name: "headers and notes of the core",
        ranges: notes
            .map(|s| s.p_offset(le)..s.p_offset(le) + s.p_filesz(le))
            .chain(std::iter::once(0..4096))
            .collect(),
    });
    for aim in &mut aims {
        aim.ranges.retain(|r| r.start < r.end);
    }
    aims.retain(|aim| !aim.ranges.is_empty());
    aims
}

/// The executable with its debug sections unpacked, so that damage reaches what is behind the compression: the sections are
/// appended and their headers changed.
pub fn inflated(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut changes = Vec::new();
    {
        let executable = Executable::parse(&bytes, Path::new("executable")).unwrap();
        let elf = ElfFile64::<object::LittleEndian>::parse(&bytes[..]).unwrap();
        let headers = elf.elf_header().e_shoff.get(object::LittleEndian);
        for section in elf.sections() {
            let name = section.name().unwrap();
            if name.starts_with(".debug_") {
                let data = executable.section_data(name).unwrap().into_owned();
                changes.push((headers + 64 * section.index().0 as u64, data));
            }
        }
    }
    for (header, data) in changes {
        let header = usize::try_from(header).unwrap();
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        let (offset, size) = (bytes.len() as u64, data.len() as u64);
        bytes[header + 8..header + 16].copy_from_slice(&0u64.to_le_bytes());
        bytes[header + 24..header + 32].copy_from_slice(&offset.to_le_bytes());
        bytes[header + 32..header + 40].copy_from_slice(&size.to_le_bytes());
        bytes.extend(data);
    }
    bytes
}

/// Sections of an executable, and its headers.
pub fn executable_aims(bytes: &[u8]) -> Vec<Aim> {
    let elf = ElfFile64::<object::LittleEndian>::parse(bytes).unwrap();
    let mut aims = vec![Aim { name: "headers of the executable", ranges: std::iter::once(0..1000).collect() }];
    let headers = elf.elf_header().e_shoff.get(object::LittleEndian);
    aims.push(Aim {
        name: "section headers",
        ranges: std::iter::once(headers..headers + 64 * elf.sections().count() as u64).collect(),
    });
    let sections = [
        ".rodata",
        ".typelink",
        ".itablink",
        ".gopclntab",
        ".go.buildinfo",
        ".note.go.buildid",
        ".text",
        ".symtab",
        ".debug_abbrev",
        ".debug_info",
        ".debug_line",
        ".debug_ranges",
        ".debug_rnglists",
        ".debug_loclists",
        ".debug_loc",
        ".debug_addr",
        ".debug_frame",
        ".debug_gdb_scripts",
    ];
    for name in sections {
        let range = elf.section_by_name(name).and_then(|s| s.file_range()).map(|(offset, size)| offset..offset + size);
        aims.extend(range.filter(|r| r.start < r.end).map(|range| Aim { name, ranges: vec![range] }));
    }
    // Descriptors are the front of .rodata: `types` up to `etypes`.
    let symbol = |name: &str| elf.symbols().find(|s| s.name() == Ok(name)).map(|s| s.address());
    let rodata = elf.section_by_name(".rodata").and_then(|s| Some((s.address(), s.file_range()?.0)));
    if let (Some(types), Some(etypes), Some((address, offset))) =
        (symbol("runtime.types"), symbol("runtime.etypes"), rodata)
    {
        let range = types - address + offset..etypes - address + offset;
        aims.push(Aim { name: "type descriptors", ranges: vec![range] });
    }
    aims
}
