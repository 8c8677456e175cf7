//! The runtime's variables in a process whose executable has no symbols: found by what lies there.
//!
//! `runtime.firstmoduledata` (`moduledata`) says where static memory is, and what functions are called. In that memory `mheap_` is known by
//! its list of spans, `allgs`, `allp` and `allm` by the structs that they lead to (`structures`), `gcController` and `memstats` by sums
//! that must agree (`statistics`). The rest is found by the code that uses it (`code`): no address is tested more often than
//! `writeBarrier`, whose flag says what `gcphase` says; the queues of finalizers and cleanups are what the functions refer to that fill
//! them.
//!
//! Every answer is checked against more facts than it was found by; what is not found is not guessed.

mod code;
mod moduledata;
mod statistics;
mod structures;
#[cfg(test)]
mod tests;
mod words;

use super::references::Machine;
use crate::address::{Addr, AddrRange, WORD};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::image::executable::Executable;
use crate::model::layout::RuntimeLayout;
use crate::model::modules::Modules;
use std::cell::Cell;

/// Static memory that is searched: the linker puts large variables last, and the runtime's are not that large.
const MAX_STATIC: u64 = 1 << 30;
/// Values that are read behind pointers in all: a real program of any size takes some millions, and each word of a forged one may lead
/// to a list of a million.
const MAX_READS: u64 = 1 << 30;
/// Spans, goroutines and processors that are looked at before a list is believed.
const SAMPLE: u64 = 64;
const PAGE_SIZE: u64 = 8192;

/// Name and address in the process of a variable of the runtime, without its package.
pub type Located = Vec<(&'static str, u64)>;

/// Finds them.
///
/// * `layout`: offsets by the release's table; its variables are not used.
/// * `version`: `runtime.buildVersion`.
///
/// # Errors
/// Names the first variable without which nothing can be read.
pub fn variables(
    exe: &Executable<'_>,
    image: &dyn Image,
    bias: u64,
    layout: &RuntimeLayout,
    version: &str,
) -> Result<Located> {
    let mut layout = layout.clone();
    let machine = Machine::of(exe.architecture()).ok_or_else(|| lost("code"))?;
    let first = moduledata::find(exe, image, bias, &layout).ok_or_else(|| lost("firstmoduledata"))?;
    layout.globals.firstmoduledata = first;
    let modules = Modules::read(image, &layout)?;
    let main = modules.list.first().ok_or_else(|| lost("firstmoduledata"))?;
    let statics = [main.noptrdata, main.data, main.bss, main.noptrbss].map(whole_words);
    let search = Search { image, layout: &layout, modules: &modules, machine, statics, reads: Cell::new(MAX_READS) };
    let by_structure = search.structures(version);
    let needed = |found: Option<u64>, name: &str| found.ok_or_else(|| lost(name));
    let mheap = needed(by_structure.mheap, "mheap_")?;
    let flag = needed(search.write_barrier(main.text), "writeBarrier")?;
    let allfin = needed(search.finalizer_queue(), "allfin")?;
    let (controller, memstats) = search.statistics(mheap);
    let mut located = vec![
        ("firstmoduledata", first),
        ("mheap_", mheap),
        ("allgs", needed(by_structure.allgs.map(|(_, at)| at), "allgs")?),
        ("allm", needed(by_structure.allm.map(|(_, at)| at), "allm")?),
        ("allp", needed(by_structure.allp, "allp")?),
        // Not zero while a collection marks; which of its phases, nobody asks.
        ("gcphase", flag),
        ("allfin", allfin),
    ];
    let optional = [
        ("gcController", controller),
        ("memstats", memstats),
        ("buildVersion", by_structure.build_version),
        ("waitReasonStrings", by_structure.wait_reasons),
        ("gcCleanups", search.cleanup_queue()),
    ];
    located.extend(optional.into_iter().filter_map(|(name, at)| Some((name, at?))));
    Ok(located)
}

fn lost(name: &str) -> Error {
    Error::new(format!(
        "executable without symbols: runtime.{name} was not found in the process's memory by what it should contain"
    ))
    .remedy("give the executable as it was before it was stripped; it may have the same build id")
}

/// The aligned words of a section, as far as they are searched.
fn whole_words(section: AddrRange) -> AddrRange {
    let skipped = section.start.0.wrapping_neg() % WORD;
    let len = section.end().0.saturating_sub(section.start.0).saturating_sub(skipped);
    AddrRange { start: section.start.add(skipped), len: len.min(MAX_STATIC) }
}

/// What all searches need.
struct Search<'s> {
    image: &'s dyn Image,
    layout: &'s RuntimeLayout,
    modules: &'s Modules,
    machine: Machine,
    /// noptrdata, data, bss, noptrbss.
    statics: [AddrRange; 4],
    /// What is left of [`MAX_READS`]; then nothing more is found.
    reads: Cell<u64>,
}

impl Search<'_> {
    /// The word at `field` of the struct at `base`. Hostile addresses: whatever cannot be read is `None`.
    fn word(&self, base: u64, field: u64) -> Option<u64> {
        self.image.read_u64(self.spend(base, field)?).ok()
    }

    /// As [`Search::word`], four bytes.
    fn half(&self, base: u64, field: u64) -> Option<u32> {
        self.image.read_u32(self.spend(base, field)?).ok()
    }

    /// As [`Search::word`], one byte.
    fn byte(&self, base: u64, field: u64) -> Option<u8> {
        self.image.read_u8(self.spend(base, field)?).ok()
    }

    /// The address of a field, if it may still be read.
    fn spend(&self, base: u64, field: u64) -> Option<Addr> {
        self.reads.set(self.reads.get().checked_sub(1)?);
        Some(Addr(base).add(field))
    }

    fn is_static(&self, addr: u64) -> bool {
        self.statics.iter().any(|range| range.contains(Addr(addr)))
    }
}
