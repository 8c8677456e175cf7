//! Which pages of a core must be read by whoever walks its heap: prints `offset length` lines for `perf/run --cold`.
//!
//! A page counts if it holds a byte of an allocated slot in a span with pointers, or of such a span's own pointer bitmap. Pages in a
//! row are one line; lines are in the order of the file, which is that of the slots.
//!
//! ```text
//! pages EXE CORE
//! ```

use goref_fast::address::{Addr, AddrRange};
use goref_fast::error::{Error, Result};
use goref_fast::image::{Inputs, Process};
use goref_fast::model::dwarf::DebugInfo;
use goref_fast::model::heap::{Heap, MaskSource, SpanId};
use goref_fast::model::layout::RuntimeLayout;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Bytes of a page of the page cache.
const PAGE: u64 = 4096;

fn main() -> ExitCode {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [exe, core] = args.as_slice() else {
        eprintln!("usage: pages EXE CORE");
        return ExitCode::from(2);
    };
    let lines = Inputs::open(exe, core, None).and_then(|inputs| page_runs(&inputs));
    let written = lines.and_then(|runs| {
        let mut out = BufWriter::new(std::io::stdout().lock());
        let lines = runs.iter().try_for_each(|(first, end)| writeln!(out, "{} {}", first * PAGE, (end - first) * PAGE));
        lines.and_then(|()| out.flush()).map_err(|e| Error::new(e.to_string()))
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs of pages of the core file, first and end, sorted, not touching.
fn page_runs(inputs: &Inputs) -> Result<Vec<(u64, u64)>> {
    let process = Process::parse(inputs)?;
    let debug = DebugInfo::load(&process.executable)?;
    let layout = RuntimeLayout::find(&debug.types, &debug.variables, &debug.constants, process.load_bias)?;
    let heap = Heap::read(&process.image, &layout)?;
    let file = inputs.core().data().as_ptr_range();
    let mut runs: Vec<(u64, u64)> = Vec::new();
    // Slots that no piece of the core holds as a whole (file-backed, or not in the core at all) are read from elsewhere.
    let mut add = |start: u64, len: u64| {
        let bytes = process.image.borrow(AddrRange { start: Addr(start), len }).map(<[u8]>::as_ptr_range);
        if let Some(bytes) = bytes.filter(|b| file.start <= b.start && b.end <= file.end && len > 0) {
            let offset = bytes.start as u64 - file.start as u64;
            let (first, end) = (offset / PAGE, (offset + len).div_ceil(PAGE));
            match runs.last_mut() {
                // Most slots continue the run of the one before.
                Some(last) if (last.0..=last.1).contains(&first) => last.1 = last.1.max(end),
                _ => runs.push((first, end)),
            }
        }
    };
    for (id, span) in (0..).map(SpanId).zip(heap.spans()) {
        let source = heap.mask_source(id);
        let has_pointers = !matches!(source, MaskSource::Noscan | MaskSource::Large { rtype: 0 });
        if !has_pointers {
            continue;
        }
        for slot in (0..u32::from(span.nelems)).filter(|slot| heap.is_allocated(id, *slot)) {
            let start = heap.slot_addr(id, slot);
            let end = if span.is_large() { span.limit } else { start + span.elem_size() };
            add(start, end.saturating_sub(start));
        }
        if let MaskSource::InSpan { bitmap } = source {
            add(bitmap, heap.in_span_bitmap_len(id));
        }
    }
    runs.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (first, end) in runs {
        match merged.last_mut() {
            Some(last) if first <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((first, end)),
        }
    }
    Ok(merged)
}
