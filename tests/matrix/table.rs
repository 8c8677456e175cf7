//! The table in the README: written by runs with `GOREF_MATRIX=full`, cell by cell, so that a run of some cells keeps the others.

use super::cells::{Claim, RELEASES, Row, rows};
use crate::harness::root;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

const BEGIN: &str = "<!-- matrix: written by GOREF_MATRIX=full cargo test --test main -- matrix -->\n";
const END: &str = "<!-- end of matrix -->";

/// What a cell says.
pub const UNKNOWN: &str = "?";
pub const FAILED: &str = "**no**";
const ABSENT: &str = "–";

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

/// The table with what `old` says about the cells that still exist, and `new` about one.
fn render(old: &str, new: Option<(&Row, &str, &str)>) -> String {
    let mut text = format!("| build, core | {} |\n|---|{}\n", RELEASES.join(" | "), "---|".repeat(RELEASES.len()));
    for row in rows() {
        let name = row.name();
        text.push_str(&format!("| {name} |"));
        for version in RELEASES {
            let known = || match cell(old, &name, version) {
                Some(said) if said == met(row.claim) || said == FAILED => said,
                _ => UNKNOWN,
            };
            let said = match new {
                _ if !row.exists(version) => ABSENT,
                Some((r, v, result)) if r.name() == name && v == version => result,
                _ => known(),
            };
            text.push_str(&format!(" {said} |"));
        }
        text.push('\n');
    }
    text
}

/// Writes the result of one cell.
pub fn update(row: &Row, version: &str, result: &str) {
    rewrite(Some((row, version, result)));
}

/// Writes the table anew: `new` is the result of a cell.
fn rewrite(new: Option<(&Row, &str, &str)>) {
    static WRITING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let text = fs::read_to_string(readme()).unwrap();
    let (before, old, after) = split(&text);
    let table = render(old, new);
    fs::write(readme(), format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
}

/// The table has the rows and columns that the cells have; what it says about each of them only a full run can tell.
#[test]
fn table_is_current() {
    if super::full() {
        return rewrite(None);
    }
    let text = fs::read_to_string(readme()).unwrap();
    let (_, table, _) = split(&text);
    assert_eq!(
        table,
        render(table, None),
        "run GOREF_MATRIX=full cargo test --test main -- matrix::table, commit README.md"
    );
}

#[test]
fn results_are_kept() {
    let all = rows();
    let (first, version) = (&all[0], RELEASES[1]);
    let empty = render("", None);
    assert_eq!(cell(&empty, &first.name(), version), Some(UNKNOWN));
    let one = render(&empty, Some((first, version, met(first.claim))));
    assert_eq!(cell(&one, &first.name(), version), Some(met(first.claim)));
    assert_eq!(render(&one, None), one);
    let both = render(&one, Some((&all[1], version, FAILED)));
    assert_eq!(both.matches(FAILED).count(), 1);
    assert_eq!(cell(&both, &first.name(), version), Some(met(first.claim)));
    let mut names: Vec<String> = all.iter().map(Row::name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all.len(), "two rows have one name");
}
