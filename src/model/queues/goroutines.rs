//! The goroutines that run finalizers and cleanups, found by the functions that they started in.

use crate::address::{Addr, AddrRange, WORD};
use crate::image::{Image, Scratch};
use crate::model::layout::RuntimeLayout;
use crate::model::modules::Modules;
use rayon::prelude::*;
use rustc_hash::FxHashMap;

/// A goroutine that runs finalizers or cleanups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runner {
    /// `goid`.
    pub goid: u64,
    /// Runs cleanups, else finalizers (up to Go 1.24 both).
    pub cleanups: bool,
    /// Has nothing to do.
    pub idle: bool,
    /// Why it waits (`runtime.waitReasonStrings`), or its status.
    pub state: String,
}

/// Functions that such goroutines start in.
const FINALIZERS: [&str; 2] = ["runtime.runfinq", "runtime.runFinalizers"];
const CLEANUPS: &str = "runtime.runCleanups";
/// `waitReasonFinalizerWait`, `waitReasonCleanupWait`.
const IDLE: [&str; 2] = ["finalizer wait", "cleanup wait"];

/// `_Gscan`, a bit beside the status.
const G_SCAN: u32 = 0x1000;
/// `_Gwaiting`, and `_Gleaked` (1.26+), which waits as well.
const G_WAITING: [u32; 2] = [4, 10];
/// Statuses of goroutines that are none: `_Gidle`, `_Gdead`, `_Gdeadextra`.
const G_NONE: [u32; 3] = [0, 6, 11];
/// Goroutines per unit of work.
const PER_UNIT: u64 = 4096;
/// More cannot be real.
const MAX_GOROUTINES: u64 = 1 << 28;

/// Reads those of `runtime.allgs`, in its order. What cannot be read is left out: whoever scans the stacks counts it.
pub(super) fn read(image: &dyn Image, layout: &RuntimeLayout, modules: &Modules) -> Vec<Runner> {
    let allgs = Addr(layout.globals.allgs);
    let (Ok(array), Ok(len)) = (image.read_u64(allgs), image.read_u64(allgs.add(WORD))) else { return Vec::new() };
    if len > MAX_GOROUTINES || array.checked_add(len * WORD).is_none() {
        return Vec::new();
    }
    let units: Vec<u64> = (0..len).step_by(PER_UNIT as usize).collect();
    let unit = |first: u64| {
        let pointers = AddrRange { start: Addr(array + first * WORD), len: PER_UNIT.min(len - first) * WORD };
        let mut scratch = Scratch::default();
        let loaded = image.load(&[pointers], &mut scratch);
        let words = loaded.get(0).chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().expect("8 bytes")));
        let startpcs: Vec<AddrRange> =
            words.map(|g| AddrRange { start: Addr(g).add(layout.g.startpc), len: WORD }).collect();
        let mut scratch = Scratch::default();
        let loaded = image.load(&startpcs, &mut scratch);
        // Most goroutines of a program start in a few functions.
        let mut known: FxHashMap<u64, Option<bool>> = FxHashMap::default();
        let mut runners = Vec::new();
        for (i, at) in startpcs.iter().enumerate() {
            let Some(pc) = loaded.get(i).first_chunk().map(|b| u64::from_le_bytes(*b)) else { continue };
            let cleanups = *known.entry(pc).or_insert_with(|| runs_cleanups(image, modules, pc));
            let g = Addr(at.start.0.wrapping_sub(layout.g.startpc));
            runners.extend(cleanups.and_then(|cleanups| runner(image, layout, g, cleanups)));
        }
        runners
    };
    let runners: Vec<Vec<Runner>> = units.into_par_iter().map(unit).collect();
    runners.into_iter().flatten().collect()
}

/// Whether goroutines that start at `pc` run cleanups, or finalizers; `None`: something else.
fn runs_cleanups(image: &dyn Image, modules: &Modules, pc: u64) -> Option<bool> {
    let name = modules.func_name(image, &modules.find_func(image, pc)?)?;
    if name == CLEANUPS { Some(true) } else { FINALIZERS.contains(&&*name).then_some(false) }
}

fn runner(image: &dyn Image, layout: &RuntimeLayout, g: Addr, cleanups: bool) -> Option<Runner> {
    let status = image.read_u32(g.add(layout.g.atomicstatus)).ok()? & !G_SCAN;
    if G_NONE.contains(&status) {
        return None;
    }
    let goid = image.read_u64(g.add(layout.g.goid)).ok()?;
    let state = match status {
        1 => "runnable".to_owned(),
        2 => "running".to_owned(),
        3 => "in a system call".to_owned(),
        status if G_WAITING.contains(&status) => wait_reason(image, layout, g).unwrap_or_else(|| "waiting".to_owned()),
        _ => "stopped".to_owned(),
    };
    let idle = G_WAITING.contains(&status) && IDLE.contains(&&*state);
    Some(Runner { goid, cleanups, idle, state })
}

fn wait_reason(image: &dyn Image, layout: &RuntimeLayout, g: Addr) -> Option<String> {
    let reason = image.read_u8(g.add(layout.g.waitreason)).ok()?;
    let header = Addr(layout.globals.wait_reason_strings?).add(u64::from(reason) * 2 * WORD);
    let data = image.read_u64(header).ok()?;
    let len = usize::try_from(image.read_u64(header.add(WORD)).ok()?).ok().filter(|len| (1..=64).contains(len))?;
    let mut bytes = vec![0; len];
    image.read(Addr(data), &mut bytes).ok()?;
    String::from_utf8(bytes).ok()
}
