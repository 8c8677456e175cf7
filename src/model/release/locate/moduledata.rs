//! The executable's own `runtime.moduledata`: it starts with the address of the function tables, describes the sections around it, and has
//! a section of its own since Go 1.26.

use super::MAX_STATIC;
use super::words::each_word;
use crate::address::{Addr, AddrRange, WORD};
use crate::image::Image;
use crate::image::executable::Executable;
use crate::model::layout::RuntimeLayout;

/// Its address in the process at load bias `bias`.
pub(super) fn find(exe: &Executable<'_>, image: &dyn Image, bias: u64, layout: &RuntimeLayout) -> Option<u64> {
    let range = |name: &str| {
        let section = exe.section(name)?;
        let start = Addr(section.address.wrapping_add(bias));
        Some(AddrRange { start, len: section.size.min(MAX_STATIC) })
    };
    // The C linker joins the section with others of a position-independent program.
    let (tables, joined) = match range(".gopclntab").or_else(|| range(".data.rel.ro.gopclntab")) {
        Some(tables) => (Some(tables.start.0), None),
        None => (None, Some(range(".data.rel.ro")?)),
    };
    let is_tables =
        |word: u64| tables.map_or_else(|| joined.is_some_and(|range| range.contains(Addr(word))), |at| word == at);
    let field = layout.moduledata.pc_header;
    // First where it has a section of its own.
    for range in [".go.module", ".noptrdata", ".data"].iter().filter_map(|name| range(name)) {
        let mut found = None;
        each_word(image, range, &mut |at, [word, ..]| {
            let candidate = at.wrapping_sub(field);
            if found.is_none() && is_tables(word) && is_moduledata(image, candidate, word, layout) {
                found = Some(candidate);
            }
        });
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Whether a `moduledata` lies at `at` whose function tables are at `tables` and whose parts agree with each other.
fn is_moduledata(image: &dyn Image, at: u64, tables: u64, layout: &RuntimeLayout) -> bool {
    let (md, header) = (&layout.moduledata, &layout.pc_header);
    let word = |field: u64| image.read_u64(Addr(at).add(field)).ok();
    let check = || {
        let ordered = |fields: &[u64]| {
            let words: Option<Vec<u64>> = fields.iter().map(|field| word(*field)).collect();
            words.is_some_and(|words| words.is_sorted() && words[0] != 0)
        };
        let mask = |field: u64, start: u64, end: u64| {
            let n = image.read_u32(Addr(at).add(field).add(layout.bitvector.n)).ok()?;
            Some(u64::from(n) == word(end)?.checked_sub(word(start)?)? / WORD)
        };
        if image.read_u32(Addr(tables).add(header.magic)).ok()? < 0xffff_fff0 {
            return Some(false);
        }
        let nfunc = image.read_u64(Addr(tables).add(header.nfunc)).ok()?;
        let sound = word(md.pc_header)? == tables
            && image.read_u8(Addr(tables).add(header.ptr_size)).ok()? == 8
            && word(md.ftab + 8)? == nfunc.checked_add(1)?
            && ordered(&[md.text, md.etext])
            && ordered(&[md.minpc, md.maxpc])
            && ordered(&[md.noptrdata, md.enoptrdata])
            && ordered(&[md.types, md.etypes])
            && ordered(&[md.data, md.edata])
            && ordered(&[md.bss, md.ebss])
            && mask(md.gcdatamask, md.data, md.edata)?
            && mask(md.gcbssmask, md.bss, md.ebss)?;
        Some(sound)
    };
    check().unwrap_or(false)
}
