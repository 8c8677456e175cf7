//! Truncation at every length and changed bytes: an error or incidents, never a panic, never bytes from nowhere.

use std::path::Path;

use crate::address::{Addr, AddrRange};
use crate::image::executable::Executable;
use crate::image::synth::{Core, Exe, R, Random, W, X, bytes, exe, with_process};
use crate::image::{Image, Process, Scratch};

const BASE: u64 = 0x40_0000;
const HEAP: u64 = 0xc0_0000_0000;

fn sample() -> (Exe, Core) {
    let mut e = exe(BASE);
    e.sections = vec![
        (".debug_info", 1, 0, 0, bytes(64, 1)),
        (".symtab", 2, 0, 0, bytes(96, 1)),
        (".strtab", 3, 0, 0, bytes(9, 1)),
    ];
    let mut core = Core::of(&e, 0);
    core.files(&[(BASE, BASE + 0x5000, 0, "/bin/prog")]);
    core.load(BASE, R | X, 0x3000, e.page(0, 0x1000));
    core.load(BASE + 0x4000, R | W, 0x3000, bytes(0x1000, 9));
    core.load(HEAP, R | W, 0x2000, bytes(0x1000, 1));
    (e, core)
}

/// Touches everything that a damaged file could have misled.
fn exercise(p: &Process<'_>) {
    let addresses = [0, BASE, BASE + 0x2ff0, BASE + 0x4ff0, HEAP, HEAP + 0xff0, u64::MAX - 20];
    let ranges: Vec<AddrRange> = addresses.iter().map(|a| AddrRange { start: Addr(*a), len: 32 }).collect();
    let mut scratch = Scratch::default();
    let unit = p.image.load(&ranges, &mut scratch);
    for (i, r) in ranges.iter().enumerate() {
        let mut buf = [0; 32];
        match p.image.read(r.start, &mut buf) {
            Ok(()) => assert_eq!(unit.get(i), buf),
            Err(_) => assert!(unit.get(i).is_empty()),
        }
    }
    exercise_exe(&p.executable);
    assert!(p.image.missing().ranges.windows(2).all(|w| w[0].end() < w[1].start));
}

fn exercise_exe(e: &Executable<'_>) {
    let names: Vec<&str> = e.sections().map(|s| s.name).collect();
    for name in names {
        let _ = e.read_section(name);
    }
    let _ = (e.symbol("main.main"), e.build_info(), e.go_build_id());
}

#[test]
fn core_cut_off_anywhere() {
    let (e, core) = sample();
    let (e, whole) = (e.build(), core.build());
    let needed = 64 + 56 * 4 + core.notes.len();
    let lengths = (0..needed + 100).step_by(7).chain((needed..whole.len()).step_by(997));
    for len in lengths {
        with_process(&e, &whole[..len], |p| match p {
            Ok(p) => {
                assert!(len >= needed, "{len} bytes cannot hold the notes");
                exercise(&p);
                let held = (len - needed) as u64;
                let lost = [0x1000u64, 0x2000].map(|from| 0x1000 - held.saturating_sub(from).min(0x1000));
                assert_eq!(p.image.missing().bytes(), lost[0] + lost[1], "{len}");
            }
            Err(message) => {
                assert!(len < needed, "{len}: {message}");
                assert!(message.starts_with("core dump "), "{message}");
            }
        });
    }
}

#[test]
fn changed_bytes_in_the_headers_of_the_core() {
    let (e, core) = sample();
    let (e, whole) = (e.build(), core.build());
    let mut random = Random(7);
    let headers = 64 + 56 * 4 + core.notes.len() as u64;
    for _ in 0..2000 {
        let mut file = whole.clone();
        for _ in 0..=random.below(3) {
            // Mostly extreme values: they break arithmetic.
            let value = [0, 0xff, 0x7f, 0x80, random.below(256) as u8][random.below(5) as usize];
            file[random.below(headers) as usize] = value;
        }
        with_process(&e, &file, |p| {
            if let Ok(p) = p {
                exercise(&p);
            }
        });
    }
}

#[test]
fn changed_bytes_in_the_headers_of_the_executable() {
    let (e, core) = sample();
    let (exe_file, core_file) = (e.build(), core.build());
    let mut random = Random(8);
    // Headers and notes, and the sections behind the pages.
    let places: Vec<usize> = (0..64 + 56 * 4).chain(0x800..0x814).chain(0x5000..exe_file.len()).collect();
    for round in 0..2000 {
        let mut file = exe_file.clone();
        for _ in 0..=random.below(3) {
            let value = [0, 0xff, 0x7f, 0x80, random.below(256) as u8][random.below(5) as usize];
            file[places[random.below(places.len() as u64) as usize]] = value;
        }
        if let Ok(e) = Executable::parse(&file, Path::new("prog")) {
            exercise_exe(&e);
        }
        if round % 4 == 0 {
            with_process(&file, &core_file, |p| {
                if let Ok(p) = p {
                    exercise(&p);
                }
            });
        }
    }
}
