//! Several Go runtimes in one process: libraries with Go code (`c-shared`), loaded by a C program. One is analyzed, the others are named,
//! and each can be asked for.

use crate::fixtures::{MODULE, unmet};
use crate::harness::corefile::CoreFile;
use crate::harness::program::{Mode, Program};
use crate::harness::toolchain::{Toolchain, newest};
use crate::harness::{expect, required, root, tool};
use std::fs;
use std::process::Command;

const PROGRAM: &str = "testdata/programs/cmd/hosted";
const NAMES: [&str; 2] = ["libone.so", "libtwo.so"];

#[test]
fn each_runtime_can_be_chosen() {
    let Some(version) = newest() else { return };
    let Some(toolchain) = required(Toolchain::get(version)) else { return };
    let built = Program::build(&toolchain, PROGRAM, Mode::CShared);
    let dir = tempfile::tempdir().unwrap();
    let program = Program { exe: dir.path().join("exe"), dir: dir.path().to_owned() };
    let paths = NAMES.map(|name| dir.path().join(name));
    for path in &paths {
        fs::copy(built.dir.join("libgo.so"), path).unwrap();
    }
    let source = root().join(PROGRAM).join("host/several.c");
    let gcc = Command::new("gcc").arg("-o").arg(&program.exe).arg(source).arg("-ldl").status();
    assert!(gcc.expect("gcc runs").success());
    let expectations = expect::read_program(&root().join(PROGRAM), &root().join("testdata/programs"), MODULE);
    // The one that tells its truth, and the other, which waits: at lower and at higher addresses.
    for (first, second) in [(0, 1), (1, 0)] {
        let args = [&paths[first], &paths[second]].map(|path| path.to_str().expect("a name in ASCII"));
        let Some(file) = required(CoreFile::take(&program, &args)) else { return };
        let truth = [file.truth.objects, file.truth.bytes];
        let whole = tool::core_ok(&program.exe, &file.core, &[]);
        let chosen = tool::core_ok(&paths[first], &file.core, &[]);
        let other = tool::core_ok(&paths[second], &file.core, &[]);
        assert_eq!(chosen.decode().total(), truth, "{args:?}");
        let wrong = unmet(&expectations, version, Mode::CShared, &chosen.decode());
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let list = other.decode().sum(|stack| stack[0] == "main.List");
        assert!(list[0] >= 100 && other.decode().total() != truth, "{list:?}");
        let analyzed = if whole.decode().total() == truth { first } else { second };
        assert_eq!(whole.decode().total(), if analyzed == first { truth } else { other.decode().total() });
        for (ran, missing) in [(&whole, 1 - analyzed), (&chosen, second), (&other, first)] {
            let stdout = ran.stdout();
            let line =
                stdout.lines().find(|l| l.starts_with("Other Go runtimes")).unwrap_or_else(|| panic!("{stdout}"));
            assert!(line.contains(NAMES[missing]) && !line.contains(NAMES[1 - missing]), "{line}");
        }
    }
}
