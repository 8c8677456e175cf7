//! Scans one goroutine: frames by their plans, then what the goroutine's own records point to, then the stack objects that live
//! pointers hit (`scanstack`, `scanframeworker`, `stackScanState`).

use super::objects::{Holder, ObjectAt, REG_ARGS, StackPointer};
use super::plan::{self, Referent, Source};
use super::stacks::{Batch, BatchPlan, Shared};
use super::store::Head;
use super::{RootKind, Sources, Stratum};
use crate::address::Addr;
use crate::model::stacks::{
    Entry, Frame, FrameCodes, Goroutine, StackMemory, is_reflect_stub, reflect_arguments, reflect_arguments_of, unwind,
};
use crate::model::types::TypeId;
use std::sync::Arc;

/// Defer records of a goroutine that are followed: the list is hostile, and may be circular.
const MAX_DEFERS: usize = 1 << 20;
/// The bottom of every goroutine's stack, not a call.
const GOEXIT: &str = "runtime.goexit";

/// Buffers reused from goroutine to goroutine.
#[derive(Default)]
pub(super) struct Work {
    pub(super) frames: Vec<Frame>,
    /// Labels of the call chains down to a frame, from the outermost frame on; made as far as needed.
    chains: Vec<Option<u32>>,
    /// Stack objects by address.
    pub(super) objects: Vec<ObjectAt>,
    /// Pointers into this stack, in the order found.
    pub(super) pointers: Vec<StackPointer>,
    /// Such pointers that were found conservatively: they wait until the exact ones are done.
    pub(super) doubtful: Vec<StackPointer>,
    /// Addresses on this stack where a channel operation has its value, with the type that the channel gives it.
    pub(super) waiting: Vec<(u64, TypeId)>,
}

/// One goroutine in the works.
pub(super) struct GoroutineScan<'w, 's, 'a, 'img, 'c> {
    pub(super) shared: &'w Shared<'s, 'a, 'img>,
    pub(super) batch: &'w mut Batch<'c>,
    pub(super) work: &'w mut Work,
    pub(super) g: &'w Goroutine,
    pub(super) memory: StackMemory<'w>,
}

impl<'s: 'c, 'c> GoroutineScan<'_, 's, '_, '_, 'c> {
    /// Scans it, standing at `entry`.
    pub(super) fn run(&mut self, entry: &Entry) {
        self.work.frames.clear();
        self.work.chains.clear();
        self.work.objects.clear();
        self.work.pointers.clear();
        self.work.doubtful.clear();
        self.work.waiting.clear();
        self.batch.goroutines += 1;
        match entry {
            Entry::Unwind { start, registers } => {
                let end = unwind(*start, self.memory, &mut self.batch.codes, &mut self.work.frames);
                if let Some(cause) = end.cause() {
                    self.batch.store.incidents.count(cause);
                }
                self.batch.frames += self.work.frames.len() as u64;
                for frame in 0..self.work.frames.len() {
                    let registers = if frame == 0 { &**registers } else { &[] };
                    self.scan_frame(frame, registers);
                }
                self.scan_registers(registers);
                if end.cause().is_some() {
                    // What lies above the last good frame is unknown: any word may be live.
                    let from = self.work.frames.last().map_or(self.memory.base(), |f| f.cfa);
                    self.scan_unknown(from);
                }
            }
            Entry::Unknown => {
                self.batch.store.incidents.count("stack.unknown_position");
                self.scan_unknown(self.memory.base());
            }
        }
        self.scan_saved();
        self.read_waiting();
        self.scan_objects();
    }

    pub(super) fn plan(&mut self, frame: Frame) -> Arc<BatchPlan> {
        let batch = &mut *self.batch;
        let plan = batch.plans.entry((frame.code, frame.mode));
        plan.or_insert_with(|| Arc::new(self.shared.plan(batch.codes.code(frame.code), frame.mode))).clone()
    }

    /// The label of the call chain from the outermost function to frame `frame`.
    pub(super) fn chain(&mut self, frame: usize) -> u32 {
        let frames = &self.work.frames;
        let codes = &self.batch.codes;
        // Element k is the chain that ends k frames from the outermost.
        let wanted = frames.len().saturating_sub(frame + 1);
        while !frames.is_empty() && self.work.chains.len() <= wanted {
            let k = self.work.chains.len();
            let code = codes.code(frames[frames.len() - 1 - k].code);
            let parent = if k == 0 { None } else { self.work.chains[k - 1] };
            let hidden = &*code.name == GOEXIT && frames.len() > 1;
            let label = if hidden { parent } else { Some(self.batch.labels.call(parent, code)) };
            self.work.chains.push(label);
        }
        match self.work.chains.get(wanted).copied().flatten() {
            Some(label) => label,
            None => self.start_label(),
        }
    }

    /// The function that the goroutine started with: the name where no frame is known.
    fn start_label(&mut self) -> u32 {
        match self.batch.codes.find(self.g.startpc) {
            Some(id) => self.batch.labels.call(None, self.batch.codes.code(id)),
            None => {
                let name: Arc<str> = "unknown goroutine".into();
                self.batch.labels.list.push((None, name));
                self.batch.labels.list.len() as u32 - 1
            }
        }
    }

    /// A word of the value in the making: sorts out pointers into this stack, and what cannot be a pointer.
    pub(super) fn push(&mut self, word: u64, live: bool, conservative: bool, holder: Option<Holder>) {
        let mut pointer = live;
        if live && self.g.stack.contains(Addr(word)) {
            let list = if conservative { &mut self.work.doubtful } else { &mut self.work.pointers };
            list.push(StackPointer { to: word, holder });
            pointer = false;
        } else if live && conservative {
            pointer = self.shared.sources.heap.find_object(word).is_some();
        }
        self.batch.store.push(word, pointer);
    }

    pub(super) fn head(&self, stratum: Stratum, kind: RootKind, label: u32, ty: Option<TypeId>, addr: u64) -> Head {
        let conservative = stratum == Stratum::Conservative;
        Head { stratum, kind, conservative, label, ty, goid: self.g.goid, addr: Addr(addr) }
    }

    fn scan_frame(&mut self, index: usize, registers: &[u64]) {
        let frame = self.work.frames[index];
        let plan = self.plan(frame);
        let conservative = plan.conservative;
        for variable in &plan.variables {
            let label = self.batch.labels.name(&variable.name.text);
            let stratum = stratum(conservative, variable.name.runtime);
            let ty = variable.ty.map(|ty| match variable.dictionary {
                Some(entry) => self.real_type(frame.cfa, entry).filter(|real| self.same_shape(*real, ty)).unwrap_or(ty),
                None => ty,
            });
            let runtime = variable.name.runtime;
            let types = &self.shared.sources.debug.types;
            let referent = ty.and_then(|ty| Referent::of(ty, types));
            let holder = referent.map(|referent| Holder { label, referent, runtime });
            let first = self.batch.store.words.len();
            let mut next = 0;
            // Parts in value order; most variables have one.
            while next < variable.nwords {
                let part = variable.parts.iter().find(|p| p.word <= next && next < p.word + p.nwords);
                let Some(part) = part else {
                    self.batch.store.push(0, false);
                    next += 1;
                    continue;
                };
                for word in next..part.word + part.nwords {
                    let value = match part.from {
                        Source::Frame(offset) => self.word(frame.cfa, offset + i64::from(word - part.word) * 8),
                        Source::Register(register) => registers.get(usize::from(register)).copied().unwrap_or(0),
                    };
                    self.push(value, variable.live.get(word as usize), conservative, holder);
                }
                next = part.word + part.nwords;
            }
            if let Some(size) = variable.extent_of {
                self.repair_slice(first, size);
            }
            let addr = frame.cfa.wrapping_add_signed(variable.offset);
            let head = self.head(stratum, RootKind::FrameVariable, label, ty, addr);
            self.batch.store.finish(first, head);
        }
        let mut closure = None;
        for run in &plan.unnamed {
            let addr = frame.cfa.wrapping_add_signed(run.offset);
            if run.lost.as_ref().is_some_and(|lost| self.scan_lost(index, addr, run.nwords, lost)) {
                continue;
            }
            // A closure's words may be several runs.
            closure = if conservative { None } else { self.closure_at(addr.wrapping_sub(8)).or(closure) };
            if !closure.as_ref().is_some_and(|c| self.scan_captures(index, c, addr, u64::from(run.nwords))) {
                match conservative {
                    true => self.scan_run(index, addr, run.nwords as usize, |_| true, true),
                    false => self.scan_unnamed(index, addr, run.nwords as usize),
                }
            }
        }
        let code = self.batch.codes.code(frame.code);
        if code.maps.unread && !conservative {
            self.batch.store.incidents.count("stack.unread_map");
        }
        if is_reflect_stub(&code.name) && !conservative {
            self.scan_reflect_stub(index);
        }
        for (i, object) in plan.objects.iter().enumerate() {
            let addr = frame.cfa.wrapping_add_signed(object.offset);
            self.work.objects.push(ObjectAt { addr, size: object.size, frame: index as u32, index: i as u32 });
        }
    }

    /// The type that a dictionary entry names, if DWARF knows it.
    fn real_type(&mut self, cfa: u64, entry: plan::Entry) -> Option<TypeId> {
        let dictionary = self.memory.word(cfa.wrapping_add_signed(entry.dictionary))?;
        let sources = self.shared.sources;
        let find = || {
            // The word may be another value by now.
            if sources.debug.is_dictionary(dictionary.wrapping_sub(sources.load_bias)) == Some(false) {
                return None;
            }
            let at = Addr(dictionary.wrapping_add(entry.index.wrapping_mul(8)));
            main_type(sources, sources.image.read_u64(at).ok()?)
        };
        *self.batch.dictionaries.entry((dictionary, entry.index)).or_insert_with(find)
    }

    /// Whether `real` may stand for a value of the shape `shape`: a stale dictionary must not invent types.
    fn same_shape(&self, real: TypeId, shape: TypeId) -> bool {
        let types = &self.shared.sources.debug.types;
        let (real, shape) = (types.get(real), types.get(shape));
        real.size == shape.size && std::mem::discriminant(&real.kind) == std::mem::discriminant(&shape.kind)
    }

    /// Repairs length and capacity of the slice at word `first` of the store. The compiler drops them where they are constant or no
    /// longer needed, and DWARF then may show other variables' words: a slice ends at the latest with the heap object it is in.
    fn repair_slice(&mut self, first: usize, elem_size: u64) {
        let heap = self.shared.sources.heap;
        let [array, len, cap, ..] = &mut self.batch.store.words[first..] else { return };
        let Some((span, slot)) = heap.find_object(*array) else { return };
        let end = (heap.slot_addr(span, slot) + heap.span(span).elem_size()).min(heap.span(span).limit);
        let room = end.saturating_sub(*array) / elem_size.max(1);
        if *cap == 0 || *len > *cap || *cap > room {
            (*len, *cap) = (room, room);
        }
    }

    /// A word of the frame at `cfa`; 0 if the image lacks it.
    pub(super) fn word(&mut self, cfa: u64, offset: i64) -> u64 {
        self.memory.word(cfa.wrapping_add_signed(offset)).unwrap_or_else(|| {
            self.batch.store.incidents.count("stack.unreadable_word");
            0
        })
    }

    /// A root of consecutive words without a variable.
    pub(super) fn scan_run(
        &mut self,
        frame: usize,
        addr: u64,
        nwords: usize,
        live: impl Fn(usize) -> bool,
        conservative: bool,
    ) {
        let first = self.batch.store.words.len();
        for i in 0..nwords {
            let word = self.word(addr, i as i64 * 8);
            self.push(word, live(i), conservative, None);
        }
        if self.batch.store.words.len() > first {
            let label = self.chain(frame);
            let stratum = if conservative { Stratum::Conservative } else { Stratum::Unnamed };
            let head = self.head(stratum, RootKind::FrameSlot, label, None, addr);
            self.batch.store.finish(first, head);
        }
    }

    /// Arguments and the register block of `reflect.makeFuncStub` and `reflect.methodValueCall`.
    fn scan_reflect_stub(&mut self, index: usize) {
        let frame = self.work.frames[index];
        let code = self.batch.codes.code(frame.code);
        let (argp, varp) = (code.argp, code.varp);
        let record = code.sp + self.batch.codes.architecture().min_frame_size;
        let args = reflect_arguments(self.shared.sources.image, code, frame.cfa.wrapping_add_signed(record));
        let Some(args) = args else { return };
        let addr = frame.cfa.wrapping_add_signed(argp);
        // The map may claim more than the stack holds.
        let nwords = args.len().min((self.memory.end().saturating_sub(addr) / 8) as usize);
        self.scan_run(index, addr, nwords, |i| args.get(i), false);
        if let Some(regs) = self.shared.layout.reg_args {
            let addr = frame.cfa.wrapping_add_signed(varp - regs.size.next_multiple_of(8) as i64);
            self.work.objects.push(ObjectAt { addr, size: regs.size, frame: index as u32, index: REG_ARGS });
        }
    }

    /// Registers of a running thread, and saved extended ones.
    fn scan_registers(&mut self, registers: &[u64]) {
        if !registers.is_empty() {
            let first = self.batch.store.words.len();
            for register in registers {
                self.push(*register, true, true, None);
            }
            let label = self.chain(0);
            let head = self.head(Stratum::Conservative, RootKind::FrameSlot, label, None, 0);
            self.batch.store.finish(first, head);
        }
        let Some(range) = self.g.xregs else { return };
        let mut bytes = vec![0; range.len as usize];
        if self.shared.sources.image.read(range.start, &mut bytes).is_err() {
            self.batch.store.incidents.count("stack.unreadable_xregs");
            return;
        }
        let first = self.batch.store.words.len();
        for word in bytes.chunks_exact(8) {
            self.push(u64::from_le_bytes(word.try_into().expect("8 bytes")), true, true, None);
        }
        let label = self.chain(0);
        let head = self.head(Stratum::Conservative, RootKind::FrameSlot, label, None, range.start.0);
        self.batch.store.finish(first, head);
    }

    /// Every word from `from` to the end of the stack.
    fn scan_unknown(&mut self, from: u64) {
        let nwords = (self.memory.end().saturating_sub(from) / 8) as usize;
        let outermost = self.work.frames.len().saturating_sub(1);
        // One root for every pointer: a single one would copy the whole stack.
        for i in 0..nwords {
            let addr = from + i as u64 * 8;
            let candidate = self.memory.word(addr).unwrap_or(0);
            let heap = self.shared.sources.heap;
            if self.g.stack.contains(Addr(candidate)) || heap.find_object(candidate).is_some() {
                self.scan_run(outermost, addr, 1, |_| true, true);
            }
        }
    }

    /// `sched.ctxt`, defer records and the panic in progress.
    fn scan_saved(&mut self) {
        let g = self.g;
        if g.sched_ctxt != 0 {
            // The register that a closure is called with: the one that starts here, or that of the function in its prologue.
            let addr = g.addr.wrapping_add(self.shared.layout.g_sched_ctxt);
            self.single(0, g.sched_ctxt, addr, self.shared.types.func);
        }
        let (image, layout) = (self.shared.sources.image, self.shared.layout);
        let mut defer = g.defer;
        for n in 0.. {
            if defer == 0 {
                break;
            }
            let word = |offset: u64| image.read_u64(Addr(defer).add(offset));
            let fields = (word(layout.defer_sp), word(layout.defer_fn), word(layout.defer_link));
            let (Ok(sp), Ok(func), Ok(link)) = fields else {
                self.batch.store.incidents.count("stack.unreadable_defer");
                break;
            };
            if n == MAX_DEFERS {
                self.batch.store.incidents.count("stack.endless_defers");
                break;
            }
            // The deferring frame is the one whose SP the record notes.
            let frame = self.work.frames.partition_point(|f| f.cfa <= sp).min(self.work.frames.len().saturating_sub(1));
            let types = self.shared.types;
            self.single(frame, func, defer.wrapping_add(layout.defer_fn), types.func);
            self.scan_deferred_arguments(frame, defer, func);
            self.single(frame, link, defer.wrapping_add(layout.defer_link), types.defer);
            if image.read_u8(Addr(defer).add(layout.defer_heap)).is_ok_and(|heap| heap != 0) {
                self.single(frame, defer, g.addr.wrapping_add(layout.g_defer), types.defer);
            }
            defer = link;
        }
        if g.stack.contains(Addr(g.panic)) {
            self.work.pointers.push(StackPointer { to: g.panic, holder: None });
        }
    }

    /// Arguments of a deferred call, where they lie behind the record (`tracebackdefers` of Go 1.17).
    fn scan_deferred_arguments(&mut self, frame: usize, defer: u64, func: u64) {
        let (image, layout) = (self.shared.sources.image, self.shared.layout);
        let Some(siz) = layout.defer_siz else { return };
        let siz = image.read_u32(Addr(defer).add(siz)).unwrap_or(0);
        if siz == 0 || func == 0 {
            return;
        }
        let code = image.read_u64(Addr(func)).ok().and_then(|entry| self.batch.codes.find(entry));
        let Some(code) = code.map(|id| self.batch.codes.code(id)) else {
            self.batch.store.incidents.count("stack.unreadable_defer");
            return;
        };
        let args = match code.arg_words {
            Some(_) => code.maps.args.clone(),
            None => reflect_arguments_of(image, code, func, false).unwrap_or_default(),
        };
        let addr = defer.wrapping_add(layout.defer_size);
        let first = self.batch.store.words.len();
        for i in (0..args.len()).take(siz as usize / 8) {
            let Ok(word) = image.read_u64(Addr(addr).add(i as u64 * 8)) else {
                self.batch.store.incidents.count("stack.unreadable_defer");
                break;
            };
            self.push(word, args.get(i), false, None);
        }
        if self.batch.store.words.len() > first {
            let label = self.chain(frame);
            let head = self.head(Stratum::Unnamed, RootKind::FrameSlot, label, None, addr);
            self.batch.store.finish(first, head);
        }
    }

    /// One pointer word that belongs to frame `frame`, of type `ty`.
    pub(super) fn single(&mut self, frame: usize, word: u64, addr: u64, ty: Option<TypeId>) {
        if word == 0 {
            return;
        }
        let first = self.batch.store.words.len();
        self.push(word, true, false, None);
        let label = self.chain(frame);
        // What has a type is no worse than the variables of the runtime that lead there, and its name is better.
        let stratum = if ty.is_some() { Stratum::Runtime } else { Stratum::Unnamed };
        let head = self.head(stratum, RootKind::FrameSlot, label, ty, addr);
        self.batch.store.finish(first, head);
    }
}

/// The type that DWARF has for the descriptor at `rtype`.
pub(super) fn main_type(sources: &Sources<'_, '_>, rtype: u64) -> Option<TypeId> {
    let main = sources.modules.list.iter().find(|m| m.is_main && m.types.contains(Addr(rtype)))?;
    sources.debug.types.find_rtype(rtype - main.types.start.0)
}

/// The stratum of a named slot.
pub(super) const fn stratum(conservative: bool, runtime: bool) -> Stratum {
    match (conservative, runtime) {
        (true, _) => Stratum::Conservative,
        (false, true) => Stratum::Runtime,
        (false, false) => Stratum::Package,
    }
}
