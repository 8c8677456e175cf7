use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::address::Addr;
use crate::image::decompress::{self, Format};
use crate::image::synth::{Core, Files, R, W, X, bytes, exe, file, with_process};
use crate::image::{Image, Inputs, Process};

const BASE: u64 = 0x40_0000;
const HEAP: u64 = 0xc0_0000_0000;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Mostly zeros, as real cores are.
fn core() -> Vec<u8> {
    let e = exe(BASE);
    let mut core = Core::of(&e, 0);
    core.load(BASE, R | X, 0x3000, e.page(0, 0x1000));
    let mut heap = vec![0; 8 << 20];
    heap[5 << 20..][..5000].copy_from_slice(&bytes(5000, 1));
    core.load(HEAP, R | W, heap.len() as u64, heap);
    core.build()
}

fn assert_heap(p: &Process<'_>) {
    let mut buf = [0; 5002];
    p.image.read(Addr(HEAP + (5 << 20) - 1), &mut buf).unwrap();
    assert_eq!(buf[1..5001], bytes(5000, 1));
    assert_eq!((buf[0], buf[5001]), (0, 0));
    assert_eq!(p.image.read_u64(Addr(HEAP + (8 << 20) - 8)), Ok(0), "zeros at the end of the file");
}

#[test]
fn compressed_files_read_like_plain_ones() {
    let (e, c) = (exe(BASE).build(), core());
    let halves = c.split_at(c.len() / 3);
    let zstd_frames = [zstd::encode_all(halves.0, 1).unwrap(), zstd::encode_all(halves.1, 1).unwrap()].concat();
    let gzip_members = [gzip(halves.0), gzip(halves.1)].concat();
    for (exe, core) in [(gzip(&e), zstd_frames), (zstd::encode_all(&e[..], 1).unwrap(), gzip_members)] {
        with_process(&exe, &core, |p| {
            let p = p.unwrap();
            assert_heap(&p);
            assert!(p.incidents.is_empty());
        });
    }
}

#[test]
fn zero_blocks_take_no_space() {
    let packed = file(&gzip(&core()));
    let unpacked = decompress::unpack(&packed.reopen().unwrap(), Format::Gzip, "core", None).unwrap();
    let metadata = unpacked.file.metadata().unwrap();
    assert_eq!(metadata.nlink(), 0, "unlinked");
    assert!(!unpacked.truncated);
    assert_eq!(metadata.len(), core().len() as u64);
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
}

#[test]
fn compressed_data_that_ends_early_is_a_truncated_core() {
    let e = exe(BASE).build();
    let mut plain = Core::of(&exe(BASE), 0);
    plain.load(BASE, R | X, 0x3000, exe(BASE).page(0, 0x1000));
    plain.load(HEAP, R | W, 4 << 20, (0..4 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect());
    for packed in [gzip(&plain.build()), zstd::encode_all(&plain.build()[..], 1).unwrap()] {
        let cut = &packed[..packed.len() / 2];
        with_process(&e, cut, |p| {
            let p = p.unwrap();
            assert_eq!(p.incidents.get("core.compressed_data_cut_off"), 1);
            let missing = p.image.missing().bytes();
            assert!((1 << 20..4 << 20).contains(&missing), "{missing}");
            assert!(p.image.read_u64(Addr(HEAP)).is_ok());
        });
    }
    let packed = gzip(&e);
    with_process(&packed[..packed.len() / 2], &plain.build(), |p| {
        assert!(p.err().unwrap().ends_with("the compressed data ends early"));
    });
}

#[test]
fn damaged_compressed_data_is_an_error() {
    let mut packed = zstd::encode_all(&core()[..], 1).unwrap();
    for b in &mut packed[6..40] {
        *b ^= 0x5a;
    }
    with_process(&exe(BASE).build(), &packed, |p| {
        let message = p.err().unwrap();
        assert!(message.contains("zstd data is damaged"), "{message}");
    });
}

#[test]
fn an_unusable_directory_for_temporary_files_is_named() {
    let files = Files::new(&exe(BASE).build(), &gzip(&core()));
    let error = Inputs::open(files.exe.path(), files.core.path(), Some(Path::new("/no/such/dir"))).unwrap_err();
    assert!(error.to_string().contains("cannot create a temporary file in /no/such/dir"), "{error}");
    assert!(error.remedy_text().is_some());
}

#[test]
fn wrong_files_are_named_in_one_line() {
    let (e, c) = (exe(BASE).build(), core());
    let with_byte = |file: &[u8], at: usize, value: u8| {
        let mut file = file.to_vec();
        file[at] = value;
        file
    };
    let cases: &[(&[u8], &[u8], &str)] = &[
        (&e, b"", "core dump PATH: the file is empty"),
        (b"", &c, "executable PATH: the file is empty"),
        (&e, b"hello", "core dump PATH: expected an ELF file, found one that starts with bytes 68 65 6c 6c"),
        (
            &e,
            b"\x04\x22\x4d\x18rest",
            "core dump PATH: expected an ELF file, found lz4-compressed data; decompress it first",
        ),
        (&e, &e, "core dump PATH: expected a core dump, found an executable"),
        (&c, &e, "core dump PATH: expected a core dump, found an executable"),
        (&c, &c, "executable PATH: expected an executable, found a core dump"),
        (b"#!/bin/sh", &c, "executable PATH: expected an ELF file, found a script"),
        (&e, &c[..40], "core dump PATH: cut off in the ELF header: expected 64 bytes, found 40"),
        (
            &with_byte(&e, 4, 1),
            &c,
            "executable PATH: unsupported machine: expected linux/amd64 (64-bit x86-64) or linux/arm64 (AArch64), found a 32-bit ELF file (x86-64)",
        ),
        (
            &e,
            &with_byte(&c, 18, 243),
            "core dump PATH: unsupported machine: expected linux/amd64 (64-bit x86-64) or linux/arm64 (AArch64), found riscv",
        ),
        (
            &e,
            &with_byte(&c, 18, 183),
            "executable PATH does not belong to core dump PATH: the process ran on arm64, the executable is for amd64",
        ),
        (
            &with_byte(&e, 18, 183),
            &c,
            "executable PATH does not belong to core dump PATH: the process ran on amd64, the executable is for arm64",
        ),
        (
            &with_byte(&with_byte(&with_byte(&e, 5, 2), 19, 22), 18, 0),
            &c,
            "executable PATH: unsupported machine: expected linux/amd64 (64-bit x86-64) or linux/arm64 (AArch64), found a big-endian ELF file (s390x)",
        ),
        (&with_byte(&e, 16, 1), &c, "executable PATH: expected an executable, found an object file"),
    ];
    for (exe, core, expected) in cases {
        let files = Files::new(exe, core);
        let message = files.open().and_then(|i| Process::parse(&i).map(|_| ())).unwrap_err().to_string();
        let message = message.replace(files.exe.path().to_str().unwrap(), "PATH");
        let message = message.replace(files.core.path().to_str().unwrap(), "PATH");
        assert_eq!(message, *expected);
    }
    let files = Files::new(&e, &c);
    let dir = Inputs::open(Path::new("/"), files.core.path(), None).unwrap_err().to_string();
    assert_eq!(dir, "executable /: expected a regular file, found a directory");
    let absent = Inputs::open(Path::new("/no/such"), files.core.path(), None).unwrap_err().to_string();
    assert!(absent.starts_with("executable /no/such: cannot open: No such file"), "{absent}");
}

#[test]
fn changes_under_way_are_noticed() {
    let files = Files::new(&exe(BASE).build(), &core());
    let inputs = files.open().unwrap();
    inputs.verify_unchanged().unwrap();
    files.core.as_file().set_len(64 << 20).unwrap();
    let error = inputs.verify_unchanged().unwrap_err();
    assert!(error.to_string().contains("its length was"), "{error}");
    let inputs = files.open().unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    files.exe.as_file().set_modified(later).unwrap();
    let error = inputs.verify_unchanged().unwrap_err();
    assert!(error.to_string().contains("its modification time is new"), "{error}");
}

#[test]
fn advice_outside_the_file_is_ignored() {
    let files = Files::new(&exe(BASE).build(), &core());
    let inputs = files.open().unwrap();
    for (offset, len) in [(0, u64::MAX), (u64::MAX, 1), (4096, 4096), (1, 2)] {
        inputs.core().map().advise_random(offset, len);
        inputs.core().map().advise_sequential(offset, len);
        inputs.core().map().advise_will_need(offset, len);
    }
}
