use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

use crate::image::executable::{Executable, Symbol};
use crate::image::synth::{bytes, exe, words};

const COMPRESSED: u64 = 0x800;

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// `Elf64_Chdr` in front of packed data.
fn chdr(ch_type: u64, size: u64, packed: &[u8]) -> Vec<u8> {
    [words(&[ch_type, size, 1]), packed.to_vec()].concat()
}

fn sym(name: u32, section: u16, value: u64, size: u64) -> Vec<u8> {
    let mut s = name.to_le_bytes().to_vec();
    s.extend([2, 0]);
    s.extend(section.to_le_bytes());
    s.extend(words(&[value, size]));
    s
}

#[test]
fn sections_are_uncompressed_whatever_the_form() {
    let contents = bytes(5000, 3);
    let mut e = exe(0x40_0000);
    let old = [b"ZLIB".to_vec(), 5000u64.to_be_bytes().to_vec(), zlib(&contents)].concat();
    e.sections = vec![
        (".debug_info", 1, COMPRESSED, 0, chdr(1, 5000, &zlib(&contents))),
        (".debug_line", 1, COMPRESSED, 0, chdr(2, 5000, &zstd::encode_all(&contents[..], 3).unwrap())),
        (".zdebug_frame", 1, 0, 0, old),
        (".debug_addr", 1, 0, 0, contents.clone()),
        (".go.buildinfo", 1, 2, 0x404000, b"\xff Go buildinf:".to_vec()),
        (".bss", 8, 3, 0x405000, vec![]),
    ];
    let file = e.build();
    let exe = Executable::parse(&file, Path::new("/tmp/prog")).unwrap();
    for name in [".debug_info", ".debug_line", ".debug_frame", ".debug_addr"] {
        assert_eq!(exe.section_data(name).unwrap(), contents, "{name}");
    }
    assert!(matches!(exe.section_data(".debug_addr"), Some(Cow::Borrowed(_))));
    assert_eq!(exe.section_data(".debug_loclists"), None);
    assert_eq!(exe.section(".go.buildinfo").unwrap().address, 0x404000);
    assert_eq!(exe.build_info().unwrap(), b"\xff Go buildinf:");
    assert_eq!(exe.section(".bss").unwrap().data(), b"");
    assert_eq!((exe.entry(), exe.is_pie(), &*exe.file_name()), (0x40_1000, false, "prog"));
    assert_eq!(exe.build_id(), Some(&b"\xab\xcd\xef\x01"[..]));
    assert_eq!(exe.go_build_id(), None);
}

#[test]
fn damaged_compression_is_an_error_and_sizes_no_allocation() {
    let packed = zlib(&bytes(5000, 3));
    let mut e = exe(0x40_0000);
    e.sections = vec![
        (".debug_info", 1, COMPRESSED, 0, chdr(1, u64::MAX, &packed)),
        (".debug_line", 1, COMPRESSED, 0, chdr(1, 4999, &packed)),
        (".debug_addr", 1, COMPRESSED, 0, chdr(1, 5001, &packed)),
        (".debug_frame", 1, COMPRESSED, 0, chdr(1, 5000, &packed[..100])),
        (".debug_str", 1, COMPRESSED, 0, chdr(2, u64::MAX, &packed)),
        (".debug_loc", 1, COMPRESSED, 0, chdr(7, 5000, &packed)),
        (".debug_ranges", 1, COMPRESSED, 0, vec![1, 2, 3]),
        (".zdebug_abbrev", 1, 0, 0, b"ZLIB\0".to_vec()),
    ];
    let file = e.build();
    let exe = Executable::parse(&file, Path::new("prog")).unwrap();
    for (name, text) in [
        (".debug_info", "cannot hold the declared"),
        (".debug_line", "expected 4999 bytes"),
        (".debug_addr", "expected 5001 bytes, found 5000"),
        (".debug_frame", "expected 5000 bytes"),
        (".debug_str", "zstd"),
        (".debug_loc", "found 7"),
        (".debug_ranges", "cut off"),
        (".debug_abbrev", "ZLIB"),
    ] {
        let message = exe.read_section(name).expect_err(name).to_string();
        assert!(message.starts_with(&format!("executable prog: section {name}: ")), "{message}");
        assert!(message.contains(text), "{message}");
        assert_eq!(exe.section_data(name), None);
    }
}

#[test]
fn symbols_are_found_by_name() {
    let mut e = exe(0x40_0000);
    let names = b"\0runtime.mheap_\0main.main\0undefined\0".to_vec();
    let table = [
        sym(0, 0, 0, 0),
        sym(1, 1, 0x404100, 0x200),
        sym(16, 1, 0x401000, 0),
        sym(16, 1, 0x402000, 9),
        sym(26, 0, 0x1234, 0),
        sym(0xffff_ff00, 1, 1, 1),
    ]
    .concat();
    // The reader takes sh_link from the table: the next section.
    e.sections = vec![(".symtab", 2, 0, 0, table), (".strtab", 3, 0, 0, names)];
    let file = e.build();
    let exe = Executable::parse(&file, Path::new("prog")).unwrap();
    assert_eq!(exe.symbol("runtime.mheap_"), Some(Symbol { address: 0x404100, size: 0x200 }));
    assert_eq!(exe.symbol("main.main"), Some(Symbol { address: 0x401000, size: 0 }), "the first one");
    assert_eq!(exe.symbol("undefined"), None);
    assert_eq!(exe.symbols().count(), 3);
}

#[test]
fn an_executable_without_sections_is_usable() {
    let file = exe(0x40_0000).build();
    let exe = Executable::parse(&file, Path::new("prog")).unwrap();
    assert_eq!(exe.sections().count(), 0);
    assert_eq!(exe.symbol("main.main"), None);
}

/// More sections than `e_shnum` can hold: their number and that of the names' section are in section header 0.
#[test]
fn more_sections_than_the_header_can_count() {
    let mut e = exe(0x40_0000);
    e.sections = (0..70_000).map(|_| (".many", 1, 0, 0, vec![1])).collect();
    e.sections.push((".symtab", 2, 0, 0, sym(1, 0xffff, 0x404100, 8)));
    e.sections.push((".strtab", 3, 0, 0, b"\0main.x\0".to_vec()));
    e.sections.push((".debug_info", 1, 0, 0, b"the last one".to_vec()));
    let mut file = e.build();
    let shoff = u64::from_le_bytes(file[40..48].try_into().unwrap()) as usize;
    let count = (file.len() - shoff) / 64;
    // SHN_LORESERVE and above: 0 sections, and SHN_XINDEX for the names.
    file[60..64].copy_from_slice(&[0, 0, 0xff, 0xff]);
    file[shoff + 32..shoff + 40].copy_from_slice(&(count as u64).to_le_bytes());
    file[shoff + 40..shoff + 44].copy_from_slice(&(count as u32 - 1).to_le_bytes());
    let exe = Executable::parse(&file, Path::new("prog")).unwrap();
    assert_eq!(exe.sections().count(), count);
    assert_eq!(exe.section_data(".debug_info").unwrap(), &b"the last one"[..]);
    assert_eq!(exe.symbol("main.x"), Some(Symbol { address: 0x404100, size: 8 }), "in a section beyond 65279");
}

/// A number that does not fit the file names no section and sizes nothing.
#[test]
fn section_counts_that_lie() {
    let mut e = exe(0x40_0000);
    e.sections = vec![(".debug_info", 1, 0, 0, bytes(64, 1))];
    let file = e.build();
    let shoff = u64::from_le_bytes(file[40..48].try_into().unwrap()) as usize;
    for count in [4, 1 << 32, u64::MAX / 64, u64::MAX] {
        let mut file = file.clone();
        file[60..62].copy_from_slice(&[0, 0]);
        file[shoff + 32..shoff + 40].copy_from_slice(&count.to_le_bytes());
        let exe = Executable::parse(&file, Path::new("prog")).unwrap();
        assert_eq!(exe.sections().count(), 0, "{count}");
    }
}
