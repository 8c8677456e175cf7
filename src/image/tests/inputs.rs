use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use liblzma::stream::MtStreamBuilder;
use lz4_flex::frame::{BlockSize, FrameInfo};

use crate::address::Addr;
use crate::image::decompress::{self, Format};
use crate::image::synth::{Core, Files, R, Random, W, X, bytes, exe, file, with_process};
use crate::image::{Image, Inputs, Process, Unwatched};

const BASE: u64 = 0x40_0000;
const HEAP: u64 = 0xc0_0000_0000;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 1).unwrap()
}

fn lz4(data: &[u8]) -> Vec<u8> {
    let info = FrameInfo::new().block_size(BlockSize::Max256KB).content_checksum(true);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn xz(data: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Several blocks with their sizes, as `xz -T` makes them.
fn xz_blocks(data: &[u8]) -> Vec<u8> {
    let stream = MtStreamBuilder::new().threads(2).preset(1).block_size(256 << 10).encoder().unwrap();
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

type Pack = fn(&[u8]) -> Vec<u8>;

const FORMATS: [(&str, Pack); 5] = [("gzip", gzip), ("zstd", zstd), ("lz4", lz4), ("xz", xz), ("xz", xz_blocks)];

/// Does not shrink: compressed data is where the plain data is.
fn noise(len: usize) -> Vec<u8> {
    let mut random = Random(3);
    (0..len).map(|_| random.below(256) as u8).collect()
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
    for (i, (name, pack)) in FORMATS.into_iter().enumerate() {
        // The other file in another format.
        let (_, pack_exe) = FORMATS[(i + 1) % FORMATS.len()];
        let frames = [pack(halves.0), pack(halves.1)].concat();
        for packed in [pack(&c), frames] {
            with_process(&pack_exe(&e), &packed, |p| {
                let p = p.unwrap();
                assert_heap(&p);
                assert!(p.incidents.is_empty(), "{name}: {:?}", p.incidents);
            });
        }
    }
}

/// What stands between streams: padding in xz, skippable frames in lz4 and zstd, empty members and frames everywhere.
#[test]
fn what_lies_between_frames_is_skipped() {
    let (e, c) = (exe(BASE).build(), core());
    let halves = c.split_at(c.len() / 3);
    let skippable = [0x5a, 0x2a, 0x4d, 0x18, 5, 0, 0, 0, 1, 2, 3, 4, 5];
    let between: [(Pack, &[u8]); 4] = [(xz, &[0; 8]), (xz_blocks, &[0; 4]), (lz4, &skippable), (zstd, &skippable)];
    for (pack, between) in between {
        let packed = [&pack(halves.0), between, &pack(&[]), &pack(halves.1), between].concat();
        with_process(&e, &packed, |p| assert_heap(&p.unwrap()));
    }
    // A skippable frame that ends early is data that ends early.
    let packed = [&lz4(&c)[..], &skippable[..10]].concat();
    with_process(&e, &packed, |p| assert_eq!(p.unwrap().incidents.get("core.compressed_data_cut_off"), 1));
}

#[test]
fn zero_blocks_take_no_space() {
    let packed = file(&gzip(&core()));
    let unpacked = decompress::unpack(&packed.reopen().unwrap(), Format::Gzip, "core", None, &Unwatched).unwrap();
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
    plain.load(HEAP, R | W, 4 << 20, noise(4 << 20));
    let plain = plain.build();
    for (name, pack) in FORMATS {
        let packed = pack(&plain);
        // Two frames, cut in the second; and at the last byte.
        let halves = plain.split_at(plain.len() / 2);
        let first = pack(halves.0);
        let frames = [&first[..], &pack(halves.1)].concat();
        for cut in [&packed[..packed.len() / 2], &frames[..first.len() + 20], &packed[..packed.len() - 1]] {
            with_process(&e, cut, |p| {
                let p = p.unwrap();
                assert_eq!(p.incidents.get("core.compressed_data_cut_off"), 1, "{name}");
                let missing = p.image.missing().bytes();
                // Blocks are lost as a whole; none is larger than 256 KiB here.
                let lost = (4 << 20) * (packed.len() - cut.len().min(packed.len())) as u64 / packed.len() as u64;
                assert!(missing <= lost + (1 << 20), "{name}: {missing} bytes are missing, {lost} were cut off");
                assert!(p.image.read_u64(Addr(HEAP)).is_ok(), "{name}");
            });
        }
        let packed = pack(&e);
        with_process(&packed[..packed.len() / 2], &plain, |p| {
            let message = p.err().unwrap();
            assert!(message.ends_with("the compressed data ends early"), "{name}: {message}");
        });
    }
}

#[test]
fn damaged_compressed_data_is_an_error() {
    for (name, pack) in FORMATS {
        let mut packed = pack(&core());
        for b in &mut packed[6..40] {
            *b ^= 0x5a;
        }
        with_process(&exe(BASE).build(), &packed, |p| {
            let message = p.err().unwrap();
            assert!(message.contains(&format!("{name} data is damaged")), "{message}");
        });
    }
}

/// Changed bytes anywhere: an error, or bytes that the checks of the core have to stand.
#[test]
fn changed_bytes_in_compressed_data() {
    let mut random = Random(11);
    let e = exe(BASE).build();
    let mut small = Core::of(&exe(BASE), 0);
    small.load(BASE, R | X, 0x3000, exe(BASE).page(0, 0x1000));
    small.load(HEAP, R | W, 64 << 10, noise(20_000));
    let small = small.build();
    for (_, pack) in FORMATS {
        let halves = small.split_at(small.len() / 2);
        let whole = [pack(halves.0), pack(halves.1)].concat();
        for round in 0..150u64 {
            let mut packed = whole.clone();
            // Headers and ends of frames are where lengths are.
            let near = [0, pack(halves.0).len(), whole.len() - 40][(round % 3) as usize];
            for _ in 0..=random.below(3) {
                let at = if round % 2 == 0 {
                    near + random.below(40) as usize
                } else {
                    random.below(whole.len() as u64) as usize
                };
                packed[at.min(whole.len() - 1)] =
                    [0, 0xff, 0x7f, 0x80, random.below(256) as u8][random.below(5) as usize];
            }
            packed.truncate(packed.len() - random.below(2) as usize * random.below(60) as usize);
            with_process(&e, &packed, |p| {
                if let Ok(p) = p {
                    let _ = p.image.read_u64(Addr(HEAP));
                }
            });
        }
    }
}

#[test]
fn a_full_file_system_is_said_with_what_it_takes() {
    // A reserve that no disk has.
    let out = tempfile::tempfile().unwrap();
    let failure = decompress::copy_sparse(&noise(100_000)[..], &out, u64::MAX).unwrap_err();
    assert!(format!("{failure:?}").starts_with("NoRoom { written: 100000, free: "), "{failure:?}");
    // Zeros need no room.
    let zeros = vec![0; 100_000];
    assert!(!decompress::copy_sparse(&zeros[..], &out, u64::MAX).unwrap());
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
