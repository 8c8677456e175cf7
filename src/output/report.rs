//! The report on standard output: the totals line, the books beside it, the heaviest roots and types, and where the profile went.
//!
//! Everything but the last part of `-v` (times, memory) is the same for equal inputs.

use std::fmt::Write;
use std::path::Path;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};

use super::{RunResult, Summary, books, release};
use crate::aggregate::Row;
use crate::config::Verbosity;
use crate::image::EXECUTABLE_NOT_VERIFIED;
use crate::live::Stops;

/// Columns of a terminal below which tables are not fitted to it.
const MIN_WRAP_WIDTH: u16 = 72;

/// The report's text; the last line says where the profile went.
pub(crate) fn render(result: &RunResult, summary: &Summary, verbosity: Verbosity) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_report(&mut text, result, summary, verbosity);
    text
}

fn write_report(out: &mut String, result: &RunResult, summary: &Summary, verbosity: Verbosity) -> std::fmt::Result {
    let reachable = result.totals.reachable();
    if !result.target.exe_name.is_empty() {
        writeln!(out, "{} ({})", printable(&result.target.exe_name), printable(&result.target.go_version))?;
    }
    if let Some(line) = release::untested(&result.target.go_version) {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "{}", result.totals)?;
    books::write_books(out, &result.books, verbosity == Verbosity::Verbose)?;
    writeln!(out)?;
    writeln!(out, "Heaviest roots, with everything first reached through them:")?;
    writeln!(out, "{}", table("root", &summary.roots, reachable.bytes))?;
    writeln!(
        out,
        "Bytes are what was first reached through a root, by the fewest pointers; that is not what would be freed if it were cut."
    )?;
    if !summary.types.is_empty() {
        writeln!(out)?;
        writeln!(out, "Heaviest types, objects of their own:")?;
        writeln!(out, "{}", table("type", &summary.types, reachable.bytes))?;
    }
    writeln!(out)?;
    if summary.stacks_after < summary.stacks_before {
        let folded = summary.stacks_before - summary.stacks_after;
        writeln!(
            out,
            "{} of {} stacks kept; the lightest {folded} are folded into (other), --max-stacks keeps more.",
            summary.stacks_after, summary.stacks_before
        )?;
    }
    if let Some(sentence) = &result.missing_names {
        writeln!(out, "Names: {sentence}.")?;
    }
    if !result.other_runtimes.is_empty() {
        writeln!(
            out,
            "Other Go runtimes in this process, which are not in these numbers: {}. From a core each can be analyzed: give it as EXE.",
            result.other_runtimes.join(", ")
        )?;
    }
    let (roots, held) = (result.walk.conservative_roots, result.totals.conservative);
    if roots > 0 {
        writeln!(
            out,
            "{roots} roots come from frames without a pointer map and were scanned conservatively; of reachable, {} B ({} objects) \
             are held by them alone and may be dead.",
            held.bytes, held.objects
        )?;
    }
    if result.incidents.get(EXECUTABLE_NOT_VERIFIED) > 0 {
        writeln!(
            out,
            "The core has no headers, code or constants of the executable to compare; only the entry address says that it is the one \
             that ran."
        )?;
    }
    if verbosity == Verbosity::Verbose {
        write_details(out, result, summary)?;
    } else if !result.incidents.is_empty() {
        let count: u64 = result.incidents.iter().map(|(_, n)| n).fold(0, u64::saturating_add);
        writeln!(out, "{count} soft errors were counted and passed over; -v lists them by cause.")?;
    }
    if let Some(stops) = &result.stops {
        write_stops(out, stops)?;
    }
    if let Some(path) = &summary.path {
        let path = printable(&path.display().to_string());
        writeln!(out, "wrote {path}; open it with: go tool pprof -http=:5079 {path}")?;
    }
    Ok(())
}

/// The report of a capture.
///
/// * `left_out`: bytes of memory that no analysis reads, if they were left out.
pub fn capture(stops: &Stops, exe: &Path, core: &Path, left_out: Option<u64>) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_stops(&mut text, stops);
    let (exe, core) = (printable(&exe.display().to_string()), printable(&core.display().to_string()));
    if let Some(bytes) = left_out {
        let _ = writeln!(text, "left out {} of memory that no analysis reads", human(bytes));
    }
    let _ = writeln!(text, "wrote {core}; analyze it with: goref-fast core {exe} {core}");
    text
}

/// How long a live process stood still.
fn write_stops(out: &mut String, stops: &Stops) -> std::fmt::Result {
    let choice = &stops.choice;
    write!(out, "the process stood still for ")?;
    for (i, (what, stopped)) in stops.stops.iter().enumerate() {
        let ms = stopped.as_secs_f64() * 1e3;
        write!(out, "{}{ms:.1} ms ({what})", if i == 0 { "" } else { " and " })?;
    }
    writeln!(out, "; --pause {}: {}", choice.pause.name(), printable(&choice.why))?;
    if let Some(limit) = stops.exceeded {
        let ms = limit.as_secs_f64() * 1e3;
        writeln!(
            out,
            "that is longer than --max-pause, {ms:.1} ms: making the snapshot took longer than expected and cannot be broken off"
        )?;
    }
    if stops.left {
        writeln!(out, "a dead child of the process could not be removed; the next attach does it")?;
    }
    Ok(())
}

/// The part for `-v`.
fn write_details(out: &mut String, result: &RunResult, summary: &Summary) -> std::fmt::Result {
    let walk = &result.walk;
    writeln!(
        out,
        "walk: {} levels, {} candidates, {} path nodes; profile: {} samples, {} frames, {} bytes before compression",
        walk.levels,
        walk.candidates,
        walk.path_nodes,
        summary.profile.samples,
        summary.profile.locations,
        summary.profile.raw_bytes
    )?;
    writeln!(out, "threads: {}", summary.threads)?;
    if let Some(peak) = summary.peak_private_bytes {
        writeln!(out, "peak private memory: {}", human(peak))?;
    }
    if let Some(file) = &result.target.debug_file {
        writeln!(out, "debug information from {}", printable(file))?;
    }
    for (name, elapsed) in result.phases.iter() {
        writeln!(out, "phase {name}: {:.3} s", elapsed.as_secs_f64())?;
    }
    for hold in &result.conservative_holds {
        let place = if hold.slot == 0 { "a register".to_string() } else { format!("the word at {:#x}", hold.slot) };
        writeln!(
            out,
            "conservative: {place} of goroutine {} ({}) alone holds the object at {:#x}, {} B",
            hold.goid,
            printable(&hold.frame),
            hold.object,
            hold.bytes
        )?;
    }
    for (cause, n) in result.incidents.iter() {
        writeln!(out, "soft errors {cause}: {n}")?;
    }
    Ok(())
}

/// A table of rows with their share of `whole` bytes, without a newline at the end.
fn table(what: &str, rows: &[Row], whole: u64) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    // Names wrap on a terminal; one too narrow for that (or of unknown width, 0) gets whole lines, as a file does.
    if table.width().is_some_and(|width| width >= MIN_WRAP_WIDTH) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(["bytes", "", "%", "objects", what]);
    for row in rows {
        let share = if whole == 0 { 0.0 } else { row.amount.bytes as f64 * 100.0 / whole as f64 };
        table.add_row([
            row.amount.bytes.to_string(),
            human(row.amount.bytes),
            format!("{share:.1}"),
            row.amount.objects.to_string(),
            printable(&row.name),
        ]);
    }
    for column in table.column_iter_mut().take(4) {
        column.set_cell_alignment(CellAlignment::Right);
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    // The last column is padded as the others are; nobody wants that in a file.
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Bytes with a binary unit and one digit after the point.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// Names come from the dump: control characters in them must not reach a terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { clean.extend(c.escape_default()) } else { clean.push(c) }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn human_sizes() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(1023), "1023 B");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(3 << 30), "3.0 GiB");
        assert_eq!(human(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn names_cannot_drive_the_terminal() {
        assert_eq!(printable("main.\u{1b}[2Jx\n"), "main.\\u{1b}[2Jx\\n");
        assert_eq!(printable("[0]. (map[string]δ)"), "[0]. (map[string]δ)");
    }
}
