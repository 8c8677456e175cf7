//! Programs that are linked with `-linkshared`: their runtime is in a library.

use std::path::PathBuf;

use crate::image::Process;
use crate::image::executable::Symbol;
use crate::image::synth::{Core, Files, R, X, exe, file};

const PROGRAM: u64 = 0x5555_0000_0000;
const LIBRARY: u64 = 0x7fff_0000_0000;

fn sym(name: u32, section: u16, address: u64, size: u64) -> Vec<u8> {
    [&name.to_le_bytes()[..], &[0x11, 0], &section.to_le_bytes(), &address.to_le_bytes(), &size.to_le_bytes()].concat()
}

fn note(n_type: u8, desc: &[u8]) -> Vec<u8> {
    let mut note = vec![4, 0, 0, 0, desc.len() as u8, 0, 0, 0, n_type, 0, 0, 0, b'G', b'o', 0, 0];
    note.extend(desc);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

/// What is found of a program that imports from a library with these packages: the paths of the file with the runtime and of the program,
/// and their load biases; or the error.
fn parse(packages: &[u8]) -> Result<[(PathBuf, u64); 2], String> {
    let mut program = exe(0);
    program.sections = vec![
        (".gopclntab", 1, 2, 0x3000, vec![1; 16]),
        (".dynsym", 11, 2, 0x3100, [sym(0, 0, 0, 0), sym(1, 0, 0, 0)].concat()),
        (".dynstr", 3, 2, 0x3200, b"\0runtime.addmoduledata.abi0\0".to_vec()),
    ];
    let mut library = exe(0);
    (library.seed, library.gnu_id) = (7, *b"libs");
    library.sections = vec![
        (".note.go.abihash", 7, 2, 0x900, note(2, b"hash")),
        (".note.go.pkg-list", 7, 0, 0, note(1, packages)),
        (".dynsym", 11, 2, 0x3100, [sym(0, 0, 0, 0), sym(1, 1, 0x4100, 8)].concat()),
        (".dynstr", 3, 2, 0x3200, b"\0runtime.mheap_\0".to_vec()),
    ];
    let library_file = file(&library.build());
    let path = library_file.path().to_str().unwrap();
    let mut core = Core::of(&program, PROGRAM);
    core.files(&[(PROGRAM, PROGRAM + 0x3000, 0, "/bin/app"), (LIBRARY, LIBRARY + 0x3000, 0, path)]);
    core.load(PROGRAM, R | X, 0x3000, program.page(0, 0x1000));
    core.load(LIBRARY, R | X, 0x3000, library.page(0, 0x1000));
    let files = Files::new(&program.build(), &core.build());
    let inputs = files.open().unwrap();
    let process = Process::parse(&inputs).map_err(|e| e.to_string())?;
    let (started, bias) = process.program();
    if process.linked_program.is_some() {
        assert_eq!((started.path(), bias), (files.exe.path(), PROGRAM));
        assert!(started.imports_runtime() && !process.executable.imports_runtime());
        let exports: Vec<_> = process.executable.exports().collect();
        assert_eq!(exports, [(&b"runtime.mheap_"[..], Symbol { address: 0x4100, size: 8 })]);
        assert_eq!(process.executable.path(), library_file.path());
    }
    Ok([(process.executable.path().to_owned(), process.load_bias), (started.path().to_owned(), bias)])
}

#[test]
fn runtime_is_the_librarys() {
    let [runtime, program] = parse(b"bufio\nruntime\nsync\n").unwrap();
    assert_eq!((runtime.1, program.1), (LIBRARY, PROGRAM));
    assert_ne!(runtime.0, program.0);
}

#[test]
fn a_library_without_the_runtime_is_not_enough() {
    for packages in [&b"bufio\nruntime/debug\nsync\n"[..], b""] {
        let error = parse(packages).unwrap_err();
        assert!(error.contains("linked with -linkshared") && error.contains("libstd.so"), "{error}");
    }
}
