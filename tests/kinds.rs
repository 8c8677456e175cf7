//! Kinds of cores, and executables that are laid out in unusual ways. The same dump in another form gives the same bytes; a part of a
//! dump gives a part of the result, with exit status 3 and a line on what is missing.

use crate::fixtures::unmet;
use crate::harness::corefile::{CoreFile, Run, core_of, gcore};
use crate::harness::dying::{self, Death, Writer};
use crate::harness::program::{Mode, Program};
use crate::harness::rewritten::{Rewritten, word};
use crate::harness::toolchain::{Toolchain, newest};
use crate::harness::{Skip, binutils, expect, required, root, sparse, tool};
use crate::sample::unpacked;
use object::{Object, ObjectSection, ObjectSegment};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// The profile of the sample.
fn expected() -> Vec<u8> {
    tool::core_ok(&unpacked().0, &unpacked().1, &["-q"]).bytes()
}

/// As the tools themselves write them, with what they do by default and otherwise.
#[test]
fn compressed_by_other_programs() {
    let expected = expected();
    let dir = tempfile::tempdir().unwrap();
    let packed = dir.path().join("core.packed");
    let (exe, core) = unpacked();
    for (program, args) in [
        ("gzip", &["-1c"][..]),
        ("zstd", &["-1qc"]),
        ("zstd", &["-1qc", "-T2", "--long=31"]),
        ("lz4", &["-1qc"]),
        ("lz4", &["-1qc", "-B4", "-BD", "--no-frame-crc"]),
        ("xz", &["-0c", "-T1"]),
        ("xz", &["-0c", "-T2", "--block-size=16MiB"]),
        ("xz", &["-0c", "-T1", "--check=sha256", "--x86", "--lzma2=preset=0"]),
    ] {
        if required(binutils::filter(program, args, core, &packed)).is_none() {
            continue;
        }
        let ran = tool::core_ok(exe, &packed, &["-q", "--tmpdir", dir.path().to_str().unwrap()]);
        assert!(ran.bytes() == expected, "{program} {args:?}: other bytes than from the plain core");
        // Cut off: what was there before.
        let length = fs::metadata(&packed).unwrap().len();
        for part in [length - 1, length - length / 3] {
            File::options().write(true).open(&packed).unwrap().set_len(part).unwrap();
            let ran = tool::core(exe, &packed, &["-q"]);
            // Checksums and ends of streams may be all that is lost.
            let complete = ran.code() == 0 && part == length - 1 && ran.bytes() == expected;
            assert!(complete || [1, 3].contains(&ran.code()), "{program} {args:?}: {part} of {length}: {}", ran.code());
            assert!(!ran.stderr().contains("panicked"), "{}", ran.stderr());
        }
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["core.packed"], "unpacked data is gone with the process");
    }
}

const NT_FILE: u32 = 0x4649_4c45;

/// Every segment cut into pieces, more than the file header can count, as in a process with so many mappings.
#[test]
fn more_than_65535_segments() {
    const PIECE: u64 = 16 << 10;
    let core = Rewritten::of(&unpacked().1);
    core.cut(|segment| {
        let cuts = segment.clone().step_by(PIECE as usize);
        cuts.map(|at| (at..segment.end.min(at + PIECE), true)).collect()
    });
    let mut sections = [0; 8];
    core.file.read_exact_at(&mut sections, 40).unwrap();
    let mut count = [0; 4];
    core.file.read_exact_at(&mut count, word(&sections, 0) + 44).unwrap();
    let count = u32::from_le_bytes(count);
    assert!(count > 65_535, "{count} segments");
    let ran = tool::core_ok(&unpacked().0, &core.path, &["-q"]);
    assert!(ran.bytes() == expected(), "other bytes than from {} segments", core.headers.len());
}

/// Writers other than gdb and the kernel leave out what they like: the list of files, or the auxiliary vector.
#[test]
fn cores_without_some_notes() {
    const NT_AUXV: u32 = 6;
    let whole = tool::core_ok(&unpacked().0, &unpacked().1, &["-q"]).decode();
    for n_types in [&[NT_FILE][..], &[NT_AUXV], &[NT_FILE, NT_AUXV]] {
        let core = Rewritten::of(&unpacked().1);
        for n_type in n_types {
            let (desc, _) = core.note(*n_type);
            // The type stands before the name "CORE\0", padded to 8 bytes.
            core.file.write_all_at(&0x7777_7777u32.to_le_bytes(), desc - 8 - 4).unwrap();
        }
        let ran = tool::core_ok(&unpacked().0, &core.path, &["-q"]);
        let profile = ran.decode();
        assert_eq!(profile.total(), whole.total(), "without {n_types:x?}");
        assert_eq!(profile.stacks, whole.stacks, "without {n_types:x?}");
    }
}

/// NT_FILE counts offsets in pages of any size; gdb's are bytes.
#[test]
fn file_offsets_in_large_pages() {
    let expected = expected();
    for page_size in [4096u64, 16384, 65536] {
        let core = Rewritten::of(&unpacked().1);
        let (desc, len) = core.note(NT_FILE);
        let mut bytes = vec![0; len as usize];
        core.file.read_exact_at(&mut bytes, desc).unwrap();
        let (count, old_size) = (word(&bytes, 0), word(&bytes, 8));
        bytes[8..16].copy_from_slice(&page_size.to_le_bytes());
        let mut exact = true;
        for i in 0..count as usize {
            let at = 16 + 24 * i + 16;
            let offset = word(&bytes, at) * old_size;
            exact &= offset.is_multiple_of(page_size);
            bytes[at..at + 8].copy_from_slice(&(offset / page_size).to_le_bytes());
        }
        // The program's segments are aligned to 4 KiB: with larger pages the note would lie, and only the mapping's offset may
        // differ then.
        core.file.write_all_at(&bytes, desc).unwrap();
        let ran = tool::core_ok(&unpacked().0, &core.path, &["-q"]);
        assert!(!exact || ran.bytes() == expected, "pages of {page_size} bytes");
    }
}

/// The executable was replaced while the program ran: the kernel marks its path.
#[test]
fn deleted_executable() {
    let Some(program) = program("testdata/programs") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (exe, core) = (dir.path().join("app"), dir.path().join("core"));
    fs::copy(&program.exe, &exe).unwrap();
    let Some(mut run) = required(Run::spawn(Command::new(&exe).current_dir(dir.path()))) else { return };
    run.line("WAIT");
    fs::remove_file(&exe).unwrap();
    let taken = gcore(run.child.id(), &core);
    let _ = run.child.kill();
    let _ = run.child.wait();
    if required(taken).is_none() {
        return;
    }
    let ran = tool::core_ok(&program.exe, &core, &["-q"]);
    assert_eq!(ran.decode().mappings[0].0, "app", "the name without the mark");
    // In a sysroot it is looked for without the mark.
    let root = dir.path().join("root");
    let inside = root.join(exe.canonicalize().unwrap_or(exe).strip_prefix("/").unwrap());
    fs::create_dir_all(inside.parent().unwrap()).unwrap();
    fs::copy(&program.exe, &inside).unwrap();
    let found = tool::core_ok(&root, &core, &["-q"]);
    assert!(found.bytes() == ran.bytes());
}

fn program(source: &str) -> Option<Program> {
    let toolchain = required(Toolchain::get(newest()?))?;
    Some(Program::build(&toolchain, source, Mode::Default))
}

/// Huge pages: full ones, sparsely written ones, and the kernel's huge page of zeros.
#[test]
fn huge_pages() {
    const SOURCE: &str = "testdata/programs/cmd/huge";
    let (Some(version), Some(program)) = (newest(), program(SOURCE)) else { return };
    let Some(mut run) = required(Run::start(&program, &["die"])) else { return };
    let line = run.line("AnonHugePages");
    let _ = run.child.kill();
    let _ = run.child.wait();
    let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    if kib < 32 << 10 {
        eprintln!("the kernel gives no huge pages ({kib} KiB): this core is an ordinary one");
    }
    let expectations = expect::read_main(&root().join(SOURCE).join("main.go"));
    let check = |exe: &Path, core: &Path| {
        let profile = tool::core_ok(exe, core, &["-q"]).decode();
        let wrong = unmet(&expectations, version, Mode::Default, &profile);
        assert!(wrong.is_empty(), "{}:\n{}", core.display(), wrong.join("\n"));
        profile.total()
    };
    if let Some(file) = required(core_of(version, SOURCE, Mode::Default, &[])) {
        assert_eq!(check(&file.exe, &file.core), [file.truth.objects, file.truth.bytes]);
    }
    if required(dying::kernel_writes_cores().map_err(Skip)).is_some() {
        let death = Death { args: &["die"], procs: 2, second_abort: true, ..Death::default() };
        let Some((core, _)) = required(dying::take(&program, &death, Writer::Kernel)) else { return };
        check(&program.exe, &core);
    }
}

/// Segments aligned to huge pages, as linkers do it for big programs: the file has holes or the addresses have, and page 0 of the
/// file is not where a small page would put it.
#[test]
fn segments_aligned_to_huge_pages() {
    let Some(version) = newest() else { return };
    let Some(toolchain) = required(Toolchain::get(version)) else { return };
    for flags in ["-Wl,-z,max-page-size=0x200000", "-Wl,-z,max-page-size=0x200000,-z,separate-code -no-pie"] {
        let program = Program::build_with(
            &toolchain,
            "testdata/programs/cmd/cgo",
            Mode::Cgo,
            &[&format!("-ldflags=-linkmode=external '-extldflags={flags}'")],
        );
        let bytes = fs::read(&program.exe).unwrap();
        let elf = object::File::parse(&bytes[..]).unwrap();
        assert!(elf.segments().any(|s| s.align() == 0x20_0000), "{flags}: aligned as asked for");
        let Some(file) = required(CoreFile::take(&program, &[])) else { return };
        let profile = tool::core_ok(&file.exe, &file.core, &["-q"]).decode();
        assert_eq!(profile.total(), [file.truth.objects, file.truth.bytes], "{flags}");
    }
}

/// `ulimit -c` takes the end of a core away: a partial result that says what is missing, or an error that does; never a whole one.
#[test]
fn cut_off_by_the_kernel() {
    if required(dying::kernel_writes_cores().map_err(Skip)).is_none() {
        return;
    }
    let Some(program) = program("testdata/programs/cmd/crash") else { return };
    let death = |limit| Death { args: &["abort"], procs: 2, second_abort: true, limit, ..Death::default() };
    let Some((whole, _)) = required(dying::take(&program, &death(None), Writer::Kernel)) else { return };
    let length = fs::metadata(&whole).unwrap().len();
    let complete = tool::core_ok(&program.exe, &whole, &["-q"]).decode();
    let mut partial = 0;
    // The threads' notes come first, the heap in the middle, the runtime's own memory at the end: without its table of spans nobody
    // can tell what is an object.
    let mut cut = Vec::new();
    // The limit counts what is written, not holes.
    for limit in [200, 1000, 2000, 2700] {
        let Some((core, _)) = required(dying::take(&program, &death(Some(limit)), Writer::Kernel)) else { return };
        // Another process than the whole one's, whose mappings may lie otherwise: it is cut off if it holds less than it says itself.
        let headers = Rewritten::of(&core).headers;
        let said = headers.iter().map(|h| word(h, 8) + word(h, 32)).max().expect("segments");
        let held = fs::metadata(&core).unwrap().len();
        assert!(held < said, "{held} of {said} bytes with a limit of {limit} blocks");
        cut.push((format!("limit of {limit} blocks"), core));
    }
    let dir = tempfile::tempdir().unwrap();
    for lost in [1, 4 << 10, 64 << 10, 150 << 10, 200 << 10, 300 << 10, 400 << 10, 500 << 10, 1 << 20, 2 << 20] {
        let core = dir.path().join(lost.to_string());
        sparse::copy(&mut File::open(&whole).unwrap(), &core).unwrap();
        File::options().write(true).open(&core).unwrap().set_len(length - lost).unwrap();
        cut.push((format!("without the last {lost} bytes"), core));
    }
    for (what, core) in cut {
        let ran = tool::core(&program.exe, &core, &["-q"]);
        let said = ran.stderr();
        assert!([1, 3].contains(&ran.code()), "{what}: status {}: {said}", ran.code());
        assert!(said.contains("cut off") || said.contains("lacks"), "{what}: says what is missing: {said}");
        eprintln!("{what}: status {}: {}", ran.code(), said.trim_end());
        if ran.code() == 3 {
            partial += 1;
            let (part, all) = (ran.decode().total(), complete.total());
            assert!(part[0] <= all[0] + 32, "{what}: {part:?} of {all:?}");
        }
    }
    assert!(partial > 1, "only {partial} left enough for a result");
}

/// A core that is cut off within the heap, of a writer that puts the runtime's own memory before it: what is left is counted, and how much
/// of the heap is missing is said.
#[test]
fn cut_off_in_the_heap() {
    const ARENA_CHUNK: u64 = 4 << 20;
    let whole = tool::core_ok(&unpacked().0, &unpacked().1, &["-q"]).decode().total();
    let core = Rewritten::of(&unpacked().1);
    // Writable, and aligned as only the heap is.
    let is_heap =
        |h: &[u8; 56]| h[0] == 1 && h[4] == 6 && word(h, 16) > 1 << 32 && word(h, 16).is_multiple_of(ARENA_CHUNK);
    let heap = core.headers.iter().position(is_heap).expect("the first arena");
    let [offset, filesz] = [8, 32].map(|at| word(&core.headers[heap], at));
    // Moved to the end of the file.
    let mut table = [0; 8];
    core.file.read_exact_at(&mut table, 32).unwrap();
    let (table, end) = (u64::from_le_bytes(table), core.file.metadata().unwrap().len().next_multiple_of(4096));
    let mut bytes = vec![0; usize::try_from(filesz).unwrap()];
    core.file.read_exact_at(&mut bytes, offset).unwrap();
    core.file.write_all_at(&bytes, end).unwrap();
    core.file.write_all_at(&end.to_le_bytes(), table + 56 * heap as u64 + 8).unwrap();
    let moved = tool::core_ok(&unpacked().0, &core.path, &["-q"]);
    assert!(moved.bytes() == expected(), "the order of segments does not matter");
    let (mut last, mut of_heap) = (whole, false);
    for lost in [4096, 1 << 20, 4 << 20, 7 << 20] {
        core.file.set_len(end + filesz - lost).unwrap();
        let ran = tool::core(&unpacked().0, &core.path, &["-q"]);
        let said = ran.stderr();
        assert_eq!(ran.code(), 3, "without {lost} bytes: {said}");
        assert!(
            said.contains("the core lacks ") && said.contains("take the core again with room for all of it"),
            "{said}"
        );
        of_heap = said.contains(" % of the heap in use)");
        let part = ran.decode().total();
        assert!(part[0] > 0 && part[1] <= last[1], "{part:?} of {whole:?}, without {lost} bytes");
        last = part;
    }
    assert!(of_heap && last[1] < whole[1], "the last cut takes something away: {last:?} of {whole:?}");
}

/// Debug sections in every form that objcopy can give them.
#[test]
fn debug_sections_in_other_forms() {
    let expected = expected();
    let dir = tempfile::tempdir().unwrap();
    let exe = dir.path().join("exe");
    for (form, name) in [("zlib-gnu", ".zdebug_info"), ("zlib-gabi", ".debug_info"), ("zstd", ".debug_info")] {
        let option = format!("--compress-debug-sections={form}");
        if required(binutils::run("objcopy", &[&option, &unpacked().0, &exe])).is_none() {
            return;
        }
        let bytes = fs::read(&exe).unwrap();
        let elf = object::File::parse(&bytes[..]).unwrap();
        assert!(elf.sections().any(|s| s.name() == Ok(name)), "{form} makes {name}");
        assert!(tool::core_ok(&exe, &unpacked().1, &["-q"]).bytes() == expected, "{form}");
    }
    required(binutils::run("objcopy", &[&"--decompress-debug-sections", &unpacked().0, &exe]));
    assert!(tool::core_ok(&exe, &unpacked().1, &["-q"]).bytes() == expected, "not compressed");
}
