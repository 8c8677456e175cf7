//! Tests on a module written by hand, with a layout of the test's own.

use super::testing::Bytes;
use super::*;

const MD: u64 = 0x1000;
const HEADER: u64 = 0x2000;
const FTAB: u64 = 0x3000;
const FUNCS: u64 = 0x4000;
const PCTAB: u64 = 0x5000;
const NAMES: u64 = 0x6000;
const SECTIONS: u64 = 0x7000;
const MASKS: u64 = 0x8000;
const TEXT: u64 = 0x40_0000;
const DATA: u64 = 0x50_0000;

fn layout() -> RuntimeLayout {
    let mut l = RuntimeLayout::default();
    l.globals.firstmoduledata = MD;
    let md = &mut l.moduledata;
    let fields = [
        &mut md.pc_header,
        &mut md.text,
        &mut md.etext,
        &mut md.minpc,
        &mut md.maxpc,
        &mut md.data,
        &mut md.edata,
        &mut md.bss,
        &mut md.ebss,
        &mut md.gcdata,
        &mut md.gcbss,
        md.gofunc.insert(0),
        &mut md.next,
        &mut md.bad,
    ];
    for (i, field) in (0u64..).zip(fields) {
        *field = i * 8;
    }
    for (i, field) in
        (0u64..).zip([&mut md.pclntable, &mut md.ftab, &mut md.pctab, &mut md.funcnametab, &mut md.textsectmap])
    {
        *field = 0x100 + i * 24;
    }
    for field in [
        &mut md.noptrdata,
        &mut md.enoptrdata,
        &mut md.noptrbss,
        &mut md.enoptrbss,
        &mut md.types,
        &mut md.etypes,
        md.rodata.insert(0),
    ] {
        *field = 0x180;
    }
    (md.gcdatamask, md.gcbssmask) = (0x190, 0x1a0);
    l.bitvector.bytedata = 8;
    (l.pc_header.min_lc, l.pc_header.ptr_size) = (6, 7);
    (l.functab.size, l.functab.funcoff, l.functab.entry_bytes) = (8, 4, 4);
    (l.func.size, l.func.entry_bytes) = (44, 4);
    (l.func.name_off, l.func.args, l.func.deferreturn, l.func.pcsp) = (4, 8, 12, 16);
    (l.func.npcdata, l.func.func_id, l.func.flag, l.func.nfuncdata) = (28, 40, 41, 43);
    (l.textsect.size, l.textsect.end, l.textsect.baseaddr) = (24, Some(8), 16);
    l
}

fn put(bytes: &mut Vec<u8>, at: usize, value: &[u8]) {
    if bytes.len() < at + value.len() {
        bytes.resize(at + value.len(), 0);
    }
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Functions f at offset 0 and g at 0x40, end at 0x100; `sections` text sections.
fn module(sections: &[[u64; 3]]) -> Vec<(u64, Vec<u8>)> {
    let mut md = vec![0; 0x200];
    let words: [u64; 14] = [
        HEADER,
        TEXT,
        TEXT + 0x100,
        TEXT,
        TEXT + 0x10_0000,
        DATA,
        DATA + 80,
        DATA + 80,
        DATA + 80,
        0x9000,
        0,
        0x77_0000,
        0,
        0,
    ];
    for (i, word) in words.iter().enumerate() {
        put(&mut md, i * 8, &word.to_le_bytes());
    }
    let slices = [(FUNCS, 0x1000), (FTAB, 3), (PCTAB, 64), (NAMES, 32), (SECTIONS, sections.len() as u64)];
    for (i, (start, len)) in slices.iter().enumerate() {
        put(&mut md, 0x100 + i * 24, &start.to_le_bytes());
        put(&mut md, 0x108 + i * 24, &u64::to_le_bytes(*len));
    }
    put(&mut md, 0x190, &10u32.to_le_bytes());
    put(&mut md, 0x198, &MASKS.to_le_bytes());

    let mut ftab = Vec::new();
    for word in [0u32, 0, 0x40, 0x80, 0x100, 0] {
        ftab.extend(word.to_le_bytes());
    }
    let mut funcs = Vec::new();
    // g: name at 2, args 24, SP table at 1, two pcdata tables, two funcdata.
    for (at, value) in [
        (0x80, 0x40u32),
        (0x84, 2),
        (0x88, 24),
        (0x90, 1),
        (0x9c, 2),
        (0xac, 0),
        (0xb0, 9),
        (0xb4, u32::MAX),
        (0xb8, 0x123),
    ] {
        put(&mut funcs, at, &value.to_le_bytes());
    }
    put(&mut funcs, 0x80 + 40, &[7, 2, 0, 2]);
    // At 1: 0 for 4 bytes, 16 for 0x8c, 0 for 1. At 9: the same start, then cut off by a zero.
    let mut pctab = vec![0, 2, 4, 32, 0x8c, 0x01, 31, 1, 0, 2, 4, 0, 0];
    pctab.resize(64, 0);
    let mut names = b"f\0main.g\0".to_vec();
    names.resize(32, 0);
    let map = sections.iter().flatten().flat_map(|w| w.to_le_bytes()).collect();
    vec![
        (MD, md),
        (HEADER, vec![0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8]),
        (FTAB, ftab),
        (FUNCS, funcs),
        (PCTAB, pctab),
        (NAMES, names),
        (SECTIONS, map),
        (MASKS, vec![0b1000_0001, 0b10]),
        (0x9000, vec![3, 0b101, 0]),
        (DATA, vec![0; 80]),
    ]
}

#[test]
fn functions_by_pc() {
    let image = Bytes::new(module(&[]));
    let modules = Modules::read(&image, &layout()).expect("a module");
    assert!(modules.incidents().is_empty(), "{:?}", modules.incidents());
    assert_eq!(modules.find_func(&image, TEXT - 1), None);
    assert_eq!(modules.find_func(&image, TEXT + 0x3f).expect("f").index, 0);
    let g = modules.find_func(&image, TEXT + 0x40).expect("g");
    assert_eq!(Some(g), modules.find_func(&image, TEXT + 0xff));
    assert_eq!(modules.find_func(&image, TEXT + 0x100), None, "the last entry is the end");
    assert_eq!((g.index, g.entry, g.end), (1, TEXT + 0x40, TEXT + 0x100));
    assert_eq!((g.args, g.func_id, g.flag, g.nfuncdata), (24, 7, 2, 2));
    assert_eq!(modules.func_name(&image, &g).as_deref(), Some("main.g"));
    assert_eq!(modules.name_at(&image, 0, -1), None);

    let delta = |pc| modules.sp_delta(&image, &g, g.entry + pc);
    assert_eq!(
        [delta(0), delta(3), delta(4), delta(0x8f), delta(0x90)],
        [Some(0), Some(0), Some(16), Some(16), Some(0)]
    );
    assert_eq!(delta(0x91), None, "past the table");
    let map = |pc| modules.pcdata(&image, &g, PcData::StackMapIndex, g.entry + pc);
    assert_eq!([map(0), map(4)], [Some(0), None]);
    assert_eq!(modules.pcdata(&image, &g, PcData::UnsafePoint, g.entry), Some(-1), "offset 0 is no table");
    assert_eq!(modules.pcdata(&image, &g, PcData::InlTreeIndex, g.entry), Some(-1), "not that many tables");
    assert_eq!(modules.funcdata(&image, &g, FuncData::ArgsPointerMaps), None);
    assert_eq!(modules.funcdata(&image, &g, FuncData::LocalsPointerMaps), Some(0x77_0123));
    assert_eq!(modules.funcdata(&image, &g, FuncData::StackObjects), None);
}

/// Go 1.17: the function table has addresses, and a function's funcdata are pointers behind an aligned gap.
#[test]
fn functions_of_go_1_17() {
    let mut l = layout();
    (l.moduledata.gofunc, l.moduledata.rodata) = (None, None);
    (l.functab.size, l.functab.funcoff, l.functab.entry_bytes) = (16, 8, 8);
    (l.func.size, l.func.entry_bytes) = (48, 8);
    (l.func.name_off, l.func.args, l.func.deferreturn, l.func.pcsp) = (8, 12, 16, 20);
    (l.func.npcdata, l.func.func_id, l.func.flag, l.func.nfuncdata) = (32, 40, 41, 43);
    (l.textsect.end, l.textsect.length) = (None, Some(8));
    let mut ranges = module(&[]);
    // The last word is an address in a position-independent executable, as its relocations are.
    let ftab = [TEXT, 0, TEXT + 0x40, 0x80, TEXT + 0x100, 0x5555_5555_0000];
    let mut g = Vec::new();
    put(&mut g, 0x80, &(TEXT + 0x40).to_le_bytes());
    // Two pcdata from 44 on.
    for (at, value) in [(0x88, 2u32), (0x8c, 24), (0x94, 1), (0xa0, 2), (0xac, 0), (0xb0, 9)] {
        put(&mut g, at, &value.to_le_bytes());
    }
    put(&mut g, 0x80 + 40, &[7, 2, 0, 2]);
    // Behind two pcdata, at 52, comes a gap of four bytes; then nil and a pointer.
    put(&mut g, 0x80 + 56, &[0; 8]);
    put(&mut g, 0x80 + 64, &0x55_0123u64.to_le_bytes());
    for (start, bytes) in &mut ranges {
        match *start {
            FTAB => *bytes = ftab.iter().flat_map(|w| w.to_le_bytes()).collect(),
            FUNCS => bytes.clone_from(&g),
            HEADER => bytes[0] = 0xfa,
            _ => {}
        }
    }
    let image = Bytes::new(ranges);
    let modules = Modules::read(&image, &l).expect("a module");
    assert!(modules.incidents().is_empty(), "{:?}", modules.incidents());
    let g = modules.find_func(&image, TEXT + 0x50).expect("g");
    assert_eq!((g.index, g.entry, g.end, g.args, g.flag), (1, TEXT + 0x40, TEXT + 0x100, 24, 2));
    assert_eq!(modules.func_name(&image, &g).as_deref(), Some("main.g"));
    assert_eq!(modules.sp_delta(&image, &g, g.entry + 4), Some(16));
    assert_eq!(modules.pcdata(&image, &g, PcData::StackMapIndex, g.entry), Some(0));
    assert_eq!(modules.funcdata(&image, &g, FuncData::ArgsPointerMaps), None);
    assert_eq!(modules.funcdata(&image, &g, FuncData::LocalsPointerMaps), Some(0x55_0123));
}

#[test]
fn text_sections_are_translated() {
    let image = Bytes::new(module(&[[0, 0x40, TEXT], [0x40, 0x100, TEXT + 0x5000]]));
    let modules = Modules::read(&image, &layout()).expect("a module");
    let g = modules.find_func(&image, TEXT + 0x5000).expect("g");
    assert_eq!((g.index, g.entry), (1, TEXT + 0x5000));
    assert_eq!(modules.find_func(&image, TEXT + 0x40), None, "between the sections");
}

#[test]
fn masks_come_from_the_vector_or_the_program() {
    let mut ranges = module(&[]);
    let modules = Modules::read(&Bytes::new(ranges.clone()), &layout()).expect("a module");
    assert_eq!(modules.list[0].gcdata_mask.ones().collect::<Vec<_>>(), [0, 7, 9]);
    assert_eq!(modules.list[0].gcbss_mask, Mask::default());
    ranges.retain(|(at, _)| *at != MASKS);
    let modules = Modules::read(&Bytes::new(ranges.clone()), &layout()).expect("a module");
    assert_eq!(modules.list[0].gcdata_mask.ones().collect::<Vec<_>>(), [0, 2]);
    assert_eq!(modules.list[0].gcdata_mask.nbits, 10);
    assert_eq!(modules.incidents().get("module.mask_from_program"), 1);
    ranges.retain(|(at, _)| *at != 0x9000);
    let modules = Modules::read(&Bytes::new(ranges), &layout()).expect("a module");
    assert_eq!(modules.incidents().get("module.mask_unread"), 1);
}

/// Types from 0x9100 to 0x9200, itabs from 0x91c0 on: as 1.27 says it, as the older releases do, and damaged.
#[test]
fn descriptors_end_at_the_first_itab() {
    let mut ranges = module(&[]);
    for (at, word) in [(0x1b0, 0x9100u64), (0x1b8, 0x9200), (0x1c0, 0xc0), (0x1c8, 0xa000), (0x1d0, 4)] {
        put(&mut ranges[0].1, at, &word.to_le_bytes());
    }
    let itabs = [0x91e0u64, 0x91c0, 0x40, 0x9300];
    ranges.push((0xa000, itabs.iter().flat_map(|itab| itab.to_le_bytes()).collect()));
    let bound = |ranges: &[(u64, Vec<u8>)], offset: Option<u64>, links: Option<u64>| {
        let mut l = layout();
        (l.moduledata.types, l.moduledata.etypes) = (0x1b0, 0x1b8);
        (l.moduledata.itaboffset, l.moduledata.itablinks) = (offset, links);
        let modules = Modules::read(&Bytes::new(ranges.to_vec()), &l).expect("a module");
        modules.list[0].descriptors
    };
    let whole = AddrRange::from_bounds(Addr(0x9100), Addr(0x9200));
    let short = AddrRange::from_bounds(Addr(0x9100), Addr(0x91c0));
    assert_eq!(bound(&ranges, Some(0x1c0), None), short);
    assert_eq!(bound(&ranges, None, Some(0x1c8)), short);
    assert_eq!(bound(&ranges, None, None), whole);
    for length in [0u64, u64::MAX, 1 << 40] {
        put(&mut ranges[0].1, 0x1d0, &length.to_le_bytes());
        put(&mut ranges[0].1, 0x1c0, &length.to_le_bytes());
        assert_eq!(bound(&ranges, None, Some(0x1c8)), whole, "a list of {length} itabs that is not there");
        assert_eq!(bound(&ranges, Some(0x1c0), None), whole, "itabs at {length}");
    }
}

#[test]
fn chains_end() {
    let mut ranges = module(&[]);
    put(&mut ranges[0].1, 12 * 8, &MD.to_le_bytes());
    let modules = Modules::read(&Bytes::new(ranges), &layout()).expect("a module");
    assert_eq!(modules.incidents().get("module.cycle"), 1);
    assert!(Modules::read(&Bytes::new(vec![]), &layout()).is_err());
}

#[test]
fn damage_anywhere_never_panics() {
    let clean = module(&[[0, 0x40, TEXT], [0x40, 0x100, TEXT + 0x5000]]);
    let mut seed = 7u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize
    };
    for _ in 0..3000 {
        let mut ranges = clean.clone();
        for _ in 0..1 + random() % 4 {
            let i = random() % ranges.len();
            let bytes = &mut ranges[i].1;
            let at = random() % bytes.len().max(1);
            match random() % 3 {
                _ if bytes.is_empty() => {}
                0 => bytes[at] ^= 1 << (random() % 8),
                1 => bytes[at] = random() as u8,
                _ => bytes.truncate(at),
            }
        }
        let image = Bytes::new(ranges);
        let Ok(modules) = Modules::read(&image, &layout()) else { continue };
        for pc in [TEXT, TEXT + 0x3f, TEXT + 0x5000, TEXT + 0x50bf] {
            let Some(func) = modules.find_func(&image, pc) else { continue };
            let _ = modules.func_name(&image, &func);
            let _ = modules.sp_delta(&image, &func, pc);
            let _ = modules.pcdata(&image, &func, PcData::StackMapIndex, pc);
            let _ = modules.funcdata(&image, &func, FuncData::LocalsPointerMaps);
        }
    }
}
