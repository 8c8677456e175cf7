//! Modules of the dumped process in `moduledata` order: segments, pointer masks of data and bss, function tables.

mod gcprog;
mod mask;
mod pclntab;

pub(super) use gcprog::expand as expand_gc_program;
pub use mask::Mask;
pub use pclntab::{Func, FuncData, PcData};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use crate::address::{Addr, AddrRange};
use crate::error::{Context, Error, Result};
use crate::image::{Image, Scratch};
use crate::incident::Incidents;
use crate::model::chain::Chain;
use crate::model::layout::{RuntimeLayout, StackObjectRecordLayout};

/// One `runtime.moduledata`. Addresses are those of the process.
#[derive(Debug)]
pub struct Module {
    /// Address of the `moduledata`.
    pub addr: u64,
    /// Position in the chain from `runtime.firstmoduledata`.
    pub index: u32,
    /// The executable's own module.
    pub is_main: bool,
    /// The collector and the runtime skip it (`bad`).
    pub bad: bool,
    /// `[text, etext)`.
    pub text: AddrRange,
    /// `[minpc, maxpc)`.
    pub pcs: AddrRange,
    /// `[data, edata)`: described by [`Module::gcdata_mask`].
    pub data: AddrRange,
    /// `[bss, ebss)`: described by [`Module::gcbss_mask`].
    pub bss: AddrRange,
    /// `[noptrdata, enoptrdata)`.
    pub noptrdata: AddrRange,
    /// `[noptrbss, enoptrbss)`.
    pub noptrbss: AddrRange,
    /// `[types, etypes)`: type descriptors; `DW_AT_go_runtime_type` and name offsets count from its start.
    pub types: AddrRange,
    /// The part of [`Module::types`] before the first itab. Those follow the descriptors in the same section: without this bound a
    /// word that points to an itab would look like one that points to a type.
    pub descriptors: AddrRange,
    /// Stack-object masks are relative to this; 0 in Go 1.17, which has addresses instead.
    pub rodata: u64,
    /// Funcdata offsets are relative to this; 0 in Go 1.17, which has addresses instead.
    pub gofunc: u64,
    /// Bit `i` is word `data + 8 * i`.
    pub gcdata_mask: Mask,
    /// Bit `i` is word `bss + 8 * i`.
    pub gcbss_mask: Mask,
    pclntab: pclntab::Pclntab,
}

/// All modules.
#[derive(Debug)]
pub struct Modules {
    /// In `moduledata` order.
    pub list: Vec<Module>,
    layout: RuntimeLayout,
    incidents: Incidents,
}

/// More modules than any process loads: a longer chain is damage.
const MAX_MODULES: usize = 1 << 16;

impl Modules {
    /// Follows the chain from `runtime.firstmoduledata`.
    ///
    /// # Errors
    /// The first module cannot be read: there is nothing to start from. Later ones are counted as incidents.
    pub fn read(image: &dyn Image, layout: &RuntimeLayout) -> Result<Self> {
        let mut modules = Self { list: Vec::new(), layout: layout.clone(), incidents: Incidents::default() };
        let mut chain = Chain::new(layout.globals.firstmoduledata);
        let mut first_index = 0u32;
        while let Some(md) = chain.current() {
            match Module::read(image, layout, Addr(md), modules.list.len() as u32, &mut modules.incidents) {
                Ok(mut module) => {
                    module.pclntab.first_index = first_index;
                    first_index = first_index.saturating_add(module.pclntab.nfunc());
                    modules.list.push(module);
                }
                Err(e) if modules.list.is_empty() => {
                    return Err(Error::new(format!("modules: reading runtime.firstmoduledata at {md:#x}")).cause(e));
                }
                Err(_) => {
                    modules.incidents.count("module.unread");
                    break;
                }
            }
            let next = image.read_u64(Addr(md).add(layout.moduledata.next)).unwrap_or(0);
            if !chain.advance(next) || modules.list.len() >= MAX_MODULES {
                modules.incidents.count("module.cycle");
                break;
            }
        }
        Ok(modules)
    }

    /// Where the fields of stack object records are.
    #[must_use]
    pub fn stack_object_record(&self) -> &StackObjectRecordLayout {
        &self.layout.stack_object_record
    }

    /// What could not be read, or not from the first source.
    #[must_use]
    pub fn incidents(&self) -> &Incidents {
        &self.incidents
    }

    /// The module whose types contain `addr`.
    #[must_use]
    pub fn module_of_type(&self, addr: u64) -> Option<&Module> {
        self.list.iter().find(|m| m.types.contains(Addr(addr)))
    }
}

impl Module {
    fn read(
        image: &dyn Image,
        layout: &RuntimeLayout,
        md: Addr,
        index: u32,
        incidents: &mut Incidents,
    ) -> Result<Self> {
        let at = &layout.moduledata;
        let word = |name: &str, field: u64| {
            image.read_u64(md.add(field)).context(|| format!("moduledata at {md}: reading {name}"))
        };
        let range = |name: &str, start: u64, end: u64| {
            Ok::<_, Error>(AddrRange::from_bounds(Addr(word(name, start)?), Addr(word(name, end)?)))
        };
        let data = range("data", at.data, at.edata)?;
        let bss = range("bss", at.bss, at.ebss)?;
        let types = range("types", at.types, at.etypes)?;
        let gcdata = word("gcdata", at.gcdata)?;
        let gcbss = word("gcbss", at.gcbss)?;
        let pclntab = pclntab::Pclntab::read(image, layout, md).unwrap_or_else(|| {
            incidents.count("module.pclntab_unread");
            pclntab::Pclntab::default()
        });
        Ok(Self {
            addr: md.0,
            index,
            is_main: index == 0,
            bad: image.read_u8(md.add(at.bad)).is_ok_and(|bad| bad != 0),
            text: range("text", at.text, at.etext)?,
            pcs: range("minpc", at.minpc, at.maxpc)?,
            noptrdata: range("noptrdata", at.noptrdata, at.enoptrdata)?,
            noptrbss: range("noptrbss", at.noptrbss, at.enoptrbss)?,
            descriptors: descriptors(image, layout, md, types),
            types,
            rodata: at.rodata.map_or(Ok(0), |at| word("rodata", at))?,
            gofunc: at.gofunc.map_or(Ok(0), |at| word("gofunc", at))?,
            gcdata_mask: segment_mask(image, layout, md.add(at.gcdatamask), data, gcdata, incidents),
            gcbss_mask: segment_mask(image, layout, md.add(at.gcbssmask), bss, gcbss, incidents),
            data,
            bss,
            pclntab,
        })
    }
}

/// More itabs than any module has: a longer list is damage.
const MAX_ITABS: u64 = 1 << 24;

/// `types` up to the lowest itab: `moduledata.itaboffset` (1.27), else the least of `moduledata.itablinks`.
fn descriptors(image: &dyn Image, layout: &RuntimeLayout, md: Addr, types: AddrRange) -> AddrRange {
    let lowest = match (layout.moduledata.itaboffset, layout.moduledata.itablinks) {
        (Some(at), _) => image.read_u64(md.add(at)).ok().map(|offset| types.start.add(offset)),
        (None, Some(at)) => {
            let words = [at, at + 8].map(|at| image.read_u64(md.add(at)).unwrap_or(0));
            let range = AddrRange { start: Addr(words[0]), len: words[1].min(MAX_ITABS) * 8 };
            let mut scratch = Scratch::default();
            let bytes = image.load(&[range], &mut scratch);
            let itabs = bytes.get(0).chunks_exact(8).filter_map(|word| Some(u64::from_le_bytes(*word.first_chunk()?)));
            itabs.map(Addr).filter(|itab| types.contains(*itab)).min()
        }
        (None, None) => None,
    };
    // Nothing lies below the first type, so an offset of 0 says that there are no itabs.
    match lowest {
        Some(itab) if types.contains(itab) && itab > types.start => AddrRange::from_bounds(types.start, itab),
        _ => types,
    }
}

/// The pointer mask of a segment: the runtime's own `bitvector`, else its GC program, else nothing.
fn segment_mask(
    image: &dyn Image,
    layout: &RuntimeLayout,
    bitvector: Addr,
    segment: AddrRange,
    program: u64,
    incidents: &mut Incidents,
) -> Mask {
    let nbits = segment.len / crate::address::WORD;
    if nbits == 0 {
        return Mask::default();
    }
    // A segment ends where the process had memory; where it does not, the mask's own length is believed.
    let last = AddrRange { start: Addr(segment.end().0 - 1), len: 1 };
    let sound = image.read_u8(last.start).is_ok() || image.missing().bytes_in(last) > 0;
    let read = || {
        let n = image.read_u32(bitvector.add(layout.bitvector.n)).ok()?;
        let start = Addr(image.read_u64(bitvector.add(layout.bitvector.bytedata)).ok()?);
        if sound && u64::from(n) != nbits {
            return None;
        }
        let mut scratch = Scratch::default();
        let bytes = image.load(&[AddrRange { start, len: u64::from(n).div_ceil(8) }], &mut scratch);
        Mask::from_bytes(bytes.get(0), u64::from(n))
    };
    if !sound {
        incidents.count("module.bad_segment");
    }
    if let Some(mask) = read() {
        return mask;
    }
    if !sound {
        incidents.count("module.mask_unread");
        return Mask::default();
    }
    // `bitvector.n` is an int32: no segment has more words.
    if nbits > u64::from(i32::MAX.cast_unsigned()) {
        incidents.count("module.mask_unread");
        return Mask::default();
    }
    incidents.count("module.mask_from_program");
    gcprog::expand(image, Addr(program), nbits).unwrap_or_else(|| {
        incidents.count("module.mask_unread");
        Mask::default()
    })
}
