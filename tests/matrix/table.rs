//! The table in the README: written by runs with `GOREF_MATRIX=full`, cell by cell, so that a run of some cells keeps the others.

use super::cells::{Claim, RELEASES, Row, rows};
use crate::harness::root;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

const BEGIN: &str = "<!-- matrix: written by GOREF_MATRIX=full cargo test --test main -- matrix -->\n";
const END: &str = "<!-- end of matrix -->";

/// What a cell says.
pub const UNKNOWN: &str = "?";
pub const FAILED: &str = "**no**";
const ABSENT: &str = "–";

/// The last row: the commit that a whole column was run on.
const COMMIT: &str = "on commit";
/// Says so of a column whose cells are from several.
const SEVERAL: &str = "several";

/// A change of the table.
#[derive(Copy, Clone)]
enum Change<'a> {
    None,
    /// What a row says about a release, and the commit that it was run on.
    Cell(&'a Row, &'a str, &'a str, &'a str),
    /// All rows of a release were run on this commit.
    Column(&'a str, &'a str),
}

/// What a cell says that met its claim.
pub fn met(claim: Claim) -> &'static str {
    match claim {
        Claim::Paths => "✓",
        Claim::Totals => "totals",
    }
}

fn readme() -> PathBuf {
    root().join("README.md")
}

/// The README before, in and after the table.
fn split(text: &str) -> (&str, &str, &str) {
    let (before, rest) = text.split_once(BEGIN).unwrap_or_else(|| panic!("README.md: no line {BEGIN:?}"));
    let (table, after) = rest.split_once(END).unwrap_or_else(|| panic!("README.md: no {END:?} behind {BEGIN:?}"));
    (before, table, after)
}

/// What the table says about `row` and the release in `column`.
fn cell<'t>(table: &'t str, row: &str, column: &str) -> Option<&'t str> {
    let mut lines = table.lines().map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let at = lines.next()?.iter().position(|head| *head == column)?;
    lines.find(|cells| cells[0] == row)?.get(at).copied()
}

/// The table with what `old` says about the cells that still exist, and a change.
fn render(old: &str, change: Change<'_>) -> String {
    let mut text = format!("| build, core | {} |\n|---|{}\n", RELEASES.join(" | "), "---|".repeat(RELEASES.len()));
    let mut line = |name: &str, says: &dyn Fn(&str) -> String| {
        let cells: Vec<String> = RELEASES.iter().map(|version| says(version)).collect();
        text.push_str(&format!("| {name} | {} |\n", cells.join(" | ")));
    };
    for row in rows() {
        let name = row.name();
        let says = |version: &str| match change {
            _ if !row.exists(version) => ABSENT,
            Change::Cell(r, v, result, _) if r.name() == name && v == version => result,
            _ => match cell(old, &name, version) {
                Some(said) if said == met(row.claim) || said == FAILED => said,
                _ => UNKNOWN,
            },
        };
        line(&name, &|version| says(version).to_owned());
    }
    let commit = |version: &str| match (cell(old, COMMIT, version), change) {
        (_, Change::Column(v, commit)) if v == version => commit.to_owned(),
        (said, Change::Cell(_, v, _, commit)) if v == version && said != Some(commit) => SEVERAL.to_owned(),
        (said, _) => said.unwrap_or(SEVERAL).to_owned(),
    };
    line(COMMIT, &commit);
    text
}

/// Writes the result of one cell.
pub fn update(row: &Row, version: &str, result: &str) {
    rewrite(Change::Cell(row, version, result, &commit()));
}

/// Writes down that all cells of a release were run.
pub fn complete(version: &str) {
    rewrite(Change::Column(version, &commit()));
}

/// The commit that is checked out, with a plus if anything but the README is changed.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(root()).output().expect("run git");
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    let changed = !git(&["status", "--porcelain", "--untracked-files=no", "--", ".", ":!README.md"]).is_empty();
    format!("{}{}", git(&["rev-parse", "--short=7", "HEAD"]), if changed { "+" } else { "" })
}

/// Writes the table anew.
fn rewrite(change: Change<'_>) {
    static WRITING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let text = fs::read_to_string(readme()).unwrap();
    let (before, old, after) = split(&text);
    let table = render(old, change);
    fs::write(readme(), format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
}

/// The table has the rows and columns that the cells have; what it says about each of them only a full run can tell.
#[test]
fn table_is_current() {
    if super::full() {
        return rewrite(Change::None);
    }
    let text = fs::read_to_string(readme()).unwrap();
    let (_, table, _) = split(&text);
    assert_eq!(
        table,
        render(table, Change::None),
        "run GOREF_MATRIX=full cargo test --test main -- matrix::table, commit README.md"
    );
}

#[test]
fn results_are_kept() {
    let all = rows();
    let (first, version) = (&all[0], RELEASES[1]);
    let empty = render("", Change::None);
    assert_eq!(cell(&empty, &first.name(), version), Some(UNKNOWN));
    let one = render(&empty, Change::Cell(first, version, met(first.claim), "abc"));
    assert_eq!(cell(&one, &first.name(), version), Some(met(first.claim)));
    assert_eq!(render(&one, Change::None), one);
    let both = render(&one, Change::Cell(&all[1], version, FAILED, "abc"));
    assert_eq!(both.matches(FAILED).count(), 1);
    assert_eq!(cell(&both, &first.name(), version), Some(met(first.claim)));
    // A column is from one commit when all of it was run, until a cell of it is run on another.
    assert_eq!(cell(&both, COMMIT, version), Some(SEVERAL));
    let whole = render(&both, Change::Column(version, "abc"));
    assert_eq!(cell(&whole, COMMIT, version), Some("abc"));
    assert_eq!(cell(&whole, COMMIT, RELEASES[0]), Some(SEVERAL));
    let again = |commit| render(&whole, Change::Cell(first, version, met(first.claim), commit));
    assert_eq!([again("abc"), again("def")].each_ref().map(|t| cell(t, COMMIT, version)), [Some("abc"), Some(SEVERAL)]);
    let mut names: Vec<String> = all.iter().map(Row::name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all.len(), "two rows have one name");
}
