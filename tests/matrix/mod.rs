//! Release x experiment x build x kind of core: the linked fixture program in every cell, its totals to the byte and its stated paths.
//!
//! Without environment a small selection runs (`always` in [`cells`]). Environment:
//! * `GOREF_MATRIX=full`: all cells; results go into the table of the README, and what cannot be run here is a failure;
//! * `GOREF_MATRIX_ONLY=TEXT`: only rows whose name contains TEXT (with `full`).
//!
//! ```sh
//! GOREF_MATRIX=full cargo test --test main -- matrix --nocapture
//! ```

mod cells;
mod table;

use crate::fixtures::{MODULE, unmet};
use crate::harness::corefile::{CoreFile, core_of};
use crate::harness::dying::Writer;
use crate::harness::expect::{self, Expectation};
use crate::harness::program::Mode;
use crate::harness::toolchain::per_release;
use crate::harness::{Outcome, Skip, killed, required, root, tool};
use crate::reference::dump::Dump;
use crate::reference::sets;
use cells::{Claim, CoreKind, FIXTURES, RELEASES, Row};
use goref_fast::image::{Inputs, Process};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Arc;

per_release! {
    cells: check_release;
}

/// Whether all cells are asked for.
pub fn full() -> bool {
    std::env::var("GOREF_MATRIX").is_ok_and(|v| v == "full")
}

/// All cells of one column.
fn check_release(version: &str) {
    let full = full();
    let only = std::env::var("GOREF_MATRIX_ONLY").unwrap_or_default();
    let rows = cells::rows();
    assert!(rows.iter().any(|row| row.name().contains(&only)), "GOREF_MATRIX_ONLY: no row has {only:?} in its name");
    let wanted = |row: &Row| row.exists(version) && (row.always(version) || full) && row.name().contains(&only);
    let mut wrong = Vec::new();
    let mut complete = full && only.is_empty();
    for row in rows.iter().filter(|row| wanted(row)) {
        // A failed build is this cell's failure and not the end of the others.
        let checked = catch_unwind(AssertUnwindSafe(|| check(row, version)));
        let findings = match checked {
            Ok(Ok(findings)) => findings,
            Ok(Err(Skip(reason))) => {
                let not_run = format!("{version} {}: not run: {reason}", row.name());
                if full {
                    // The table keeps what an earlier run said.
                    complete = false;
                    wrong.push(not_run);
                } else {
                    required::<()>(Err(Skip(not_run)));
                }
                continue;
            }
            Err(_) => vec!["panicked".to_owned()],
        };
        let result = if findings.is_empty() { table::met(row.claim) } else { table::FAILED };
        eprintln!("{version} {}: {result}", row.name());
        if full {
            table::update(row, version, result);
        }
        wrong.extend(findings.iter().map(|finding| format!("{version} {}: {finding}", row.name())));
    }
    if complete {
        table::complete(version);
    }
    assert!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
}

/// What is wrong in one cell.
fn check(row: &Row, version: &str) -> Outcome<Vec<String>> {
    if row.recipe.mode.needs_cgo() {
        has_compiler(row.recipe.mode)?;
    }
    let file = take(row, version)?;
    let ran = tool::core_ok(&file.exe, &file.core, &["--threads", "2", "-v"]);
    let profile = ran.decode();
    let mut wrong = Vec::new();
    let truth = [file.truth.objects, file.truth.bytes];
    // A standard library that is linked as a whole has maps of `unique`, which no fixture has.
    let made = match row.recipe.mode {
        Mode::LinkShared => made_by_collections(&file),
        _ => [0, 0],
    };
    if [0, 1].map(|i| profile.total()[i] + made[i]) != truth {
        wrong.push(format!("total [objects, bytes]: the collector says {truth:?}, the profile {:?}", profile.total()));
    }
    let masked = tool::core_ok(&file.exe, &file.core, &["--no-types"]).decode().total();
    if masked != profile.total() {
        wrong.push(format!("total with --no-types: {masked:?} instead of {:?}", profile.total()));
    }
    let expected = |line: &str| {
        // qemu leaves out what begins with an ELF header; the C linker has put read-only data there, too. A kernel whose filter lacks 0x10
        // leaves out the same pages.
        let unverified =
            row.core == CoreKind::Kernel("0x23") || row.core == CoreKind::Emulator && row.recipe.mode.needs_cgo();
        // A kernel leaves out pages that nobody touched, and does not say which.
        let untouched = matches!(row.core, CoreKind::Kernel(_)) && line.contains("core.memory_taken_as_never_written");
        untouched || unverified && line == "soft errors core.executable_not_verified: 1"
    };
    let soft_errors = ran.stdout();
    let soft_errors = soft_errors.lines().filter(|l| l.starts_with("soft error"));
    wrong.extend(soft_errors.filter(|l| !expected(l)).map(str::to_owned));
    if row.claim == Claim::Paths {
        let expectations = statements(row);
        let count = expectations.iter().filter(|e| e.applies(version, row.recipe)).count();
        if count < least_statements(row) {
            wrong.push(format!("only {count} statements apply"));
        }
        wrong.extend(unmet(&expectations, version, row.recipe, &profile));
    }
    Ok(wrong)
}

/// What the program of a row states about itself.
fn statements(row: &Row) -> Vec<Expectation> {
    let source = root().join(row.program());
    match row.program() {
        FIXTURES => expect::read_all(&source, MODULE),
        _ => expect::read_program(&source, &root().join(FIXTURES), MODULE),
    }
}

/// Fewer statements than that in any cell are a mistake in reading them.
fn least_statements(row: &Row) -> usize {
    if row.program() == FIXTURES { 250 } else { 1 }
}

/// Each stated line is tested in some cell, and restricts itself to builds that exist.
#[test]
fn statements_are_tested() {
    let rows: Vec<Row> = cells::rows().into_iter().filter(|row| row.claim == Claim::Paths).collect();
    let mut programs: Vec<&str> = rows.iter().map(Row::program).collect();
    programs.sort_unstable();
    programs.dedup();
    let mut wrong = Vec::new();
    for program in programs {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.program() == program).collect();
        let tested = |e: &Expectation| {
            let mut cells = rows.iter().flat_map(|row| RELEASES.map(|version| (*row, version)));
            cells.any(|(row, version)| row.exists(version) && e.applies(version, row.recipe))
        };
        let all = statements(rows[0]);
        for statement in &all {
            let unknown = |build: &&str| !cells::rows().iter().any(|row| row.recipe.is(build));
            wrong.extend(statement.builds().filter(unknown).map(|b| format!("{}: no build {b}", statement.at)));
        }
        // Of the alternatives of a line some may be for no release: captures have names since 1.23.
        for line in all.chunk_by(|a, b| a.at == b.at).filter(|line| !line.iter().any(tested)) {
            wrong.push(format!("{}: applies to no cell", line[0].at));
        }
        for row in &rows {
            for version in RELEASES.iter().filter(|version| row.exists(version)) {
                let count = all.iter().filter(|e| e.applies(version, row.recipe)).count();
                if count < least_statements(row) {
                    wrong.push(format!("{version} {}: only {count} statements apply", row.name()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A cell that is always run exists.
#[test]
fn selection_exists() {
    let dead = |row: &Row| row.never_run().map(|of| format!("1.{of} {}", row.name())).collect::<Vec<_>>();
    let dead: Vec<String> = cells::rows().iter().flat_map(dead).collect();
    assert!(dead.is_empty(), "{dead:?}");
}

fn take(row: &Row, version: &str) -> Outcome<Arc<CoreFile>> {
    match row.core {
        CoreKind::Gcore => core_of(version, row.program(), row.recipe, &[]),
        CoreKind::Emulator => {
            killed::core_of(version, row.program(), row.recipe, &[], Writer::Emulator, "").map(Arc::new)
        }
        CoreKind::Kernel(filter) => {
            killed::core_of(version, row.program(), row.recipe, &[], Writer::Kernel, filter).map(Arc::new)
        }
    }
}

/// Whether there is what the C of this build takes: the sanitizers have libraries and headers of their own.
fn has_compiler(mode: Mode) -> Outcome<()> {
    let (compiler, options, line) = mode.compiler();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let source = dir.path().join("main.c");
    std::fs::write(&source, format!("{line}int main(void) {{ return 0; }}\n")).expect("write");
    let output = Command::new(compiler).args(options).arg("-o").arg(dir.path().join("main")).arg(source).output();
    let built = output.is_ok_and(|output| output.status.success());
    if built { Ok(()) } else { Err(Skip(format!("no {compiler} for {options:?}"))) }
}

/// Objects and bytes that the collector counts although nobody holds them: what it made itself meanwhile.
fn made_by_collections(file: &CoreFile) -> [u64; 2] {
    let inputs = Inputs::open(&file.exe, &file.core, None).expect("open");
    let process = Process::parse(&inputs).expect("parse");
    let dump = Dump::read(&process);
    let memory = dump.memory();
    let made = sets::allocated(memory).into_iter().filter(|o| sets::is_of_the_collection(&dump, *o));
    made.fold([0, 0], |[objects, bytes], o| [objects + 1, bytes + memory.size(o)])
}
