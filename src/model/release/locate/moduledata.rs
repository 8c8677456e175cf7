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
    let address = |name: &str| exe.section(name).map(|s| s.address.wrapping_add(bias));
    let tables = address(".gopclntab").or_else(|| address(".data.rel.ro.gopclntab"))?;
    if let Some(own) = address(".go.module").filter(|at| is_moduledata(image, *at, tables, layout)) {
        return Some(own);
    }
    let field = layout.moduledata.pc_header;
    for section in [".noptrdata", ".data", ".go.module"].iter().filter_map(|name| exe.section(name)) {
        let range = AddrRange { start: Addr(section.address.wrapping_add(bias)), len: section.size.min(MAX_STATIC) };
        let mut found = None;
        each_word(image, range, &mut |at, words| {
            let candidate = at.wrapping_sub(field);
            if found.is_none() && words[0] == tables && is_moduledata(image, candidate, tables, layout) {
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
        let nfunc = image.read_u64(Addr(tables).add(header.nfunc)).ok()?;
        let sound = word(md.pc_header)? == tables
            && image.read_u32(Addr(tables).add(header.magic)).ok()? >= 0xffff_fff0
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
