//! Do EXE and CORE belong together, and where was EXE loaded?
//!
//! The best witness is the process's own first page, which both kinds of core hold: its program headers (AT_PHDR) lead to its
//! notes with the build ids. Where that page lacks (qemu leaves out what begins with an ELF header), dumped text is compared with EXE,
//! or else read-only data. Without any of them, the entry address must do.

use super::EXECUTABLE_NOT_VERIFIED;
use super::elf::{PAGE_SIZE, PHDR_SIZE, Segment, bytes_at};
use super::executable::Executable;
use super::memory::MappedCore;
use super::notes::{BuildIds, CoreNotes, Notes};
use crate::address::{Addr, AddrRange};
use crate::error::{Error, Result};
use crate::incident::Incidents;

const AT_PHDR: u64 = 3;
const AT_PHENT: u64 = 4;
const AT_PHNUM: u64 = 5;
const AT_ENTRY: u64 = 9;

/// No note segment of an executable comes near this.
const MAX_NOTES: u64 = 1 << 20;

/// Pages of a segment that are compared at least, if there are as many, spread evenly over each dumped piece.
const SAMPLES: usize = 64;

/// An executable has one or two segments of a kind; a damaged one must not make the comparison long.
const MAX_SEGMENTS: usize = 16;

/// Finds the load bias: `AT_ENTRY - e_entry`, with AT_PHDR as a second witness.
///
/// * `core`: names the core dump in messages.
pub(crate) fn load_bias(exe: &Executable<'_>, notes: &CoreNotes, core: &str) -> Result<u64> {
    let Some(at_entry) = notes.aux(AT_ENTRY) else {
        return bias_from_files(exe, notes, core);
    };
    let bias = at_entry.wrapping_sub(exe.entry());
    if !exe.is_pie() && bias != 0 {
        let detail =
            format!("entry address: the process started at {at_entry:#x}, the executable starts at {:#x}", exe.entry());
        return Err(mismatch(exe, notes, core, &detail));
    }
    if bias % PAGE_SIZE != 0 {
        let detail = format!(
            "entry address: {at_entry:#x} in the process and {:#x} in the file differ in the page offset",
            exe.entry()
        );
        return Err(mismatch(exe, notes, core, &detail));
    }
    if let (Some(at_phdr), Some(phdr)) = (notes.aux(AT_PHDR), phdr_address(exe))
        && at_phdr.wrapping_sub(phdr) != bias
    {
        let found = at_phdr.wrapping_sub(phdr);
        let detail = format!("load address: AT_ENTRY gives a displacement of {bias:#x}, AT_PHDR one of {found:#x}");
        return Err(mismatch(exe, notes, core, &detail));
    }
    Ok(bias)
}

/// Link-time address of the program headers.
fn phdr_address(exe: &Executable<'_>) -> Option<u64> {
    let offset = exe.phdrs_offset();
    let first = exe.segments().iter().filter(|s| s.is_load());
    let mut holding = first.filter(|s| s.p_offset <= offset && offset - s.p_offset < s.p_filesz);
    holding.next().map(|s| s.p_vaddr.wrapping_add(offset - s.p_offset))
}

/// Without an auxiliary vector: a fixed executable has no bias, another one is looked for by its file name.
fn bias_from_files(exe: &Executable<'_>, notes: &CoreNotes, core: &str) -> Result<u64> {
    if !exe.is_pie() {
        return Ok(0);
    }
    let name = exe.file_name();
    let mapped = notes.files.iter().find(|f| f.offset == 0 && f.path.rsplit('/').next() == Some(&*name));
    let first = exe.segments().iter().find(|s| s.is_load() && s.p_offset < PAGE_SIZE);
    match (mapped, first) {
        (Some(f), Some(s)) => Ok(f.range.start.0.wrapping_sub(s.p_vaddr - s.p_vaddr % PAGE_SIZE)),
        _ => Err(Error::new(format!(
            "{core}: cannot tell where the position-independent executable {} was loaded: the core has no auxiliary vector (NT_AUXV)",
            exe.path().display()
        ))),
    }
}

/// Refuses an executable that is not the one that the process ran.
pub(crate) fn check(
    exe: &Executable<'_>,
    image: &MappedCore<'_>,
    notes: &CoreNotes,
    load_bias: u64,
    core: &str,
    incidents: &mut Incidents,
) -> Result<()> {
    let ours = exe.build_ids();
    let theirs = process_build_ids(image, notes).unwrap_or_default();
    let pairs = [("GNU build id", theirs.gnu, ours.gnu), ("Go build id", theirs.go, ours.go)];
    let mut same = false;
    for (kind, expected, found) in pairs {
        if let (Some(expected), Some(found)) = (expected, found) {
            if expected != found {
                let detail =
                    format!("{kind}: the process has {}, the executable {}", show_id(expected), show_id(found));
                return Err(mismatch(exe, notes, core, &detail));
            }
            same = true;
        }
    }
    if same {
        return Ok(());
    }
    let text = compare(exe, image, load_bias, Segment::is_text).map(|found| ("machine code", found));
    let constants = || Some(("read-only data", compare(exe, image, load_bias, |s| s.is_load() && !s.is_text())?));
    match text.or_else(constants) {
        // A debugger's breakpoints change single bytes, so a few different pages are no proof.
        Some((what, found)) if found.different > found.compared / 2 => {
            let detail = format!("{what}: {} of {} compared pages differ", found.different, found.compared);
            Err(mismatch(exe, notes, core, &detail))
        }
        Some(_) => Ok(()),
        None => {
            incidents.count(EXECUTABLE_NOT_VERIFIED);
            Ok(())
        }
    }
}

/// Refuses an executable that is not `running`, the one that a process runs, by their build ids.
///
/// # Errors
/// The ids differ, or there is none that both have.
pub fn check_same_program(exe: &Executable<'_>, running: &Executable<'_>, process: &str) -> Result<()> {
    let (ours, theirs) = (exe.build_ids(), running.build_ids());
    let pairs = [("GNU build id", theirs.gnu, ours.gnu), ("Go build id", theirs.go, ours.go)];
    let mut same = exe.data() == running.data();
    let refused = |detail: &str| {
        Error::new(format!("executable {} does not belong to {process}: {detail}", exe.path().display()))
            .remedy(format!("give the executable that the process runs, {}, or leave it out", running.path().display()))
    };
    for (kind, expected, found) in pairs {
        if let (Some(expected), Some(found)) = (expected, found) {
            if expected != found {
                let detail =
                    format!("{kind}: the process has {}, the executable {}", show_id(expected), show_id(found));
                return Err(refused(&detail));
            }
            same = true;
        }
    }
    if same { Ok(()) } else { Err(refused("they have no build id in common")) }
}

/// The build ids in the process's memory, as far as the core holds them.
fn process_build_ids<'img>(image: &MappedCore<'img>, notes: &CoreNotes) -> Option<BuildIds<'img>> {
    let at_phdr = notes.aux(AT_PHDR)?;
    let count = notes.aux(AT_PHNUM).filter(|n| *n <= 0xffff)?;
    if notes.aux(AT_PHENT) != Some(PHDR_SIZE as u64) {
        return None;
    }
    let table = image.borrow_dumped(AddrRange { start: Addr(at_phdr), len: count * PHDR_SIZE as u64 })?;
    let segments: Vec<Segment> = table.chunks_exact(PHDR_SIZE).filter_map(Segment::parse).collect();
    // The headers in memory tell where they were linked to (PT_PHDR, else the segment at file offset 0), independent of EXE.
    let phdr = segments.iter().find(|s| s.p_type == object::elf::PT_PHDR.0).map(|s| s.p_vaddr);
    let first = || segments.iter().find(|s| s.is_load() && s.p_offset == 0).map(|s| s.p_vaddr.wrapping_add(64));
    let bias = at_phdr.wrapping_sub(phdr.or_else(first)?);
    let mut ids = BuildIds::default();
    for s in segments.iter().filter(|s| s.is_note() && s.p_filesz <= MAX_NOTES) {
        let range = AddrRange { start: Addr(s.p_vaddr.wrapping_add(bias)), len: s.p_filesz };
        if let Some(bytes) = image.borrow_dumped(range) {
            ids.read(Notes::new(bytes, s.p_align));
        }
    }
    Some(ids)
}

struct Comparison {
    compared: usize,
    different: usize,
}

/// Compares dumped pages of the segments that are not writable and of the `wanted` kind with the file; `None` if the core holds none.
fn compare(
    exe: &Executable<'_>,
    image: &MappedCore<'_>,
    load_bias: u64,
    wanted: impl Fn(&Segment) -> bool,
) -> Option<Comparison> {
    let mut result = Comparison { compared: 0, different: 0 };
    for s in exe.segments().iter().filter(|s| wanted(s) && !s.is_writable()).take(MAX_SEGMENTS) {
        let range = AddrRange { start: Addr(s.p_vaddr.wrapping_add(load_bias)), len: s.p_filesz };
        for (addr, bytes) in image.dumped_in(range).take(MAX_SEGMENTS) {
            let step = (bytes.len() / PAGE_SIZE as usize / SAMPLES).max(1);
            for (i, page) in bytes.chunks(PAGE_SIZE as usize).enumerate().step_by(step) {
                let offset = (addr.0 - range.start.0).saturating_add(i as u64 * PAGE_SIZE);
                let same = bytes_at(exe.data(), s.p_offset.saturating_add(offset), page.len() as u64) == Some(page);
                result.compared += 1;
                result.different += usize::from(!same);
            }
        }
    }
    (result.compared > 0).then_some(result)
}

fn mismatch(exe: &Executable<'_>, notes: &CoreNotes, core: &str, detail: &str) -> Error {
    let error = Error::new(format!("executable {} does not belong to {core}: {detail}", exe.path().display()));
    // The mapping that holds the entry, or else the first one, is the program as the process knew it.
    let entry = notes.aux(AT_ENTRY).and_then(|e| notes.files.iter().find(|f| f.range.contains(Addr(e))));
    match entry.or(notes.files.first()) {
        Some(f) => error.remedy(format!("give the executable that the process ran: {}", f.path)),
        None => error.remedy("give the executable that the process ran"),
    }
}

/// Go build ids are text, GNU build ids bytes.
fn show_id(id: &[u8]) -> String {
    match std::str::from_utf8(id) {
        Ok(text) if text.bytes().all(|b| b.is_ascii_graphic()) => text.to_owned(),
        _ => id.iter().map(|b| format!("{b:02x}")).collect(),
    }
}
