//! Builds [`FrameCode`] from a module's function tables, as `(*stkframe).getStackMap` (stkframe.go) reads them.

use super::bits::Bits;
use super::code::{CodeId, FrameCode, FrameCodes, Role, StackMaps, StackObject};
use crate::address::Addr;
use crate::architecture::Architecture;
use crate::image::Image;
use crate::model::layout::StackObjectRecordLayout;
use crate::model::modules::{Func, FuncData, Modules, PcData, expand_gc_program};
use dashmap::DashMap;
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::sync::Arc;

/// `abi.ArgsSizeUnknown`.
const ARGS_SIZE_UNKNOWN: i32 = i32::MIN;
/// Longest `stackObjectRecord` that is believed.
const MAX_OBJECT_RECORD: u64 = 64;
/// No frame is larger: the linker refuses functions with frames of 2 GiB, the compiler variables on the stack over 128 MiB.
const MAX_FRAME: u64 = 1 << 31;

/// All PCs seen so far, shared by the workers.
pub struct CodeCache<'a> {
    architecture: &'static Architecture,
    image: &'a dyn Image,
    modules: &'a Modules,
    by_pc: DashMap<u64, Option<Arc<FrameCode>>, FxBuildHasher>,
}

impl<'a> CodeCache<'a> {
    /// An empty cache.
    #[must_use]
    pub fn new(architecture: &'static Architecture, image: &'a dyn Image, modules: &'a Modules) -> Self {
        Self { architecture, image, modules, by_pc: DashMap::default() }
    }

    /// The code at `pc`.
    ///
    /// Cost: a locked hash lookup; workers put a [`LocalCodes`] in front.
    #[must_use]
    pub fn get(&self, pc: u64) -> Option<Arc<FrameCode>> {
        if let Some(known) = self.by_pc.get(&pc) {
            return known.clone();
        }
        let code = build(self.architecture, self.image, self.modules, pc).map(Arc::new);
        // Two workers may build the same code: the contents are equal, so either may stay.
        self.by_pc.entry(pc).or_insert(code).clone()
    }
}

/// A worker's own view of a [`CodeCache`]: no lock for a PC that it saw before.
pub struct LocalCodes<'c, 'a> {
    shared: &'c CodeCache<'a>,
    codes: Vec<Arc<FrameCode>>,
    by_pc: FxHashMap<u64, Option<CodeId>>,
}

impl<'c, 'a> LocalCodes<'c, 'a> {
    /// An empty view.
    #[must_use]
    pub fn new(shared: &'c CodeCache<'a>) -> Self {
        Self { shared, codes: Vec::new(), by_pc: FxHashMap::default() }
    }
}

impl FrameCodes for LocalCodes<'_, '_> {
    fn find(&mut self, pc: u64) -> Option<CodeId> {
        *self.by_pc.entry(pc).or_insert_with(|| {
            let code = self.shared.get(pc)?;
            self.codes.push(code);
            Some(CodeId(self.codes.len() as u32 - 1))
        })
    }

    fn architecture(&self) -> &'static Architecture {
        self.shared.architecture
    }

    fn code(&self, id: CodeId) -> &FrameCode {
        &self.codes[id.0 as usize]
    }
}

fn build(architecture: &Architecture, image: &dyn Image, modules: &Modules, pc: u64) -> Option<FrameCode> {
    let func = modules.find_func(image, pc)?;
    let name: Arc<str> = modules.func_name(image, &func).unwrap_or_default().into();
    let role = role_of(&name);
    let mut code = FrameCode {
        pc,
        func: func.index,
        name,
        entry: func.entry,
        flag: func.flag,
        no_sp_table: func.pcsp == 0,
        arg_words: (func.args != ARGS_SIZE_UNKNOWN).then(|| func.args.max(0) as u32 / 8),
        deferreturn_pc: (func.deferreturn != 0).then(|| func.entry.wrapping_add(u64::from(func.deferreturn) + 1)),
        ..FrameCode::with_geometry(architecture, role, modules.sp_delta(image, &func, pc))
    };
    code.maps = maps(architecture, image, modules, &func, &code);
    Some(code)
}

/// By name: `abi.FuncID` is renumbered between releases.
fn role_of(name: &str) -> Role {
    match name {
        "runtime.sigpanic" => Role::SigPanic,
        "runtime.asyncPreempt" | "runtime.debugCallV2" => Role::Injected,
        "runtime.cgocallback" => Role::CgoCallback,
        "runtime.sigtramp" | "runtime.cgoSigtramp" => Role::SigTramp,
        "runtime.sigreturn" | "runtime.sigreturn__sigaction" => Role::SigReturn,
        // The second is a static function of assembly: those of packages have their path in front.
        "runtime.gogo" | "gogo" => Role::Gogo,
        _ => Role::Normal,
    }
}

fn maps(architecture: &Architecture, image: &dyn Image, modules: &Modules, func: &Func, code: &FrameCode) -> StackMaps {
    // Back up to the CALL, except at the entry; -1 means no index: the prologue, whose map is the first.
    let index =
        if code.pc == func.entry { None } else { modules.pcdata(image, func, PcData::StackMapIndex, code.pc - 1) };
    let index = index.filter(|i| *i >= 0).unwrap_or(0) as u32;
    let tables = [FuncData::LocalsPointerMaps, FuncData::ArgsPointerMaps, FuncData::StackObjects];
    let mut tables = tables.into_iter().filter_map(|table| modules.funcdata(image, func, table));
    let unread = tables.any(|table| image.read_u64(Addr(table)).is_err());
    let mut maps = StackMaps { unread, ..StackMaps::default() };
    let local_bytes = code.varp - code.sp;
    if local_bytes > architecture.min_locals
        && let Some(map) = modules.funcdata(image, func, FuncData::LocalsPointerMaps)
        && let Some(bits) = stackmap(image, map, index, local_bytes as u64 / 8)
    {
        maps.locals_offset = code.varp - bits.len() as i64 * 8;
        maps.locals = bits;
    }
    let arg_words = u64::from(code.arg_words.unwrap_or(0));
    if arg_words > 0
        && let Some(map) = modules.funcdata(image, func, FuncData::ArgsPointerMaps)
        // Up to Go 1.21 the map of a function without Go code is twice as long as its arguments, and clear behind them.
        && let Some(bits) = stackmap(image, map, index, 2 * arg_words)
    {
        maps.args = Bits::zeros(bits.len().min(arg_words as usize));
        bits.ones().for_each(|i| maps.args.set(i, true));
    }
    if let Some(table) = modules.funcdata(image, func, FuncData::StackObjects) {
        let rodata = modules.list.get(func.module as usize).map_or(0, |m| m.rodata);
        maps.objects = stack_objects(image, modules.stack_object_record(), table, rodata, code);
    }
    maps
}

/// Bitmap `index` of a `stackmap{n, nbit i32; bytedata}`; `None` if it does not describe at most `max_words` words.
fn stackmap(image: &dyn Image, map: u64, index: u32, max_words: u64) -> Option<Bits> {
    let map = Addr(map);
    let (n, nbit) = (image.read_u32(map).ok()?, image.read_u32(map.add(4)).ok()?);
    if index >= n || u64::from(nbit) > max_words || max_words * 8 > MAX_FRAME {
        return None;
    }
    read_bits(image, map.add(8 + u64::from(index) * u64::from(nbit).div_ceil(8)), nbit as usize)
}

/// `nbit` bits at `addr`.
fn read_bits(image: &dyn Image, addr: Addr, nbit: usize) -> Option<Bits> {
    let mut bytes = vec![0; nbit.div_ceil(8)];
    image.read(addr, &mut bytes).ok()?;
    Some(Bits::from_bytes(&bytes, nbit))
}

/// The records that lie inside the frame; others cannot be reached by any goroutine that stands there.
fn stack_objects(
    image: &dyn Image,
    layout: &StackObjectRecordLayout,
    table: u64,
    rodata: u64,
    code: &FrameCode,
) -> Vec<StackObject> {
    let frame_words = code.span_words();
    let Ok(n) = image.read_u64(Addr(table)) else { return Vec::new() };
    if layout.size > MAX_OBJECT_RECORD {
        return Vec::new();
    }
    // Each object has at least one byte, but a pointer word in practice: more records than words are damage.
    let n = n.min(frame_words);
    let mut objects = Vec::new();
    for i in 0..n {
        let record = Addr(table).add(8 + i * layout.size);
        let field = |at: u64| image.read_u32(record.add(at));
        let fields = (field(layout.off), field(layout.obj_size), field(layout.ptr_bytes));
        let (Ok(off), Ok(size), Ok(ptr_bytes)) = fields else { break };
        // Relative to read-only data; in Go 1.17 an address.
        let gcdata = match (layout.gcdataoff, layout.gcdata) {
            (Some(at), _) => field(at).map(|offset| Addr(rodata).add(u64::from(offset))),
            (None, Some(at)) => image.read_u64(record.add(at)).map(Addr),
            (None, None) => break,
        };
        let Ok(gcdata) = gcdata else { break };
        let (off, size, ptr_bytes) = (off.cast_signed(), u64::from(size), ptr_bytes.cast_signed());
        let base = if off < 0 { code.varp } else { code.argp };
        let offset = base + i64::from(off);
        let nbit = u64::from(ptr_bytes.unsigned_abs() / 8);
        if offset < code.sp || size > frame_words * 8 || nbit * 8 > size {
            continue;
        }
        // Negative (up to Go 1.23): a GC program behind its length.
        let mask = match ptr_bytes < 0 {
            false => read_bits(image, gcdata, nbit as usize),
            true => expand_gc_program(image, gcdata.add(4), nbit).map(|mask| {
                let bytes: Vec<u8> = mask.words.iter().flat_map(|word| word.to_le_bytes()).collect();
                Bits::from_bytes(&bytes, nbit as usize)
            }),
        };
        let Some(mask) = mask else { continue };
        objects.push(StackObject { offset, size, mask });
    }
    objects
}

/// The argument map of `reflect.makeFuncStub` or `reflect.methodValueCall`, which only a `*reflectMethodValue` knows
/// (`(*stkframe).argMapInternal`); `None` if the function has not started yet or the record is damaged.
///
/// * `record`: where the frame keeps that pointer, its first word behind the return address.
#[must_use]
pub fn reflect_arguments(image: &dyn Image, code: &FrameCode, record: u64) -> Option<Bits> {
    if code.frameless {
        return None;
    }
    let value = image.read_u64(Addr(record)).ok()?;
    let results_valid = image.read_u8(Addr(record).add(32)).ok()? != 0;
    reflect_arguments_of(image, code, value, results_valid)
}

/// The same before the call, of a deferred one: its function value is the `reflectMethodValue`.
#[must_use]
pub fn reflect_arguments_of(image: &dyn Image, code: &FrameCode, value: u64, results_valid: bool) -> Option<Bits> {
    let word = |addr: u64| image.read_u64(Addr(addr)).ok();
    if code.arg_words.is_some() || word(value)? != code.entry {
        return None;
    }
    // reflectMethodValue{fn uintptr; stack *bitvector; argLen uintptr}
    let map = word(value.wrapping_add(8))?;
    let nbit = image.read_u32(Addr(map)).ok()?;
    let bytes = word(map.wrapping_add(8))?;
    let mut nbit = u64::from(nbit.min(1 << 20));
    if !results_valid {
        nbit = nbit.min(word(value.wrapping_add(16))? / 8);
    }
    read_bits(image, Addr(bytes), nbit as usize)
}

/// Whether `name` is one of the functions whose arguments [`reflect_arguments`] finds.
#[must_use]
pub fn is_reflect_stub(name: &str) -> bool {
    matches!(name, "reflect.makeFuncStub" | "reflect.methodValueCall")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::modules::testing::Bytes;

    fn code() -> FrameCode {
        FrameCode {
            pc: 0,
            func: 0,
            name: "f".into(),
            entry: 0,
            flag: 0,
            role: Role::Normal,
            no_sp_table: false,
            frameless: false,
            sp: -(0x4000 + 8),
            varp: -16,
            conservative_end: -16,
            argp: 0,
            arg_words: Some(0),
            deferreturn_pc: None,
            maps: StackMaps::default(),
        }
    }

    /// One object 64 bytes below the locals' top and one with a GC program, as 1.18 to 1.23 have them and as 1.17 has them.
    #[test]
    fn stack_objects_of_older_releases() {
        // Behind its length: 3 bits 101, then these three 80 times more.
        let program = [&[7, 0, 0, 0][..], &[3, 0b101, 0x83, 80, 0]].concat();
        let ptr_bytes = [-(243 * 8), 24i32];
        for old in [false, true] {
            let layout = StackObjectRecordLayout {
                size: if old { 24 } else { 16 },
                off: 0,
                obj_size: 4,
                ptr_bytes: 8,
                gcdataoff: (!old).then_some(12),
                gcdata: old.then_some(16),
            };
            let mut table = 2u64.to_le_bytes().to_vec();
            for (off, size, ptr_bytes, mask) in
                [(-0x2000i32, 4096u32, ptr_bytes[0], 0x40u64), (-64, 64, ptr_bytes[1], 0x80)]
            {
                table.extend(off.to_le_bytes());
                table.extend(size.to_le_bytes());
                table.extend(ptr_bytes.to_le_bytes());
                if old {
                    table.extend([0; 4]);
                    table.extend((0x9000 + mask).to_le_bytes());
                } else {
                    table.extend((mask as u32).to_le_bytes());
                }
            }
            let rodata = if old { 0 } else { 0x9000 };
            let image = Bytes::new(vec![(0x1000, table), (0x9040, program.clone()), (0x9080, vec![0b110])]);
            let found = stack_objects(&image, &layout, 0x1000, rodata, &code());
            assert_eq!(found.iter().map(|o| (o.offset, o.size)).collect::<Vec<_>>(), [(-16 - 0x2000, 4096), (-80, 64)]);
            let expected: Vec<usize> = (0..243).filter(|i| i % 3 != 1).collect();
            assert_eq!(found[0].mask.ones().collect::<Vec<_>>(), expected);
            assert_eq!(found[1].mask.ones().collect::<Vec<_>>(), [1, 2]);
        }
    }
}
