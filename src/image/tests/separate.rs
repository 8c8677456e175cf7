use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::image::executable::{DebugFile, Executable};
use crate::image::separate::Separate;
use crate::image::synth::{Core, Exe, R, Random, W, X, bytes, exe, file};
use crate::image::{Inputs, Process, Request, Search, Unwatched, sysroot};

const BASE: u64 = 0x40_0000;

fn build_id_note(id: &[u8]) -> (&'static str, u32, u64, u64, Vec<u8>) {
    let desc = [&[4, 0, 0, 0, id.len() as u8, 0, 0, 0, 3, 0, 0, 0][..], b"GNU\0", id].concat();
    (".note.gnu.build-id", 7, 2, 0, desc)
}

/// As `objcopy --only-keep-debug` leaves it: code without contents.
fn debug_file_of(e: &Exe) -> Exe {
    let mut debug = e.clone();
    debug.sections = vec![
        (".text", 8, 6, e.base + 0x1000, vec![]),
        build_id_note(&e.gnu_id),
        (".debug_info", 1, 0, 0, bytes(64, 1)),
        (".symtab", 2, 0, 0, symbol()),
        (".strtab", 3, 0, 0, b"\0main.x\0".to_vec()),
    ];
    debug
}

fn symbol() -> Vec<u8> {
    [&[1, 0, 0, 0, 2, 0, 1, 0][..], &0x40_1000u64.to_le_bytes(), &8u64.to_le_bytes()].concat()
}

#[test]
fn dwarf_and_symbols_come_from_the_debug_file_and_contents_do_not() {
    let mut e = exe(BASE);
    e.sections = vec![
        (".text", 1, 6, BASE + 0x1000, vec![7]),
        (".go.buildinfo", 1, 2, 0x40_4000, b"info".to_vec()),
        (".symtab", 2, 0, 0, vec![]),
        (".debug_line", 1, 0, 0, b"the executable's".to_vec()),
    ];
    let (plain, debug) = (e.build(), debug_file_of(&e).build());
    let parsed = Executable::parse(&plain, Path::new("prog")).unwrap();
    assert!(!parsed.has_debug_info() && parsed.symbol("main.x").is_none());
    let debug = DebugFile::parse(&debug, Path::new("prog.debug")).unwrap();
    assert_eq!(parsed.check_debug_file(&debug), Ok(true));
    let whole = parsed.with_debug_file(debug);
    assert_eq!(whole.section_data(".debug_info").unwrap(), bytes(64, 1));
    assert_eq!(whole.section_data(".debug_line"), None, "never from both files");
    assert_eq!(whole.symbol("main.x").unwrap().address, 0x40_1000);
    assert_eq!(whole.build_info().unwrap(), b"info");
    assert_eq!(whole.section(".text").unwrap().data(), [7]);
    assert_eq!(whole.debug_file(), Some(Path::new("prog.debug")));
}

#[test]
fn a_debug_file_must_belong_to_the_executable() {
    let mut e = exe(BASE);
    e.sections = vec![(".text", 1, 6, BASE + 0x1000, vec![])];
    let plain = e.build();
    let parsed = Executable::parse(&plain, Path::new("prog")).unwrap();
    let check = |debug: &Exe| {
        let debug = debug.build();
        parsed.check_debug_file(&DebugFile::parse(&debug, Path::new("d")).unwrap())
    };
    let other = Exe { gnu_id: *b"\x01\x02\x03\x04", ..e.clone() };
    let refused = check(&debug_file_of(&other)).unwrap_err();
    assert_eq!(refused, "GNU build id: the executable has abcdef01, this file 01020304");
    // Without an id, entry and code must do.
    let mut nameless = debug_file_of(&e);
    nameless.sections.remove(1);
    assert_eq!(check(&nameless), Ok(false));
    nameless.sections[0].3 += 0x1000;
    assert!(check(&nameless).unwrap_err().starts_with("entry and code: "));
}

#[test]
fn a_debug_file_is_no_executable() {
    let debug = debug_file_of(&exe(BASE)).build();
    let error = Executable::parse(&debug, Path::new("prog.debug")).unwrap_err();
    assert!(error.to_string().contains("found its debug information without the code"), "{error}");
    assert!(error.remedy_text().unwrap().contains("--debug-file"));
}

#[test]
fn names_of_debug_files_are_names() {
    let link = |data: &[u8]| {
        let mut e = exe(BASE);
        e.sections = vec![(".gnu_debuglink", 1, 0, 0, data.to_vec())];
        let file = e.build();
        let parsed = Executable::parse(&file, Path::new("prog")).unwrap();
        parsed.debuglink().map(|(name, crc)| (name.to_owned(), crc))
    };
    assert_eq!(link(b"a.debug\0\x01\x02\x03\x04"), Some(("a.debug".to_owned(), 0x0403_0201)));
    assert_eq!(link(b"ab.debug\0\0\0\0\x01\x02\x03\x04"), Some(("ab.debug".to_owned(), 0x0403_0201)));
    for bad in [&b""[..], b"\0\0\0\0\x01\x02\x03\x04", b"..\0\0\x01\x02\x03\x04", b"/etc/passwd\0\x01\x02\x03\x04"] {
        assert_eq!(link(bad), None, "{bad:?}");
    }
    for bad in
        [&b"../../x\0\x01\x02\x03\x04"[..], b"a.debug\0\x01\x02\x03", b"a.debug", b"\xff\xff\xff\0\x01\x02\x03\x04"]
    {
        assert_eq!(link(bad), None, "{bad:?}");
    }
}

/// Random changes of headers and sections of a debug file: an error, or sections that can be read.
#[test]
fn damaged_debug_files() {
    let e = exe(BASE);
    let plain = e.build();
    let whole = debug_file_of(&e).build();
    let mut random = Random(5);
    let places: Vec<usize> = (0..64).chain(0x5000..whole.len()).collect();
    for _ in 0..2000 {
        let mut file = whole.clone();
        for _ in 0..=random.below(4) {
            let value = [0, 0xff, 0x7f, 0x80, random.below(256) as u8][random.below(5) as usize];
            file[places[random.below(places.len() as u64) as usize]] = value;
        }
        file.truncate(file.len() - random.below(2) as usize * random.below(600) as usize);
        let parsed = Executable::parse(&plain, Path::new("prog")).unwrap();
        if let Ok(debug) = DebugFile::parse(&file, Path::new("d")) {
            let _ = parsed.check_debug_file(&debug);
            let joined = parsed.with_debug_file(debug);
            let _ = (joined.section_data(".debug_info"), joined.symbol("main.x"), joined.symbols().count());
        }
    }
}

#[test]
fn paths_stay_inside_the_sysroot() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::write(root.join("usr/bin/app"), "inside").unwrap();
    fs::write(dir.path().join("secret"), "outside").unwrap();
    for (target, link) in [
        ("/usr/bin", "bin"),
        ("app", "usr/bin/relative"),
        ("/bin/app", "usr/bin/twice"),
        ("../../../../../secret", "climbs"),
        ("/secret", "absolute"),
        ("loop", "loop"),
    ] {
        symlink(target, root.join(link)).unwrap();
    }
    let resolve = |path: &str| sysroot::resolve(&root, Path::new(path));
    let app = root.join("usr/bin/app");
    let inside = [
        "/usr/bin/app",
        "usr/bin/app",
        "/bin/app",
        "/bin/relative",
        "/bin/twice",
        "/../../usr/./bin/app",
        "bin/../bin/app",
    ];
    for path in inside {
        assert_eq!(resolve(path).unwrap(), app, "{path}");
    }
    for path in ["/climbs", "/absolute", "/secret", "../secret", "/loop", "/usr/bin/app/x"] {
        assert!(resolve(path).is_err(), "{path}: {:?}", resolve(path));
    }
    assert_eq!(resolve("/").unwrap(), root);
    assert_eq!(resolve("/bin/../..").unwrap(), root, "above the root is the root");
}

/// The path is that of the mapping with the entry, else what the kernel was asked to start.
#[test]
fn the_executable_of_a_sysroot_is_the_one_that_ran() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let e = exe(BASE);
    fs::create_dir_all(root.join("opt")).unwrap();
    fs::write(root.join("opt/app"), e.build()).unwrap();
    let stack = 0x7fff_0000_0000u64;
    let open = |files: &[(u64, u64, u64, &str)], execfn: &[u8]| {
        let mut core = Core::new();
        core.thread(17, &[0; 27]);
        core.auxv(&[(3, BASE + 64), (4, 56), (5, 4), (9, BASE + 0x1000), (31, stack + 8)]);
        core.load(BASE, R | X, 0x3000, e.page(0, 0x1000));
        core.load(stack, R | W, 0x1000, [&[0; 8], execfn].concat());
        if !files.is_empty() {
            core.files(files);
        }
        let core = file(&core.build());
        let search = Search::default();
        let request = Request { exe: root, core: core.path(), tmpdir: None, search: &search, watch: &Unwatched };
        let inputs = Inputs::open_all(&request).map_err(|e| e.to_string())?;
        let process = Process::parse(&inputs).map_err(|e| e.to_string())?;
        Ok::<_, String>(process.executable.path().to_owned())
    };
    let app = root.join("opt/app");
    let mapped = |path: &'static str| [(0x1000, 0x2000, 0, "/lib/ld.so"), (BASE, BASE + 0x5000, 0, path)];
    assert_eq!(open(&mapped("/opt/app"), b"\0"), Ok(app.clone()));
    assert_eq!(open(&mapped("/opt/app (deleted)"), b"\0"), Ok(app.clone()));
    assert_eq!(open(&[], b"/opt/app\0"), Ok(app.clone()));
    assert_eq!(open(&mapped("/memfd:gone"), b"./opt/app\0"), Ok(app));
    for name in [&b"\0"[..], b"/opt/none\0", b"no end of the string"] {
        let error = open(&[], name).unwrap_err();
        assert!(error.contains("directory"), "{error}");
    }
}

/// Beside an executable in a sysroot: what the process would have found there, and nothing that a link leads to outside.
#[test]
fn files_beside_an_executable_in_a_sysroot_are_inside() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let name = b"app.debug\0\0\0";
    let debug = debug_file_of(&exe(BASE)).build();
    let mut sum = flate2::Crc::new();
    sum.update(&debug);
    let mut e = exe(BASE);
    e.sections = vec![
        (".text", 1, 6, BASE + 0x1000, vec![7]),
        build_id_note(&e.gnu_id),
        (".gnu_debuglink", 1, 0, 0, [&name[..], &sum.sum().to_le_bytes()].concat()),
    ];
    fs::create_dir_all(root.join("opt")).unwrap();
    fs::create_dir_all(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/app.debug"), &debug).unwrap();
    symlink(dir.path().join("outside"), root.join("opt/.debug")).unwrap();
    let file = e.build();
    let parsed = Executable::parse(&file, Path::new("app")).unwrap();
    // No folder of this machine has it.
    let search = Search { dir: Some(dir.path().join("none")), ..Search::default() };
    let find = || {
        let found = Separate::find(&parsed, Some((&root, Path::new("/opt/app"))), &search, None, &Unwatched).unwrap();
        found.input().map(|input| input.path().to_owned())
    };
    assert_eq!(find(), None, "the link leads out of the sysroot");
    fs::remove_file(root.join("opt/.debug")).unwrap();
    fs::create_dir(root.join("opt/.debug")).unwrap();
    fs::write(root.join("opt/.debug/app.debug"), &debug).unwrap();
    assert_eq!(find(), Some(root.join("opt/.debug/app.debug")));
}
