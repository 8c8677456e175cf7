use crate::address::{Addr, AddrRange};
use crate::image::copying::CopyingImage;
use crate::image::synth::{Core, R, Random, W, X, bytes, exe, pattern, with_process};
use crate::image::{Image, ReadError, Scratch};

const BASE: u64 = 0x40_0000;
const HEAP: u64 = 0xc0_0000_0000;

fn range(start: u64, len: u64) -> AddrRange {
    AddrRange { start: Addr(start), len }
}

fn read(image: &dyn Image, addr: u64, len: usize) -> Result<Vec<u8>, ReadError> {
    let mut buf = vec![0xee; len];
    image.read(Addr(addr), &mut buf).map(|()| buf)
}

/// As the kernel writes it: first page of text, no read-only data, data dumped, bss never written, reserved address space.
fn kernel_core() -> Core {
    let e = exe(BASE);
    let mut core = Core::of(&e, 0);
    core.load(BASE, R | X, 0x3000, e.page(0, 0x1000));
    core.load(BASE + 0x3000, R, 0x1000, vec![]);
    core.load(BASE + 0x4000, R | W, 0x1000, bytes(0x1000, 9));
    core.load(BASE + 0x5000, R | W, 0x2000, vec![]);
    core.load(HEAP, R | W, 0x2000, bytes(0x2000, 1));
    core.load(HEAP + 0x2000, R | W, 0x1000, bytes(0x1000, 2));
    core.load(HEAP + 0x3000, 0, 0x4000_0000, vec![]);
    core.load(0x7f00_0000_0000, R | W, 0x2000, vec![]);
    core.load(0x7f00_1000_0000, R, 0x2000, vec![]);
    core.files(&[(BASE, BASE + 0x5000, 0, "/bin/prog"), (0x7f00_1000_0000, 0x7f00_1000_2000, 0, "/lib/other.so")]);
    core
}

#[test]
fn kernel_core_takes_each_byte_from_its_source() {
    let e = exe(BASE);
    with_process(&e.build(), &kernel_core().build(), |p| {
        let p = p.unwrap();
        let image = &p.image;
        assert_eq!(read(image, BASE, 0x3000).unwrap(), e.page(0, 0x3000), "text, spliced");
        assert_eq!(read(image, BASE + 0x2ff8, 16).unwrap(), e.page(0x2ff8, 0x3008), "across two segments of EXE");
        assert_eq!(read(image, BASE + 0x4000, 0x1000).unwrap(), bytes(0x1000, 9), "data as dumped, not as in EXE");
        assert_eq!(read(image, BASE + 0x5000, 0x2000).unwrap(), vec![0; 0x2000], "bss");
        assert_eq!(read(image, HEAP + 0x1ff8, 16).unwrap(), [&bytes(0x2000, 1)[0x1ff8..], &bytes(8, 2)].concat());
        assert_eq!(read(image, HEAP + 0x2ffc, 8), Err(ReadError::Unmapped(Addr(HEAP + 0x3000))), "reserved");
        assert_eq!(read(image, 0x7f00_0000_0000, 8).unwrap(), [0; 8], "never written");
        assert_eq!(read(image, 0x7f00_1000_0010, 8), Err(ReadError::Missing(Addr(0x7f00_1000_0010))), "another file");
        assert_eq!(read(image, 0, 8), Err(ReadError::Unmapped(Addr(0))));
        assert_eq!(read(image, u64::MAX, 8), Err(ReadError::Unmapped(Addr(u64::MAX))));
        assert_eq!(image.missing().bytes(), 0);
        assert_eq!(p.incidents.get("core.memory_taken_as_never_written"), 1);
        assert_eq!(p.incidents.iter().count(), 1);
        assert_eq!(p.files.len(), 2);
        assert_eq!((p.files[1].range.len, p.files[1].path.as_str()), (0x2000, "/lib/other.so"));
    });
}

#[test]
fn gdb_core_without_read_only_segments_is_completed_from_exe() {
    let e = exe(BASE);
    let mut core = Core::of(&e, 0);
    core.notes_last = true;
    core.load(BASE, R | X, 0x3000, e.page(0, 0x3000));
    core.load(BASE + 0x4000, R | W, 0x3000, bytes(0x3000, 9));
    with_process(&e.build(), &core.build(), |p| {
        let p = p.unwrap();
        assert_eq!(read(&p.image, BASE + 0x3000, 0x1000).unwrap(), e.page(0x3000, 0x4000));
        assert_eq!(read(&p.image, BASE + 0x5000, 8).unwrap(), bytes(0x1008, 9)[0x1000..], "bss as dumped");
        assert!(p.image.missing().ranges.is_empty());
        assert!(p.image.borrow(range(BASE + 0x3000, 0x1000)).is_some(), "borrowed from EXE");
        assert!(p.image.borrow(range(BASE + 0x2fff, 2)).is_none(), "two files");
    });
}

#[test]
fn position_independent_executable_is_read_at_its_bias() {
    let e = exe(0);
    let bias = 0x5555_0000_0000;
    let mut core = Core::of(&e, bias);
    core.load(bias, R | X, 0x3000, e.page(0, 0x1000));
    core.load(bias + 0x4000, R | W, 0x3000, bytes(0x3000, 9));
    with_process(&e.build(), &core.build(), |p| {
        let p = p.unwrap();
        assert_eq!(p.load_bias, bias);
        assert!(p.executable.is_pie());
        assert_eq!(read(&p.image, bias + 0x1000, 0x3000).unwrap(), e.page(0x1000, 0x4000));
    });
}

#[test]
fn writable_memory_cut_off_is_missing_but_text_comes_from_exe() {
    let e = exe(BASE);
    let mut core = Core::of(&e, 0);
    core.load(HEAP, R | W, 0x3000, bytes(0x3000, 1));
    core.load(BASE, R | X, 0x3000, e.page(0, 0x3000));
    core.load(BASE + 0x4000, R | W, 0x3000, bytes(0x3000, 9));
    let mut file = core.build();
    // Leaves the heap but for its last 0x800 bytes; all of EXE's own segments are cut off.
    file.truncate(file.len() - 0x6800);
    with_process(&e.build(), &file, |p| {
        let p = p.unwrap();
        let missing = p.image.missing();
        assert_eq!(missing.ranges, [range(BASE + 0x4000, 0x3000), range(HEAP + 0x2800, 0x800)]);
        assert_eq!(missing.bytes_in(range(HEAP, 0x2c00)), 0x400);
        assert_eq!(read(&p.image, HEAP + 0x27f8, 8).unwrap(), bytes(0x2800, 1)[0x27f8..]);
        assert_eq!(read(&p.image, HEAP + 0x27f8, 9), Err(ReadError::Missing(Addr(HEAP + 0x2800))));
        assert_eq!(read(&p.image, BASE + 0x4000, 1), Err(ReadError::Missing(Addr(BASE + 0x4000))), "data is not EXE's");
        assert_eq!(read(&p.image, BASE + 0x6fff, 1), Err(ReadError::Missing(Addr(BASE + 0x6fff))), "bss is not zero");
        assert_eq!(read(&p.image, BASE, 0x4000).unwrap(), e.page(0, 0x4000));
        assert_eq!(p.incidents.get("core.cut_off_segment"), 3);
    });
}

#[test]
fn a_core_without_private_memory_is_refused() {
    let e = exe(BASE);
    let mut core = Core::of(&e, 0);
    core.load(BASE, R | X, 0x3000, e.page(0, 0x1000));
    core.load(HEAP, R | W, 0x3000, vec![]);
    with_process(&e.build(), &core.build(), |p| {
        let message = p.err().unwrap();
        assert!(message.contains("found none of it in the core"), "{message}");
    });
}

#[test]
fn load_borrows_from_the_core_and_copies_the_rest() {
    let e = exe(BASE);
    with_process(&e.build(), &kernel_core().build(), |p| {
        let p = p.unwrap();
        let ranges = [
            range(HEAP + 8, 16),
            range(HEAP + 0x1ff0, 32), // two segments, neighbours in the file too: one extent
            range(BASE + 0xff8, 16),  // core and EXE
            range(HEAP, 0x2000),
            range(HEAP + 0x2ff8, 16), // runs into reserved space
            range(0x7f00_0000_0000, 0x1000),
            range(0x7f00_0000_0000, u64::MAX),
            range(0x7f00_1000_0000, 8),
            range(HEAP, 0),
            range(0, 0),
            range(u64::MAX - 3, 8),
            range(HEAP + 16, u64::MAX),
            range(HEAP + 16, 8),
        ];
        let mut scratch = Scratch::default();
        let unit = p.image.load(&ranges, &mut scratch);
        assert_eq!(unit.get(0), &bytes(0x2000, 1)[8..24]);
        assert_eq!(unit.get(1), [&bytes(0x2000, 1)[0x1ff0..], &bytes(16, 2)].concat());
        assert_eq!(unit.get(2), e.page(0xff8, 0x1008));
        assert_eq!(unit.get(3), bytes(0x2000, 1));
        assert_eq!(unit.get(5), vec![0; 0x1000]);
        for i in [4, 6, 7, 8, 9, 10, 11] {
            assert_eq!(unit.get(i), [0u8; 0], "range {i}");
        }
        assert_eq!(unit.get(12), &bytes(0x2000, 1)[16..24]);
        for borrowed in [0, 1, 3, 12] {
            assert!(unit.place(borrowed).is_borrowed(), "range {borrowed} was copied");
        }
        assert_eq!(unit.spilled(), 16 + 0x1000);
        assert_same_copied(&p.image, &ranges);
    });
}

/// A copying image gives the same bytes and borrows nothing.
fn assert_same_copied(image: &dyn Image, ranges: &[AddrRange]) {
    let (mut one, mut two) = (Scratch::default(), Scratch::default());
    let copying = CopyingImage::new(image);
    let (expected, copied) = (image.load(ranges, &mut one), copying.load(ranges, &mut two));
    assert!((0..ranges.len()).all(|i| !copied.place(i).is_borrowed()));
    for (i, range) in ranges.iter().enumerate() {
        assert_eq!(copied.get(i), expected.get(i), "{range:?}");
    }
}

#[test]
fn extreme_headers_stay_inside_the_file() {
    let e = exe(BASE);
    let mut core = kernel_core();
    core.load(u64::MAX - 0xfff, R | W, 0x2000, bytes(0x800, 3));
    core.load(0x1000_0000, R | W, 0x1000, bytes(0x1000, 4)).offset = Some(u64::MAX - 8);
    core.load(0x2000_0000, R | W, 0x1000, bytes(0x1000, 5)).filesz = Some(u64::MAX);
    core.load(0x3000_0000, R | W, u64::MAX, bytes(0x1000, 6));
    core.load(HEAP + 0x1000, R | W, 0x3000, bytes(0x3000, 7));
    with_process(&e.build(), &core.build(), |p| {
        let p = p.unwrap();
        assert_eq!(read(&p.image, 0x1000_0000, 1), Err(ReadError::Missing(Addr(0x1000_0000))));
        assert_eq!(read(&p.image, 0x2000_0000, 0x1000).unwrap(), bytes(0x1000, 5));
        assert_eq!(read(&p.image, 0x3000_0000, 0x1000).unwrap(), bytes(0x1000, 6));
        // The segment that starts first wins over what it overlaps.
        assert_eq!(read(&p.image, HEAP, 8).unwrap(), [0; 8]);
        assert!(p.incidents.get("core.bad_segment") >= 8);
        let probes: Vec<AddrRange> = (0..64).map(|shift| range(u64::MAX << shift, 1 << (shift % 34))).collect();
        assert_same_copied(&p.image, &probes);
    });
}

#[test]
fn more_segments_than_the_header_can_count() {
    let e = exe(BASE);
    let mut core = Core::of(&e, 0);
    core.xnum = true;
    for i in 0..70_000u64 {
        core.load(HEAP + i * 0x2000, R | W, 8, i.to_le_bytes().to_vec());
    }
    let mut file = core.build();
    let check = |file: &[u8], lost: u64| {
        with_process(&e.build(), file, |p| {
            let p = p.unwrap();
            for i in [0, 1, 65_535, 69_999 - lost] {
                assert_eq!(p.image.read_u64(Addr(HEAP + i * 0x2000)), Ok(i));
            }
            assert_eq!(p.image.missing().bytes(), lost * 8);
        });
    };
    check(&file, 0);
    // The count is at the end, and the first thing that is cut off; then the last segments.
    file.truncate(file.len() - 1);
    check(&file, 0);
    file.truncate(file.len() - 63 - 24);
    check(&file, 3);
    // Without notes at the front nobody knows how many there are.
    core.notes_last = true;
    let mut file = core.build();
    file.truncate(file.len() - 1);
    with_process(&e.build(), &file, |p| {
        let message = p.err().unwrap();
        assert!(message.contains("is kept in section header 0"), "{message}");
    });
}

/// Random segments, sorted or not, overlapping or not, against a map that resolves one byte at a time.
#[test]
fn random_tables_agree_with_a_byte_by_byte_oracle() {
    let mut random = Random(1);
    let e = exe(BASE);
    for round in 0..60 {
        let mut core = Core::of(&e, 0);
        core.load(BASE, R | X, 0x3000, e.page(0, 0x1000));
        core.load(BASE + 0x4000, R | W, 0x3000, bytes(0x3000, 9));
        let mut segments = Vec::new();
        for seed in 0..random.below(12) as u8 + 1 {
            let start = HEAP + random.below(64) * 8;
            let (len, held) = (random.below(128), random.below(128));
            let flags = [R | W, R, 0][random.below(3) as usize];
            let held = held.min(len);
            core.load(start, flags, len, bytes(held as usize, seed));
            segments.push((start, len, held, flags, seed));
        }
        // Same rule as the reader, told differently: the lowest start wins, then the earlier segment in the file.
        segments.sort_by_key(|s| s.0);
        let oracle = |addr: u64| {
            let mut reached = 0;
            for &(start, len, held, flags, seed) in &segments {
                let (from, to) = (start.max(reached), start + len);
                if from < to {
                    if (from..to).contains(&addr) {
                        return match addr - start {
                            at if at < held => Ok(pattern(at, seed)),
                            _ if flags & W != 0 => Ok(0),
                            _ if flags == 0 => Err(ReadError::Unmapped(Addr(addr))),
                            _ => Err(ReadError::Missing(Addr(addr))),
                        };
                    }
                    reached = to;
                }
            }
            Err(ReadError::Unmapped(Addr(addr)))
        };
        with_process(&e.build(), &core.build(), |p| {
            let p = p.unwrap();
            let mut ranges = Vec::new();
            for _ in 0..300 {
                let (start, len) = (HEAP - 8 + random.below(700), random.below(100));
                let expected: Result<Vec<u8>, ReadError> = (start..start + len).map(oracle).collect();
                assert_eq!(read(&p.image, start, len as usize), expected, "round {round}, {len} bytes at {start:#x}");
                ranges.push((range(start, len), expected.unwrap_or_default()));
            }
            let wanted: Vec<AddrRange> = ranges.iter().map(|r| r.0).collect();
            let mut scratch = Scratch::default();
            let unit = p.image.load(&wanted, &mut scratch);
            for (i, (_, expected)) in ranges.iter().enumerate() {
                assert_eq!(unit.get(i), expected, "round {round}, {:?}", wanted[i]);
            }
            assert_same_copied(&p.image, &wanted);
        });
    }
}
